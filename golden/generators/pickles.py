#!/usr/bin/env python3
"""Small PyTorch checkpoints of every kind, with a manifest of what torch.load gives, for the tests of formats/pickle.

    python pickles.py [--check]

Writes golden/pickle/ beside this script's folder (with --check: compares instead of writing). Names are flattened here by
plain Python, from what torch.load returns; hashes are of contiguous little-endian bytes.

Made with: torch 2.15.0, numpy 2.4.6, Python 3.11. Deterministic, except that legacy files name storages by address and
TorchScript lists constants in the order of a set: of those --check compares the manifest only.
"""
import collections
import hashlib
import io
import json
import pickle
import pickletools
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from pickle_values import (
    NESTED_LEFT_OUT, NESTED_METADATA, NotOurs, Script, Traced, arrays, attributed, dtypes, model, nested, quantized, ramp,
    sharded, typed, views, written,
)

warnings.simplefilter("ignore")
OUT = Path(__file__).resolve().parent.parent / "pickle"

NAMES = {
    torch.bool: "bool", torch.uint8: "u8", torch.int8: "i8", torch.uint16: "u16", torch.int16: "i16",
    torch.uint32: "u32", torch.int32: "i32", torch.uint64: "u64", torch.int64: "i64", torch.float16: "f16",
    torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64", torch.complex64: "c64",
    torch.float8_e4m3fn: "f8_e4m3", torch.float8_e5m2: "f8_e5m2", torch.float8_e4m3fnuz: "f8_e4m3fnuz",
    torch.float8_e5m2fnuz: "f8_e5m2fnuz", torch.float8_e8m0fnu: "f8_e8m0", torch.float4_e2m1fn_x2: "f4",
    torch.bits8: "u8", torch.bits16: "u16", torch.bits1x8: "u8", torch.bits2x4: "u8", torch.bits4x2: "u8",
}


def raw(t):
    """A tensor's elements as little-endian bytes, in row-major order."""
    t = t.detach()
    # copy_ exists for few of the newer dtypes; as bytes, every tensor can be indexed.
    unit = t.element_size()
    wide = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[unit]
    if t.is_quantized:
        t = t.int_repr()
        return t.contiguous().numpy().tobytes()
    flat = torch.empty(t.shape, dtype=wide)
    view = torch.empty((0,), dtype=wide).set_(t.untyped_storage(), t.storage_offset(), t.shape, t.stride())
    flat.copy_(view)
    return flat.numpy().tobytes()


def entry(name, t):
    shape = list(t.shape)
    if isinstance(t, np.ndarray):
        dtype = NAMES[torch.from_numpy(np.zeros(1, t.dtype.newbyteorder("="))).dtype]
        data = np.ascontiguousarray(t).astype(t.dtype.newbyteorder("<")).tobytes()
    elif t.is_quantized:
        dtype = {torch.qint8: "i8", torch.quint8: "u8", torch.qint32: "i32"}[t.dtype]
        data = raw(t)
    else:
        dtype = NAMES[t.dtype]
        data = raw(t)
        if t.dtype is torch.float4_e2m1fn_x2:
            shape[-1] *= 2
    return [name, dtype, shape, hashlib.sha256(data).hexdigest()]


def identity(t):
    if isinstance(t, np.ndarray):
        return ("numpy", id(t))
    strides = [s if n > 1 else 0 for n, s in zip(t.shape, t.stride())]
    return (t.untyped_storage()._cdata, t.storage_offset(), t.dtype, tuple(t.shape), tuple(strides))


def is_optimizer(v):
    return isinstance(v, dict) and isinstance(v.get("state"), dict) and isinstance(v.get("param_groups"), list)


def flatten(v, path, out, keep_all):
    if isinstance(v, torch.nn.Module):
        for name, t in v.state_dict(keep_vars=True).items():
            out.append((f"{path}.{name}" if path else name, t))
    elif isinstance(v, torch.Tensor) or (isinstance(v, np.ndarray) and v.ndim > 0):
        out.append((path, v))
    elif isinstance(v, (dict, list, tuple)):
        if path and not keep_all and (path.split(".")[-1].startswith("optimizer") or is_optimizer(v)):
            return
        items = v.items() if isinstance(v, dict) else enumerate(v)
        for k, x in items:
            flatten(x, f"{path}.{k}" if path else str(k), out, keep_all)


def describe(value, keep_all=False, **extra):
    """What a reader should find in a value: tensors, and names that mean a tensor that is there already."""
    found = []
    flatten(value, "", found, keep_all)
    tensors, aliases, seen = [], [], {}
    for name, t in found:
        key = identity(t)
        size = t.size if isinstance(t, np.ndarray) else t.numel()
        quantized = isinstance(t, torch.Tensor) and t.is_quantized
        if key in seen and size and not quantized:
            aliases.append([name, seen[key]])
            continue
        seen.setdefault(key, name)
        tensors.append(entry(name, t))
        if quantized:
            if t.qscheme() == torch.per_tensor_affine:
                parts = [("q_scale", torch.tensor(t.q_scale(), dtype=torch.float64)),
                         ("q_zero_point", torch.tensor(t.q_zero_point()))]
            else:
                parts = [("q_per_channel_scales", t.q_per_channel_scales()),
                         ("q_per_channel_zero_points", t.q_per_channel_zero_points()),
                         ("q_per_channel_axis", torch.tensor(t.q_per_channel_axis()))]
            tensors += [entry(f"{name}.{what}", x) for what, x in parts]
    return {"tensors": tensors, "aliases": aliases, **extra}


def saved(value, **kw):
    """The bytes that torch.save writes; members lie under `archive`."""
    f = io.BytesIO()
    torch.save(value, f, **kw)
    return f.getvalue()


def loaded(data):
    with tempfile.NamedTemporaryFile(suffix=".pt") as f:
        f.write(data)
        f.flush()
        return torch.load(f.name, weights_only=False)


def rezipped(data, how=zipfile.ZIP_STORED, rename=lambda n: n, change=lambda n, b: b, zip64=False):
    """The same members, packed by Python."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", how) as new:
        for name in old.namelist():
            info = zipfile.ZipInfo(rename(name))
            info.compress_type = how
            content = change(name, old.read(name))
            if content is not None:
                with new.open(info, "w", force_zip64=zip64) as member:
                    member.write(content)
    return out.getvalue()


def script(module):
    """A TorchScript archive without what names the machine it was made on, and the module as it comes back."""
    f = io.BytesIO()
    torch.jit.save(module, f)
    data = rezipped(f.getvalue(), change=lambda n, b: None if n.endswith(".debug_pkl") else b)
    return data, torch.jit.load(io.BytesIO(data))


def tar():
    """What torch 0.1.1 wrote; nothing else writes it any more."""
    base = ramp(torch.float32, 4, 3)
    other = ramp(torch.int64, 5)
    storages = io.BytesIO()
    pickle.dump(2, storages, protocol=2)
    for key, t, kind in [(101, base, torch.FloatStorage), (102, other, torch.LongStorage)]:
        pickle.dump((key, "cpu", kind), storages, protocol=2)
        storages.write(struct.pack("<q", t.numel()) + raw(t))
    pickle.dump([(103, 101, 3, 6)], storages, protocol=2)
    tensors = io.BytesIO()
    rows = [(1, 101, (4, 3), (3, 1), 0), (2, 101, (3, 4), (1, 3), 0), (3, 102, (5,), (1,), 0), (4, 103, (2, 3), (3, 1), 0)]
    pickle.dump(len(rows), tensors, protocol=2)
    for key, storage, size, stride, offset in rows:
        pickle.dump((key, storage, torch.FloatTensor), tensors, protocol=2)
        tensors.write(struct.pack(f"<i4x{len(size)}q{len(size)}qq", len(size), *size, *stride, offset))

    class Ref:
        def __init__(self, key):
            self.key = key

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return str(obj.key) if isinstance(obj, Ref) else None

    main = io.BytesIO()
    value = collections.OrderedDict((n, Ref(k)) for k, n in [(1, "w"), (2, "wt"), (3, "n"), (4, "part"), (1, "again")])
    Pickler(main, protocol=2).dump(value)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as t:
        for name, content in [("sys_info", b"\x80\x02}q\x00."), ("pickle", main.getvalue()),
                              ("tensors", tensors.getvalue()), ("storages", storages.getvalue())]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return out.getvalue()


def swapped(data, units):
    """The same archive as a big-endian machine would have written it."""
    def change(name, b):
        inner = name.split("/", 1)[1]
        if inner == "byteorder":
            return b"big"
        if inner.startswith("data/"):
            n = units[inner.removeprefix("data/")]
            return b"".join(b[i:i + n][::-1] for i in range(0, len(b), n))
        return b
    return rezipped(data, change=change)


def zip64():
    """Everything around the tensors of a file of more than four GiB: offset and bytes. torch writes it sparse."""
    value = {"a": torch.empty(10), "big": torch.empty(2**32 + 100, dtype=torch.uint8), "c": torch.empty(3),
             "e": torch.empty(0), "d": torch.empty(2**32 - 1, dtype=torch.uint8), "f": torch.empty(5)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.pt"
        with torch.serialization.skip_data():
            torch.save(value, path)
        with zipfile.ZipFile(path) as z, open(path, "rb") as f:
            holes = []
            for i in z.infolist():
                if "/data/" in i.filename and i.file_size and "/.data/" not in i.filename:
                    f.seek(i.header_offset + 26)
                    name, extra = struct.unpack("<HH", f.read(4))
                    start = i.header_offset + 30 + name + extra
                    holes.append((start, start + i.file_size))
            at, pieces = 0, []
            for start, end in [*holes, (path.stat().st_size, None)]:
                f.seek(at)
                pieces.append([at, f.read(start - at).hex()])
                at = end
        tensors = [[k, NAMES[t.dtype], list(t.shape)] for k, t in value.items()]
        return {"len": path.stat().st_size, "tensors": tensors, "pieces": pieces}


def disassembled(data):
    """What pickletools says: opcodes, imports with their places, and places of calls."""
    ops = [(op.name, at) for op, _, at in pickletools.genops(data)]
    names = []
    places = [at for name, at in ops if name in ("GLOBAL", "STACK_GLOBAL", "INST")]
    strings, memo, top = [], {}, []
    for op, arg, at in pickletools.genops(data):
        # Enough of a machine to know which strings an import is made of.
        if op.name == "GLOBAL":
            names.append(tuple(arg.split(" ")))
            top = []
        elif op.name == "STACK_GLOBAL":
            names.append(tuple(strings[-2:]))
            top = []
        elif "UNICODE" in op.name or "STRING" in op.name:
            strings.append(arg)
            top = [arg]
        elif op.name == "MEMOIZE":
            memo[len(memo)] = top[0] if top else None
        elif "PUT" in op.name:
            memo[int(arg)] = top[0] if top else None
        elif "GET" in op.name:
            if isinstance(memo.get(int(arg)), str):
                strings.append(memo[int(arg)])
                top = [memo[int(arg)]]
            else:
                top = []
        else:
            top = []
    calls = [[name, at] for name, at in ops if name in ("REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST")]
    text = "".join(f"{at} {name}\n" for name, at in ops)
    return {"ops": len(ops), "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "imports": [[at, *n] for at, n in zip(places, names, strict=True)], "calls": calls}


def build():
    files, manifest, unstable = {}, {}, set()

    def add(name, data, value=None, unsteady=False, **extra):
        value = loaded(data) if value is None else value
        files[name] = data
        manifest[name] = {"cases": [describe(value, **extra)]}
        if unsteady:
            unstable.add(name)
        return value

    def refuse(name, data, **error):
        files[name] = data
        manifest[name] = {"cases": [{"error": error}]}

    add("state_dict.pt", saved(model().state_dict()))
    add("dtypes.pt", saved(dtypes()))
    views_zip = saved(views())
    add("views.pt", views_zip)
    for protocol in (1, 3, 4, 5):
        add(f"protocol{protocol}.pt", saved(views(), pickle_protocol=protocol))
    # Typed storages only: torch cannot load its own legacy files of the newer dtypes.
    add("legacy.pt", saved(typed(views()), _use_new_zipfile_serialization=False), unsteady=True)
    add("legacy4.pt", saved(typed(dtypes()), _use_new_zipfile_serialization=False, pickle_protocol=4), unsteady=True)
    add("tar.pt", tar())

    data = saved(nested())
    value = add("nested.ckpt", data, metadata=NESTED_METADATA, left_out=NESTED_LEFT_OUT)
    manifest["nested.ckpt"]["cases"] += [
        describe(value["model"]["state_dict"], key="model.state_dict"),
        describe(value["optimizer_state_dict"], key="optimizer_state_dict"),
        describe(value["ema"], key="ema"),
        describe(value, keep_all=True, all=True),
        {"key": "model.nothing", "error": {"kind": "Usage", "says": "model.nothing"}},
    ]
    scalars = {"scalar": 3.5, "count": -7}
    add("numpy2.pt", saved(arrays()), metadata=scalars)
    add("numpy5.pt", saved(arrays(), pickle_protocol=5), metadata=scalars)
    # Plain pickles, of text and of bytes.
    plain = {k: v for k, v in arrays().items() if k != "torch"}
    add("numpy0.pkl", pickle.dumps(plain, protocol=0), value=plain, metadata=scalars)
    add("numpy4.pkl", pickle.dumps(plain, protocol=4), value=plain, metadata=scalars)
    add("quantized.pt", saved(quantized()))
    add("attributes.pt", saved(attributed()))
    add("tensor.pt", saved(ramp(torch.float32, 2, 2)), value={"tensor": ramp(torch.float32, 2, 2)})

    net = torch.nn.Sequential(collections.OrderedDict(a=model(), b=torch.nn.Linear(2, 2)))
    net.register_buffer("kept", torch.arange(3))
    net.register_buffer("passing", torch.arange(3), persistent=False)
    net.b.weight = torch.nn.Parameter(net.a[0].weight[:2, :2].clone())
    net.c = net.b
    net.stride = torch.tensor([8.0, 16.0])
    left_out = ["model.passing", "model.stride"]
    add("module.pt", saved({"model": net, "epoch": 1}), metadata={"epoch": 1}, left_out=left_out)

    noise = torch.tensor(np.random.default_rng(3).integers(0, 7, 50000), dtype=torch.uint8)
    packed = {"noise": noise, "zeros": torch.zeros(100, 300), "t": noise[:40000].view(200, 200).t(), "part": noise[123:45000]}
    add("deflated.pt", rezipped(saved(packed), zipfile.ZIP_DEFLATED, rename=lambda n: n.replace("archive/", "some folder/")))
    add("zip64.pt", rezipped(saved(model().state_dict()), zip64=True, rename=lambda n: n.replace("archive/", "x.y/")))

    # Typed storages only: torch itself does not swap those without a type.
    big = typed({**views(), **dtypes()})
    data = saved(big)
    units, seen = {}, {}
    for t in big.values():
        key = t.untyped_storage()._cdata
        if key not in seen:
            seen[key] = str(len(seen))
            units[seen[key]] = t.element_size() // (2 if t.is_complex() else 1)
    add("big_endian.pt", swapped(data, units))

    data, back = script(torch.jit.script(Script()))
    ordered = {"steps": back.steps, "extra": list(back.extra), "fc": dict(back.fc.state_dict())}
    add("script.pt", data, value=ordered, unsteady=True)
    data, back = script(torch.jit.trace(Traced(), torch.ones(1, 3)))
    add("traced.pt", data, value={"fc": dict(back.fc.state_dict()), "CONSTANTS": {"c0": torch.tensor([1.5, 2.5])}}, unsteady=True)

    sparse = torch.eye(3).to_sparse()
    refuse("sparse.pt", saved({"a": torch.ones(2), "s": sparse}), kind="Unsupported", tensor="s", says="sparse")
    manifest["sparse.pt"]["cases"].append(describe({"tensor": torch.ones(2)}, key="a"))
    refuse("c128.pt", saved({"z": torch.ones(2, dtype=torch.complex128)}), kind="Unsupported", tensor="z", says="complex128")
    refuse("conj.pt", saved({"z": torch.ones(2, dtype=torch.complex64).conj()}), kind="Unsupported", tensor="z", says="conjugated")
    sys.modules["somewhere"] = sys.modules["somewhere.else"] = type(sys)("somewhere.else")
    sys.modules["somewhere.else"].NotOurs = NotOurs
    refuse("inside.pt", saved({"x": NotOurs(a=1, inner={"w": torch.ones(2)})}), kind="Unsupported", tensor="x", says="somewhere.else.NotOurs (at byte")
    manifest["inside.pt"]["cases"].append(describe({"w": torch.ones(2)}, key="x.inner"))

    for name, value in sharded().items():
        if name.endswith(".json"):
            files[name] = (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
        else:
            add(name, saved(value))
    for name, value in written().items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(name).name
            torch.save(value, path)
            files[name] = path.read_bytes()
        manifest[name] = {"cases": [describe(value)]}
    files["written/zip64.json"] = (json.dumps(zip64(), indent=0) + "\n").encode()

    streams = {n: zipfile.ZipFile(io.BytesIO(files[n])).read("archive/data.pkl")
               for n in ("nested.ckpt", "numpy5.pt", "protocol1.pt", "module.pt")}
    streams |= {n: files[n] for n in ("numpy0.pkl", "numpy4.pkl")}
    lines = ",\n".join(f" {json.dumps(n)}: {json.dumps(disassembled(b))}" for n, b in sorted(streams.items()))
    files["disassembly.json"] = f"{{\n{lines}\n}}\n".encode()

    text = ",\n".join(f" {json.dumps(k)}: {json.dumps(manifest[k])}" for k in sorted(manifest))
    files["manifest.json"] = f"{{\n{text}\n}}\n".encode()
    return files, unstable


def main():
    files, unstable = build()
    if "--check" in sys.argv:
        wrong = [n for n, b in files.items() if n not in unstable and (OUT / n).read_bytes() != b]
        print("differs:" if wrong else "same", *wrong)
        sys.exit(bool(wrong))
    for name, content in files.items():
        path = OUT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()

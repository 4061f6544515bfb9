#!/usr/bin/env python3
"""Small PyTorch checkpoints of every kind, with a manifest of what torch.load gives, for the tests of formats/pickle.

    python pickles.py [--check]

Writes golden/pickle/ beside this script's folder (with --check: compares instead of writing). Names are flattened here by
plain Python, from what torch.load returns; hashes are of contiguous little-endian bytes.

Made with: torch 2.15.0, numpy 2.4.6, Python 3.11. Deterministic, except that legacy files name storages by address: of
those --check compares the manifest only.
"""
import argparse
import collections
import hashlib
import io
import json
import pickle
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

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


class NotOurs:
    """A class that nobody but its pickle knows; tensors inside cannot be had."""

    def __init__(self, **kw):
        self.__dict__.update(kw)


NotOurs.__module__ = "somewhere.else"


def raw(t):
    """A tensor's elements as little-endian bytes, in row-major order."""
    t = t.detach()
    flat = torch.empty(t.shape, dtype=t.dtype)
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
        if path and not keep_all and (path.split(".")[-1].startswith("optim") or is_optimizer(v)):
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


def ramp(dtype, *shape):
    n = 1
    for d in shape:
        n *= d
    return (torch.arange(n) - n // 3).to(dtype).reshape(shape)


def as_dtype(dtype, n):
    """Arbitrary bits."""
    unit = torch.empty(0, dtype=dtype).element_size()
    data = torch.arange(n * unit, dtype=torch.int64).mul(37).add(11).remainder(251).to(torch.uint8)
    return torch.empty((0,), dtype=dtype).set_(data.untyped_storage(), 0, (n,), (1,))


def dtypes():
    plain = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
             torch.float32, torch.float64, torch.complex64, torch.uint16, torch.uint32, torch.uint64,
             torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
             torch.float8_e8m0fnu, torch.float4_e2m1fn_x2, torch.bits8, torch.bits16, torch.bits1x8, torch.bits2x4,
             torch.bits4x2]
    d = {str(t).removeprefix("torch."): as_dtype(t, 6) for t in plain}
    d["bool"] = torch.tensor([[True, False], [False, True]])
    return d


def typed(tensors):
    """Those of dtypes that have a class of storages."""
    return {k: t for k, t in tensors.items() if t.dtype in torch.storage._dtype_to_storage_type_map()}


def views():
    base = ramp(torch.float32, 24, 10)
    cube = ramp(torch.int16, 4, 5, 6)
    shared = torch.nn.Parameter(ramp(torch.bfloat16, 8, 3))
    return {
        "base": base,
        "transposed": base.t(),
        "rows": base[5:9],
        "overlap": base[7:12],
        "columns": base[:, 2:5],
        "steps": base[1::3, ::4],
        "same": base.view(24, 10),
        "row": base[3],
        "scalar": base[2, 7],
        "expanded": base[:1].expand(3, 10),
        "diagonal": base.diagonal(),
        "windows": base.reshape(-1)[:40].as_strided((5, 6), (3, 2)),
        "reshaped": base.view(12, 20),
        "permuted": cube.permute(2, 0, 1),
        "channels_last": ramp(torch.float16, 2, 3, 4, 5).to(memory_format=torch.channels_last),
        "tied.one": shared,
        "tied.two": shared,
        "tied.three": shared.data,
        "empty": torch.zeros(0, 7),
        "zero_d": torch.tensor(2.5, dtype=torch.float64),
        "complex_view": torch.view_as_complex(ramp(torch.float32, 6, 2))[::2],
        "f8_view": as_dtype(torch.float8_e5m2, 30).view(5, 6).t(),
        "ones": torch.ones(1, 1, 3).transpose(0, 1),
    }


def model():
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 6, bias=False))


def nested():
    net = model()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net(torch.ones(3, 6)).sum().backward()
    opt.step()
    return {
        "epoch": 3,
        "loss": 0.25,
        "name": "gr\u00fc\u00df dich",
        "flag": True,
        "nothing": None,
        "large": 2**64 - 1,
        "larger": 2**80,
        "raw": b"\x00\xff",
        "betas": (0.9, 0.999),
        "steps": [1, 2, 3],
        "words": ["a", "b"],
        "mixed": [1, "x", {"deep": 2.5}],
        "device": torch.device("cuda", 1),
        "dtype": torch.float16,
        "size": torch.Size([2, 3]),
        "args": argparse.Namespace(lr=0.1, tags=["x"]),
        "model": {"state_dict": net.state_dict(), "config": {"dim": 6}},
        "ema": [p.detach() * 2 for p in net.parameters()],
        "optimizer_state_dict": opt.state_dict(),
        "trainer": {"opt": opt.state_dict(), "scheduler": {"last": 1}},
        5: torch.tensor([5]),
    }


NESTED_METADATA = {
    "epoch": 3, "loss": 0.25, "name": "gr\u00fc\u00df dich", "flag": True, "large": 2**64 - 1, "betas": [0.9, 0.999],
    "steps": [1, 2, 3], "words": ["a", "b"], "mixed.0": 1, "mixed.1": "x", "mixed.2.deep": 2.5, "size": [2, 3],
    "model.config.dim": 6, "trainer.scheduler.last": 1,
}
NESTED_LEFT_OUT = ["nothing", "larger", "device", "dtype", "args", "optimizer_state_dict", "trainer.opt"]


def arrays():
    a = np.arange(400, dtype=np.float32).reshape(20, 20)
    return {
        "c": a,
        "f": np.asfortranarray(np.arange(24, dtype=np.int64).reshape(2, 3, 4)),
        "big": np.arange(300, dtype=">f8").reshape(3, 100),
        "half": np.arange(6, dtype=np.float16),
        "flags": np.array([True, False, True]),
        "c64": np.array([1 + 2j, 3 - 1j], dtype=np.complex64),
        "u16": np.array([[1, 65535]], dtype=np.uint16),
        "none": np.zeros((0, 4), dtype=np.int8),
        "again": a,
        "scalar": np.float64(3.5),
        "count": np.int32(-7),
        "torch": torch.ones(2),
    }


def quantized():
    x = ramp(torch.float32, 6, 4)
    scales, zeros = torch.tensor([0.5, 0.25, 1.0, 2.0], dtype=torch.float64), torch.tensor([1, 2, 3, 4])
    return {
        "q8": torch.quantize_per_tensor(x, 0.5, 3, torch.qint8),
        "qu8": torch.quantize_per_channel(x, scales, zeros, 1, torch.quint8),
        "q32": torch.quantize_per_tensor(x, 0.125, 0, torch.qint32).t(),
    }


def attributed():
    t = ramp(torch.float32, 3, 2)
    t.note = "x"
    p = torch.nn.Parameter(ramp(torch.float32, 2, 2))
    p.tags = [1]
    b = torch.nn.Buffer(ramp(torch.int32, 4))
    return {"tensor": t, "parameter": p, "plain": torch.nn.Parameter(ramp(torch.float64, 2)), "buffer": b}


class Script(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.register_buffer("steps", torch.arange(3.0))
        self.sizes = [1, 2]
        self.extra = [torch.ones(2), torch.zeros(1, 2)]

    def forward(self, x):
        return self.fc(x) + self.extra[0]


class Traced(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x) * torch.tensor([1.5, 2.5])


def script(module, **extra):
    """A TorchScript archive without what names the machine it was made on, and what is in it."""
    f = io.BytesIO()
    torch.jit.save(module, f)
    data = rezipped(f.getvalue(), change=lambda n, b: None if n.endswith(".debug_pkl") else b)
    back = torch.jit.load(io.BytesIO(data))
    value = collections.OrderedDict(back.state_dict())
    # The order of the archive: attributes as the class lists them.
    return data, value, back


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


def sharded():
    torch.manual_seed(11)
    first = {"embed.weight": torch.randn(10, 4), "layers.0.w": torch.randn(4, 4).bfloat16()}
    second = {"layers.1.w": torch.randn(4, 4).bfloat16(), "head.weight": torch.randn(10, 4)}
    second["head.tied"] = second["head.weight"].view(10, 4)
    files = {f"sharded/pytorch_model-0000{i + 1}-of-00002.bin": d for i, d in enumerate([first, second])}
    weights = {k: f.split("/")[1] for f, d in files.items() for k in d}
    index = {"metadata": {"total_size": 384}, "weight_map": weights}
    files["sharded/pytorch_model.bin.index.json"] = index
    return files


def written():
    """What the writer is to reproduce byte for byte, and from which tensors."""
    many = {f"t{i}": None for i in range(1000)}
    base = ramp(torch.float16, 2, 2)
    plain = {
        "a": ramp(torch.float32, 3, 2), "0": ramp(torch.int64, 4), "1": torch.tensor(True),
        "a.wide.name": ramp(torch.bfloat16, 2, 1, 3, 2, 2), "b": torch.zeros(0, 3), "\u00e9": ramp(torch.uint8, 300),
        "\u00e9\u2581": ramp(torch.float64, 70000 // 8), "c": ramp(torch.uint16, 5), "d": ramp(torch.uint32, 5),
        "f8": as_dtype(torch.float8_e4m3fn, 12), "f4": as_dtype(torch.float4_e2m1fn_x2, 12).view(3, 4),
        "e8": as_dtype(torch.float8_e8m0fnu, 3), "c64": as_dtype(torch.complex64, 2), "i8": ramp(torch.int8, 3),
    }
    plain["tied"] = plain["a"].view(3, 2)
    return {
        "written/plain.pt": plain,
        "written/one.pt": {"w": ramp(torch.int32, 3)},
        "written/none.pt": {},
        "written/many.pt": {k: base.view(2, 2) for k in many},
    }


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


def build():
    files, manifest, unstable = {}, {}, set()

    def add(name, data, value=None, legacy=False, **extra):
        value = loaded(data) if value is None else value
        files[name] = data
        manifest[name] = {"cases": [describe(value, **extra)]}
        if legacy:
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
    add("legacy.pt", saved(typed(views()), _use_new_zipfile_serialization=False), legacy=True)
    add("legacy4.pt", saved(typed(dtypes()), _use_new_zipfile_serialization=False, pickle_protocol=4), legacy=True)
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
    add("module.pt", saved({"model": net, "epoch": 1}), metadata={"epoch": 1}, left_out=["model.passing"])

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

    data, value, back = script(torch.jit.script(Script()))
    ordered = {"steps": back.steps, "extra": list(back.extra), "fc": dict(back.fc.state_dict())}
    add("script.pt", data, value=ordered)
    data, value, back = script(torch.jit.trace(Traced(), torch.ones(1, 3)))
    add("traced.pt", data, value={"fc": dict(back.fc.state_dict()), "CONSTANTS": {"c0": torch.tensor([1.5, 2.5])}})

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

#!/usr/bin/env python3
"""Small GGUF and safetensors files with a manifest of what is in them, for the readers' and writers' tests.

    LLAMA_CPP=<llama.cpp source tree> python formats.py [--check]

Writes golden/formats/ beside this script's folder (with --check: compares instead of writing).

Made with: gguf-py of llama.cpp as vendored by llama-cpp-python 0.3.36, numpy 2.4.6, safetensors 0.8.0,
torch 2.15.0. Deterministic: no randomness, no time stamps.
"""
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(os.environ["LLAMA_CPP"]) / "gguf-py"))

import gguf  # noqa: E402
import numpy as np  # noqa: E402

OUT = Path(__file__).resolve().parent.parent / "formats"
T = gguf.GGUFValueType
Q = gguf.GGMLQuantizationType

# key, type, element type of arrays, value. "general.architecture" is put first by the writer itself.
KV = [
    ("general.architecture", T.STRING, None, "golden"),
    ("t.u8", T.UINT8, None, 200),
    ("t.i8", T.INT8, None, -100),
    ("t.u16", T.UINT16, None, 60000),
    ("t.i16", T.INT16, None, -30000),
    ("t.u32", T.UINT32, None, 4000000000),
    ("t.i32", T.INT32, None, -2000000000),
    ("t.u64", T.UINT64, None, 2**63 + 5),
    ("t.i64", T.INT64, None, -(2**62)),
    ("t.f32", T.FLOAT32, None, 0.15625),
    ("t.f64", T.FLOAT64, None, 1e-300),
    ("t.bool", T.BOOL, None, True),
    ("t.str", T.STRING, None, "gr\u00fc\u00df dich \U0001f999\n"),
    ("a.u8", T.ARRAY, T.UINT8, [1, 2, 255]),
    ("a.i16", T.ARRAY, T.INT16, [-1, 0, 1]),
    ("a.i32", T.ARRAY, T.INT32, list(range(-3, 4))),
    ("a.u64", T.ARRAY, T.UINT64, [0, 2**64 - 1]),
    ("a.f32", T.ARRAY, T.FLOAT32, [0.5, -2.0, 1.0]),
    ("a.f64", T.ARRAY, T.FLOAT64, [0.1]),
    ("a.bool", T.ARRAY, T.BOOL, [True, False, True]),
    ("a.str", T.ARRAY, T.STRING, ["", "a", "\u2581the"]),
]


def plain(dtype, shape):
    n = int(np.prod(shape)) if shape else 1
    return (np.arange(n) - n // 2).astype(dtype).reshape(shape)


def bf16(shape):
    """bfloat16 values as gguf-py takes them: bytes, two per element."""
    f = plain(np.float32, shape).view(np.uint32)
    return (f >> 16).astype(np.uint16).view(np.uint8)


def blocks(rows, cols, q):
    """Rows of block bytes that count upwards: any bytes are blocks, as far as a container is concerned."""
    weights, size = gguf.GGML_QUANT_SIZES[q]
    n = rows * cols // weights * size
    return (np.arange(n) * 7 % 251).astype(np.uint8).reshape(rows, -1)


# name, data, raw dtype. Sizes leave padding in several places.
TENSORS = [
    ("token_embd.weight", plain(np.float32, (3, 4)), None),
    ("a.f16", plain(np.float16, (2, 3, 5)), None),
    ("a.bf16", bf16((3, 2)), Q.BF16),
    ("a.i8", plain(np.int8, (7,)), None),
    ("a.i16", plain(np.int16, (1, 7)), None),
    ("a.i32", plain(np.int32, (2, 1, 1, 3)), None),
    ("a.i64", plain(np.int64, (3,)), None),
    ("a.f64", plain(np.float64, (2, 2)), None),
    ("a.q8_0", blocks(2, 64, Q.Q8_0), Q.Q8_0),
    ("a.q4_k", blocks(1, 256, Q.Q4_K), Q.Q4_K),
    ("a.q6_k", blocks(1, 256, Q.Q6_K), Q.Q6_K),
    ("a.mxfp4", blocks(1, 32, Q.MXFP4), Q.MXFP4),
]

# Multi-byte fields per block, for writing the big-endian file (gguf_convert_endian.py agrees).
FIELDS = {Q.Q8_0: [(0, 2)], Q.Q4_K: [(0, 2), (2, 2)], Q.Q6_K: [(208, 2)], Q.MXFP4: []}


def swapped(data, raw):
    if raw is None:
        return data.byteswap()
    if raw == Q.BF16:
        return data.view(np.uint16).byteswap().view(np.uint8)
    size = gguf.GGML_QUANT_SIZES[raw][1]
    out = data.reshape(-1, size).copy()
    for start, width in FIELDS[raw]:
        out[:, start:start + width] = out[:, start:start + width][:, ::-1]
    return out.reshape(data.shape)


def write_gguf(path, endian=gguf.GGUFEndian.LITTLE, split=0, alignment=None, tensors=TENSORS):
    w = gguf.GGUFWriter(path, "golden", endianess=endian, split_max_size=split)
    if alignment:
        w.add_custom_alignment(alignment)
    for key, vtype, sub, value in KV[1:]:
        w.add_key_value(key, value, vtype, sub_type=sub)
    for name, data, raw in tensors:
        if endian == gguf.GGUFEndian.BIG:
            w.add_tensor(name, swapped(data, raw), raw_dtype=raw, tensor_endianess=endian)
        else:
            w.add_tensor(name, data, raw_dtype=raw)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def gguf_manifest():
    tensors = []
    for name, data, raw in TENSORS:
        if raw is None:
            dtype, shape = {"float32": "F32", "float16": "F16", "float64": "F64"}.get(
                data.dtype.name, data.dtype.name.replace("int", "I")), data.shape
        else:
            dtype, shape = raw.name, gguf.quant_shape_from_byte_shape(data.shape, raw)
        tensors.append({"name": name, "type": dtype, "shape": [int(d) for d in shape], "hex": data.tobytes().hex()})
    kv = [{"key": k, "type": t.name, "element": None if s is None else s.name, "value": v} for k, t, s, v in KV]
    return {"metadata": kv, "tensors": tensors}


def safetensors_files(out):
    import torch
    from safetensors import TensorSpec, serialize_file
    from safetensors.torch import save_file

    # Everything torch can name, through the reference library's own torch binding.
    names = ["bool", "uint8", "int8", "float8_e5m2", "float8_e4m3fn", "float8_e8m0fnu", "float8_e4m3fnuz",
             "float8_e5m2fnuz", "int16", "uint16", "float16", "bfloat16", "int32", "uint32", "float32", "complex64",
             "float64", "int64", "uint64"]
    tensors = {}
    for i, name in enumerate(names):
        dtype = getattr(torch, name)
        raw = bytes((11 * i + 3 * j) % 2 if name == "bool" else (11 * i + 3 * j) % 120 for j in range(6 * dtype.itemsize))
        # Names run against the dtype order, so that neither order can stand in for the other.
        tensors[f"t{99 - i}.{name}"] = torch.frombuffer(bytearray(raw), dtype=dtype).reshape(2, 3)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 4)
    save_file(tensors, out / "torch.safetensors", metadata={"format": "pt"})

    # What torch names in pairs only, through the binding that takes addresses.
    data = np.arange(8, dtype=np.uint8)
    spec = TensorSpec(dtype="float4_e2m1fn_x2", shape=[2, 4], data_ptr=data.ctypes.data, data_len=data.nbytes)
    serialize_file({"f4": spec}, out / "raw.safetensors", {"only": "f4"})
    return ["torch.safetensors", "raw.safetensors"]


def safetensors_manifest(path):
    """The header as plain json and slices see it: independent of any library's idea of it."""
    b = path.read_bytes()
    n = int.from_bytes(b[:8], "little")
    header = json.loads(b[8:8 + n])
    meta = header.pop("__metadata__", {})
    tensors = [{"name": k, "type": v["dtype"], "shape": v["shape"],
                "hex": b[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]].hex()}
               for k, v in sorted(header.items())]
    return {"metadata": meta, "tensors": tensors}


def main():
    check = "--check" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp)
        write_gguf(out / "le.gguf")
        write_gguf(out / "be.gguf", endian=gguf.GGUFEndian.BIG)
        write_gguf(out / "aligned.gguf", alignment=64)
        write_gguf(out / "empty.gguf", tensors=[])
        write_gguf(out / "split.gguf", split=150)
        manifest = {"gguf": gguf_manifest(), "safetensors": {}}
        for name in safetensors_files(out):
            manifest["safetensors"][name] = safetensors_manifest(out / name)
        (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        made = {p.name: p.read_bytes() for p in sorted(out.iterdir())}
    if check:
        there = {p.name: p.read_bytes() for p in sorted(OUT.iterdir())}
        assert made == there, [n for n in made.keys() | there.keys() if made.get(n) != there.get(n)]
    else:
        OUT.mkdir(exist_ok=True)
        for p in OUT.iterdir():
            p.unlink()
        for name, data in made.items():
            (OUT / name).write_bytes(data)
    print(f"{len(made)} files, {sum(map(len, made.values()))} bytes")


main()

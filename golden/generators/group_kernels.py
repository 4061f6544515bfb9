"""Writes golden/groups: what the libraries make of groups of weights: codes, scales, zero points.

    python3 golden/generators/group_kernels.py golden/groups

Needs numpy, torch 2.15.0, compressed-tensors 0.20.0, bitsandbytes 0.50.2, mlx 0.32.4 (with mlx-cpu), onnx and
onnxruntime 1.31.1, and three source distributions unpacked, of which single files are loaded, without their packages:
AUTOAWQ (autoawq 0.2.9), GPTQMODEL (gptqmodel 7.7.0) and HQQ (hqq 0.2.8.post1) name their folders.

Inputs are not stored: `row` of blocks.py equals kernels/tests/common/inputs.rs bit for bit.

Output:
  cases.tsv   one line per case: rule, fit, bits, offset, scale type, columns of a group, rows that share scales,
              distribution, seed, rows, columns, checksum of the input
  groups.bin  per case, in the order of cases.tsv, row by row: the codes, a byte each, then the scales as f32, then the zero
              points or biases as f32 where the offset is stored
"""

import ast
import os
import pathlib
import sys
import types

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from blocks import row  # noqa: E402

torch.set_num_threads(1)
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
GENERAL = ["gauss", "t3", "constant", "sparse", "zeros", "tiny", "mixed", "ties", "positive", "negative", "outlier", "powers"]
ROWS, COLUMNS = 3, 192


def weights(distribution, seed, rows, columns):
    return np.stack([row(distribution, seed + r, columns) for r in range(rows)])


def as_type(x, scale):
    return torch.from_numpy(x).to(TORCH[scale])


def fnv(values):
    hash_ = 0xCBF29CE484222325
    for bits in np.ascontiguousarray(values, dtype=np.float32).view(np.uint32).ravel():
        hash_ = ((hash_ ^ int(bits)) * 0x100000001B3) & ((1 << 64) - 1)
    return hash_


def piece(path, names, scope):
    """Runs single classes and functions of a file, without what the file imports."""
    tree = ast.parse(pathlib.Path(path).read_text())
    wanted = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name in names]
    assert {n.name for n in wanted} == set(names), path
    exec(compile(ast.Module(wanted, []), str(path), "exec"), scope)  # noqa: S102
    return scope


# Every function gives codes (rows, columns), scales and offsets (rows, groups).
def compressed_tensors(x, bits, offset, scale, group, band):
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    w = as_type(x, scale)
    rows, columns = w.shape
    kind = {"num_bits": bits, "type": "int", "symmetric": offset == "middle"}
    if band != 1:
        args = QuantizationArgs(strategy="block", block_structure=[band, group], **kind)
        blocks = w.reshape(rows // band, band, columns // group, group).transpose(1, 2).flatten(-2, -1)
    elif group:
        args = QuantizationArgs(strategy="group", group_size=group, **kind)
        blocks = w.unflatten(-1, (-1, group))
    else:
        args = QuantizationArgs(strategy="channel", **kind)
        blocks = w.unsqueeze(1)
    scales, zeros = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args)
    codes = quantize(w, scales, zeros, args, dtype=torch.int8).to(torch.int32).numpy()
    middle = 1 << (bits - 1)
    spread = [np.repeat(t.float().numpy(), band, axis=0) for t in (scales, zeros)]
    return codes + middle, spread[0], spread[1] + middle


def gptq(x, bits, offset, scale, group, band):
    folder = pathlib.Path(os.environ["GPTQMODEL"]) / "gptqmodel/quantization/quantizer.py"
    scope = piece(folder, ["_replace_zero_scale", "quantize", "Quantizer"],
                  {"torch": torch, "nn": torch.nn, "BaseQuantizeConfig": object, "HF_OPTIMUM": "hf_optimum"})
    w = torch.from_numpy(x)
    config = types.SimpleNamespace(bits=bits, sym=offset == "middle", mse=0.0, group_size=group or -1)
    parts = []
    for block in w.split(group or w.shape[1], dim=1):
        q = scope["Quantizer"](qcfg=config, name="layer")
        q.configure(perchannel=True)
        q.find_params(block, weight=True)
        back = q.quantize(block)
        safe = scope["_replace_zero_scale"](q.scale)
        # As it is packed: `round((W + zero * scale) / scale)`.
        codes = torch.round((back + q.zero * safe) / safe).clamp(0, 2**bits - 1)
        parts.append([t.numpy() for t in (codes, q.scale.to(TORCH[scale]).float(), q.zero)])
    return [np.concatenate([p[i] for p in parts], axis=1) for i in range(3)]


def awq(x, bits, offset, scale, group, band):
    folder = pathlib.Path(os.environ["AUTOAWQ"]) / "awq/quantize/quantizer.py"
    scope = piece(folder, ["AwqQuantizer"], {
        "torch": torch, "nn": torch.nn, "functools": __import__("functools"), "inspect": __import__("inspect"),
        **{n: object for n in ("List", "Tuple", "Union", "Dict", "Optional", "BaseAWQForCausalLM")}} | vars(__import__("typing")))
    quantizer = types.SimpleNamespace(w_bit=bits, group_size=group or x.shape[1], zero_point=offset == "point")
    w = as_type(x, scale)
    rows, columns = w.shape
    try:
        back, scales, zeros = scope["AwqQuantizer"].pseudo_quantize_tensor(quantizer, w.clone())
    except AssertionError:
        return [np.full(x.shape, np.nan)] * 3  # It asserts that nothing overflowed.
    spread = scales.repeat_interleave(columns // scales.shape[1], dim=1)
    if zeros is None:
        codes = torch.round(back / spread) + (1 << (bits - 1))
        zeros = torch.zeros_like(scales)
    else:
        # `WQLinear_GEMM.from_linear`.
        wide = zeros.repeat_interleave(columns // scales.shape[1], dim=1)
        codes = torch.round((back + wide * spread) / spread)
    return codes.float().numpy(), scales.float().numpy(), zeros.float().numpy()


def mlx(x, bits, offset, scale, group, band):
    import mlx.core as mx

    w = mx.array(x).astype({"F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16}[scale])
    packed, scales, biases = mx.quantize(w, group_size=group, bits=bits)
    stream = np.unpackbits(np.array(packed).view(np.uint8), axis=-1, bitorder="little")
    codes = stream.reshape(x.shape[0], x.shape[1], bits) @ (1 << np.arange(bits))
    return codes, *(np.array(n.astype(mx.float32)) for n in (scales, biases))


def mlas(x, bits, offset, scale, group, band):
    from onnxruntime.capi import _pybind_state as ort

    w = np.ascontiguousarray(x.T.astype({"F32": np.float32, "F16": np.float16}[scale]))
    rows, columns = x.shape
    groups, per = columns // group, 8 // bits
    packed = np.zeros((rows, groups, group // per), np.uint8)
    scales = np.zeros((rows, groups), w.dtype)
    zeros = np.zeros((rows, -(-groups // per)), np.uint8)
    quantize = {2: ort.quantize_matmul_2bits, 4: ort.quantize_matmul_4bits, 8: ort.quantize_matmul_8bits}[bits]
    quantize(packed, w, scales, zeros, group, rows, columns, offset == "middle")
    unpack = lambda a: np.stack([a >> (bits * i) & ((1 << bits) - 1) for i in range(per)], -1).reshape(rows, -1)
    return unpack(packed.reshape(rows, -1)), scales.astype(np.float32), unpack(zeros)[:, :groups].astype(np.float32)


def ort_tools(x, bits, offset, scale, group, band, reduced=False):
    from onnx import TensorProto
    from onnxruntime.quantization import quant_utils as u

    w = x.astype({"F32": np.float32, "F16": np.float16}[scale])
    symmetric = offset == "middle"
    kind = {(4, True): TensorProto.INT4, (4, False): TensorProto.UINT4, (8, True): TensorProto.INT8, (8, False): TensorProto.UINT8}[bits, symmetric]
    if group:
        zeros, scales = u.compute_scale_zp_blocked(w, kind, 1, group, symmetric)
        spread = [np.repeat(n, group, axis=1) for n in (scales, zeros)]
        codes = u.quantize_nparray(kind, w, spread[0], spread[1].astype(np.int32))
    else:
        zeros, scales, codes = [], [], []
        for r in w:
            z, s, c = u.quantize_data(r, kind, symmetric, reduce_range=reduced)
            zeros.append([z])
            scales.append([s])
            codes.append(c)
    base = 1 << (bits - 1) if symmetric else 0
    number = lambda n: np.array(n).astype(np.float32)
    return number(codes) + base, number(scales), number(zeros) + base


def ort_tools_reduced(*args):
    return ort_tools(*args, reduced=True)


def bitsandbytes(x, bits, offset, scale, group, band):
    import bitsandbytes as bnb

    codes, largest, _ = bnb.functional.int8_vectorwise_quant(as_type(x, scale))
    return codes.to(torch.int32).numpy() + 128, largest.float().numpy()[:, None], np.zeros((x.shape[0], 1))


def hqq_package(folder):
    """The quantizer of hqq without what imports CUDA."""
    core = pathlib.Path(folder) / "hqq/core"
    legacy = "optimize_weights_proximal_legacy"
    scope = {"torch": torch, "np": np, "Tensor": torch.Tensor, "Union": __import__("typing").Union}
    scope |= {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "uint8", "int32")}
    scope = piece(core / "optimize.py", ["shrink_lp_op", legacy, f"{legacy}_step"], scope)
    packings = {"is_divisible": lambda a, b: a % b == 0, "BitPack": types.SimpleNamespace(**{n: None for n in BITPACK})}
    return piece(core / "quantize.py", ["Quantizer"], scope | packings | {"optimize_weights_proximal": scope[legacy]})


def hqq(x, bits, offset, scale, group, band, fit):
    scope = hqq_package(os.environ["HQQ"])
    out = []
    # One group at a time: the package stops all groups together.
    for r in x.reshape(-1, group or x.shape[1]):
        codes, meta = scope["Quantizer"].quantize(
            torch.from_numpy(r[None].copy()), nbits=bits, group_size=None, channel_wise=True, optimize=fit == "hqq", axis=1,
            bitpack=False, device="cpu")
        out.append([codes.float().numpy().ravel(), meta["scale"].item(), meta["zero"].item()])
    shape = (x.shape[0], -1)
    return [np.array([o[i] for o in out], np.float32).reshape(shape) for i in range(3)]


BITPACK = [f"{way}_{form}" for way in ("pack", "unpack") for form in ("8bit_u8", "4bit_u8", "3bit_32", "2bit_u8", "1bit_u8")]


def plan():
    both = ["middle", "point"]
    for scale in TORCH:
        for offset in both:
            for bits, group in ((4, 32), (8, 0), (4, 64), (3, 64), (2, 32), (8, 96)):
                yield compressed_tensors, "nearest", bits, offset, scale, group, 1
        yield compressed_tensors, "nearest", 8, "middle", scale, 64, 2
        yield compressed_tensors, "nearest", 4, "point", scale, 32, 4
    for offset in both:
        for bits, group in ((2, 32), (3, 64), (4, 64), (4, 0), (8, 96)):
            yield gptq, "nearest", bits, offset, "F16", group, 1
        for scale in ("F16", "F32"):
            yield awq, "nearest", 4, offset, scale, 64, 1
        for scale in ("F32", "F16"):
            for bits, group in ((2, 32), (4, 32), (4, 64), (8, 16)):
                yield mlas, "nearest", bits, offset, scale, group, 1
            for bits, group in ((4, 32), (4, 0), (8, 0), (8, 64)):
                yield ort_tools, "nearest", bits, offset, scale, group, 1
            for bits in (4, 8):
                yield ort_tools_reduced, "nearest", bits, offset, scale, 0, 1
    for scale in TORCH:
        for bits in (2, 3, 4, 5, 6, 8):
            yield mlx, "nearest", bits, "bias", scale, 32 if bits % 2 else 64, 1
    for scale in ("F32", "F16"):
        yield bitsandbytes, "nearest", 8, "middle", scale, 0, 1
    for bits, group in ((2, 64), (3, 64), (4, 64), (4, 0), (8, 64)):
        for fit in ("nearest", "hqq"):
            yield hqq, fit, bits, "point", "F32", group, 1


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    lines, data, seed, dropped = [], [], 0, 0
    for i, (rule, fit, bits, offset, scale, group, band) in enumerate(plan()):
        # Each target gets a third of the distributions; all targets of a library together get them all.
        for distribution in ["gauss"] + GENERAL[1 + i % 3 :: 3]:
            seed += 10
            rows = 2 * band if band > 1 else ROWS
            x = weights(distribution, seed, rows, COLUMNS)
            with np.errstate(all="ignore"):
                args = (x, bits, offset, scale, group, band)
                codes, scales, offsets = rule(*args, fit) if rule is hqq else rule(*args)
            # What overflows there is a largest number here.
            if not (np.isfinite(scales).all() and np.isfinite(offsets).all() and np.isfinite(codes).all()):
                dropped += 1
                continue
            assert codes.shape == x.shape and codes.min() >= 0 and codes.max() < 2**bits, (rule, codes)
            name = rule.__name__
            lines.append(f"{name}\t{fit}\t{bits}\t{offset}\t{scale}\t{group}\t{band}\t{distribution}\t{seed}\t{rows}\t{COLUMNS}\t{fnv(x):016x}\n")
            for c, s, o in zip(codes, scales, offsets):
                data.append(np.asarray(c).astype(np.uint8).tobytes())
                data.append(np.asarray(s, np.float32).tobytes())
                if offset in ("point", "bias"):
                    data.append(np.asarray(o, np.float32).tobytes())
    (folder / "cases.tsv").write_text("".join(lines))
    (folder / "groups.bin").write_bytes(b"".join(data))
    print(f"{len(lines)} cases, {sum(map(len, data))} bytes; {dropped} left out")


if __name__ == "__main__":
    main()

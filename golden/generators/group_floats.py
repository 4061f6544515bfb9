"""Grouped codes that are floats, by the libraries whose files hold them: writes golden/groups/{fp8.bin,floats.bin,nested.bin}.

usage: group_floats.py [GOLDEN_DIR]

Made with torch 2.15.0 (CPU), compressed-tensors 0.20.0, bitsandbytes 0.50.2, mlx 0.32.4 (mlx[cpu]), transformers 5.23.0 and
numpy 2.4.6, in an environment of its own: `pip install --no-deps compressed-tensors==0.20.0 bitsandbytes==0.50.2 loguru` and
`pip install "mlx[cpu]==0.32.4"` beside torch and transformers.

fp8.bin: for each 8-bit float a count and as many (u32 start, u8 code): from this bit pattern of binary32 on, up to the next
start, torch's cast gives this code. floats.bin and nested.bin: see `case` and `nested` below.
"""
import os
import struct
import sys
import types

import mlx.core as mx
import numpy as np
import torch
from bitsandbytes import functional as bnb
from compressed_tensors.compressors.mx_utils import compress_mx_scale
from compressed_tensors.compressors.nvfp4.helpers import pack_fp4_to_uint8
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from transformers.integrations.finegrained_fp8 import Fp8Quantize

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu)
ROWS, COLUMNS = 4, 192


def cast(bits, dtype):
    """torch's codes of binary32 bit patterns."""
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32)).to(dtype).view(torch.uint8).numpy()


def runs(dtype):
    """Where codes change, over all 2^32 patterns: between any two of the 2^16 bfloat16 patterns they change at most once."""
    starts = np.arange(1 << 16, dtype=np.uint64) << 16
    codes = cast(starts, dtype)
    out = [(0, codes[0])]
    low, high = starts, np.append(starts[1:], np.uint64((1 << 32) - 1))
    ends = cast(high, dtype)
    change = np.nonzero(codes != ends)[0]
    low, high, want = low[change].copy(), high[change].copy(), ends[change]
    while (high - low > 1).any():
        middle = (low + high) >> np.uint64(1)
        up = cast(middle, dtype) == want
        high, low = np.where(up, middle, high), np.where(up, low, middle)
    out += sorted(zip(high.tolist(), want.tolist()))
    # The table must give what the cast gives: at every bfloat16, around every start, and at many others.
    begin = np.array([s for s, _ in out], np.uint64)
    code = np.array([c for _, c in out], np.uint8)
    near = (begin[:, None] + np.array([-2, -1, 0, 1, 2], np.int64).astype(np.uint64)[None]).ravel() & 0xFFFFFFFF
    probe = np.concatenate([starts, starts + 0xFFFF, near, np.random.RandomState(7).randint(0, 1 << 32, 1 << 20, np.uint64)])
    assert (code[np.searchsorted(begin, probe, "right") - 1] == cast(probe, dtype)).all(), dtype
    return out


def splitmix(seed, count):
    z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 20)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def matrix(kind, rows=ROWS, columns=COLUMNS):
    """Weights that the tests make again: integers times powers of two."""
    z = splitmix(("bell", "wide", "ties", "gaps").index(kind), rows * columns)
    part = lambda shift, mask: ((z >> np.uint64(shift)) & np.uint64(mask)).astype(np.int64)
    bell = (part(0, 0xFFFF) + part(16, 0xFFFF) + part(32, 0xFFFF) - 98304).astype(np.float32)
    if kind == "bell":
        x = bell * np.float32(2.0**-20)
    elif kind == "wide":
        x = bell * np.exp2(part(48, 63) - 48.0).astype(np.float32)
    elif kind == "ties":
        x = (part(0, 63) - 32).astype(np.float32) * np.float32(0.125)
        x[::16] = 6.0
    else:
        # Zeros of both signs, groups of nothing else, and rows of tiny and of huge numbers.
        x = bell * np.float32(2.0**-16)
        x[part(48, 3) != 0] = 0.0
        x[part(50, 7) == 0] = -0.0
        x = x.reshape(rows, columns)
        x[:, : columns // 3] = 0.0
        x[1] *= np.float32(2.0**-120)
        x[2] *= np.float32(2.0**100)
    return torch.from_numpy(np.ascontiguousarray(x.reshape(rows, columns), np.float32))


def codes_of(quantized):
    """A byte per code."""
    if quantized.dtype in FP8:
        return quantized.view(torch.uint8)
    packed = pack_fp4_to_uint8(quantized)
    return torch.stack([packed & 15, packed >> 4], -1).reshape(quantized.shape)


def compressed_tensors(x, outer=False, scale_dtype=None, **kind):
    args = QuantizationArgs(type="float", symmetric=True, scale_dtype=scale_dtype, **kind)
    rows, columns = x.shape
    strategy, group = kind["strategy"], kind.get("group_size")
    if strategy == "tensor":
        shaped, dims = x.reshape(1, -1), (1,)
    elif strategy == "channel":
        shaped, dims = x, (1,)
    elif strategy == "block":
        high, wide = kind["block_structure"]
        shaped, dims = x.reshape(rows // high, high, columns // wide, wide), (1, 3)
    else:
        shaped, dims = x.reshape(rows, columns // group, group), (2,)
    gscale = generate_gparam(x.min(), x.max()) if outer else None
    scale, zero = calculate_qparams(shaped.amin(dims), shaped.amax(dims), args, global_scale=gscale)
    if strategy == "tensor":
        scale = scale.reshape(1)
    elif strategy == "channel":
        scale = scale.reshape(-1, 1)
    q = quantize(x, scale, None, args, dtype=args.pytorch_dtype() if kind["num_bits"] == 8 else None, global_scale=gscale)
    back = dequantize(q, scale, None, args, global_scale=gscale)
    if scale_dtype == torch.uint8:
        # What is stored must say the same.
        stored = compress_mx_scale(scale, torch.uint8).float() - 127
        assert (torch.exp2(stored) == scale).all()
    return codes_of(q), scale.float(), back, gscale.item() if outer else 0.0


def bitsandbytes(x, blocksize, quant_type):
    packed, state = bnb.quantize_4bit(x, blocksize=blocksize, quant_type=quant_type)
    packed = packed.ravel()
    codes = torch.stack([packed >> 4, packed & 15], -1).ravel()[: x.numel()]
    # Its scalar code makes -0 of FP4's code 8, its vector code 0; adding 0 makes 0 of both.
    return codes, state.absmax, bnb.dequantize_4bit(packed.reshape(-1, 1), state) + 0.0, 0.0


def mlx(x, mode, group, bits):
    w, scales = mx.quantize(mx.array(x.numpy()), group_size=group, bits=bits, mode=mode)
    packed = torch.from_numpy(np.array(w).view(np.uint8))
    codes = packed if bits == 8 else torch.stack([packed & 15, packed >> 4], -1)
    raw = torch.from_numpy(np.array(scales))
    scale = raw.view(torch.float8_e4m3fn).float() if mode == "nvfp4" else torch.exp2(raw.double() - 127).float()
    back = mx.dequantize(w, scales, group_size=group, bits=bits, mode=mode, dtype=mx.float32)
    return codes.reshape(x.shape), scale, torch.from_numpy(np.array(back)), 0.0


def finegrained(x, block, fmt):
    config = types.SimpleNamespace(weight_block_size=block, scale_fmt=fmt)
    op = Fp8Quantize(types.SimpleNamespace(quantization_config=config))
    out = op.convert({"a.weight": x})
    q, inverse = out["a.weight"], out["a.weight_scale_inv"].float()
    spread = inverse.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return q.view(torch.uint8), inverse, q.float() * spread, 0.0


CASES = {
    "ct-fp8-tensor": lambda x: compressed_tensors(x, num_bits=8, strategy="tensor"),
    "ct-fp8-channel": lambda x: compressed_tensors(x, num_bits=8, strategy="channel"),
    "ct-fp8-block": lambda x: compressed_tensors(x, num_bits=8, strategy="block", block_structure=[2, 64]),
    "ct-nvfp4": lambda x: compressed_tensors(
        x, outer=True, num_bits=4, strategy="tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn
    ),
    "ct-mxfp4": lambda x: compressed_tensors(x, num_bits=4, strategy="group", group_size=32, scale_dtype=torch.uint8),
    "ct-mxfp8": lambda x: compressed_tensors(x, num_bits=8, strategy="group", group_size=32, scale_dtype=torch.uint8),
    "hf-fp8-block": lambda x: finegrained(x, (2, 64), None),
    "hf-fp8-block-ue8m0": lambda x: finegrained(x, (2, 64), "ue8m0"),
    "bnb-nf4": lambda x: bitsandbytes(x, 64, "nf4"),
    "bnb-fp4": lambda x: bitsandbytes(x, 64, "fp4"),
    "bnb-nf4-rest": lambda x: bitsandbytes(x.reshape(-1)[:150].reshape(1, -1), 64, "nf4"),
    "bnb-fp4-rest": lambda x: bitsandbytes(x.reshape(-1)[:150].reshape(1, -1), 64, "fp4"),
    "mlx-mxfp4": lambda x: mlx(x, "mxfp4", 32, 4),
    "mlx-nvfp4": lambda x: mlx(x, "nvfp4", 16, 4),
    "mlx-mxfp8": lambda x: mlx(x, "mxfp8", 32, 8),
}


def case(name, kind, result):
    """Name and kind of input, counts of scales and codes, global scale (0 where none), scales, decoded weights' FNV, codes."""
    codes, scales, back, outer = result
    codes, scales = codes.numpy().ravel().astype(np.uint8), scales.numpy().ravel().astype("<f4")
    words = np.ascontiguousarray(back.numpy().ravel(), "<f4").view(np.uint32)
    fnv = 0xCBF29CE484222325
    for word in words.tolist():
        fnv = ((fnv ^ word) * 0x100000001B3) & (1 << 64) - 1
    title = f"{name}/{kind}".encode()
    head = struct.pack("<B", len(title)) + title + struct.pack("<IIfQ", len(scales), len(codes), outer, fnv)
    return head + scales.tobytes() + codes.tobytes()


def nested():
    """Double quantization: the map; then per vector its length, values, offset, and of 256 values each a scale; codes, decoded."""
    out = bnb.create_dynamic_map().numpy().astype("<f4").tobytes()
    for seed, count in ((40, 600), (41, 256), (42, 7)):
        absmax = torch.from_numpy((splitmix(seed, count) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-26))
        if count == 256:
            absmax[:] = 0.25
        offset = absmax.mean()
        codes, state = bnb.quantize_blockwise(absmax - offset, blocksize=256)
        back = bnb.dequantize_blockwise(codes, state) + offset
        out += struct.pack("<I", count) + absmax.numpy().tobytes() + struct.pack("<f", offset.item())
        out += state.absmax.numpy().tobytes() + codes.numpy().tobytes() + back.numpy().tobytes()
    return out


def main():
    golden = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = os.path.join(golden, "groups")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "fp8.bin"), "wb") as f:
        for dtype in FP8:
            table = runs(dtype)
            f.write(struct.pack("<I", len(table)))
            for start, code in table:
                f.write(struct.pack("<IB", start, code))
    with open(os.path.join(folder, "floats.bin"), "wb") as f:
        for name, make in CASES.items():
            for kind in ("bell", "wide", "ties", "gaps"):
                try:
                    f.write(case(name, kind, make(matrix(kind))))
                except AssertionError as e:
                    print(name, kind, "left out:", repr(e)[:80])
    with open(os.path.join(folder, "nested.bin"), "wb") as f:
        f.write(nested())


if __name__ == "__main__":
    main()

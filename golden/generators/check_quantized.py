#!/usr/bin/env python3
"""Opens a quantized Hugging Face folder, of ours or of anyone, with the library that its quantization_config names.

    python check_quantized.py FOLDER... [--expected FILE] [--source FOLDER] [--worst R] [--cosine C] [--no-load]

Decodes every quantized matrix with that library and compares with --expected (what tensormill decoded; FOLDER/expected.safetensors
where there is one): after rounding to the library's own dtype they must be equal. With --source prints each matrix's error relative
to the source, and fails above --worst. compressed-tensors, bitsandbytes and fp8 folders are also loaded by transformers, run once,
and their logits compared with the source model's (fails on NaN, and below --cosine). Exit code 1 on any failure.

Needs what the generators quantized_*.py name, of the libraries that the folders at hand are in.
"""
import argparse
import glob
import json
import math
import os
import re
import sys

import torch
from safetensors import safe_open

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


EIGHT = (torch.float8_e4m3fn, torch.float8_e5m2)


class Folder:
    def __init__(self, path):
        self.path = path
        with open(os.path.join(path, "config.json"), encoding="utf-8") as f:
            self.config = json.load(f)
        self.method = self.config.get("quantization_config") or self.config.get("quantization") or {}
        self.tensors = {}
        for name in sorted(glob.glob(os.path.join(path, "*.safetensors"))):
            if os.path.basename(name) != "expected.safetensors":
                with safe_open(name, "pt") as f:
                    self.tensors |= {k: f.get_tensor(k) for k in f.keys()}

    def modules(self, suffix):
        """Names of modules that hold a tensor of this suffix, with what each holds: {part: tensor}."""
        for name in sorted(self.tensors):
            if name.endswith("." + suffix):
                module = name.removesuffix("." + suffix)
                yield module, {k.removeprefix(module + "."): v for k, v in self.tensors.items() if k.startswith(module + ".")}

    def kind(self):
        if "quant_method" in self.method:
            return self.method["quant_method"]
        if "group_size" in self.method:
            return "mlx"
        if any(t.dtype in EIGHT for t in self.tensors.values()):
            return "cast"
        raise SystemExit(f"{self.path}/config.json names no quantization method")


def compressed_tensors(folder):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization import QuantizationScheme
    groups = [QuantizationScheme.model_validate(g) for g in folder.method["config_groups"].values()]
    for module, parts in folder.modules("weight_scale"):
        scheme = next(g for g in groups if any(
            t == "Linear" or t == module or (t.startswith("re:") and re.match(t[3:], module)) for t in g.targets))
        if "weight_packed" in parts and parts["weight_packed"].dtype == torch.int32:
            bits, columns = scheme.weights.num_bits, int(parts["weight_shape"][1])
            if parts["weight_packed"].shape[1] != math.ceil(columns * bits / 32):
                # Words of `32 // bits` values: 0.9.4, compressors/quantized_compressors/pack_quantized.py, unpack_from_int32.
                words = parts["weight_packed"].long() & 0xFFFFFFFF
                codes = torch.stack([words >> (bits * i) & ((1 << bits) - 1) for i in range(32 // bits)], -1).flatten(1)
                codes = codes[:, :columns] - (1 << (bits - 1))
                parts["weight_packed"] = pack_to_int32(codes.to(torch.int8), bits)
        format = scheme.format or infer_module_format(torch.nn.Linear, scheme)
        compressor = BaseCompressor.get_value_from_registry(getattr(format, "value", format))
        yield module, compressor.decompress(parts, scheme)["weight"]


def gptq(folder):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import FORMAT
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module
    m = folder.method
    bits, sym, act = m["bits"], m.get("sym", True), m.get("desc_act", False)
    format = FORMAT(m.get("checkpoint_format", "gptq"))
    for module, parts in folder.modules("qweight"):
        columns, rows = parts["qweight"].shape[0] * 32 // bits, parts["qweight"].shape[1]
        q = TorchLinear(bits=bits, group_size=m["group_size"], sym=sym, desc_act=act, in_features=columns, out_features=rows,
                        bias=False, format=format)
        for name in ("qweight", "qzeros", "scales", "g_idx"):
            if name in parts:
                assert getattr(q, name).shape == parts[name].shape, (module, name, parts[name].shape, getattr(q, name).shape)
                q.register_buffer(name, parts[name].clone())
        if format == FORMAT.GPTQ:
            convert_gptq_v1_to_v2_format_module(q, bits, torch.int32)
        q.post_init()
        yield module, q.dequantize_weight().T


def awq(folder):
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
    m = folder.method
    for module, parts in folder.modules("qweight"):
        size = parts["qweight"].shape[0] // parts["scales"].shape[0]
        assert m["group_size"] in (size, -1), (module, size)
        yield module, dequantize_gemm(parts["qweight"], parts["qzeros"], parts["scales"], m["bits"], size).T


def bitsandbytes(folder):
    import bitsandbytes as bnb
    from quantized_bitsandbytes import portable
    for module, parts in folder.modules("SCB"):
        yield module, bnb.functional.int8_vectorwise_dequant(parts["weight"], parts["SCB"])
    for module, parts in folder.modules("weight.absmax"):
        state = {k: v for k, v in parts.items() if k.startswith("weight.")}
        yield module, portable(parts["weight"], bnb.functional.QuantState.from_dict(state, device="cpu"))


def mlx(folder):
    import mlx.core as mx
    import numpy as np
    weights = {}
    for name in glob.glob(os.path.join(folder.path, "model*.safetensors")):
        weights |= mx.load(name)
    for module, parts in folder.modules("scales"):
        own = {**folder.method, **(folder.method.get(module) or {})}
        sides = [weights[f"{module}.{p}"] for p in ("scales", "biases") if p in parts]
        sides = [p if p.dtype == mx.uint8 else p.astype(mx.float32) for p in sides]
        w = mx.dequantize(weights[module + ".weight"], *sides, group_size=own["group_size"], bits=own["bits"],
                          mode=own.get("mode", "affine"), dtype=mx.float32)
        yield module, torch.from_numpy(np.array(w))


def fp8(folder):
    from types import SimpleNamespace

    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    for module, parts in folder.modules("weight_scale_inv"):
        w, scale = parts["weight"], parts["weight_scale_inv"]
        high, wide = folder.method.get("weight_block_size") or w.shape
        assert tuple(scale.shape) in ((), (math.ceil(w.shape[0] / high), math.ceil(w.shape[1] / wide))), (module, scale.shape)
        if w.shape[0] % high == 0 and w.shape[1] % wide == 0:
            yield module, Fp8Dequantize(SimpleNamespace())._dequantize_one(w, scale, output_dtype=torch.float32)
        else:  # transformers refuses these; as weight_dequant in inference/kernel.py of DeepSeek-V3
            spread = scale.float().repeat_interleave(high, 0).repeat_interleave(wide, 1)[: w.shape[0], : w.shape[1]]
            yield module, w.float() * spread


def fbgemm_fp8(folder):
    for module, parts in folder.modules("weight_scale"):
        yield module, parts["weight"].float() * parts["weight_scale"]


def modelopt(folder):
    from quantized_modelopt import decoded
    for module, parts in folder.modules("weight_scale"):
        rows, columns = parts["weight"].shape
        shape = (rows, columns * (2 if parts["weight"].dtype == torch.uint8 else 1))
        yield module, decoded(folder.tensors, module, shape)


def bitnet(folder):
    from transformers.integrations import bitnet as bits
    for module, parts in folder.modules("weight_scale"):
        yield module, bits.unpack_weights(parts["weight"], torch.float32) / parts["weight_scale"].float()


def hqq(folder):
    from hqq.core.quantize import _META_TYPE, Quantizer
    from hqq.core.utils import decode_safetensor_type
    for module, parts in folder.modules("W_q"):
        meta = {k: decode_safetensor_type(v, _META_TYPE[k]) for k, v in parts.items() if k in _META_TYPE}
        meta |= {k: meta[k].float() for k in ("scale", "zero")} | {"compute_dtype": torch.float32}
        yield module, Quantizer.dequantize(parts["W_q"], meta)


def cast(folder):
    for name, values in folder.tensors.items():
        if values.dtype in EIGHT:
            yield name.removesuffix(".weight"), values.float()


def mxfp4(folder):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    for name, blocks in folder.tensors.items():
        if name.endswith("_blocks"):
            stem = name.removesuffix("_blocks")
            yield stem, convert_moe_packed_tensors(blocks, folder.tensors[stem + "_scales"])


DECODERS = {"compressed-tensors": compressed_tensors, "gptq": gptq, "awq": awq, "bitsandbytes": bitsandbytes, "mlx": mlx, "fp8": fp8,
            "fbgemm_fp8": fbgemm_fp8, "modelopt": modelopt, "bitnet": bitnet, "hqq": hqq, "mxfp4": mxfp4, "cast": cast}


def logits(path, **settings):
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(path, **settings).eval()
    ids = torch.arange(3, 35)[None] % model.config.vocab_size
    with torch.no_grad():
        return model(ids).logits.float()


def load(folder, source):
    """Runs the folder in transformers; gives the cosine of its logits with the source's, or None and why not."""
    settings = {"dtype": torch.bfloat16}
    if folder.kind() == "bitsandbytes":
        settings["device_map"] = "cpu"
        for module, parts in folder.modules("weight.absmax"):
            state = bytes(next(v for k, v in parts.items() if "quant_state" in k).tolist())
            state = json.loads(state)
            if state["shape"][1] % state["blocksize"]:
                return None, "bitsandbytes' CPU kernel decodes rows that are not whole blocks wrongly"
    elif folder.kind() == "fp8":
        from transformers import FineGrainedFP8Config
        size = tuple(folder.method["weight_block_size"])
        if any(s % b for _, p in folder.modules("weight_scale_inv") for s, b in zip(p["weight"].shape, size)):
            return None, "transformers wants whole blocks"
        settings["quantization_config"] = FineGrainedFP8Config(weight_block_size=size, dequantize=True)
    elif folder.kind() == "compressed-tensors":
        if folder.method.get("version", "").startswith("0.9."):
            return None, "packed by an old version"
        if any(True for _ in folder.modules("weight_zero_point")):
            return None, "transformers with compressed-tensors 0.20.0 expects unpacked zero points, and packs them when it saves"
    else:
        return None, "not loaded here"
    got, want = logits(folder.path, **settings), logits(source, dtype=torch.bfloat16)
    if not torch.isfinite(got).all():
        return float("nan"), ""
    return torch.nn.functional.cosine_similarity(got.flatten(), want.flatten(), 0).item(), ""


def check(path, args):
    folder, failures, errors = Folder(path), [], {}
    beside = args.expected or os.path.join(path, "expected.safetensors")
    expected = {}
    if os.path.exists(beside):
        with safe_open(beside, "pt") as f:
            expected = {k: f.get_tensor(k) for k in f.keys()}
    source = Folder(args.source).tensors if args.source else {}
    difference, decoded, compared = 0.0, 0, 0
    for module, values in DECODERS[folder.kind()](folder):
        decoded += 1
        name = module if module in expected else module + ".weight"
        if name in expected:
            ours = expected[name]
            if ours.shape != values.shape:
                failures.append(f"{name}: {tuple(ours.shape)} in {beside}, {tuple(values.shape)} by the library")
                continue
            narrow = min((ours.dtype, values.dtype), key=lambda d: d.itemsize)
            difference = max(difference, (ours.to(narrow).float() - values.to(narrow).float()).abs().max().item())
            compared += 1
        if name in source and source[name].shape == values.shape:
            want = source[name].float()
            errors[name] = ((values.float() - want).pow(2).mean() / want.pow(2).mean()).sqrt().item()
    if decoded == 0:
        failures.append("nothing quantized was found")
    if expected and compared == 0:
        failures.append(f"{beside} has none of the decoded tensors")
    if difference > 0:
        failures.append(f"decoded values differ by up to {difference}")
    line = f"{path}: {folder.kind()}, {decoded} matrices, {compared} compared, max difference {difference}"
    if errors:
        worst = max(errors, key=errors.get)
        line += f"; relative error {sum(errors.values()) / len(errors):.4f}, worst {errors[worst]:.4f} ({worst})"
        if not errors[worst] <= args.worst:
            failures.append(f"error of {worst} is above {args.worst}")
    if args.source and not errors:
        line += "; another model than the source"
    elif args.source and not args.no_load:
        cosine, reason = load(folder, args.source)
        line += f"; {reason}" if cosine is None else f"; logits' cosine {cosine:.5f}"
        if cosine is not None and not cosine >= args.cosine:
            failures.append(f"cosine {cosine}")
    print(line, flush=True)
    for failure in failures:
        print(f"  FAILED: {failure}", flush=True)
    return not failures


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folders", nargs="+")
    p.add_argument("--expected")
    p.add_argument("--source")
    p.add_argument("--worst", type=float, default=float("inf"))
    p.add_argument("--cosine", type=float, default=-1.0)
    p.add_argument("--no-load", action="store_true")
    args = p.parse_args()
    good = [check(f.rstrip("/"), args) for f in args.folders]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()

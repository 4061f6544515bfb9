"""Writes golden/quantized/ct-*: the source model as compressed-tensors compresses it.

Scales are the library's calculate_qparams of the plain minimum and maximum of each group (what llm-compressor's
`memoryless_minmax` observer gives for round-to-nearest), in the dtype of the weights, bf16; codes are the library's. Activation
scales that are static get a fixed value. `ct-int3-g32-v0.9.4` has its words packed by that version's own function.

usage: quantized_compressed_tensors.py OLD_DIR [NAME ...]     OLD_DIR: `pip install --no-deps --target OLD_DIR compressed-tensors==0.9.4`
Needs compressed-tensors 0.20.0.
"""
import ast
import json
import math
import os
import sys
import tempfile
from typing import Literal, Union

import numpy as np
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme, apply_quantization_config
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

from quantized_common import LAYER, LINEARS, linears, model, source, write_folder

INPUT_SCALE = 0.03125


def weights(**args):
    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(dynamic=False, **args))


def preset(name, **weight_args):
    scheme = preset_name_to_scheme(name, ["Linear"])
    if scheme.input_activations and scheme.input_activations.strategy == "group":
        scheme.input_activations.group_size = 32  # 128 in the preset, more than these rows have
    for key, value in weight_args.items():
        setattr(scheme.weights, key, value)
    return scheme


def group(bits, symmetric=True, size=32):
    return weights(num_bits=bits, type="int", symmetric=symmetric, strategy="group", group_size=size)


LAYOUTS = {
    "ct-int4-g32": lambda: [group(4)],
    "ct-int4-g32-asym": lambda: [group(4, symmetric=False)],
    "ct-int4-channel-asym": lambda: [weights(num_bits=4, type="int", symmetric=False, strategy="channel")],
    "ct-int8-channel": lambda: [weights(num_bits=8, type="int", symmetric=True, strategy="channel")],
    "ct-int3-g32": lambda: [group(3)],
    "ct-int3-g32-asym": lambda: [group(3, symmetric=False)],
    "ct-int3-g32-v0.9.4": lambda: [group(3)],
    "ct-w8a8": lambda: [preset("W8A8")],
    "ct-fp8-tensor": lambda: [preset("FP8")],
    "ct-fp8-channel": lambda: [preset("FP8_DYNAMIC")],
    "ct-fp8-block": lambda: [preset("FP8_BLOCK", block_structure=[64, 32])],
    "ct-fp8-naive": lambda: [weights(num_bits=8, type="float", symmetric=True, strategy="channel")],
    "ct-nvfp4a16": lambda: [preset("NVFP4A16")],
    "ct-nvfp4": lambda: [preset("NVFP4")],
    "ct-mxfp4a16": lambda: [preset("MXFP4A16")],
    "ct-mxfp8a16": lambda: [preset("MXFP8A16")],
    # Two groups of different formats: `mixed-precision`.
    "ct-mixed": lambda: [
        QuantizationScheme(targets=["re:.*self_attn.*_proj$"], weights=preset("FP8_DYNAMIC").weights,
                           input_activations=preset("FP8_DYNAMIC").input_activations),
        QuantizationScheme(targets=["re:.*mlp.*_proj$"], weights=group(4).weights),
    ],
}


def ranges(x, args):
    """Minimum and maximum with the shape that scales of this strategy have."""
    rows, columns = x.shape
    if args.strategy == "tensor":
        return x.min().reshape(1), x.max().reshape(1)
    if args.strategy == "channel":
        return x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    if args.strategy == "block":
        high, wide = args.block_structure
        x = torch.nn.functional.pad(x, (0, -columns % wide, 0, -rows % high))
        x = x.unflatten(0, (-1, high)).unflatten(2, (-1, wide))
        return x.amin((1, 3)), x.amax((1, 3))
    x = x.unflatten(1, (-1, args.group_size))
    return x.amin(2), x.amax(2)


def set_scales(module):
    args = module.quantization_scheme.weights
    w = module.weight.data
    low, high = ranges(w, args)
    common = None
    if args.strategy == "tensor_group":
        common = generate_gparam(w.min(), w.max())
        module.weight_global_scale.data.copy_(common)
        if hasattr(module, "input_global_scale"):
            module.input_global_scale.data.fill_(448 * 6 / 4.0)
    scale, zero = calculate_qparams(low, high, args, global_scale=common)
    assert module.weight_scale.shape == scale.shape, (module.weight_scale.shape, scale.shape)
    module.weight_scale.data = scale.to(module.weight_scale.dtype)
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data.copy_(zero)
    if hasattr(module, "input_scale"):
        module.input_scale.data.fill_(INPUT_SCALE)


def old_packing(folder):
    """pack_to_int32 and unpack_from_int32 as compressed-tensors 0.9.4 has them, without importing that package."""
    path = os.path.join(folder, "compressed_tensors/compressors/quantized_compressors/pack_quantized.py")
    with open(path, encoding="utf-8") as f:
        tree = ast.parse(f.read())
    tree.body = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in ("pack_to_int32", "unpack_from_int32")]
    space = {"torch": torch, "np": np, "math": math, "Union": Union, "Literal": Literal}
    exec(compile(tree, path, "exec"), space)
    return space["pack_to_int32"], space["unpack_from_int32"]


def compress(name, schemes, old):
    m = model()
    groups = {f"group_{i}": s for i, s in enumerate(schemes)}
    apply_quantization_config(m, QuantizationConfig(config_groups=groups, ignore=["lm_head"], quantization_status="initialized"))
    modules = dict(m.named_modules())
    for n in LINEARS:
        set_scales(modules[n])
    compressor = ModelCompressor.from_pretrained_model(m)
    compressor.compress_model(m)
    tensors = {n: t.clone() for n, t in m.state_dict().items() if n != "lm_head.weight"}
    with tempfile.TemporaryDirectory() as folder:
        compressor.update_config(folder)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
            config = json.load(f)["quantization_config"]
    compressor.decompress_model(m)
    expected = {n: modules[n].weight.data.clone() for n in LINEARS}
    if name.endswith("-v0.9.4"):
        repack(tensors, schemes[0].weights.num_bits, *old_packing(old))
        config["version"] = "0.9.4"
    write_folder(name, tensors, config, expected)


def repack(tensors, bits, pack, unpack):
    """From 0.20's dense words to those of 0.9.4."""
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32 as dense
    for n in LINEARS:
        shape = torch.Size(tensors[n + ".weight_shape"].tolist())
        codes = dense(tensors[n + ".weight_packed"], bits, shape).to(torch.int8)
        tensors[n + ".weight_packed"] = pack(codes, bits)
        assert torch.equal(unpack(tensors[n + ".weight_packed"], bits, shape), codes)


def main():
    old, *names = sys.argv[1:]
    for name, schemes in LAYOUTS.items():
        if not names or name in names:
            compress(name, schemes(), old)


if __name__ == "__main__":
    main()

"""Writes golden/quantized/modelopt-*: the source model as NVIDIA's ModelOpt quantizes it (on the CPU) and exports it.

Activation scales come from one forward of fixed tokens. Values: NVFP4QTensor and MXFP4QTensor, and for fp8 weight * scale,
which is what ModelOpt's reader of its own checkpoints computes. Folders hold hf_quant_config.json as well, as exports do.

usage: quantized_modelopt.py              needs nvidia-modelopt 0.47.0, omegaconf, pulp
"""
import copy
import json
import os
import shutil
import tempfile

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.qtensor import MXFP4QTensor, NVFP4QTensor
from safetensors.torch import load_file

from quantized_common import LINEARS, linears, model, write_folder

LAYOUTS = {"modelopt-nvfp4": "NVFP4_DEFAULT_CFG", "modelopt-fp8": "FP8_DEFAULT_CFG", "modelopt-mxfp4": "MXFP4_DEFAULT_CFG"}


def decoded(tensors, name, shape):
    w, scale = tensors[name + ".weight"], tensors[name + ".weight_scale"]
    if w.dtype == torch.float8_e4m3fn:
        return w.float() * scale
    if name + ".weight_scale_2" in tensors:
        q = NVFP4QTensor(shape, torch.float32, w)
        return q.dequantize(torch.float32, scale=scale, double_scale=tensors[name + ".weight_scale_2"], block_sizes={-1: 16})
    return MXFP4QTensor(shape, torch.float32, w).dequantize(torch.float32, scale=scale, block_sizes={-1: 32})


def main():
    for name, settings in LAYOUTS.items():
        m = mtq.quantize(model(), copy.deepcopy(getattr(mtq, settings)), lambda m: m(torch.arange(3, 60)[None]))
        with tempfile.TemporaryDirectory() as out:
            export_hf_checkpoint(m, export_dir=out)
            tensors = load_file(os.path.join(out, "model.safetensors"))
            with open(os.path.join(out, "config.json"), encoding="utf-8") as f:
                config = json.load(f)["quantization_config"]
            shapes = {n: w.shape for n, w in linears().items()}
            folder = write_folder(name, tensors, config, {n: decoded(tensors, n, shapes[n]) for n in LINEARS})
            shutil.copy(os.path.join(out, "hf_quant_config.json"), folder)


if __name__ == "__main__":
    main()

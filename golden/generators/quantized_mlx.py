"""Writes golden/quantized/mlx-*: the source model as mlx_lm.convert quantizes it, on mlx's CPU backend.

Values are decoded with scales and biases widened to float32, so that they are q * scale + bias without bf16's roundings (which
mlx does after each of the two operations). The embedding is quantized too, as mlx_lm does.

usage: quantized_mlx.py [NAME ...]        needs mlx 0.32.4 (with mlx-cpu), mlx-lm 0.32.2
"""
import json
import os
import sys
import tempfile

import mlx.core as mx
import mlx_lm
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from quantized_common import LINEARS, SOURCE, write_folder

LAYOUTS = {
    **{f"mlx-{bits}bit-g32": dict(q_bits=bits, q_group_size=32) for bits in (2, 3, 4, 5, 6, 8)},
    "mlx-mxfp4": dict(q_mode="mxfp4", q_bits=4, q_group_size=32),
    "mlx-nvfp4": dict(q_mode="nvfp4", q_bits=4, q_group_size=16),
    "mlx-mxfp8": dict(q_mode="mxfp8", q_bits=8, q_group_size=32),
    # Another width for some layers, and one left alone: what mixed recipes write.
    "mlx-mixed": dict(q_bits=4, q_group_size=32, quant_predicate=lambda path, module: (
        False if path.endswith("o_proj") else {"bits": 6, "group_size": 32} if path.endswith(("down_proj", "embed_tokens")) else True)),
}


def main():
    names = sys.argv[1:]
    for name, settings in LAYOUTS.items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out")
            mlx_lm.convert(SOURCE, out, quantize=True, dtype="bfloat16", **settings)
            tensors = load_file(os.path.join(out, "model.safetensors"))
            with safe_open(os.path.join(out, "model.safetensors"), "pt") as f:
                metadata = f.metadata()
            weights = mx.load(os.path.join(out, "model.safetensors"))
            with open(os.path.join(out, "config.json"), encoding="utf-8") as f:
                config = json.load(f)
        quantization = config["quantization"]
        expected = {}
        for n in LINEARS + ["model.embed_tokens"]:
            if n + ".scales" not in weights:
                continue
            own = quantization.get(n, quantization)
            parts = [weights[f"{n}.{p}"] for p in ("scales", "biases") if f"{n}.{p}" in weights]
            parts = [p if p.dtype == mx.uint8 else p.astype(mx.float32) for p in parts]
            values = mx.dequantize(weights[n + ".weight"], *parts, group_size=own["group_size"], bits=own["bits"],
                                   mode=own.get("mode", "affine"), dtype=mx.float32)
            expected[n] = torch.from_numpy(np.array(values))
        # The products of few bits are exact in bf16; those of the affine mode are not.
        if settings.get("q_mode"):
            assert all(torch.equal(v, v.bfloat16().float()) for v in expected.values())
            expected = {n: v.bfloat16() for n, v in expected.items()}
        write_folder(name, tensors, config["quantization_config"], expected, metadata, quantization=quantization)


if __name__ == "__main__":
    main()

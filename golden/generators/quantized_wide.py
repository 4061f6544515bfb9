"""Writes golden/quantized/modelopt-nvfp4-wide and ct-nvfp4a16-wide: NVFP4 with rows of 64 columns and more.

GGUF's NVFP4 has blocks of 64, so llama.cpp repacks no narrower rows; these folders are for its converter alone and hold no
decoded values. Weights are random and not kept; configs are those of modelopt-nvfp4 and ct-nvfp4a16, which are made first.

usage: quantized_wide.py                  needs what quantized_modelopt.py and quantized_compressed_tensors.py need
"""
import json
import os
import shutil

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from modelopt.torch.quantization.qtensor import NVFP4QTensor

from quantized_common import LAYER, ROOT, VOCAB, random, write_folder

HIDDEN, INTERMEDIATE = 64, 128
SHAPES = {
    "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (128, 64), "mlp.up_proj": (128, 64), "mlp.down_proj": (64, 128),
}
SIZES = dict(hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_attention_heads=4, num_key_value_heads=2)


def modelopt(n, w):
    q, scale, common = NVFP4QTensor.quantize(w, 16)
    return {"weight": q._quantized_data, "weight_scale": scale, "weight_scale_2": common.reshape(()),
            "input_scale": torch.tensor(0.0015)}


def compressed_tensors(n, w, scheme):
    common = generate_gparam(w.min(), w.max())
    groups = w.unflatten(1, (-1, 16))
    scale, _ = calculate_qparams(groups.amin(2), groups.amax(2), scheme.weights, global_scale=common)
    compressor = BaseCompressor.get_value_from_registry("nvfp4-pack-quantized")
    return compressor.compress({"weight": w, "weight_scale": scale.to(w.dtype), "weight_global_scale": common}, scheme)


def write(name, like, parts):
    with open(os.path.join(ROOT, like, "config.json"), encoding="utf-8") as f:
        method = json.load(f)["quantization_config"]
    tensors = {"model.embed_tokens.weight": random("wide.embed", (VOCAB, HIDDEN))}
    for n in ("model.norm", LAYER + "input_layernorm", LAYER + "post_attention_layernorm"):
        tensors[n + ".weight"] = random("wide." + n, (HIDDEN,))
    for n, shape in SHAPES.items():
        tensors |= {f"{LAYER}{n}.{k}": v for k, v in parts(n, random("wide." + n, shape), method).items()}
    folder = write_folder(name, tensors, method, {}, **SIZES)
    os.remove(os.path.join(folder, "expected.safetensors"))
    return folder


def main():
    folder = write("modelopt-nvfp4-wide", "modelopt-nvfp4", lambda n, w, method: modelopt(n, w))
    shutil.copy(os.path.join(ROOT, "modelopt-nvfp4", "hf_quant_config.json"), folder)
    write("ct-nvfp4a16-wide", "ct-nvfp4a16", lambda n, w, method: compressed_tensors(
        n, w, QuantizationScheme.model_validate(method["config_groups"]["group_0"])))


if __name__ == "__main__":
    main()

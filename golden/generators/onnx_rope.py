"""Inverse frequencies and attention factors that transformers computes from configurations in its old and new forms.

usage: onnx_rope.py [GOLDEN_DIR]      writes onnx/rope.json
"""
import json
import os
import sys

import torch
import transformers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA3 = dict(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
YARN = dict(factor=4.0, original_max_position_embeddings=32768)
# name: size of heads, and what config.json says
CASES = {
    "default of old configurations": (64, dict(rope_theta=10000.0, rope_scaling=None)),
    "default": (128, dict(rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "nothing said": (8, dict()),
    "linear, type under its oldest name": (80, dict(rope_theta=10000.0, rope_scaling=dict(type="linear", factor=2.5))),
    "linear": (128, dict(rope_parameters=dict(rope_type="linear", rope_theta=5000.0, factor=8.0))),
    "llama3 of old configurations": (64, dict(rope_theta=500000.0, rope_scaling=dict(LLAMA3, rope_type="llama3"))),
    "llama3": (128, dict(rope_parameters=dict(LLAMA3, rope_type="llama3", rope_theta=500000.0, factor=8.0))),
    "llama3 of a short context": (16, dict(rope_parameters=dict(
        LLAMA3, rope_type="llama3", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16))),
    "yarn of old configurations": (128, dict(rope_theta=1e6, rope_scaling=dict(YARN, type="yarn"))),
    "yarn": (64, dict(rope_parameters=dict(YARN, rope_type="yarn", rope_theta=10000.0, original_max_position_embeddings=2048))),
    "yarn, attention factor": (128, dict(rope_parameters=dict(YARN, rope_type="yarn", rope_theta=1e6, attention_factor=0.75))),
    "yarn, mscale": (64, dict(rope_parameters=dict(YARN, rope_type="yarn", rope_theta=10000.0, factor=40.0, mscale=0.7,
                                                   mscale_all_dim=1.2, beta_fast=16, beta_slow=2))),
    "yarn, not truncated": (64, dict(rope_parameters=dict(YARN, rope_type="yarn", rope_theta=10000.0, truncate=False))),
    "yarn, length beside the settings": (64, dict(rope_theta=10000.0, original_max_position_embeddings=4096,
                                                  rope_scaling=dict(rope_type="yarn", factor=16.0))),
}


def main():
    golden = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    rows = []
    for name, (dim, said) in CASES.items():
        given = json.loads(json.dumps(said))  # transformers changes what it is given
        config = transformers.LlamaConfig(head_dim=dim, max_position_embeddings=65536, **given)
        rope = LlamaRotaryEmbedding(config)
        assert rope.inv_freq.dtype == torch.float32
        rows.append({"name": name, "head_dim": dim, "config": said | {"max_position_embeddings": 65536},
                     "inverse": rope.inv_freq.tolist(), "factor": float(rope.attention_scaling)})
    with open(os.path.join(golden, "onnx", "rope.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()

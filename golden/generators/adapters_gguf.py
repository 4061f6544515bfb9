#!/usr/bin/env python3
"""LoRA adapters for the committed models, and the GGUF adapters that llama.cpp's converter makes of them.

    python adapters_gguf.py LLAMA_CPP

Writes golden/adapters-gguf/MODEL/lora (PEFT's layout; random factors) and reference-TYPE.gguf. LLAMA_CPP is the
source folder, of the version in golden/README.md (the sdist of llama-cpp-python 0.3.36).

Made with: torch 2.15.0, safetensors 0.8.0, Python 3.11.
"""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parent.parent
OUT = GOLDEN / "adapters-gguf"
MODELS = {
    # model: (rank, alpha, ends of the modules' names)
    "tiny-llama": (4, 6, ("_proj", "embed_tokens")),
    "mixtral-4x": (2, 5, ("q_proj", "k_proj", "w1", "w2", "w3")),
    "gemma2": (2, 3, ("q_proj", "down_proj")),
    "qwen3": (2, 3, ("q_proj", "k_proj", "o_proj")),
}


def main(llama_cpp):
    shutil.rmtree(OUT, ignore_errors=True)
    for model, (rank, alpha, ends) in MODELS.items():
        base, folder = GOLDEN / "models" / model, OUT / model / "lora"
        folder.mkdir(parents=True)
        torch.manual_seed(1)
        tensors = {}
        for file in sorted(base.glob("*.safetensors")):
            with safe_open(file, "pt") as f:
                for key in f.keys():
                    module = key.removesuffix(".weight")
                    if not module.endswith(ends):
                        continue
                    rows, columns = f.get_slice(key).get_shape()
                    name = f"base_model.model.{module}"
                    if module.endswith("embed_tokens"):
                        tensors[f"{name}.lora_embedding_A"] = torch.randn(rank, rows) * 0.02
                        tensors[f"{name}.lora_embedding_B"] = torch.randn(columns, rank) * 0.02
                    else:
                        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, columns) * 0.02
                        tensors[f"{name}.lora_B.weight"] = torch.randn(rows, rank) * 0.02
        assert tensors, model
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "fan_in_fan_out": False,
                  "target_modules": sorted({n.split(".lora_")[0].rsplit(".", 1)[1] for n in tensors})}
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        for dtype in ("f32", "f16"):
            out = OUT / model / f"reference-{dtype}.gguf"
            subprocess.run([sys.executable, Path(llama_cpp) / "convert_lora_to_gguf.py", "--base", base, "--outtype", dtype,
                            "--outfile", out, folder], check=True, capture_output=True)
            print(out.relative_to(GOLDEN), out.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1])

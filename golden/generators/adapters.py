#!/usr/bin/env python3
"""Adapters that PEFT made on a tiny model, and the weights after PEFT merged them, for the tests of adapters.

    python adapters.py

Writes golden/adapters/: `base-DTYPE.safetensors`, and per case a folder as save_pretrained writes it, with
`merged.safetensors` beside it (merge_and_unload, only the tensors that changed) and the base's name in `base.txt`.

Made with: peft 0.21.2, torch 2.15.0, safetensors 0.8.0, Python 3.11, on one thread.
"""
import shutil
import warnings
from pathlib import Path

import peft
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

warnings.simplefilter("ignore")
torch.set_num_threads(1)
OUT = Path(__file__).resolve().parent.parent / "adapters"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(40, 24)
        self.k_proj = nn.Linear(40, 24, bias=False)
        self.fc = Conv1D(24, 40)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(50, 40)
        self.layers = nn.ModuleList([Block(), Block()])
        self.conv = nn.Conv2d(6, 10, 3)
        self.point = nn.Conv2d(6, 10, 1)
        self.line = nn.Conv1d(6, 10, 3)
        self.lm_head = nn.Linear(40, 50, bias=False)

    def forward(self, x):
        return x


def tiny(dtype):
    torch.manual_seed(7)
    return Tiny().to(dtype)


LINEAR = ["q_proj", "k_proj"]
CASES = {
    # name: (base's dtype, adapter's dtype, options)
    "plain": ("f32", "f32", dict(r=4, lora_alpha=8, target_modules=LINEAR)),
    "plain-bf16": ("bf16", "f32", dict(r=4, lora_alpha=7, target_modules=LINEAR)),
    "half": ("bf16", "bf16", dict(r=8, lora_alpha=5, target_modules=LINEAR)),
    "half-f16": ("f16", "f16", dict(r=8, lora_alpha=5, target_modules=LINEAR)),
    "rslora": ("bf16", "f32", dict(r=6, lora_alpha=8, use_rslora=True, target_modules=LINEAR)),
    "patterns": ("f32", "f32", dict(
        r=4, lora_alpha=8, target_modules=LINEAR, rank_pattern={"layers.1.q_proj": 2, "k_proj": 3},
        alpha_pattern={r"layers\.0\..*": 3})),
    "dora": ("f32", "f32", dict(r=4, lora_alpha=8, use_dora=True, target_modules=LINEAR)),
    "dora-conv": ("f32", "f32", dict(r=4, lora_alpha=8, use_dora=True, target_modules=["conv"])),
    "dora-bf16": ("bf16", "f32", dict(r=4, lora_alpha=8, use_dora=True, target_modules=LINEAR)),
    "fan": ("f32", "f32", dict(r=4, lora_alpha=8, fan_in_fan_out=True, target_modules=["fc"])),
    "embedding": ("bf16", "f32", dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "q_proj"])),
    "conv": ("f32", "f32", dict(r=4, lora_alpha=8, target_modules=["conv", "point", "line"])),
    "modules": ("bf16", "bf16", dict(r=4, lora_alpha=8, target_modules=LINEAR, modules_to_save=["lm_head"])),
    "bias-all": ("f32", "f32", dict(r=4, lora_alpha=8, bias="all", target_modules=["q_proj"])),
    "bias-only": ("f32", "f32", dict(r=4, lora_alpha=8, bias="lora_only", target_modules=["q_proj"])),
    "lora-bias": ("bf16", "f32", dict(r=4, lora_alpha=6, lora_bias=True, target_modules=["q_proj"])),
    "layers": ("f32", "f32", dict(
        r=4, lora_alpha=8, target_modules=r".*\.(q|k)_proj", layers_to_transform=None, exclude_modules=r".*1\.k_proj")),
    "wide": ("f32", "f32", dict(r=64, lora_alpha=8, target_modules=LINEAR)),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for name in DTYPES:
        save_file(dict(tiny(DTYPES[name]).state_dict()), OUT / f"base-{name}.safetensors")
    for name, (base, dtype, options) in CASES.items():
        model = tiny(DTYPES[base])
        before = {k: v.clone() for k, v in model.state_dict().items()}
        adapted = get_peft_model(model, LoraConfig(**options), autocast_adapter_dtype=False)
        torch.manual_seed(sum(name.encode()))
        for key, p in adapted.named_parameters():
            trained = "lora_" in key or "modules_to_save" in key or (
                key.endswith(".bias") and options.get("bias", "none") != "none" and (
                    options["bias"] == "all" or "q_proj" in key))
            if trained:
                with torch.no_grad():
                    near = p.float() if "magnitude" in key else 0
                    p.copy_(near + torch.randn(p.shape) * (0.3 if "lora_" in key else 0.05))
            if "lora_" in key:
                p.data = p.data.to(DTYPES[dtype])
        folder = OUT / name
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        merged = adapted.merge_and_unload()
        after = merged.state_dict()
        assert sorted(after) == sorted(before), name
        changed = {k: v.contiguous() for k, v in after.items() if not torch.equal(v, before[k])}
        assert changed, name
        save_file(changed, folder / "merged.safetensors")
        (folder / "base.txt").write_text(f"base-{base}.safetensors\n")
        print(name, len(changed), sorted({str(v.dtype) for v in changed.values()}))


if __name__ == "__main__":
    print("peft", peft.__version__)
    main()

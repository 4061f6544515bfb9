#!/usr/bin/env python3
"""Adapters that LyCORIS makes for the base of golden/adapters, and the weights that it makes of them.

    python adapters_lycoris.py

Writes golden/adapters-lycoris/: per case a file as its trainer saves it, and NAME.merged.safetensors.

Made with: lycoris-lora 4.1.3 (toml 0.10.2, einops 0.8.2), torch 2.15.0, safetensors 0.8.0, Python 3.11, on one thread.
"""
import shutil
from pathlib import Path

import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import save_file

import adapters

torch.set_num_threads(1)
OUT = Path(__file__).resolve().parent.parent / "adapters-lycoris"
MODULES = ["layers.0.q_proj", "conv", "point"]
CASES = {
    "locon": (LoConModule, dict(lora_dim=4, alpha=3)),
    "locon-tucker": (LoConModule, dict(lora_dim=4, alpha=3, use_tucker=True)),
    "locon-dora": (LoConModule, dict(lora_dim=4, alpha=3, weight_decompose=True, wd_on_out=True)),
    "loha": (LohaModule, dict(lora_dim=4, alpha=3)),
    "loha-tucker": (LohaModule, dict(lora_dim=4, alpha=3, use_tucker=True)),
    "lokr": (LokrModule, dict(lora_dim=2, alpha=3, factor=2)),
    "lokr-tucker": (LokrModule, dict(lora_dim=2, alpha=3, factor=2, use_tucker=True, decompose_both=True)),
}


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for name, (kind, options) in CASES.items():
        model = adapters.tiny(torch.float32)
        tensors, merged = {}, {}
        torch.manual_seed(sum(name.encode()))
        for module in MODULES:
            layer = model.get_submodule(module)
            flat = "lora_unet_" + module.replace(".", "_")
            extra = kind(flat, layer, 1.0, **options)
            with torch.no_grad():
                for key, p in extra.named_parameters():
                    if "dora_scale" in key:
                        p.add_(torch.randn(p.shape) * 0.05)
                    elif "org" not in key:
                        p.copy_(torch.randn(p.shape) * 0.3)
            state = {k: v for k, v in extra.state_dict().items() if not k.startswith("org")}
            tensors.update({f"{flat}.{k}": v.clone().contiguous() for k, v in state.items()})
            if kind in (LohaModule, LokrModule):
                # As their forward has it: get_merged_weight scales twice, and forgets that a difference is flat.
                weight, bias = layer.weight + extra.get_weight(layer.weight.shape), None
            else:
                weight, bias = extra.get_merged_weight()[:2]
            merged[f"{module}.weight"] = weight.detach().reshape(layer.weight.shape).contiguous()
            if bias is not None and not torch.equal(bias, layer.bias):
                merged[f"{module}.bias"] = bias.detach().clone()
        save_file(tensors, OUT / f"{name}.safetensors")
        save_file(merged, OUT / f"{name}.merged.safetensors")
        print(name, sorted({k.split(".", 1)[1] for k in tensors}), len(merged))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Adapters that PEFT made on a tiny model, and the weights after PEFT merged them, for the tests of adapters.

    python adapters.py

Writes golden/adapters/: `base-DTYPE.safetensors`, and per case a folder as save_pretrained writes it, with
`merged.safetensors` beside it (merge_and_unload, only the tensors that changed) and the base's name in `base.txt`.

And golden/adapters-combined/: two adapters, and per method of add_weighted_adapter the weights that changed.

Made with: peft 0.21.2, torch 2.15.0, safetensors 0.8.0, Python 3.11, on one thread.
"""
import json
import shutil
import warnings
from pathlib import Path

import peft
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
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
        self.norm = nn.LayerNorm(40)


class Experts(nn.Module):
    """Weights of experts in one tensor, outputs first or (`is_transposed`) inputs first."""

    def __init__(self, transposed):
        super().__init__()
        self.is_transposed = transposed
        up, down = (3, 24, 40), (3, 40, 12)
        if transposed:
            up, down = (3, 40, 24), (3, 12, 40)
        self.gate_up_proj = nn.Parameter(torch.randn(up) * 0.1)
        self.down_proj = nn.Parameter(torch.randn(down) * 0.1)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(50, 40)
        self.layers = nn.ModuleList([Block(), Block()])
        self.conv = nn.Conv2d(6, 10, 3)
        self.point = nn.Conv2d(6, 10, 1)
        self.line = nn.Conv1d(6, 10, 3)
        self.lm_head = nn.Linear(40, 50, bias=False)
        self.experts = Experts(False)
        self.turned = Experts(True)

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
    "dora-fan": ("f32", "f32", dict(
        r=4, lora_alpha=8, use_dora=True, fan_in_fan_out=True, target_modules=["fc"])),
    "dora-embedding": ("f32", "f32", dict(r=4, lora_alpha=8, use_dora=True, target_modules=["embed_tokens"])),
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
    "experts": ("bf16", "f32", dict(
        r=4, lora_alpha=8, target_modules=[],
        target_parameters=["experts.gate_up_proj", "experts.down_proj", "turned.gate_up_proj", "turned.down_proj"])),
    "tokens": ("bf16", "f32", dict(
        r=4, lora_alpha=8, target_modules=LINEAR, trainable_token_indices={"embed_tokens": [3, 4, 17, 0]})),
    "wide": ("f32", "f32", dict(r=64, lora_alpha=8, target_modules=LINEAR)),
}
LYCORIS = ["q_proj", "k_proj", "conv", "point", "line"]
OTHERS = {
    # name: (base's dtype, adapter's dtype, configuration)
    "adalora": ("f32", "f32", AdaLoraConfig(
        init_r=6, target_r=4, lora_alpha=8, total_step=10, target_modules=LINEAR)),
    "adalora-bf16": ("bf16", "f32", AdaLoraConfig(
        init_r=6, target_r=4, lora_alpha=8, total_step=10, target_modules=["fc"], fan_in_fan_out=True)),
    "loha": ("f32", "f32", LoHaConfig(r=4, alpha=3, target_modules=LYCORIS)),
    "loha-bf16": ("bf16", "f32", LoHaConfig(
        r=4, alpha=3, target_modules=LINEAR, rank_pattern={"k_proj": 2}, alpha_pattern={"q_proj": 5})),
    "loha-core": ("f32", "f32", LoHaConfig(r=4, alpha=3, target_modules=LYCORIS, use_effective_conv2d=True)),
    "lokr": ("f32", "f32", LoKrConfig(r=2, alpha=3, target_modules=LYCORIS)),
    "lokr-both": ("bf16", "f32", LoKrConfig(r=1, alpha=3, target_modules=LINEAR, decompose_both=True)),
    "lokr-core": ("f32", "f32", LoKrConfig(
        r=2, alpha=3, target_modules=["conv", "point", "line"], use_effective_conv2d=True, decompose_factor=2)),
    "lokr-whole": ("f32", "f32", LoKrConfig(r=64, alpha=3, target_modules=LYCORIS, decompose_factor=4)),
    "ia3": ("bf16", "f32", IA3Config(target_modules=["q_proj", "k_proj", "conv"], feedforward_modules=["k_proj"])),
    "ia3-fan": ("f32", "f32", IA3Config(
        target_modules=["fc", "conv"], feedforward_modules=["conv"], fan_in_fan_out=True)),
    "vera": ("bf16", "f32", VeraConfig(r=8, target_modules=LINEAR)),
    "vera-fan": ("f32", "f32", VeraConfig(r=8, target_modules=["fc", "q_proj"][:1], fan_in_fan_out=True)),
    "oft": ("f32", "f32", OFTConfig(r=0, oft_block_size=8, target_modules=LINEAR, use_cayley_neumann=False)),
    "oft-neumann": ("bf16", "f32", OFTConfig(r=4, oft_block_size=0, target_modules=LINEAR)),
    "oft-coft": ("f32", "f32", OFTConfig(
        r=0, oft_block_size=8, target_modules=LINEAR, coft=True, eps=0.5, use_cayley_neumann=False)),
    "oft-share": ("f32", "f32", OFTConfig(
        r=0, oft_block_size=4, target_modules=["q_proj", "embed_tokens"], block_share=True)),
    "oft-conv": ("f32", "f32", OFTConfig(r=0, oft_block_size=6, target_modules=["conv"])),
    "boft": ("f32", "f32", BOFTConfig(boft_block_size=4, target_modules=LINEAR)),
    "boft-bf16": ("bf16", "f32", BOFTConfig(boft_block_num=5, boft_block_size=0, target_modules=LINEAR)),
    "boft-conv": ("f32", "f32", BOFTConfig(boft_block_size=6, target_modules=["conv"])),
    "boft-butterfly": ("f32", "f32", BOFTConfig(
        boft_block_size=4, target_modules=LINEAR, boft_n_butterfly_factor=2)),
    "norms": ("bf16", "f32", LNTuningConfig(target_modules=["norm"])),
    "only-tokens": ("bf16", "f32", TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[7, 3])),
}
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Words in the names of what an adapter trains.
TRAINED = ("lora_", "hada_", "lokr_", "ia3_", "oft_", "boft_", "vera_",
           "modules_to_save", "ln_tuning", "tokens_delta")


def butterflies():
    """Several butterfly factors need BOFT's CUDA extension; its one operation is a block diagonal."""
    from peft.tuners.boft import layer

    class Diagonal:
        @staticmethod
        def apply(blocks):
            return torch.stack([torch.block_diag(*b) for b in blocks])

    layer.get_fbd_cuda = lambda: True
    layer.FastBlockDiag = Diagonal


def tidy(folder):
    """Without the card, and with lists that PEFT keeps as sets in one order."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config = {k: sorted(v) if isinstance(v, list) and all(isinstance(x, str) for x in v) else v for k, v in config.items()}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


COMBINED = {
    # name: (method, weights, options); of the adapters combined/a and combined/b
    "linear": ("linear", [0.7, -0.4], {}),
    "cat": ("cat", [0.7, -0.4], {}),
    "ties": ("ties", [0.7, 0.4], dict(density=0.5)),
    "ties-frequency": ("ties", [0.7, 0.4], dict(density=0.4, majority_sign_method="frequency")),
    "magnitude_prune": ("magnitude_prune", [0.7, 0.4], dict(density=0.3)),
    "svd": ("svd", [0.7, 0.4], dict(svd_rank=3)),
    # Nothing is left to chance.
    "dare_linear": ("dare_linear", [0.7, 0.4], dict(density=1.0)),
    "dare_ties": ("dare_ties", [0.7, 0.4], dict(density=1.0)),
}


def combined():
    """Two adapters, one of them with a module more, and what PEFT's combinations of them make of the base."""
    out = OUT.parent / "adapters-combined"
    shutil.rmtree(out, ignore_errors=True)
    own = {"a": dict(r=4, lora_alpha=8, target_modules=LINEAR), "b": dict(r=4, lora_alpha=3, target_modules=["q_proj", "embed_tokens"])}
    for method, (how, weights, options) in COMBINED.items():
        model = tiny(torch.float32)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        adapted = get_peft_model(model, LoraConfig(**own["a"]), adapter_name="a")
        adapted.add_adapter("b", LoraConfig(**own["b"]))
        for name in own:
            torch.manual_seed(sum(name.encode()))
            for key, p in adapted.named_parameters():
                if f".{name}" in key and "lora_" in key:
                    with torch.no_grad():
                        p.copy_(torch.randn(p.shape) * 0.3)
        adapted.add_weighted_adapter(["a", "b"], weights, "mixed", combination_type=how, **options)
        if not out.exists():
            for name in own:
                adapted.save_pretrained(out, selected_adapters=[name])
                tidy(out / name)
            (out / "README.md").unlink(missing_ok=True)
        adapted.set_adapter("mixed")
        after = adapted.merge_and_unload(adapter_names=["mixed"]).state_dict()
        changed = {k: v.contiguous() for k, v in after.items() if not torch.equal(v, before[k])}
        save_file(changed, out / f"{method}.safetensors")
        print(method, len(changed))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for name in DTYPES:
        save_file(dict(tiny(DTYPES[name]).state_dict()), OUT / f"base-{name}.safetensors")
    every = [(name, base, dtype, LoraConfig(**options)) for name, (base, dtype, options) in CASES.items()]
    every += [(name, *case) for name, case in OTHERS.items()]
    for name, base, dtype, config in every:
        if name == "boft-butterfly":
            butterflies()
        model = tiny(DTYPES[base])
        before = {k: v.clone() for k, v in model.state_dict().items()}
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
        torch.manual_seed(sum(name.encode()))
        for key, p in adapted.named_parameters():
            bias = getattr(config, "bias", "none")
            trained = any(w in key for w in TRAINED) or (
                key.endswith(".bias") and bias in ("all", "lora_only") and (bias == "all" or "q_proj" in key))
            if trained:
                adds = "lora_" in key or "hada_" in key or "lokr_" in key
                with torch.no_grad():
                    near = 0 if adds and "magnitude" not in key else p.float()
                    p.copy_(near + torch.randn(p.shape) * (0.3 if adds else 0.05))
            if any(w in key for w in (*TRAINED[:7], "ranknum")):
                p.data = p.data.to(DTYPES[dtype])
        for key, b in adapted.named_buffers():
            if "vera_" in key:
                b.data = b.data.to(DTYPES[dtype])
        folder = OUT / name
        adapted.save_pretrained(folder)
        tidy(folder)
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
    combined()

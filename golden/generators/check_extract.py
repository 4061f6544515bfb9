#!/usr/bin/env python3
"""Loads adapters that `tensormill extract` made with PEFT, and compares PEFT's merge with the tuned model and with ours.

    python check_extract.py PATH/TO/tensormill [FOLDER]

For tiny models with random weights (tied and untied, with biases, GPT-2's Conv1D) it tunes a copy by a change of
rank 4 on every linear layer and by small changes of norms, biases and embeddings; extracts it; loads the adapter with
PeftModel.from_pretrained, merges it, and compares every parameter with the tuned model's. Then `tensormill convert
--adapter` merges the same adapter, and has to give the same. Also the error of the truncated change is compared with
numpy's exact decomposition. Made with torch 2.15.0, transformers 5.23.0, peft 0.21.2, numpy 2.4.6.
"""
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

TINY = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=160)
MODELS = {
    "llama": LlamaConfig(**TINY, tie_word_embeddings=False),
    "llama-bias": LlamaConfig(**TINY, tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
    "llama-tied": LlamaConfig(**TINY, tie_word_embeddings=True),
    "qwen2-tied": Qwen2Config(**TINY, tie_word_embeddings=True),
    "gpt2": GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=160, n_positions=32),
}
# Options, and how far merged parameters may be from the tuned ones, relative to the largest change.
CASES = [([], 1e-5), (["--embed-lora", "--rank", "64"], 1e-5), (["--energy", "0.999999"], 5e-3), (["--dtype", "bf16"], 2e-2)]


def run(mill, *args):
    done = subprocess.run([mill, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, f"{args}: {done.stderr}"
    return done.stdout


def tune(model):
    torch.manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and not any(w in name for w in ("embed", "wte", "wpe")):
                p += 0.05 * torch.randn(p.shape[0], 4) @ torch.randn(4, p.shape[1])
            elif p.ndim == 2:
                p += 0.02 * torch.randn_like(p)
            elif "layers.0.input" not in name and "ln_1.bias" not in name:
                p += 0.01 * torch.randn_like(p)


def main():
    mill = sys.argv[1]
    root = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    for name, config in MODELS.items():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim == 1:
                    p += 0.1 * torch.randn_like(p)
        base, tuned = root / name / "base", root / name / "tuned"
        model.save_pretrained(base)
        tune(model)
        model.save_pretrained(tuned)
        want = model.state_dict()
        for number, (options, bound) in enumerate(CASES):
            out = root / name / f"adapter-{number}"
            options = options if "--rank" in options else [*options, "--rank", 8]
            options = options if "--dtype" in options else [*options, "--dtype", "f32"]
            report = json.loads(run(mill, "extract", base, tuned, "-o", out, "--json", "--force", *options))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out)
            said = [str(w.message) for w in caught if "missing adapter keys" in str(w.message).lower() or "unexpected" in str(w.message)]
            assert not said, said
            merged = peft.merge_and_unload().state_dict()
            ours = root / name / f"merged-{number}"
            # Our merge knows the output of GPT-2, which no checkpoint names, by no name.
            unused = ["--allow-unused"] if name == "gpt2" else []
            run(mill, "convert", base, "-o", ours, "--to", "safetensors", "--adapter", out, "--force", *unused)
            stored = load_file(ours / "model.safetensors")
            before = AutoModelForCausalLM.from_pretrained(base).state_dict()
            worst = [0.0, 0.0]
            for key, value in want.items():
                size = max((value - before[key]).abs().max().item(), 1e-3)
                far = (merged[key] - value).abs().max().item() / size
                assert far <= bound, f"{name} {options} {key}: PEFT's merge is {far} of the change from the tuned model"
                worst[0] = max(worst[0], far)
                if key in stored:
                    far = (stored[key] - merged[key]).abs().max().item() / size
                    assert far <= 1e-5, f"{name} {options} {key}: our merge is {far} of the change from PEFT's"
                    worst[1] = max(worst[1], far)
            held = {t["name"]: t["rank"] for t in report["tensors"]}
            print(f"{name:12} {' '.join(map(str, options)):45} {len(held)} tensors, PEFT from tuned {worst[0]:.1e}, ours from PEFT's {worst[1]:.1e}")
    truncation(mill, root)


def truncation(mill, root):
    """The error of a rank against numpy's exact decomposition."""
    base, tuned = (load_file(root / "llama" / n / "model.safetensors") for n in ("base", "tuned"))
    report = json.loads(run(mill, "extract", root / "llama/base", root / "llama/tuned", "-o", root / "short", "--rank", 2, "--dtype", "f32", "--json", "--force"))
    for t in report["tensors"]:
        if t["held"] != "lora":
            continue
        s = np.linalg.svd((tuned[t["name"]] - base[t["name"]]).double().numpy(), compute_uv=False)
        best = np.sqrt((s[2:] ** 2).sum() / (s**2).sum())
        assert abs(t["relative_error"] / best - 1) < 1e-3, (t["name"], t["relative_error"], best)
        assert np.allclose(t["singular_values"], s[:2], rtol=1e-5)
    print("errors of rank 2 are those of numpy's exact decomposition within 0.1 %")


if __name__ == "__main__":
    main()

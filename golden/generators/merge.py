#!/usr/bin/env python3
"""Tiny models, merge recipes, and what mergekit makes of them, for the tests of merges.

    python merge.py

Writes golden/merge/: folders of models (`base`, `a`, `b`, and the same in bf16), recipes `NAME.yaml`, and per recipe
`NAME.json`: type, shape and sha256 of every merged tensor. Where bytes may differ (`NEAR`), `NAME.safetensors` has them.

Two things of mergekit are replaced, since they are not defined: `torch.argsort`, which orders equal magnitudes at TIES'
threshold as it pleases, is made stable; and `torch.bernoulli`, whose numbers depend on everything drawn before, is
made the counter of crates/merge/src/random.rs (SEED, tensor's name, number of the model in the recipe, element).

Made with: mergekit 0.1.5 (pip install --no-deps mergekit==0.1.5 immutables==0.21), torch 2.15.0, transformers 5.23.0,
safetensors 0.8.0, numpy 2.4.6, pydantic 2.14.3, Python 3.11, on one thread of an x86-64 with AVX-512 or AVX2.
"""
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

import mergekit.merge_methods.generalized_task_arithmetic as gta
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

torch.set_num_threads(1)
OUT = Path(__file__).resolve().parent.parent / "merge"
SEED = 7
HIDDEN, INNER, LAYERS, VOCAB, HEADS, KV = 32, 24, 3, 16, 4, 1
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV, "vocab_size": VOCAB,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def shapes():
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for i in range(LAYERS):
        kv = HIDDEN // HEADS * KV
        for name, shape in [
            ("input_layernorm", (HIDDEN,)), ("mlp.down_proj", (HIDDEN, INNER)), ("mlp.gate_proj", (INNER, HIDDEN)),
            ("mlp.up_proj", (INNER, HIDDEN)), ("post_attention_layernorm", (HIDDEN,)),
            ("self_attn.k_proj", (kv, HIDDEN)), ("self_attn.o_proj", (HIDDEN, HIDDEN)),
            ("self_attn.q_proj", (HIDDEN, HIDDEN)), ("self_attn.v_proj", (kv, HIDDEN)),
        ]:
            yield f"model.layers.{i}.{name}.weight", shape
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCAB, HIDDEN)


def models():
    torch.manual_seed(11)
    base = {n: torch.randn(s) * 0.05 + (1 if "norm" in n else 0) for n, s in shapes()}
    a = {n: t + torch.randn(t.shape) * 0.01 for n, t in base.items()}
    b = {n: t * 0.9 + torch.randn(t.shape) * 0.02 for n, t in base.items()}
    # What was not trained is the same: changes of zero, and many of them.
    b["model.layers.1.mlp.up_proj.weight"] = base["model.layers.1.mlp.up_proj.weight"].clone()
    b["model.layers.2.mlp.up_proj.weight"][:20] = base["model.layers.2.mlp.up_proj.weight"][:20]
    return {"base": base, "a": a, "b": b}


def both(method, *, weight=(0.6, 0.4), density=None, dtype=None, kind="", base="base", **parameters):
    """A recipe of two models and their base."""
    def of(i):
        p = {"weight": weight[i]}
        return p | ({"density": density[i]} if density else {})
    tree = {"merge_method": method, "base_model": base + kind,
            "models": [{"model": "a" + kind, "parameters": of(0)}, {"model": "b" + kind, "parameters": of(1)}]}
    if parameters:
        tree["parameters"] = {"lambda" if k == "lam" else k: v for k, v in parameters.items()}
    return tree | ({"dtype": dtype} if dtype else {})


def linear(*entries, **more):
    return {"merge_method": "linear",
            "models": [{"model": m, "parameters": {"weight": w}} for m, w in entries], **more}


def slerp(t, kind="", other="a", **more):
    sources = [{"model": "base" + kind, "layer_range": [0, LAYERS]}, {"model": other + kind, "layer_range": [0, LAYERS]}]
    return {"merge_method": "slerp", "base_model": "base" + kind, "slices": [{"sources": sources}],
            "parameters": {"t": t}, **more}


ARC = [{"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]}, {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
       {"value": 0.45}]
STACK = [
    {"sources": [{"model": "a-bf16", "layer_range": [0, 2]}]},
    {"sources": [{"model": "b-bf16", "layer_range": [1, 3],
                  "parameters": {"scale": [{"filter": "o_proj", "value": 0.5}, {"filter": "down_proj", "value": [0.3, 0.7]}]}}]},
    {"sources": [{"model": "a-bf16", "layer_range": [2, 3]}]},
]
TWO = [
    {"sources": [{"model": "base", "layer_range": [0, 1]}, {"model": "a", "layer_range": [0, 1]}],
     "parameters": {"weight": 0.5}},
    {"sources": [{"model": "b", "layer_range": [1, 3], "parameters": {"density": [0.2, 0.9]}},
                 {"model": "base", "layer_range": [0, 2]}], "parameters": {"weight": [{"filter": "mlp", "value": 0.3},
                                                                                       {"value": [1, 0.2]}]}},
]
CASES = {
    "linear": linear(("base", 0.3), ("a", 0.5), ("b", [0.1, 0.9])),
    "linear-bf16": linear(("a-bf16", [{"filter": "mlp", "value": [0.2, 1.1]}, {"value": 0.7}]), ("b-bf16", -0.4),
                          parameters={"normalize": False}),
    "linear-f16": linear(("a", 1), ("b", 2), ("base", 4), dtype="float16"),
    "linear-mixed": linear(("a", 0.25), ("b-bf16", 0.5)),
    "linear-out": linear(("a", 0.25), ("b", 0.5), dtype="float32", out_dtype="bfloat16"),
    "slerp": slerp(ARC, other="b"),
    "slerp-bf16": slerp(ARC, "-bf16", "b"),
    "slerp-straight": slerp(0.37, "", "a", dtype="bfloat16"),
    "task": both("task_arithmetic", weight=(0.7, [0.2, 0.9]), lam=1.3),
    "task-bf16": both("task_arithmetic", kind="-bf16", normalize=True),
    "ties": both("ties", density=(0.5, [0.9, 0.1, 0.4]), int8_mask=True),
    "ties-bf16": both("ties", kind="-bf16", density=(0.3, [{"filter": "mlp", "value": 0.7}, {"value": 0.45}])),
    "ties-f16": both("ties", dtype="float16", density=(0.2, 0.6), normalize=False, lam=0.7),
    "ties-rescale": both("ties", density=(0.3, 0.6), rescale=True),
    "ties-rescale-bf16": both("ties", kind="-bf16", density=(0.3, 0.6), rescale=True),
    "ties-slices": {"merge_method": "ties", "base_model": "base", "slices": TWO, "dtype": "bfloat16"},
    "dare-linear-all": both("dare_linear", density=(1.0, 1.0)),
    "dare-ties-all": both("dare_ties", kind="-bf16", density=(1.0, 1.0)),
    "dare-linear": both("dare_linear", density=(0.5, 0.3)),
    "dare-linear-bf16": both("dare_linear", kind="-bf16", density=(0.5, 0.3), lam=0.9),
    "dare-linear-f16": both("dare_linear", dtype="float16", density=(0.5, 0.9)),
    "dare-ties": both("dare_ties", density=(0.8, 0.2), normalize=True, rescale=False),
    "dare-ties-bf16": both("dare_ties", kind="-bf16", density=(0.8, [0.2, 1.0])),
    "passthrough": {"merge_method": "passthrough", "slices": STACK},
    "passthrough-f16": {"merge_method": "passthrough", "models": [{"model": "a"}], "dtype": "float16"},
}
# Norms, products and angles are summed in other precision here: coefficients can differ in their last places.
NEAR = {"slerp", "ties-rescale", "dare-linear"}

STEP = np.uint64(0x9E3779B97F4A7C15)


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def counter_mask(name, model, shape, density):
    with np.errstate(over="ignore"):
        h = 0xCBF29CE484222325
        for byte in name.encode():
            h = (h ^ byte) * 0x100000001B3 & (2**64 - 1)
        key = mix(mix(mix(np.uint64(SEED) + STEP) ^ np.uint64(h)) + np.uint64(model) * STEP)
        counts = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        bits = mix(key + counts * STEP) >> np.uint64(32)
    return torch.from_numpy((bits < np.uint64(round(density * 2**32))).reshape(tuple(shape)))


QUEUE = []


def order(tree):
    """Models in the order in which the recipe names them, the base first."""
    names = [tree["base_model"]] if "base_model" in tree else []
    parts = tree.get("models") or [s for e in tree["slices"] for s in e["sources"]]
    return list(dict.fromkeys(names + [p["model"] for p in parts]))


def replace(tree):
    numbers = order(tree)
    whole = gta.GeneralizedTaskArithmeticMerge.__dict__["merge_group"]
    whole = getattr(whole, "whole", whole)

    def merge_group(self, group, /, **parameters):
        QUEUE.clear()
        for entry in group.non_base:
            density = parameters["density"][entry.id]
            if density < 1:
                QUEUE.append((group.metadata.name, numbers.index(str(entry.id)), density))
        return whole(self, group, **parameters)

    merge_group.whole = whole
    gta.GeneralizedTaskArithmeticMerge.merge_group = merge_group


def bernoulli(p):
    name, model, density = QUEUE.pop(0)
    return counter_mask(name, model, p.shape, density).to(p.dtype)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    os.chdir(OUT)
    for name, tensors in models().items():
        for suffix, dtype in (("", torch.float32), ("-bf16", torch.bfloat16)):
            folder = OUT / (name + suffix)
            folder.mkdir()
            config = CONFIG | {"torch_dtype": str(dtype).removeprefix("torch.")}
            (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
            save_file({n: t.to(dtype) for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    argsort = torch.argsort
    torch.argsort = lambda *args, **kwargs: argsort(*args, **(kwargs | {"stable": True}))
    torch.bernoulli = bernoulli
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    for name, tree in CASES.items():
        (OUT / f"{name}.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        replace(tree)
        with tempfile.TemporaryDirectory() as folder:
            run_merge(MergeConfiguration.model_validate(yaml.safe_load((OUT / f"{name}.yaml").read_text())), folder, options)
            merged = {}
            for file in Path(folder).glob("*.safetensors"):
                merged |= load_file(file)
            layers = json.loads((Path(folder) / "config.json").read_text())["num_hidden_layers"]
        digest = lambda t: hashlib.sha256(t.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        table = {n: [str(t.dtype).removeprefix("torch."), list(t.shape), digest(t)] for n, t in sorted(merged.items())}
        (OUT / f"{name}.json").write_text(json.dumps({"layers": layers, "tensors": table}).replace('"], "', '"],\n"') + "\n")
        if name in NEAR:
            save_file(merged, OUT / f"{name}.safetensors")
        print(name, len(merged), layers, sorted({v[0] for v in table.values()}))


if __name__ == "__main__":
    main()

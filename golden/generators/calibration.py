"""Writes calibration files (docs/calibration.md): what the inputs of a model's linear layers are like.

usage: calibration.py synthetic MODEL_FOLDER OUT.safetensors [--samples N] [--seed N] [--no-hessian]
       calibration.py run MODEL_FOLDER OUT.safetensors --text FILE [--samples N] [--length N] [--no-hessian]

`synthetic` makes inputs up, of which some columns are large and many are correlated, as those of language models are; it needs
numpy and safetensors. `run` runs the model (transformers, CPU) over a text and looks at the inputs of its linear layers by
hooks. Layers that see one input are stored once.
"""
import argparse
import json
import os

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file


class Inputs:
    """What is known of the inputs of one layer; samples are rows."""

    def __init__(self, columns, hessian):
        self.count = 0
        self.square = np.zeros(columns)
        self.magnitude = np.zeros(columns)
        self.hessian = np.zeros((columns, columns)) if hessian else None

    def add(self, x):
        x = x.astype(np.float64)
        self.count += len(x)
        self.square += (x * x).sum(0)
        self.magnitude += np.abs(x).sum(0)
        if self.hessian is not None:
            self.hessian += x.T @ x

    def tensors(self, module):
        means = {"mean_square": self.square, "mean_abs": self.magnitude, "hessian": self.hessian}
        n = max(self.count, 1)
        return {f"{module}.{name}": (x / n).astype(np.float32) for name, x in means.items() if x is not None}


def linear_layers(folder):
    """Names of modules within the blocks, and how many columns their weights have."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            with safe_open(os.path.join(folder, name), "np") as f:
                for key in f.keys():
                    shape = f.get_slice(key).get_shape()
                    if key.endswith("_proj.weight") and len(shape) == 2:
                        found[key.removesuffix(".weight")] = shape[1]
    return dict(sorted(found.items()))


def leader(module):
    """The module under whose name the statistics of an input are stored."""
    parent, _, last = module.rpartition(".")
    first = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}.get(last, last)
    return f"{parent}.{first}"


def synthetic(args):
    modules = linear_layers(args.model)
    inputs = {}
    for i, (module, columns) in enumerate(modules.items()):
        if leader(module) in modules and leader(module) != module:
            continue
        random = np.random.default_rng([args.seed, i])
        mixed = random.standard_normal((args.samples, columns // 8 + 1)) @ random.standard_normal((columns // 8 + 1, columns))
        x = (random.standard_normal((args.samples, columns)) + 0.5 * mixed) * np.exp(random.standard_normal(columns))
        inputs[module] = Inputs(columns, not args.no_hessian)
        inputs[module].add(x)
    return modules, inputs, args.samples, f"synthetic, seed {args.seed}"


def run(args):
    import torch
    import transformers

    modules = linear_layers(args.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    with open(args.text, encoding="utf-8") as f:
        ids = tokenizer(f.read(), return_tensors="pt").input_ids[0]
    inputs = {}

    def hook(module_name):
        def look(_, arguments):
            x = arguments[0].detach().reshape(-1, arguments[0].shape[-1]).numpy()
            inputs[module_name].add(x)
        return look

    for name, module in model.named_modules():
        if name in modules and (leader(name) == name or leader(name) not in modules):
            inputs[name] = Inputs(module.in_features, not args.no_hessian)
            module.register_forward_pre_hook(hook(name))
    pieces = ids.split(args.length)[: args.samples]
    with torch.inference_mode():
        for piece in pieces:
            model(piece[None])
    return modules, inputs, sum(len(p) for p in pieces), os.path.basename(args.text)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    for name, make in (("synthetic", synthetic), ("run", run)):
        command = commands.add_parser(name)
        command.set_defaults(make=make)
        command.add_argument("model")
        command.add_argument("out")
        command.add_argument("--no-hessian", action="store_true")
        command.add_argument("--samples", type=int, default=512 if make is synthetic else 128)
        if make is synthetic:
            command.add_argument("--seed", type=int, default=0)
        else:
            command.add_argument("--text", required=True)
            command.add_argument("--length", type=int, default=512)
    args = parser.parse_args()
    modules, inputs, samples, dataset = args.make(args)
    tensors = {}
    for module, known in inputs.items():
        tensors |= known.tensors(module)
    metadata = {m: leader(m) for m in modules if m not in inputs}
    metadata |= {"format": "tensormill.calibration", "version": "1", "samples": str(samples), "dataset": dataset}
    save_file(tensors, args.out, metadata=metadata)
    print(json.dumps({"layers": len(modules), "inputs": len(inputs), "samples": samples}))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Checkpoints that DeepSpeed leaves, tiny, with what its own zero_to_fp32 makes of each when it merges them.

    DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed==0.19.8
    python training_deepspeed.py [--check]

Writes golden/training/deepspeed/ and golden/training/deepspeed.json beside this script's folder (with --check: compares
hashes of merged tensors instead of writing). Two processes on one machine, on the CPU, talk through gloo; stages 1 to 3
are merged by zero_to_fp32, stage 0 is not divided and is taken as it was saved.

Made with: deepspeed 0.19.8, torch 2.15.0, transformers 5.23.0, Python 3.11.
"""
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["DS_ACCELERATOR"] = "cpu"

import torch
import torch.multiprocessing as mp
from torch import nn

from training import OUT, config_json, entry, llama


class Small(nn.Module):
    """Odd sizes, two names for one weight, a frozen weight, buffers of both kinds."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.up = nn.Linear(5, 7)
        self.frozen = nn.Linear(7, 3, bias=False)
        self.frozen.weight.requires_grad = False
        self.down = nn.Linear(3, 5)
        self.head = nn.Linear(5, 11, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.randn(()).reshape(1))
        self.register_buffer("steps", torch.tensor([3, 1, 4], dtype=torch.int64))
        self.register_buffer("mean", torch.randn(5))
        self.register_buffer("narrow", torch.randn(3).to(torch.bfloat16))
        self.register_buffer("wide", torch.randn(3, dtype=torch.float64))

    def forward(self, x):
        x = self.embed(x) + self.mean
        # Whatever is cast to bfloat16 differs from stage to stage.
        for layer in (self.up, self.frozen, self.down, self.head):
            x = layer(x.to(layer.weight.dtype))
        return x * self.scale


def groups(m):
    """Two parameter groups, as decay and no decay."""
    trained = [p for p in m.parameters() if p.requires_grad]
    return [{"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}]


# name, stage, bf16, model
CASES = [("zero0", 0, True), ("zero1", 1, True), ("zero2", 2, False), ("zero3", 3, True), ("trainer", 2, True)]


def work(rank, number, world, root, port):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world),
                   "LOCAL_RANK": str(rank), "LOCAL_SIZE": str(world), "CROSS_RANK": "0", "CROSS_SIZE": "1"}
    torch.set_num_threads(1)
    import deepspeed
    import deepspeed.comm.torch
    # It would be compiled here; gloo does as well.
    deepspeed.comm.torch.build_shm_op = lambda: None
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    name, stage, bf16 = CASES[number]
    torch.manual_seed(200 + number)
    folder = Path(root) / name
    if name == "trainer":
        m, config = llama()
        if rank == 0:
            config_json(config, folder)
        o = torch.optim.SGD(m.parameters(), lr=1e-3)
        run = lambda e: e(input_ids=torch.arange(6)[None]).logits
    else:
        m = Small()
        o = torch.optim.AdamW(groups(m), lr=1e-3)
        run = lambda e: e(torch.arange(4))
    config = {"train_batch_size": world, "zero_optimization": {"stage": stage}, "bf16": {"enabled": bf16},
              "zero_allow_untested_optimizer": True}
    if stage == 3:
        config["zero_optimization"]["sub_group_size"] = 40
    e, *_ = deepspeed.initialize(model=m, optimizer=o, config=config)
    e.backward(run(e).float().pow(2).mean())
    e.step()
    e.save_checkpoint(str(folder), tag="global_step1")


def merged(folder, stage):
    if stage == 0:
        state = torch.load(folder / "global_step1" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    else:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
        state = get_fp32_state_dict_from_zero_checkpoint(str(folder))
    return [entry(name, t) for name, t in sorted(state.items())]


def main():
    root = Path(tempfile.mkdtemp())
    manifest = {}
    for number, (name, stage, _) in enumerate(CASES):
        mp.spawn(work, (number, 2, str(root), 29750 + number), nprocs=2)
        manifest[f"deepspeed/{name}"] = merged(root / name, stage)
        for script in ("zero_to_fp32.py", "zero_to_torch.py"):
            (root / name / script).unlink(missing_ok=True)
    if "--check" in sys.argv:
        known = json.loads((OUT / "deepspeed.json").read_text())
        bad = [k for k in known | manifest if known.get(k) != manifest.get(k)]
        sys.exit(f"differs: {bad}" if bad else 0)
    shutil.rmtree(OUT / "deepspeed", ignore_errors=True)
    shutil.copytree(root, OUT / "deepspeed")
    lines = [f'  {json.dumps(k)}: [\n' + ",\n".join(f"    {json.dumps(e)}" for e in v) + "\n  ]" for k, v in manifest.items()]
    (OUT / "deepspeed.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()

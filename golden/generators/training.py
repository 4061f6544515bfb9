#!/usr/bin/env python3
"""Checkpoints that training with torch.distributed leaves, tiny, with what torch makes of each when it merges them.

    python training.py [--check]

Writes golden/training/{dcp,ranks}/ and golden/training/torch.json beside this script's folder (with --check: compares
hashes of merged tensors instead of writing). `dcp/` holds folders of torch.distributed.checkpoint, merged by its
dcp_to_torch_save; `ranks/` holds one torch.save per rank, merged by DTensor.full_tensor and ShardedTensor.gather. Several
processes on one machine, on the CPU, talk through gloo.

Made with: torch 2.15.0, transformers 5.23.0, Python 3.11. Merged tensors are deterministic; files hold random ids.
"""
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, StateDictType, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

OUT = Path(__file__).resolve().parent.parent / "training"
NAMES = {
    torch.bool: "bool", torch.uint8: "u8", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32",
    torch.int64: "i64", torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64",
    torch.float8_e4m3fn: "f8_e4m3",
}


def entry(name, t):
    t = t.detach().cpu().contiguous()
    data = t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""
    return [name, NAMES[t.dtype], list(t.shape), hashlib.sha256(data).hexdigest()]


def flatten(v, path=()):
    """Paths of tensors, and of everything else."""
    if isinstance(v, (dict, list, tuple)):
        for k, x in v.items() if isinstance(v, dict) else enumerate(v):
            yield from flatten(x, (*path, str(k)))
    else:
        yield ".".join(path), v


def entries(value):
    return [entry(name, t) for name, t in sorted(flatten(value)) if isinstance(t, torch.Tensor)]


class Small(nn.Module):
    """Sizes that no number of ranks divides; two names for one weight."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.up = nn.Linear(6, 7)
        self.down = nn.Linear(7, 6, bias=False).to(torch.bfloat16)
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.tensor([3, 1, 4], dtype=torch.int64))

    def forward(self, x):
        x = self.up(self.embed(x))
        x = self.down(x.to(torch.bfloat16)).float()
        return self.head(x) * self.norm(x[..., :2]).sum()


class Pair(nn.Module):
    """What tensor parallelism divides by rows and by columns."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.down(self.up(x)))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(
        vocab_size=384, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, max_position_embeddings=64, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, dtype="bfloat16",
    )
    config.architectures = ["LlamaForCausalLM"]
    return LlamaForCausalLM(config).to(torch.bfloat16), config


def config_json(config, folder):
    folder.mkdir(parents=True, exist_ok=True)
    text = {k: v for k, v in config.to_dict().items() if k != "transformers_version"}
    (folder / "config.json").write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")


# ---- DCP. Every function runs in every process, in the folder that it writes to.

def dcp_fsdp2(rank, world):
    """FSDP2 on three ranks, some of which get nothing; an optimizer; values that are no tensors."""
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("dp",))
    m = Small()
    for layer in (m.up, m.down, m.norm):
        fully_shard(layer, mesh=mesh)
    fully_shard(m, mesh=mesh)
    o = torch.optim.SGD(m.up.parameters(), lr=1e-3, momentum=0.9)
    m(torch.arange(4)).sum().backward()
    o.step()
    state = {"model": get_model_state_dict(m), "optim": get_optimizer_state_dict(m, o), "step": 3,
             "note": "a text"}
    dcp.save(state, checkpoint_id=".")


def dcp_mesh2d(rank, world):
    """FSDP2 and tensor parallelism on a mesh of 2 x 2; tensors at the root."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    m = Pair()
    parallelize_module(m, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    fully_shard(m, mesh=mesh["dp"])
    dcp.save(get_model_state_dict(m), checkpoint_id=".")


def dcp_plain(rank, world):
    """One process: types, shapes, containers and views."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "model": {
            "bf16": torch.randn(3, 5).to(torch.bfloat16), "f16": torch.randn(2, 2, 2).half(), "f64": torch.randn(3).double(),
            "f8": torch.randn(4, 4).to(torch.float8_e4m3fn), "bool": torch.tensor([True, False, True]),
            "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "view": base.t(), "slice": base[1:3, 2:5],
            "i8": torch.arange(-3, 3, dtype=torch.int8),
        },
        "list": [torch.ones(2), {"a.b": torch.zeros(3)}], "lr": 0.5,
    }
    dcp.save(state, checkpoint_id=".", no_dist=True)


def dcp_trainer(rank, world):
    """As accelerate saves with SHARDED_STATE_DICT: beside config.json, and everything under "model"."""
    mesh = init_device_mesh("cpu", (world,))
    m, config = llama()
    for layer in m.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(m, mesh=mesh)
    dcp.save({"model": get_model_state_dict(m)}, checkpoint_id="pytorch_model_fsdp_0")
    if rank == 0:
        config_json(config, Path("."))


def fsdp1():
    """FSDP of torch 1.11 and later: its state dicts hold ShardedTensors."""
    m = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    m = FullyShardedDataParallel(m, device_id=torch.device("cpu"), sharding_strategy=ShardingStrategy.FULL_SHARD)
    FullyShardedDataParallel.set_state_dict_type(m, StateDictType.SHARDED_STATE_DICT)
    return m


def dcp_fsdp1(rank, world):
    dcp.save({"model": fsdp1().state_dict()}, checkpoint_id=".")


# ---- one file per rank: each function gives the state dict of its rank and what it merges to.

def whole(t):
    if isinstance(t, DTensor):
        return t.full_tensor()
    if hasattr(t, "local_shards"):
        out = torch.empty(t.size(), dtype=t.dtype) if dist.get_rank() == 0 else None
        t.gather(0, out)
        return out
    return t


def ranks_mesh2d(rank, world):
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    m = Pair()
    parallelize_module(m, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    fully_shard(m, mesh=mesh["dp"])
    state = dict(get_model_state_dict(m))
    t = torch.randn(5, 7)
    state["both"] = distribute_tensor(t, mesh, [Shard(0), Shard(1)])
    state["turned"] = distribute_tensor(t, mesh, [Shard(1), Shard(0)])
    state["columns"] = distribute_tensor(t.bfloat16(), mesh, [Replicate(), Shard(1)])
    state["twice"] = distribute_tensor(torch.randn(9, 2), mesh, [Shard(0), Shard(0)])
    state["whole"] = distribute_tensor(t, mesh, [Replicate(), Replicate()])
    state["sub"] = distribute_tensor(torch.randn(3, 2), mesh["tp"], [Shard(0)])
    state["few"] = distribute_tensor(torch.randn(1, 3), mesh, [Shard(0), Shard(1)])
    state["plain"] = torch.arange(3)
    return state, "model_world_size_4_rank_{}.pt"


def ranks_verl(rank, world):
    """As verl saves an actor: the configuration is in a folder of its own."""
    mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("fsdp",))
    m, config = llama()
    fully_shard(m.model.layers[0], mesh=mesh)
    fully_shard(m, mesh=mesh)
    if rank == 0:
        config_json(config, Path("huggingface"))
    torch.save({"step": rank}, f"extra_state_world_size_{world}_rank_{rank}.pt")
    return m.state_dict(), "model_world_size_2_rank_{}.pt"


def ranks_sharded(rank, world):
    return {"model": fsdp1().state_dict(), "epoch": 2}, "rank{}.pt"


def ranks_partial(rank, world):
    mesh = init_device_mesh("cpu", (world,))
    return {"w": DTensor.from_local(torch.ones(2, 3), mesh, [Partial()])}, "rank{}.pt"


CASES = [(dcp_fsdp2, 3), (dcp_mesh2d, 4), (dcp_plain, 1), (dcp_trainer, 2), (dcp_fsdp1, 2),
         (ranks_mesh2d, 4), (ranks_verl, 2), (ranks_sharded, 2), (ranks_partial, 2)]


def work(rank, number, world, root, port):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world),
                   "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    make = CASES[number][0]
    kind, name = make.__name__.split("_", 1)
    folder = Path(root) / kind / name
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.manual_seed(100 + number)
    made = make(rank, world)
    if made is not None:
        state, file = made
        # A view would take its whole storage along.
        torch.save(state, file.format(rank))
        if name != "partial":
            full = {n: whole(t) for n, t in flatten(state) if isinstance(t, torch.Tensor) or hasattr(t, "local_shards")}
            if rank == 0:
                (Path(root) / f"{kind}-{name}.json").write_text(json.dumps([entry(n, t) for n, t in full.items()]))
    dist.barrier()
    dist.destroy_process_group()


def merged(folder):
    """What dcp_to_torch_save makes of a folder."""
    with tempfile.NamedTemporaryFile(suffix=".pt") as f:
        dcp_to_torch_save(folder, f.name)
        return entries(torch.load(f.name, weights_only=False))


def main():
    root = Path(tempfile.mkdtemp())
    port = 29650
    manifest = {}
    for number, (make, world) in enumerate(CASES):
        mp.spawn(work, (number, world, str(root), port + number), nprocs=world)
        kind, name = make.__name__.split("_", 1)
        folder = root / kind / name
        if kind == "dcp":
            inner = folder / "pytorch_model_fsdp_0"
            manifest[f"{kind}/{name}"] = merged(inner if inner.is_dir() else folder)
        elif (root / f"{kind}-{name}.json").exists():
            manifest[f"{kind}/{name}"] = json.loads((root / f"{kind}-{name}.json").read_text())
    if "--check" in sys.argv:
        known = json.loads((OUT / "torch.json").read_text())
        bad = [k for k in known | manifest if known.get(k) != manifest.get(k)]
        sys.exit(f"differs: {bad}" if bad else 0)
    OUT.mkdir(exist_ok=True)
    for kind in ("dcp", "ranks"):
        shutil.rmtree(OUT / kind, ignore_errors=True)
        shutil.copytree(root / kind, OUT / kind)
    lines = [f'  {json.dumps(k)}: [\n' + ",\n".join(f"    {json.dumps(e)}" for e in v) + "\n  ]" for k, v in manifest.items()]
    (OUT / "torch.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()

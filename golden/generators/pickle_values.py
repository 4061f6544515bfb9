"""The values that pickles.py saves: every dtype, views, a training run's checkpoint, numpy arrays, modules."""
import argparse

import numpy as np
import torch


class NotOurs:
    """A class that nobody but its pickle knows; tensors inside cannot be had."""

    def __init__(self, **kw):
        self.__dict__.update(kw)


NotOurs.__module__ = "somewhere.else"


def ramp(dtype, *shape):
    n = 1
    for d in shape:
        n *= d
    return (torch.arange(n) - n // 3).to(dtype).reshape(shape)


def as_dtype(dtype, n):
    """Arbitrary bits."""
    unit = torch.empty(0, dtype=dtype).element_size()
    data = torch.arange(n * unit, dtype=torch.int64).mul(37).add(11).remainder(251).to(torch.uint8)
    return torch.empty((0,), dtype=dtype).set_(data.untyped_storage(), 0, (n,), (1,))


def dtypes():
    plain = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
             torch.float32, torch.float64, torch.complex64, torch.uint16, torch.uint32, torch.uint64,
             torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
             torch.float8_e8m0fnu, torch.float4_e2m1fn_x2, torch.bits8, torch.bits16, torch.bits1x8, torch.bits2x4,
             torch.bits4x2]
    d = {str(t).removeprefix("torch."): as_dtype(t, 6) for t in plain}
    d["bool"] = torch.tensor([[True, False], [False, True]])
    return d


def typed(tensors):
    """Those of dtypes that have a class of storages."""
    return {k: t for k, t in tensors.items() if t.dtype in torch.storage._dtype_to_storage_type_map()}


def views():
    base = ramp(torch.float32, 24, 10)
    cube = ramp(torch.int16, 4, 5, 6)
    shared = torch.nn.Parameter(ramp(torch.bfloat16, 8, 3))
    return {
        "base": base,
        "transposed": base.t(),
        "rows": base[5:9],
        "overlap": base[7:12],
        "columns": base[:, 2:5],
        "steps": base[1::3, ::4],
        "same": base.view(24, 10),
        "row": base[3],
        "scalar": base[2, 7],
        "expanded": base[:1].expand(3, 10),
        "diagonal": base.diagonal(),
        "windows": base.reshape(-1)[:40].as_strided((5, 6), (3, 2)),
        "reshaped": base.view(12, 20),
        "permuted": cube.permute(2, 0, 1),
        "channels_last": ramp(torch.float16, 2, 3, 4, 5).to(memory_format=torch.channels_last),
        "tied.one": shared,
        "tied.two": shared,
        "tied.three": shared.data,
        "empty": torch.zeros(0, 7),
        "zero_d": torch.tensor(2.5, dtype=torch.float64),
        "complex_view": torch.view_as_complex(ramp(torch.float32, 6, 2))[::2],
        "f8_view": as_dtype(torch.float8_e5m2, 30).view(5, 6).t(),
        "ones": torch.ones(1, 1, 3).transpose(0, 1),
    }


def model():
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 6, bias=False))


def nested():
    net = model()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net(torch.ones(3, 6)).sum().backward()
    opt.step()
    return {
        "epoch": 3,
        "loss": 0.25,
        "name": "gr\u00fc\u00df dich",
        "flag": True,
        "nothing": None,
        "large": 2**64 - 1,
        "larger": 2**80,
        "raw": b"\x00\xff",
        "betas": (0.9, 0.999),
        "steps": [1, 2, 3],
        "words": ["a", "b"],
        "mixed": [1, "x", {"deep": 2.5}],
        "device": torch.device("cuda", 1),
        "dtype": torch.float16,
        "size": torch.Size([2, 3]),
        "args": argparse.Namespace(lr=0.1, tags=["x"]),
        "model": {"state_dict": net.state_dict(), "config": {"dim": 6}},
        "ema": [p.detach() * 2 for p in net.parameters()],
        "optimizer_state_dict": opt.state_dict(),
        "trainer": {"opt": opt.state_dict(), "scheduler": {"last": 1}},
        5: torch.tensor([5]),
    }


NESTED_METADATA = {
    "epoch": 3, "loss": 0.25, "name": "gr\u00fc\u00df dich", "flag": True, "large": 2**64 - 1, "betas": [0.9, 0.999],
    "steps": [1, 2, 3], "words": ["a", "b"], "mixed.0": 1, "mixed.1": "x", "mixed.2.deep": 2.5, "size": [2, 3],
    "model.config.dim": 6, "trainer.scheduler.last": 1,
}
NESTED_LEFT_OUT = ["nothing", "larger", "device", "dtype", "args", "optimizer_state_dict", "trainer.opt"]


def arrays():
    a = np.arange(400, dtype=np.float32).reshape(20, 20)
    return {
        "c": a,
        "f": np.asfortranarray(np.arange(24, dtype=np.int64).reshape(2, 3, 4)),
        "big": np.arange(300, dtype=">f8").reshape(3, 100),
        "half": np.arange(6, dtype=np.float16),
        "flags": np.array([True, False, True]),
        "c64": np.array([1 + 2j, 3 - 1j], dtype=np.complex64),
        "u16": np.array([[1, 65535]], dtype=np.uint16),
        "none": np.zeros((0, 4), dtype=np.int8),
        "again": a,
        "scalar": np.float64(3.5),
        "count": np.int32(-7),
        "torch": torch.ones(2),
    }


def quantized():
    x = ramp(torch.float32, 6, 4)
    scales, zeros = torch.tensor([0.5, 0.25, 1.0, 2.0], dtype=torch.float64), torch.tensor([1, 2, 3, 4])
    return {
        "q8": torch.quantize_per_tensor(x, 0.5, 3, torch.qint8),
        "qu8": torch.quantize_per_channel(x, scales, zeros, 1, torch.quint8),
        "q32": torch.quantize_per_tensor(x, 0.125, 0, torch.qint32).t(),
    }


def attributed():
    t = ramp(torch.float32, 3, 2)
    t.note = "x"
    p = torch.nn.Parameter(ramp(torch.float32, 2, 2))
    p.tags = [1]
    b = torch.nn.Buffer(ramp(torch.int32, 4))
    return {"tensor": t, "parameter": p, "plain": torch.nn.Parameter(ramp(torch.float64, 2)), "buffer": b}


class Script(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.register_buffer("steps", torch.arange(3.0))
        self.sizes = [1, 2]
        self.extra = [torch.ones(2), torch.zeros(1, 2)]

    def forward(self, x):
        return self.fc(x) + self.extra[0]


class Traced(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x) * torch.tensor([1.5, 2.5])


def sharded():
    torch.manual_seed(11)
    first = {"embed.weight": torch.randn(10, 4), "layers.0.w": torch.randn(4, 4).bfloat16()}
    second = {"layers.1.w": torch.randn(4, 4).bfloat16(), "head.weight": torch.randn(10, 4)}
    second["head.tied"] = second["head.weight"].view(10, 4)
    files = {f"sharded/pytorch_model-0000{i + 1}-of-00002.bin": d for i, d in enumerate([first, second])}
    weights = {k: f.split("/")[1] for f, d in files.items() for k in d}
    index = {"metadata": {"total_size": 384}, "weight_map": weights}
    files["sharded/pytorch_model.bin.index.json"] = index
    return files


def written():
    """What the writer is to reproduce byte for byte, and from which tensors."""
    many = {f"t{i}": None for i in range(1000)}
    base = ramp(torch.float16, 2, 2)
    plain = {
        "a": ramp(torch.float32, 3, 2), "0": ramp(torch.int64, 4), "1": torch.tensor(True),
        "a.wide.name": ramp(torch.bfloat16, 2, 1, 3, 2, 2), "b": torch.zeros(0, 3), "\u00e9": ramp(torch.uint8, 300),
        "\u00e9\u2581": ramp(torch.float64, 70000 // 8), "c": ramp(torch.uint16, 5), "d": ramp(torch.uint32, 5),
        "f8": as_dtype(torch.float8_e4m3fn, 12), "f4": as_dtype(torch.float4_e2m1fn_x2, 12).view(3, 4),
        "e8": as_dtype(torch.float8_e8m0fnu, 3), "c64": as_dtype(torch.complex64, 2), "i8": ramp(torch.int8, 3),
    }
    plain["tied"] = plain["a"].view(3, 2)
    return {
        "written/plain.pt": plain,
        "written/one.pt": {"w": ramp(torch.int32, 3)},
        "written/none.pt": {},
        "written/many.pt": {k: base.view(2, 2) for k in many},
    }

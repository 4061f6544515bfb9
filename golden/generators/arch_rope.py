"""Writes golden/arch/rope/factors.json: Llama-3 rope factors as the peer computes them with torch.

usage: python arch_rope.py      (made with torch 2.15.0 on an x86-64 with AVX-512)

torch's float32 pow is not one function: its scalar path rounds correctly (glibc), its AVX2 and AVX-512 paths differ from
that and from each other in the last bit for some exponents. Each row says the settings, an FNV-1a hash of the factors on the
scalar path, and whether the three paths agree.
"""
import json, math, os, pathlib, subprocess, sys

SETTINGS = [(dim, base, factor, low, high, ctx)
            for dim in (32, 64, 80, 96, 128, 256) for base in (10000.0, 500000.0, 1000000.0)
            for factor, low, high, ctx in ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192), (4.0, 1.0, 2.0, 32768))]


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def factors(dim, base, factor, low, high, ctx):
    import torch
    freqs = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    out = []
    for freq in freqs:
        wavelen = 2 * math.pi / freq
        if wavelen < ctx / high:
            out.append(1)
        elif wavelen > ctx / low:
            out.append(factor)
        else:
            smooth = (ctx / wavelen - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(out, dtype=torch.float32).numpy().tobytes()


if sys.argv[1:] == ["one"]:
    print(json.dumps([fnv(factors(*s)) for s in SETTINGS]))
else:
    runs = [json.loads(subprocess.check_output([sys.executable, __file__, "one"], env={**os.environ, "ATEN_CPU_CAPABILITY": c}))
            for c in ("default", "avx2", "avx512")]
    rows = [json.dumps([*s, a, a == b == c]) for s, a, b, c in zip(SETTINGS, *runs)]
    path = pathlib.Path(__file__).resolve().parent.parent / "arch" / "rope" / "factors.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text("[\n" + ",\n".join(rows) + "]\n")

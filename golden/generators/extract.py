#!/usr/bin/env python3
"""Two tiny checkpoints, and what numpy's exact decomposition says of the change from one to the other.

    python extract.py            writes golden/extract

`expected.json` has for each weight the singular values of the change and, for some ranks, the Frobenius norm of what the best
approximation of that rank leaves, relative to the change. Made with numpy 2.4.6, safetensors 0.8.0.
"""
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

RANKS = [1, 2, 4, 8, 12]
WEIGHTS = {
    "model.layers.0.self_attn.q_proj": (48, 32, 1.0),
    "model.layers.0.mlp.up_proj": (64, 32, 0.5),
    "model.layers.0.mlp.down_proj": (32, 64, 2.0),
}


def main():
    folder = Path(__file__).resolve().parent.parent / "extract"
    random = np.random.default_rng(7)
    base, tuned, expected = {}, {}, {}
    for module, (rows, columns, power) in WEIGHTS.items():
        width = min(rows, columns)
        u, v = (np.linalg.qr(random.standard_normal((n, width)))[0] for n in (rows, columns))
        change = (u * np.arange(1, width + 1) ** -power) @ v.T
        name = f"{module}.weight"
        base[name] = (0.05 * random.standard_normal((rows, columns))).astype(np.float32)
        tuned[name] = (base[name] + change).astype(np.float32)
        exact = np.linalg.svd((tuned[name] - base[name]).astype(np.float64), compute_uv=False)
        energy = (exact**2).sum()
        errors = {str(r): float(np.sqrt((exact[r:] ** 2).sum() / energy)) for r in RANKS}
        expected[name] = {"singular_values": exact.tolist(), "errors": errors}
    for name, tensors in (("base", base), ("tuned", tuned)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()

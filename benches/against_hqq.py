"""Times the Python package `hqq` on one thread, and prints how many times faster this project is.

    python benches/against_hqq.py GB_PER_S [SIZE]

GB_PER_S is what `cargo run --release -p tensormill-kernels --example group_speed -- hqq-int4-g64` prints for the machine's
highest level. Needs torch and the source distribution of hqq 0.2.8.post1, unpacked; HQQ names its folder. Both quantize
Gaussian weights of deviation 0.02 in groups of 64 to 4 bits, axis 1, with the package's defaults. The time is that of the
processor, the shortest of three.
"""

import os
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden/generators"))
from group_kernels import hqq_package  # noqa: E402


def main():
    ours = float(sys.argv[1])
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 2048
    torch.set_num_threads(1)
    torch.manual_seed(0)
    w = 0.02 * torch.randn(size, size)
    quantize = hqq_package(os.environ["HQQ"])["Quantizer"].quantize
    shortest = float("inf")
    for _ in range(3):
        start = time.process_time()
        quantize(w, nbits=4, group_size=64, axis=1, bitpack=False, device="cpu")
        shortest = min(shortest, time.process_time() - start)
    theirs = w.numel() * 4 / shortest / 1e9
    print(f"hqq {size}x{size}: {shortest:.3f} s, {theirs:.4f} GB/s of f32 on one thread; here {ours} GB/s: {ours / theirs:.1f} times")


if __name__ == "__main__":
    main()

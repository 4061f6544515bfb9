"""Error feedback by GPTQModel itself: writes golden/groups/feedback.bin.

usage: group_feedback.py [GOLDEN_DIR]

Made with gptqmodel 7.7.0 (its class GPTQ, on CPU) and torch 2.15.0.

The file: u32 rows, columns, samples; i8 inputs [samples, columns], of which the Hessian is the mean of x x^T; f32 weights
[rows, columns]; u32 cases, and for each u32 bits, symmetric, group (0: the row), in order of activity; f32 scales
[rows, groups], f32 zero points [rows, groups], u8 codes [rows, columns].
"""
import os
import struct
import sys

import torch

ROWS, COLUMNS, SAMPLES, DAMP = 9, 160, 48, 0.05
CASES = [
    (4, True, 32, False), (4, True, 32, True), (4, False, 32, False), (4, True, 128, False), (3, False, 32, True),
    (8, True, 0, False), (2, False, 32, False), (8, False, 32, True),
]


def solve(weights, hessian, bits, symmetric, group, by_activity):
    from gptqmodel.quantization.config import GPTQConfig
    from gptqmodel.quantization.gptq import GPTQ

    class Given(GPTQ):
        def finalize_hessian(self, target_device=None):
            self.H = hessian.clone()
            return self.H

    layer = torch.nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    layer.weight.data = weights.clone()
    config = GPTQConfig(bits=bits, group_size=group or -1, sym=symmetric, desc_act=by_activity, act_group_aware=False,
                        static_groups=by_activity, damp_percent=DAMP, fallback=None)
    task = Given(layer, config)
    task.quantizer.configure(perchannel=True)
    task.nsamples = SAMPLES
    values, scale, zero, *_ = task.quantize(blocksize=128)
    groups = torch.arange(weights.shape[1]) // (group or weights.shape[1])
    codes = torch.round(values.float() / scale[:, groups] + zero[:, groups])
    assert torch.equal((codes - zero[:, groups]) * scale[:, groups], values.float()) and codes.min() >= 0 and codes.max() < 2**bits
    return scale.float(), zero.float().expand(scale.shape), codes.to(torch.uint8)


def main():
    golden = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    torch.manual_seed(9)
    torch.set_num_threads(1)
    shared = torch.randn(SAMPLES, 8) @ torch.randn(8, COLUMNS)
    inputs = (torch.randn(SAMPLES, COLUMNS) + shared) * torch.rand(COLUMNS).mul(3).exp()
    inputs = inputs.round().clamp(-127, 127).to(torch.int8)
    x = inputs.double()
    hessian = (x.T @ x / SAMPLES).float()
    weights = torch.randn(ROWS, COLUMNS) * 0.05
    out = struct.pack("<3I", ROWS, COLUMNS, SAMPLES) + inputs.numpy().tobytes() + weights.numpy().tobytes()
    out += struct.pack("<I", len(CASES))
    for case in CASES:
        scale, zero, codes = solve(weights, hessian, *case)
        out += struct.pack("<4I", *map(int, case))
        out += b"".join(t.contiguous().numpy().tobytes() for t in (scale, zero, codes))
    with open(os.path.join(golden, "groups", "feedback.bin"), "wb") as f:
        f.write(out)


if __name__ == "__main__":
    main()

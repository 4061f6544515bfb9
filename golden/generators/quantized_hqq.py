"""Writes golden/quantized/hqq-*: the source model's matrices as HQQLinear keeps them in a state dict for safetensors.

Each setting is a tensor of its own beside W_q. Values are (W_q - zero) * scale in float32, without the roundings to bf16 that the
package's own compute dtype brings. `hqq-int4-g32-plain` has `optimize` off, so its codes are plain rounding; the others are the
package's half-quadratic search on the CPU in float32.

usage: quantized_hqq.py                   needs hqq 0.2.8.post1
"""
import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer

from quantized_common import linears, rest, write_folder

LAYOUTS = {
    "hqq-int4-g32": dict(nbits=4, group_size=32, axis=1),
    "hqq-int4-g32-plain": dict(nbits=4, group_size=32, axis=1),
    "hqq-int4-g32-axis0": dict(nbits=4, group_size=32, axis=0),
    "hqq-int3-g32": dict(nbits=3, group_size=32, axis=1),
    "hqq-int2-g32": dict(nbits=2, group_size=32, axis=1),
    "hqq-int8-g32": dict(nbits=8, group_size=32, axis=1),
}


def main():
    for name, settings in LAYOUTS.items():
        config = BaseQuantizeConfig(**settings)
        config["weight_quant_params"]["optimize"] = not name.endswith("-plain")
        tensors, expected = rest(), {}
        for n, w in linears().items():
            linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
            linear.weight.data = w
            q = HQQLinear(linear, config, compute_dtype=torch.bfloat16, device="cpu", initialize=True, del_orig=False)
            q.encoded_state_dict = True
            tensors |= {f"{n}.{key}": value for key, value in q.state_dict().items()}
            meta = q.meta | {k: q.meta[k].float() for k in ("scale", "zero")} | {"compute_dtype": torch.float32}
            expected[n] = Quantizer.dequantize(q.W_q, meta)
        document = {"quant_config": config, "quant_method": "hqq", "skip_modules": ["lm_head"]}
        write_folder(name, tensors, document, expected)


if __name__ == "__main__":
    main()

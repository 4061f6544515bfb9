"""Writes golden/quantized/bnb-*: the source model as transformers and bitsandbytes load it quantized on the CPU and save it.

Values are those of the package's portable `_dequantize_4bit_compute`, whose blocks run through the flattened weight as
those of its quantizer and of its CUDA kernels do. The C++ kernel that it prefers on a CPU starts a block at each row, and so
decodes wrongly what it quantized itself where rows are not whole blocks (here 32 and 96 columns for blocks of 64).

usage: quantized_bitsandbytes.py          needs bitsandbytes 0.50.2, transformers
"""
import json
import os
import tempfile

import bitsandbytes as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from quantized_common import LINEARS, SOURCE, write_folder

FOUR = dict(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
LAYOUTS = {
    "bnb-nf4": dict(**FOUR, bnb_4bit_quant_type="nf4"),
    "bnb-nf4-double": dict(**FOUR, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "bnb-fp4": dict(**FOUR, bnb_4bit_quant_type="fp4"),
    # Codes stored as bf16 words, as FSDP training wants them.
    "bnb-nf4-storage-bf16": dict(**FOUR, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=torch.bfloat16),
    "bnb-int8": dict(load_in_8bit=True),
}


def portable(packed, state):
    absmax = state.absmax
    if state.nested:
        absmax = bnb.functional.dequantize_blockwise(absmax, state.state2) + state.offset
    codes = packed.reshape(-1).view(torch.uint8)
    return _dequantize_4bit_compute(codes, absmax.float(), state.code, state.blocksize, state.shape, state.dtype)


def decoded(module):
    if isinstance(module, bnb.nn.Linear4bit):
        state = module.weight.quant_state
        values = portable(module.weight.data, state)
        if state.shape[1] % state.blocksize == 0:
            assert torch.equal(values, bnb.functional.dequantize_4bit(module.weight.data, state))
        return values
    scale = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
    return bnb.functional.int8_vectorwise_dequant(module.weight.data, scale)


def main():
    for name, settings in LAYOUTS.items():
        m = AutoModelForCausalLM.from_pretrained(
            SOURCE, dtype=torch.bfloat16, device_map="cpu", quantization_config=BitsAndBytesConfig(**settings))
        modules = dict(m.named_modules())
        expected = {n: decoded(modules[n]) for n in LINEARS}
        with tempfile.TemporaryDirectory() as folder:
            m.save_pretrained(folder)
            tensors = load_file(os.path.join(folder, "model.safetensors"))
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
                config = json.load(f)["quantization_config"]
        write_folder(name, tensors, config, expected)


if __name__ == "__main__":
    main()

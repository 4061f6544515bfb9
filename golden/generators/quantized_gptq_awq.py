"""Writes golden/quantized/gptq-* and awq-*: the source model in the layouts of GPTQModel and AutoAWQ, by round-to-nearest.

GPTQ: scales and zeros are GPTQModel's Quantizer on the float32 weights of each group, which it then decodes again; of these values
`pack_original` finds the codes (as RTN.quantize and WeightOnlyProcessor do), zeros are stored as checkpoint format v1 (minus one) or v2;
values are TorchLinear's. With `desc_act` the groups are those of
columns in a fixed random order, so that g_idx says something.
AWQ: `pseudo_quantize_tensor` on float16 weights, then WQLinear_GEMM.from_linear, as AwqQuantizer._apply_quant does; values are
`dequantize_gemm`. AutoAWQ's own package cannot be imported with this transformers, so its modules are loaded without it.

usage: quantized_gptq_awq.py AUTOAWQ_SDIST [NAME ...]
Needs gptqmodel 7.7.0 and an unpacked autoawq 0.2.9.
"""
import ast
import os
import sys
import types

import torch

from quantized_common import LINEARS, linears, rest, write_folder

GPTQ = {
    "gptq-int4-g32": dict(bits=4, sym=True),
    "gptq-int4-g32-v2": dict(bits=4, sym=True, format="gptq_v2"),
    "gptq-int4-g32-asym": dict(bits=4, sym=False),
    "gptq-int4-g32-act-order": dict(bits=4, sym=True, desc_act=True),
    "gptq-int4-g32-asym-act-order-v2": dict(bits=4, sym=False, desc_act=True, format="gptq_v2"),
    "gptq-int2-g32-asym": dict(bits=2, sym=False),
    "gptq-int3-g32": dict(bits=3, sym=True),
    "gptq-int3-g32-asym-v2": dict(bits=3, sym=False, format="gptq_v2"),
    "gptq-int8-channel": dict(bits=8, sym=True, group_size=-1),
    "gptq-int8-g32-asym-v2": dict(bits=8, sym=False, format="gptq_v2"),
    # GPTQModel's planar words, which only it writes.
    "gptq-int5-g32": dict(bits=5, sym=True),
}


def gptq(name, bits, sym, group_size=32, desc_act=False, format="gptq"):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import FORMAT, GPTQConfig
    from gptqmodel.quantization.quantizer import Quantizer
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module, convert_gptq_v2_to_v1_format_module
    config = GPTQConfig(bits=bits, group_size=group_size, sym=sym, desc_act=desc_act, format=format, offload_to_disk=False)
    minus_one = config.format == FORMAT.GPTQ  # 5 bits become `gptq_p`, which stores zeros as they are
    tensors, expected = rest(), {}
    for n, w in linears().items():
        rows, columns = w.shape
        size = columns if group_size < 0 else group_size
        order = torch.arange(columns)
        if desc_act:
            order = torch.randperm(columns, generator=torch.Generator().manual_seed(columns))
        g_idx = torch.empty(columns, dtype=torch.int32)
        g_idx[order] = (torch.arange(columns) // size).int()
        scales, zeros = [], []
        decoded = torch.empty(rows, columns)
        for start in range(0, columns, size):
            quantizer = Quantizer(qcfg=config)
            quantizer.configure(perchannel=True)
            group = order[start:start + size]
            quantizer.find_params(w.float()[:, group], weight=True)
            decoded[:, group] = quantizer.quantize(w.float()[:, group])
            scales.append(quantizer.scale)
            zeros.append(quantizer.zero)
        linear = torch.nn.Linear(columns, rows, bias=False)
        linear.weight.data = decoded
        q = TorchLinear(bits=bits, group_size=group_size, sym=sym, desc_act=desc_act, in_features=columns, out_features=rows,
                        bias=False, format=config.format)
        q.pack_original(linear, torch.cat(scales, 1), torch.cat(zeros, 1), g_idx)
        if minus_one:
            convert_gptq_v2_to_v1_format_module(q, config)
        for buffer in ("qweight", "qzeros", "scales", "g_idx"):
            tensors[f"{n}.{buffer}"] = getattr(q, buffer).clone()
        if minus_one:
            convert_gptq_v1_to_v2_format_module(q, bits, torch.int32)
        q.post_init()
        expected[n] = q.dequantize_weight().T
    document = config.to_dict()
    # A published folder's `meta` says who wrote it; the rest of it is settings of the run.
    document["meta"] = {"quantizer": ["gptqmodel:7.7.0"], "damp_percent": 0.05, "true_sequential": True}
    write_folder(name, tensors, document, expected, torch_dtype="float16")


def autoawq(sdist):
    """AutoAWQ's modules by path, without running its packages' __init__."""
    for package in ("awq", "awq.utils", "awq.modules", "awq.modules.linear", "awq.quantize"):
        module = types.ModuleType(package)
        module.__path__ = [os.path.join(sdist, *package.split("."))]
        sys.modules[package] = module
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm
    path = os.path.join(sdist, "awq/quantize/quantizer.py")
    with open(path, encoding="utf-8") as f:
        tree = ast.parse(f.read())
    quantizer = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "AwqQuantizer")
    tree.body = [n for n in quantizer.body if isinstance(n, ast.FunctionDef) and n.name == "pseudo_quantize_tensor"]
    space = {"torch": torch}
    exec(compile(tree, path, "exec"), space)
    return WQLinear_GEMM, dequantize_gemm, space["pseudo_quantize_tensor"]


def awq(name, sdist, group_size):
    gemm, dequantize, pseudo_quantize = autoawq(sdist)
    settings = types.SimpleNamespace(group_size=group_size, w_bit=4, zero_point=True)
    skipped = [n for n, w in linears().items() if group_size > 0 and w.shape[1] % group_size]
    tensors, expected = rest([n for n in LINEARS if n not in skipped]), {}
    for n, w in linears().items():
        if n in skipped:
            continue
        linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
        linear.weight.data, scales, zeros = pseudo_quantize(settings, w.half())
        q = gemm.from_linear(linear, 4, group_size, False, scales.t().contiguous(), zeros.t().contiguous())
        for buffer in ("qweight", "qzeros", "scales"):
            tensors[f"{n}.{buffer}"] = getattr(q, buffer).clone()
        expected[n] = dequantize(q.qweight, q.qzeros, q.scales, 4, group_size).T
        assert expected[n].dtype == torch.float16
    without = sorted({n.split(".")[-1] for n in skipped}) or None
    document = {"quant_method": "awq", "zero_point": True, "group_size": group_size, "bits": 4, "version": "gemm",
                "modules_to_not_convert": without}
    write_folder(name, tensors, document, expected, torch_dtype="float16")


def main():
    sdist, *names = sys.argv[1:]
    for name, settings in GPTQ.items():
        if not names or name in names:
            gptq(name, **settings)
    for name, size in {"awq-int4-g32": 32, "awq-int4-g96": 96}.items():
        if not names or name in names:
            awq(name, sdist, size)


if __name__ == "__main__":
    main()

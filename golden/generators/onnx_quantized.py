#!/usr/bin/env python3
"""Small graphs in floats, and what ONNX Runtime's own quantizers make of them.

    python onnx_quantized.py        writes golden/onnx/quantized

`plain-*.onnx` are graphs in floats: `chain` (a table, products that share weights and inputs, `Gemm` either way), `tied` (a table that is
an operand, too, through `Transpose`; products within `If`, with weights from around and of their own), `conv`, and `old` (IR version 3:
initializers are inputs, too). `inputs.safetensors` has inputs for each as `STEM.NAME`.

The others are `chain` (`conv` for the static one) after ONNX Runtime's quantizers. `decoded.json` has for each every weight,
dequantized with numpy as the operator in floats takes it, under its name in the graph in floats: shape, and SHA-256 of the f32. Before it is written, the graph in floats with these weights
must compute what ONNX Runtime makes of the quantized one.

Made with onnx 1.23.2, onnxruntime 1.31.1, safetensors 0.8.0, numpy 2.4.6, Python 3.11. Deterministic.
"""
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from safetensors.numpy import save_file

OUT = Path(__file__).resolve().parent.parent / "onnx" / "quantized"
RNG = np.random.default_rng(20261121)
NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], np.float32)
# ONNX Runtime's fp4_map, signs in the highest bit.
FP4 = np.array([0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25], np.float32)
FP4 = np.concatenate([FP4, -FP4])


def rand(*shape):
    return (RNG.standard_normal(shape) * 0.5).astype(np.float32)


def model(nodes, inputs, outputs, weights, opset, ir=8, as_inputs=False):
    weights = [nh.from_array(a, n) for n, a in weights.items()]
    if as_inputs:
        inputs = inputs + [h.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    graph = h.make_graph(nodes, "g", inputs, outputs, weights)
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir)
    onnx.checker.check_model(made, full_check=True)
    return made


def chain(opset, ir=8, as_inputs=False):
    weights = {
        "embeddings.weight": rand(20, 32), "onnx::MatMul_1": rand(32, 40), "first.bias": rand(40), "onnx::MatMul_2": rand(40, 24),
        "shape": np.array([-1, 24], np.int64), "onnx::Gemm_3": rand(24, 16), "third.bias": rand(16), "fourth.weight": rand(8, 16),
    }
    nodes = [
        h.make_node("Gather", ["embeddings.weight", "ids"], ["x"], name="/embeddings/Gather"),
        h.make_node("MatMul", ["x", "onnx::MatMul_1"], ["first_out"], name="/first/MatMul"),
        h.make_node("Add", ["first.bias", "first_out"], ["first"], name="/first/Add"),
        h.make_node("Tanh", ["first"], ["t"], name="/Tanh"),
        h.make_node("MatMul", ["t", "onnx::MatMul_2"], ["second"], name="/second/MatMul"),
        h.make_node("MatMul", ["t", "onnx::MatMul_2"], ["again"], name="/again/MatMul"),
        h.make_node("Mul", ["second", "again"], ["product"], name="/Mul"),
        h.make_node("Reshape", ["product", "shape"], ["flat"], name="/Reshape"),
        h.make_node("Gemm", ["flat", "onnx::Gemm_3", "third.bias"], ["third"], name="/third/Gemm"),
        h.make_node("Gemm", ["third", "fourth.weight"], ["y"], name="/fourth/Gemm", transB=1),
    ]
    ids = [h.make_tensor_value_info("ids", T.INT64, ["batch", "length"])]
    return model(nodes, ids, [h.make_tensor_value_info("y", T.FLOAT, ["n", 8])], weights, opset, ir, as_inputs)


def tied():
    weights = {"embeddings.weight": rand(20, 32), "onnx::MatMul_1": rand(32, 32), "scale": rand(20, 32)}
    inner = {"then.weight": rand(32, 32)}
    then = h.make_graph(
        [h.make_node("MatMul", ["h", "then.weight"], ["a"], name="/then/MatMul"), h.make_node("MatMul", ["a", "onnx::MatMul_1"], ["b"], name="/then/again/MatMul")],
        "then", [], [h.make_tensor_value_info("b", T.FLOAT, ["batch", "length", 32])], [nh.from_array(a, n) for n, a in inner.items()])
    other = h.make_graph(
        [h.make_node("Constant", [], ["c"], name="/else/Constant", value=nh.from_array(rand(32, 32))), h.make_node("Identity", ["c"], ["d"], name="/else/Identity"),
         h.make_node("MatMul", ["h", "d"], ["e"], name="/else/MatMul")],
        "else", [], [h.make_tensor_value_info("e", T.FLOAT, ["batch", "length", 32])])
    nodes = [
        h.make_node("Gather", ["embeddings.weight", "ids"], ["x"], name="/embeddings/Gather"),
        h.make_node("MatMul", ["x", "onnx::MatMul_1"], ["h"], name="/first/MatMul"),
        h.make_node("If", ["flag"], ["i"], name="/If", then_branch=then, else_branch=other),
        h.make_node("Transpose", ["embeddings.weight"], ["turned"], name="/head/Transpose", perm=[1, 0]),
        h.make_node("MatMul", ["i", "turned"], ["logits"], name="/head/MatMul"),
        # What no operator takes quantized.
        h.make_node("Sub", ["onnx::MatMul_1", "onnx::MatMul_1"], ["zero"], name="/Sub"),
        h.make_node("ReduceSum", ["zero"], ["sum"], name="/ReduceSum", keepdims=0),
        h.make_node("Add", ["logits", "sum"], ["y"], name="/Add"),
    ]
    inputs = [h.make_tensor_value_info("ids", T.INT64, ["batch", "length"]), h.make_tensor_value_info("flag", T.BOOL, [])]
    del weights["scale"]
    return model(nodes, inputs, [h.make_tensor_value_info("y", T.FLOAT, ["batch", "length", 20])], weights, 17)


def conv():
    weights = {"conv.weight": rand(6, 4, 3, 3), "conv.bias": rand(6), "onnx::MatMul_1": rand(6, 5)}
    nodes = [
        h.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["c"], name="/conv/Conv", kernel_shape=[3, 3]),
        h.make_node("GlobalAveragePool", ["c"], ["p"], name="/Pool"),
        h.make_node("Flatten", ["p"], ["f"], name="/Flatten"),
        h.make_node("MatMul", ["f", "onnx::MatMul_1"], ["y"], name="/classifier/MatMul"),
    ]
    image = [h.make_tensor_value_info("image", T.FLOAT, ["batch", 4, 8, 8])]
    return model(nodes, image, [h.make_tensor_value_info("y", T.FLOAT, ["batch", 5])], weights, 17)


def run(m, inputs):
    return ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def unpacked(t):
    """Elements of an initializer, four-bit ones as int8."""
    a = nh.to_array(t)
    return a.astype(np.int8 if t.data_type == T.INT4 else np.uint8) if t.data_type in (T.INT4, T.UINT4) else a


def repeated(a, axis, n, length):
    return np.take(np.repeat(a, n, axis), range(length), axis)


def bits_of(packed, bits, count):
    """Numbers from bytes along the last axis, lowest first."""
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, -1).reshape(*packed.shape[:-1], -1)[..., :count]


def decoded(m):
    """Weights in floats by the name of the initializer that they were."""
    init = {t.name: t for t in m.graph.initializer}
    find = {n: unpacked(t) for n, t in init.items()}
    all = {}
    for n in m.graph.node:
        a = {x.name: h.get_attribute_value(x) for x in n.attribute}
        if n.op_type == "MatMulNBits":
            K, N, bits, bs = a["K"], a["N"], a["bits"], a["block_size"]
            blocks = -(-K // bs)
            q = bits_of(find[n.input[1]].reshape(N, -1), bits, blocks * bs).astype(np.float32)
            z = np.full((N, blocks), 2.0 ** (bits - 1), np.float32)
            if len(n.input) > 3:
                z = bits_of(find[n.input[3]].reshape(N, -1), bits, blocks).astype(np.float32)
            s = find[n.input[2]].reshape(N, blocks)
            w = (q - repeated(z, 1, bs, blocks * bs)) * repeated(s, 1, bs, blocks * bs)
            all[n.input[1].rsplit("_Q", 1)[0]] = np.ascontiguousarray(w[:, :K].T)
        elif n.op_type == "GatherBlockQuantized":
            q, s, bs = find[n.input[0]], find[n.input[2]], a["block_size"]
            z = find[n.input[3]] if len(n.input) > 3 else np.zeros_like(s)
            r = lambda x: repeated(x.astype(np.float32), 1, bs, q.shape[1])
            all[n.input[0].rsplit("_Q", 1)[0]] = (q.astype(np.float32) - r(z)) * r(s)
        elif n.op_type == "MatMulBnb4":
            K, N, bs = a["K"], a["N"], a["block_size"]
            b = find[n.input[1]]
            q = np.stack([b >> 4, b & 15], -1).reshape(-1)[: K * N]
            table = NF4 if a["quant_type"] == 1 else FP4
            w = table[q] * repeated(find[n.input[2]], 0, bs, K * N)
            all[n.input[1].rsplit("_Bnb4", 1)[0]] = np.ascontiguousarray(w.reshape(N, K).T)
        elif n.op_type == "DequantizeLinear" and n.input[0] in init:
            q, s, axis = find[n.input[0]], find[n.input[1]], a.get("axis", 1)
            z = find[n.input[2]] if len(n.input) > 2 else np.zeros(s.shape, q.dtype)
            if "block_size" in a:
                r = lambda x: repeated(x, axis, a["block_size"], q.shape[axis])
            else:
                r = lambda x: x if x.ndim == 0 or x.size == 1 else x.reshape([-1 if i == axis else 1 for i in range(q.ndim)])
            name = n.input[0].rsplit("_DQ_Q", 1)[0].removesuffix("_quantized")
            all[name] = ((q.astype(np.float64) - r(z)) * r(s)).astype(np.float32)
        elif n.op_type == "MatMulInteger" or n.op_type == "Gather" and n.input[0].endswith("_quantized"):
            name = n.input[n.op_type == "MatMulInteger"].removesuffix("_quantized")
            q, s, z = (find[name + x] for x in ("_quantized", "_scale", "_zero_point"))
            all[name] = (q.astype(np.float32) - z.astype(np.float32)) * s
    return all


def write(name, quantized, plain, inputs, tolerance):
    """Checks numpy against ONNX Runtime, then writes."""
    weights = decoded(quantized)
    assert weights, name
    floats = onnx.ModelProto()
    floats.CopyFrom(plain)
    for t in floats.graph.initializer:
        if t.name in weights:
            w = weights.pop(t.name)
            # quantize_dynamic turns what Gemm takes transposed.
            w = w if w.shape == tuple(t.dims) else np.ascontiguousarray(w.T)
            assert w.shape == tuple(t.dims), (name, t.name)
            t.CopyFrom(nh.from_array(w, t.name))
    assert not weights, (name, list(weights))
    a, b = run(quantized, inputs), run(floats, inputs)
    worst = float(np.abs(a - b).max() / np.abs(b).max())
    assert worst <= tolerance, (name, worst)
    print(f"{name}: {worst:.2e} beside the graph in floats, {len(quantized.SerializeToString())} bytes")
    onnx.save(quantized, OUT / f"{name}.onnx")
    one = lambda a: {"shape": a.shape, "sha256": hashlib.sha256(np.ascontiguousarray(a, "<f4").tobytes()).hexdigest()}
    return {n: one(a) for n, a in sorted(decoded(quantized).items())}


class Once(CalibrationDataReader):
    def __init__(self, inputs):
        self.rest = [inputs]

    def get_next(self):
        return self.rest.pop() if self.rest else None


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    plain = {"chain": chain(17), "tied": tied(), "conv": conv(), "old": chain(11, 3, True)}
    inputs = {
        "chain": {"ids": RNG.integers(0, 20, (2, 5))},
        "tied": {"ids": RNG.integers(0, 20, (2, 5)), "flag": np.array(True)},
        "conv": {"image": rand(2, 4, 8, 8)},
        "old": {"ids": RNG.integers(0, 20, (2, 5))},
    }
    for name, m in plain.items():
        onnx.save(m, OUT / f"plain-{name}.onnx")
    save_file({f"{s}.{n}": np.asarray(a) for s, all in inputs.items() for n, a in all.items()}, OUT / "inputs.safetensors")
    ids, listed = inputs["chain"], {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(plain["chain"], source)
        for name, kind, channel in [("dynamic", QuantType.QInt8, False), ("dynamic-channel", QuantType.QUInt8, True)]:
            quantize_dynamic(source, target, per_channel=channel, weight_type=kind)
            # Inputs of products are rounded, too.
            listed[name] = write(name, onnx.load(target), plain["chain"], ids, 0.05)
        onnx.save(plain["conv"], source)
        quantize_static(source, target, Once(inputs["conv"]), quant_format=QuantFormat.QDQ, per_channel=True)
        listed["static"] = write("static", onnx.load(target), plain["conv"], inputs["conv"], 0.05)
    newer = onnx.ModelProto()
    newer.CopyFrom(plain["chain"])
    newer.opset_import[0].version, newer.ir_version = 21, 10
    both = ("MatMul", "Gather")
    for name, bits, symmetric, form, ops in [
        ("nbits-4", 4, True, QuantFormat.QOperator, both), ("nbits-4-zero", 4, False, QuantFormat.QOperator, both),
        ("nbits-8-zero", 8, False, QuantFormat.QOperator, ("MatMul",)), ("nbits-2", 2, True, QuantFormat.QOperator, ("MatMul",)),
        ("qdq-4", 4, True, QuantFormat.QDQ, ("MatMul",)), ("qdq-4-zero", 4, False, QuantFormat.QDQ, ("MatMul",)),
    ]:
        config = DefaultWeightOnlyQuantConfig(block_size=16, is_symmetric=symmetric, quant_format=form, op_types_to_quantize=ops,
            quant_axes=(("MatMul", 0), ("Gather", 1)), bits=bits)
        quantizer = MatMulNBitsQuantizer(onnx.ModelProto.FromString(newer.SerializeToString()), algo_config=config)
        quantizer.process()
        made = quantizer.model.model
        if form == QuantFormat.QDQ:
            once(made)
        # ONNX Runtime makes products of integers of DequantizeLinear and MatMul.
        listed[name] = write(name, made, newer, ids, 0.03 if form == QuantFormat.QDQ else 1e-5)
    for name, kind in [("bnb4-nf4", MatMulBnb4Quantizer.NF4), ("bnb4-fp4", MatMulBnb4Quantizer.FP4)]:
        quantizer = MatMulBnb4Quantizer(onnx.ModelProto.FromString(newer.SerializeToString()), kind, 16)
        quantizer.process()
        listed[name] = write(name, quantizer.model.model, newer, ids, 1e-5)
    (OUT / "decoded.json").write_text(json.dumps(listed, indent=1) + "\n")


def once(m):
    """A weight of two products gets two nodes that give one value, which no graph may have; ONNX Runtime's quantizer does that."""
    seen, kept = set(), []
    for n in m.graph.node:
        if n.op_type != "DequantizeLinear" or n.output[0] not in seen:
            kept.append(n)
        seen.update(n.output)
    del m.graph.node[:]
    m.graph.node.extend(kept)


if __name__ == "__main__":
    main()

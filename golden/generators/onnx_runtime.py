"""Writes golden/onnx-runtime/: tiny ONNX graphs with inputs and the outputs that ONNX Runtime gives for them.

The graphs are written node by node, so that each form of an operator that a runtime must know appears: an encoder at
opsets 14 to 21 (layer normalisation spelled out at 14 and 18, where the axes of ReduceMean are an input), in f32 and f16; a
decoder with a cache, whose past may be empty; values in bf16, which not every runtime computes with.

usage: onnx_runtime.py [GOLDEN_DIR]          needs onnx, onnxruntime, numpy, safetensors
"""
import os
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

HIDDEN, HEADS, VOCAB, POSITIONS, SEED = 8, 2, 24, 16, 8
DIM = HIDDEN // HEADS


class Graph:
    """Nodes and initializers in the order in which they are made."""

    def __init__(self, opset, dtype=np.float32):
        self.opset, self.dtype = opset, dtype
        self.nodes, self.weights, self.known = [], [], {}
        self.rng = np.random.default_rng(SEED)

    def op(self, kind, *inputs, name=None, **attributes):
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values, dtype=np.int64):
        values = np.asarray(values, dtype)
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self.known:
            self.known[key] = f"constant_{len(self.known)}"
            self.weights.append(numpy_helper.from_array(values, self.known[key]))
        return self.known[key]

    def number(self, value):
        return self.constant(value, self.dtype)

    def weight(self, name, *shape, scale=0.5, add=0.0):
        values = (self.rng.standard_normal(shape) * scale + add).astype(self.dtype)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def linear(self, x, name, rows, columns):
        product = self.op("MatMul", x, self.weight(f"{name}.weight", rows, columns))
        return self.op("Add", product, self.weight(f"{name}.bias", columns, scale=0.1))

    def mean(self, x, axes):
        if self.opset >= 18:
            return self.op("ReduceMean", x, self.constant(axes), keepdims=1)
        return self.op("ReduceMean", x, axes=axes, keepdims=1)

    def norm(self, x, name):
        gain = self.weight(f"{name}.weight", HIDDEN, scale=0.1, add=1.0)
        bias = self.weight(f"{name}.bias", HIDDEN, scale=0.1)
        if self.opset in (17, 21):
            return self.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-5)
        centred = self.op("Sub", x, self.mean(x, [-1]))
        variance = self.mean(self.op("Pow", centred, self.number(2)), [-1])
        deviation = self.op("Sqrt", self.op("Add", variance, self.number(1e-5)))
        return self.op("Add", self.op("Mul", self.op("Div", centred, deviation), gain), bias)

    def heads(self, x, like):
        """[batch, sequence, hidden] to [batch, heads, sequence, dim], with sizes that are known when it runs."""
        sizes = self.op("Shape", like)
        batch, sequence = (self.op("Gather", sizes, self.constant([i]), axis=0) for i in (0, 1))
        shape = self.op("Concat", batch, sequence, self.constant([HEADS, DIM]), axis=0)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def joined(self, x):
        shape = self.constant([0, 0, HIDDEN])
        return self.op("Reshape", self.op("Transpose", x, perm=[0, 2, 1, 3]), shape)

    def attention(self, query, key, value, allowed):
        scores = self.op("MatMul", query, self.op("Transpose", key, perm=[0, 1, 3, 2]))
        scores = self.op("Div", scores, self.number(DIM**0.5))
        scores = self.op("Where", allowed, scores, self.number(-60000))
        return self.joined(self.op("MatMul", self.op("Softmax", scores, axis=-1), value))

    def feed_forward(self, x, name):
        x = self.linear(x, f"{name}.up", HIDDEN, 2 * HIDDEN)
        erf = self.op("Erf", self.op("Div", x, self.number(2**0.5)))
        x = self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.number(1))), self.number(0.5))
        return self.linear(x, f"{name}.down", 2 * HIDDEN, HIDDEN)

    def save(self, path, inputs, outputs):
        tensor = TensorProto.FLOAT if self.dtype == np.float32 else TensorProto.FLOAT16
        info = lambda name, kind, shape: helper.make_tensor_value_info(name, kind or tensor, shape)
        graph = helper.make_graph(
            self.nodes, "golden", [info(*i) for i in inputs], [info(*o) for o in outputs], self.weights
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8, producer_name="golden"
        )
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def encoder(path, opset, dtype):
    g = Graph(opset, dtype)
    words = g.op("Gather", g.weight("embeddings.word", VOCAB, HIDDEN), "input_ids")
    types = g.op("Gather", g.weight("embeddings.type", 2, HIDDEN), "token_type_ids")
    x = g.norm(g.op("Add", words, types), "embeddings.norm")
    mask = g.op("Cast", "attention_mask", to=TensorProto.BOOL)
    allowed = g.op("Unsqueeze", mask, g.constant([1, 2]))
    q, k, v = (g.heads(g.linear(x, f"attention.{n}", HIDDEN, HIDDEN), "input_ids") for n in "qkv")
    attended = g.linear(g.attention(q, k, v, allowed), "attention.out", HIDDEN, HIDDEN)
    x = g.norm(g.op("Add", x, attended), "attention.norm")
    x = g.norm(g.op("Add", x, g.feed_forward(x, "mlp")), "mlp.norm")
    hidden = g.op("Identity", x, name="last_hidden_state")
    kind = TensorProto.FLOAT if dtype == np.float32 else TensorProto.FLOAT16
    weight = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=kind), g.constant([-1]))
    summed = g.op("ReduceSum", g.op("Mul", hidden, weight), g.constant([1]), keepdims=0)
    count = g.op("ReduceSum", weight, g.constant([1]), keepdims=0)
    g.op("Div", summed, g.op("Clip", count, g.number(1e-3)), name="sentence_embedding")
    ids = [(n, TensorProto.INT64, ["batch", "sequence"]) for n in ("input_ids", "attention_mask", "token_type_ids")]
    outputs = [("last_hidden_state", None, ["batch", "sequence", HIDDEN]), ("sentence_embedding", None, ["batch", HIDDEN])]
    g.save(path, ids, outputs)


def decoder(path, opset):
    g = Graph(opset)
    embedding = g.weight("embeddings.word", VOCAB, HIDDEN)
    x = g.op("Gather", embedding, "input_ids")
    angles = np.outer(np.arange(POSITIONS), 10000.0 ** (-np.arange(0, DIM, 2) / DIM))
    angles = np.concatenate([angles, angles], axis=1)
    tables = [g.constant(f(angles), np.float32) for f in (np.cos, np.sin)]
    cos, sin = (g.op("Unsqueeze", g.op("Gather", t, "position_ids"), g.constant([1])) for t in tables)

    def rotate(y):
        half = g.constant([DIM // 2, DIM - DIM // 2])
        one, two = f"{y}.one", f"{y}.two"
        g.nodes.append(helper.make_node("Split", [y, half], [one, two], name=f"{y}.split", axis=-1))
        turned = g.op("Concat", g.op("Neg", two), one, axis=-1)
        return g.op("Add", g.op("Mul", y, cos), g.op("Mul", turned, sin))

    h = g.norm(x, "norm1")
    q, k, v = (g.heads(g.linear(h, f"attention.{n}", HIDDEN, HIDDEN), "input_ids") for n in "qkv")
    q, k = rotate(q), rotate(k)
    k = g.op("Concat", "past_key_values.0.key", k, axis=2, name="present.0.key")
    v = g.op("Concat", "past_key_values.0.value", v, axis=2, name="present.0.value")
    # A key may be seen when it is not padding and not after the query.
    length = g.op("Squeeze", g.op("Shape", "attention_mask", start=1, end=2) if opset >= 15 else "", g.constant([0]))
    keys = g.op("Range", g.constant(0), length, g.constant(1))
    after = g.op("LessOrEqual", keys, g.op("Unsqueeze", "position_ids", g.constant([-1])))
    seen = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=TensorProto.BOOL), g.constant([1]))
    allowed = g.op("Unsqueeze", g.op("And", after, seen), g.constant([1]))
    x = g.op("Add", x, g.linear(g.attention(q, k, v, allowed), "attention.out", HIDDEN, HIDDEN))
    x = g.op("Add", x, g.feed_forward(g.norm(x, "norm2"), "mlp"))
    g.op("MatMul", g.norm(x, "norm"), g.op("Transpose", embedding, perm=[1, 0]), name="logits")
    past = ["batch", HEADS, "past_sequence_length", DIM]
    total = ["batch", HEADS, "total_sequence_length", DIM]
    inputs = [
        ("input_ids", TensorProto.INT64, ["batch", "sequence_length"]),
        ("attention_mask", TensorProto.INT64, ["batch", "total_sequence_length"]),
        ("position_ids", TensorProto.INT64, ["batch", "sequence_length"]),
        ("past_key_values.0.key", None, past),
        ("past_key_values.0.value", None, past),
    ]
    outputs = [
        ("logits", None, ["batch", "sequence_length", VOCAB]),
        ("present.0.key", None, total),
        ("present.0.value", None, total),
    ]
    g.save(path, inputs, outputs)


def bf16(path):
    """y = f32(bf16(x) as it comes in) * 2, so that bf16 values cross the border of the graph in both directions."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["twice"]),
        helper.make_node("Cast", ["twice"], ["y"], to=TensorProto.BFLOAT16),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.BFLOAT16, ["n"]) for n in "xy"]
    graph = helper.make_graph(nodes, "golden", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="golden")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def expect(folder, graph, name, inputs):
    session = ort.InferenceSession(os.path.join(folder, graph), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, inputs)))
    save_file({n: np.ascontiguousarray(v) for n, v in outputs.items()}, os.path.join(folder, f"{name}.expected.safetensors"))
    return outputs


def main():
    golden = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = os.path.join(golden, "onnx-runtime")
    os.makedirs(folder, exist_ok=True)
    for opset in (14, 17, 18, 21):
        encoder(os.path.join(folder, f"encoder.opset{opset}.onnx"), opset, np.float32)
    encoder(os.path.join(folder, "encoder.f16.onnx"), 17, np.float16)
    decoder(os.path.join(folder, "decoder.onnx"), 17)
    bf16(os.path.join(folder, "bf16.onnx"))

    rng = np.random.default_rng(SEED)
    ids = rng.integers(0, VOCAB, (3, 5))
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], np.int64)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.array([[0, 0, 1, 1, 1]] * 3, np.int64)}
    save_file(inputs, os.path.join(folder, "encoder.inputs.safetensors"))
    expect(folder, "encoder.opset17.onnx", "encoder", inputs)

    # A prefill with an empty past, then one step that uses what the prefill left.
    empty = np.zeros((2, HEADS, 0, DIM), np.float32)
    ids = rng.integers(0, VOCAB, (2, 4))
    prefill = {
        "input_ids": ids,
        "attention_mask": np.ones((2, 4), np.int64),
        "position_ids": np.tile(np.arange(4), (2, 1)),
        "past_key_values.0.key": empty,
        "past_key_values.0.value": empty,
    }
    save_file(prefill, os.path.join(folder, "decoder.prefill.inputs.safetensors"))
    first = expect(folder, "decoder.onnx", "decoder.prefill", prefill)
    step = {
        "input_ids": rng.integers(0, VOCAB, (2, 1)),
        "attention_mask": np.ones((2, 5), np.int64),
        "position_ids": np.full((2, 1), 4),
        "past_key_values.0.key": first["present.0.key"],
        "past_key_values.0.value": first["present.0.value"],
    }
    save_file(step, os.path.join(folder, "decoder.step.inputs.safetensors"))
    expect(folder, "decoder.onnx", "decoder.step", step)


if __name__ == "__main__":
    main()

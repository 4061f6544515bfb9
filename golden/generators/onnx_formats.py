#!/usr/bin/env python3
"""Small ONNX files that use every part of the format, each with a list of what a reader must find.

    python onnx_formats.py        writes golden/onnx/formats

`<name>.json`: `tensors` in file order (a graph's initializers, then its sparse ones, then tensors within its nodes, node by node,
subgraphs where they occur; then functions, then training_info), each with
- `name`: the tensor's, or the first output of the Constant node that holds it; empty where it has none;
- `dtype`: ONNX's name of the type; `shape`;
- `sha256` of the elements as raw_data has them: little-endian, four- and two-bit types packed from the low bits, six-bit types as
  a stream of bits; strings as u64 length and UTF-8 each;
- `where`: steps from the model: `graph`, `functions[i]` or `training_info[i].initialization`, `node[i].ATTRIBUTE` for a tensor or
  a graph in an attribute (`[j]` behind it where it is a list), `initializer[i]`, `sparse_initializer[i].values` or `.indices`;
- `dense_shape` on the values of a sparse tensor.
Other keys say what else the file holds. Values are arbitrary bits, NaNs and infinities among them, so bytes are compared and not numbers.

Made with onnx 1.23.2, protobuf 7.36.2, numpy 2.4.6, ml_dtypes 0.6.0, Python 3.11. Deterministic.
"""
import hashlib
import shutil

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import onnx_wire as w
from onnx_listing import OUT, STRINGS, TYPES, number_of, packed, patterns, row, string_bytes, typed_bytes, write

T = TensorProto


def array(name, shape, dtype="FLOAT"):
    """A tensor of arbitrary bits."""
    count = int(np.prod(shape))
    t = TensorProto(name=name, data_type=number_of(dtype), dims=shape)
    t.raw_data = packed(dtype, patterns(dtype, count))
    return t


def counted(name, shape, start=0.0):
    """A float tensor of its own values."""
    values = (np.arange(int(np.prod(shape)), dtype=np.float32) + start).reshape(shape)
    return numpy_helper.from_array(values, name)


def value(name, shape=None, dtype=T.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, initializers=(), inputs=(), outputs=(), ir=10, opset=20, sparse=(), **kw):
    g = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), initializer=list(initializers))
    g.sparse_initializer.extend(sparse)
    return helper.make_model(g, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir, producer_name="golden", **kw)


def types():
    """Every element type: in raw_data, in the typed fields, and in typed fields as writers before packing have them."""
    sizes = {dtype: 5 if bits < 8 else 6 for dtype, (bits, _) in TYPES.items()}  # odd where elements share a byte
    shapes = {dtype: [5] if n == 5 else [2, 3] for dtype, n in sizes.items()}
    for form in ("raw", "typed", "unpacked"):
        tensors, rows = [], []
        for dtype, n in sizes.items():
            elements = patterns(dtype, n)
            content = w.data(9, packed(dtype, elements)) if form == "raw" else typed_bytes(dtype, elements, form == "typed")
            tensors.append(w.tensor(f"t.{dtype.lower()}", number_of(dtype), shapes[dtype], extra=content))
            rows.append((f"t.{dtype.lower()}", dtype, shapes[dtype], packed(dtype, elements)))
        strings = b"".join(w.data(6, s) for s in STRINGS)
        tensors.append(w.tensor("t.string", T.STRING, [2, 2], extra=strings))
        rows.append(("t.string", "STRING", [2, 2], string_bytes(STRINGS)))
        expected = [row(*r, f"graph.initializer[{i}]") for i, r in enumerate(rows)]
        write(f"types-{form}", w.model(w.graph(*tensors), ir=14, opset=28), check=False, expected=expected)


def shapes():
    """Scalars, empty tensors, odd counts of small types, many dimensions, odd names."""
    tensors = [array(f"scalar.{d.lower()}", [], d) for d in ("FLOAT", "INT64", "BOOL", "INT4", "FLOAT4E2M1", "UINT2", "FLOAT6E2M3")]
    tensors += [array(f"odd.{d.lower()}.{n}", [n], d) for d in ("INT4", "UINT4", "UINT2", "INT2", "FLOAT6E3M2") for n in (1, 3, 9)]
    tensors += [array("odd.rows", [3, 3], "INT4"), array("eight", [1, 2, 1, 2, 1, 2, 1, 2], "FLOAT16")]
    tensors += [array(f"empty.{'x'.join(map(str, s))}", s) for s in ([0], [0, 3], [2, 0, 3])]
    tensors += [TensorProto(name="empty.no-data", data_type=T.FLOAT, dims=[0]),
                TensorProto(name="empty.strings", data_type=T.STRING, dims=[0]),
                TensorProto(name="scalar.string", data_type=T.STRING, string_data=[b"mill"])]
    tensors += [counted(n, [2]) for n in ("onnx::MatMul_123", "/encoder/layer.0/Constant_output_0", "with space",
                                          "gr\u00fc\u00df/\U0001f999", "back\\slash", "a" * 300)]
    write("shapes", model([], tensors, ir=14, opset=28), check=False)


def external():
    """Data in other files: with and without offset and length, shared, aligned, in a subfolder, in a subgraph, with a checksum."""
    folder = OUT / "external"
    (folder / "sub").mkdir(parents=True)
    first = bytes(i * 7 % 251 for i in range(96)) + bytes(4000) + packed("FLOAT", patterns("FLOAT", 8))
    (folder / "weights.bin").write_bytes(first)
    (folder / "sub" / "other file.bin").write_bytes(bytes(i * 11 % 241 for i in range(40)))
    sha1 = hashlib.sha1(first).hexdigest()

    def tensor(name, dtype, dims, **entries):
        t = TensorProto(name=name, data_type=number_of(dtype), dims=dims, data_location=T.EXTERNAL)
        for key, v in entries.items():
            t.external_data.add(key=key, value=str(v))
        return t

    tensors = [
        tensor("offset-and-length", "FLOAT16", [4, 3], location="weights.bin", offset=8, length=24),
        tensor("no-offset", "FLOAT", [2], location="weights.bin", length=8),
        tensor("no-length", "FLOAT", [2, 4], location="weights.bin", offset=4096),
        tensor("aligned", "FLOAT", [8], location="weights.bin", offset=4096, length=32),
        tensor("shared", "FLOAT", [8, 1], location="weights.bin", offset=4096, length=32),
        tensor("overlaps", "UINT8", [10], location="weights.bin", offset=10, length=10),
        tensor("other-order", "INT8", [3], length=3, offset=1, location="weights.bin"),
        tensor("with-checksum", "INT4", [5], location="weights.bin", offset=50, length=3, checksum=sha1),
        tensor("whole-file", "INT32", [2, 5], location="sub/other file.bin"),
        tensor("dotted", "UINT8", [4], location="./sub/other file.bin", offset=4, length=4),
        tensor("empty", "FLOAT", [0, 4], location="weights.bin", offset=0, length=0),
        tensor("at-the-end", "UINT8", [0], location="sub/other file.bin", offset=40, length=0),
        counted("inside", [3]),
    ]
    body = helper.make_graph([helper.make_node("Identity", ["in-branch"], ["b"])], "then", [], [value("b", [2])], initializer=[
        tensor("in-branch", "FLOAT", [2], location="weights.bin", offset=16, length=8)])
    other = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor(
        "", "FLOAT", [2], location="weights.bin", offset=24, length=8))], "else", [], [value("c", [2])])
    node = helper.make_node("If", ["condition"], ["y"], then_branch=body, else_branch=other)
    write("external", model([node], tensors, [value("condition", [], T.BOOL)], [value("y", [2])]), check=False,
          files=["weights.bin", "sub/other file.bin"], sha1={"weights.bin": sha1})


def constants():
    """Constant nodes with every kind of attribute, and tensors in attributes of other nodes."""
    sparse = helper.make_sparse_tensor(counted("", [2], 1.5), helper.make_tensor("", T.INT64, [2], [1, 4]), [6])
    make = lambda output, **kw: helper.make_node("Constant", [], [output], name=f"/{output}", **kw)  # noqa: E731
    nodes = [
        make("value", value=counted("a name within", [2, 2])), make("unnamed", value=counted("", [2], 3.0)),
        make("value_float", value_float=0.15625), make("value_floats", value_floats=[1.5, -0.0, 3.0]),
        make("value_int", value_int=-5), make("value_ints", value_ints=[2**62, -1]),
        make("value_string", value_string="gr\u00fc\u00df"), make("value_strings", value_strings=["", "b"]),
        make("sparse_value", sparse_value=sparse),
        helper.make_node("ConstantOfShape", ["value_ints"], ["filled"], value=array("one", [1], "INT32")),
        helper.make_node("Many", [], ["many"], domain="golden", tensors=[counted("m0", [1]), counted("m1", [2])],
                         sparse=sparse, shapes=[1, 2]),
    ]
    nodes[3].attribute[0].floats[1] = -0.0
    m = model(nodes, [counted("w", [3])])
    m.opset_import.append(helper.make_opsetid("golden", 1))
    write("constants", m, check=False)


def subgraphs():
    """Initializers and constants within If, Loop and Scan, an If within a Loop, and a list of graphs."""
    def branch(name, at):
        nodes = [helper.make_node("Constant", [], [f"{name}.c"], value=counted("", [2], at)),
                 helper.make_node("Add", [f"{name}.w", f"{name}.c"], [f"{name}.y"])]
        return helper.make_graph(nodes, name, [], [value(f"{name}.y", [2])], initializer=[counted(f"{name}.w", [2], at + 10)])

    choose = lambda n: helper.make_node("If", ["condition"], [f"{n}.out"], name=n, else_branch=branch(f"{n}.else", 2),  # noqa: E731
                                        then_branch=branch(f"{n}.then", 1))
    body = helper.make_graph(
        [choose("inner"), helper.make_node("Add", ["state", "loop.w"], ["added"]),
         helper.make_node("Add", ["added", "inner.out"], ["next"]), helper.make_node("Identity", ["going"], ["still"])],
        "body", [value("i", [], T.INT64), value("going", [], T.BOOL), value("state", [2])],
        [value("still", [], T.BOOL), value("next", [2])], initializer=[counted("loop.w", [2], 30)])
    scan = helper.make_graph([helper.make_node("Add", ["s", "scan.w"], ["s2"]), helper.make_node("Identity", ["e"], ["e2"])],
                             "scanned", [value("s", [2]), value("e", [2])], [value("s2", [2]), value("e2", [2])],
                             initializer=[counted("scan.w", [2], 40)])
    nodes = [choose("outer"), helper.make_node("Loop", ["trips", "condition", "outer.out"], ["looped"], body=body),
             helper.make_node("Scan", ["looped", "rows"], ["last", "all"], body=scan, num_scan_inputs=1)]
    m = model(nodes, [counted("rows", [3, 2]), numpy_helper.from_array(np.array(2), "trips")],
              [value("condition", [], T.BOOL)], [value("last", [2]), value("all", [3, 2])])
    write("subgraphs", m)
    listed = model([helper.make_node("Switch", [], ["y"], domain="golden", cases=[branch("a", 1), branch("b", 2)])])
    listed.opset_import.append(helper.make_opsetid("golden", 1))
    write("graph-lists", listed, check=False)


def functions():
    """Functions of the model: constants, constants that an attribute gives, one calling another, overloads, a subgraph within."""
    ids = [helper.make_opsetid("", 20), helper.make_opsetid("golden", 1)]
    given = helper.make_node("Constant", [], ["g"])
    given.attribute.append(AttributeProto(name="value_float", ref_attr_name="alpha", type=AttributeProto.FLOAT))
    branch = lambda n: helper.make_graph([helper.make_node("Constant", [], [n], value=counted("", [1], 7))], n, [], [value(n, [1])],  # noqa: E731
                                         initializer=[counted(f"{n}.w", [2], 8)])
    first = helper.make_function("golden", "Scale", ["x"], ["y"], [
        helper.make_node("Constant", [], ["k"], value=counted("", [2], 5)), given, helper.make_node("Mul", ["x", "k"], ["xk"]),
        helper.make_node("Add", ["xk", "g"], ["y"])], ids, ["alpha"])
    second = helper.make_function("golden", "Choose", ["c", "x"], ["y"], [
        helper.make_node("If", ["c"], ["b"], then_branch=branch("t"), else_branch=branch("e")),
        helper.make_node("Scale", ["x"], ["s"], domain="golden", alpha=2.0), helper.make_node("Add", ["s", "b"], ["y"])], ids)
    overload = helper.make_function("golden", "Scale", ["x"], ["y"], [
        helper.make_node("Constant", [], ["k"], value_floats=[1.0, 2.0]), helper.make_node("Mul", ["x", "k"], ["y"])], ids)
    overload.overload = "plain"
    call = helper.make_node("Choose", ["c", "w"], ["y"], domain="golden")
    m = model([call], [counted("w", [2])], [value("c", [], T.BOOL)], [value("y", [2])], functions=[first, second, overload])
    m.opset_import.append(ids[1])
    write("functions", m)


def sparse():
    """Sparse initializers: linear indices, coordinates, indices of another type's width, and none set."""
    index = lambda shape, values: helper.make_tensor("", T.INT64, shape, values)  # noqa: E731
    items = [helper.make_sparse_tensor(counted("linear", [3], 1), index([3], [0, 4, 11]), [3, 4]),
             helper.make_sparse_tensor(counted("coordinates", [2], 5), index([2, 2], [0, 1, 2, 3]), [3, 4]),
             helper.make_sparse_tensor(array("half", [2], "FLOAT16"), index([2], [1, 2]), [4]),
             helper.make_sparse_tensor(counted("none-set", [0]), index([0], []), [5])]
    write("sparse", model([], [counted("dense", [2])], sparse=items))


def training():
    """training_info with an initialization graph and an algorithm, each with initializers."""
    m = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [counted("w", [2, 2])], [value("x", [1, 2])], [value("y", [1, 2])])
    info = m.training_info.add()
    info.initialization.CopyFrom(helper.make_graph([], "init", [], [value("w0", [2, 2])], initializer=[counted("w0", [2, 2], 9)]))
    info.algorithm.CopyFrom(helper.make_graph([helper.make_node("Sub", ["w", "rate"], ["w_new"])], "step", [],
                                              [value("w_new", [2, 2])], initializer=[counted("rate", [1], 0.5)]))
    info.initialization_binding.add(key="w", value="w0")
    info.update_binding.add(key="w", value="w_new")
    write("training", m, check=False, update_binding={"w": "w_new"})


def metadata():
    """metadata_props of model, graph, node, tensor, value and function; doc strings; quantization annotations; everything optional."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="/layer.0/MatMul", doc_string="a node")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer', 'layer.0']")
    m = model([node], [counted("w", [2, 2]), counted("w_scale", [1]), numpy_helper.from_array(np.array([3], np.uint8), "w_zero")],
              [value("x", ["batch", 2])], [value("y", ["batch", 2])], doc_string="a model")
    m.domain, m.model_version, m.producer_version = "golden", 2**40, "1.0"
    for k, v in {"author": "mill", "empty": "", "gr\u00fc\u00df": "\U0001f999\n"}.items():
        m.metadata_props.add(key=k, value=v)
    m.graph.metadata_props.add(key="of", value="graph")
    m.graph.initializer[0].metadata_props.add(key="of", value="tensor")
    m.graph.initializer[0].doc_string = "a tensor"
    m.graph.input[0].doc_string = "an input"
    m.graph.input[0].metadata_props.add(key="of", value="input")
    m.graph.value_info.append(value("w", [2, 2]))
    a = m.graph.quantization_annotation.add(tensor_name="w")
    a.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w_scale")
    a.quant_parameter_tensor_names.add(key="ZERO_POINT_TENSOR", value="w_zero")
    write("metadata", m, producer=["golden", "1.0"], domain="golden", model_version=2**40, doc_string="a model",
          metadata_props={p.key: p.value for p in m.metadata_props}, graph_metadata={"of": "graph"},
          node_metadata={"/layer.0/MatMul": {p.key: p.value for p in node.metadata_props}},
          tensor_metadata={"w": {"of": "tensor"}},
          quantization_annotation={"w": {"SCALE_TENSOR": "w_scale", "ZERO_POINT_TENSOR": "w_zero"}})


def unknown():
    """Fields that no version of the format has, of every wire type, in every message: a reader skips them."""
    odd = (w.number(1000, 2**63) + w.data(1001, b"\x0a\xff not a message") + w.fixed32(1002, b"abcd") + w.fixed64(1003, b"abcdefgh")
           + w.group(1004, w.number(1, 5) + w.data(2, "text") + w.group(3, b"")))
    values = packed("FLOAT", patterns("FLOAT", 2))
    t = odd + w.tensor("w", T.FLOAT, [2], values, odd)
    node = w.data(1, odd + w.data(1, "w") + odd + w.data(2, "y") + w.data(4, "Identity") + odd)
    constant = w.data(1, w.data(2, "c") + w.data(4, "Constant") + w.data(5, odd + w.data(1, "value") + w.data(
        5, w.tensor(None, T.FLOAT, [2], values, odd)) + w.number(20, 4) + odd))
    g = odd + w.graph(t, nodes=node + constant, extra=odd)
    write("unknown-fields", odd + w.model(g, odd), check=False, expected=[
        row("w", "FLOAT", [2], values, "graph.initializer[0]"), row("c", "FLOAT", [2], values, "graph.node[1].value")])


def wire():
    """Encodings that protobuf allows and few writers use: a message in pieces, any order of fields, long varints, repeated scalars."""
    values = packed("FLOAT", patterns("FLOAT", 6))
    backwards = (w.data(9, values) + w.data(8, "not this") + w.data(8, "backwards") + w.number(2, 7, width=10)
                 + w.number(2, T.FLOAT, width=10) + w.data(1, w.varint(2, width=4) + w.varint(3)))
    typed = w.tensor("pieces", T.INT32, [4], extra=w.data(5, w.varint(-1)) + w.number(5, 7) + w.data(5, w.varint(8) + w.varint(9)))
    first = w.graph(backwards)
    second = w.data(5, typed) + w.data(2, "renamed")
    content = w.data(7, first) + w.number(1, 10) + w.data(8, w.number(2, 20)) + w.data(7, second)
    write("wire", content, check=False, expected=[
        row("backwards", "FLOAT", [2, 3], values, "graph.initializer[0]"),
        row("pieces", "INT32", [4], packed("INT32", [2**32 - 1, 7, 8, 9]), "graph.initializer[1]")])
    write("empty-graph", model([]))
    write("empty-graph-message", w.number(1, 10) + w.data(8, w.number(2, 20)) + w.data(7, b""), check=False)


def versions():
    """The same graph for each version of the format; in version 3 initializers are inputs too."""
    for ir in range(3, onnx.IR_VERSION + 1):
        w_, b = counted("w", [2, 2]), counted("b", [2], 9)
        inputs = [value("x", [1, 2])] + ([value("w", [2, 2]), value("b", [2])] if ir == 3 else [])
        opset = {3: 8, 4: 9, 5: 10, 6: 11, 7: 14, 8: 17, 9: 20, 10: 21}.get(ir, 22)
        nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
        write(f"ir-{ir}", model(nodes, [w_, b], inputs, [value("y", [1, 2])], ir=ir, opset=opset))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for make in (types, shapes, external, constants, subgraphs, functions, sparse, training, metadata, unknown, wire, versions):
        make()
    print(sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file()), "bytes")


if __name__ == "__main__":
    main()

"""Lists the tensors of an ONNX file as onnx's own library reads them; for onnx_formats.py, whose header says how.

Also the bit patterns that its files hold, in the raw form and in the typed fields.
"""
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

import onnx_wire as w

OUT = Path(__file__).resolve().parent.parent / "onnx" / "formats"
# bits of an element, and the field that holds it when raw_data does not
TYPES = {
    "FLOAT": (32, "float_data"), "UINT8": (8, "int32_data"), "INT8": (8, "int32_data"), "UINT16": (16, "int32_data"),
    "INT16": (16, "int32_data"), "INT32": (32, "int32_data"), "INT64": (64, "int64_data"), "BOOL": (8, "int32_data"),
    "FLOAT16": (16, "int32_data"), "DOUBLE": (64, "double_data"), "UINT32": (32, "uint64_data"),
    "UINT64": (64, "uint64_data"), "COMPLEX64": (64, "float_data"), "COMPLEX128": (128, "double_data"),
    "BFLOAT16": (16, "int32_data"), "FLOAT8E4M3FN": (8, "int32_data"), "FLOAT8E4M3FNUZ": (8, "int32_data"),
    "FLOAT8E5M2": (8, "int32_data"), "FLOAT8E5M2FNUZ": (8, "int32_data"), "UINT4": (4, "int32_data"),
    "INT4": (4, "int32_data"), "FLOAT4E2M1": (4, "int32_data"), "FLOAT8E8M0": (8, "int32_data"),
    "UINT2": (2, "int32_data"), "INT2": (2, "int32_data"), "FLOAT6E2M3": (6, "int32_data"), "FLOAT6E3M2": (6, "int32_data"),
}
SIGNED = {"INT8", "INT16", "INT32", "INT64"}
FIELDS = {"float_data": 4, "int32_data": 5, "int64_data": 7, "double_data": 10, "uint64_data": 11}
STRINGS = ["", "mill", "gr\u00fc\u00df dich \U0001f999", "\0line\n"]


def number_of(dtype):
    return TensorProto.DataType.Value(dtype)


def patterns(dtype, count):
    """`count` elements as bit patterns: edges first, then arbitrary ones."""
    bits = TYPES[dtype][0]
    if dtype == "BOOL":
        return [i * 5 % 3 % 2 for i in range(count)]
    random = np.random.Generator(np.random.PCG64(number_of(dtype)))
    edges = [0, (1 << bits) - 1, 1 << (bits - 1), 1, (1 << (bits - 1)) - 1]
    if dtype in ("FLOAT", "COMPLEX64", "DOUBLE", "COMPLEX128"):
        # No signalling NaN: a library that passes values through a float register may quiet it.
        kind, width = ("<f4", 32) if dtype in ("FLOAT", "COMPLEX64") else ("<f8", 64)
        values = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45 if width == 32 else 5e-324, 3.14159, -2.5]
        flat = [int.from_bytes(np.array(values[i % 8] + (i // 8), kind).tobytes(), "little")
                for i in range(count * bits // width)]
        per = bits // width
        return [sum(flat[i * per + j] << (j * width) for j in range(per)) for i in range(count)]
    return (edges + [int(x) & ((1 << bits) - 1) for x in random.integers(0, 1 << 62, count)])[:count]


def packed(dtype, elements):
    """The elements as raw_data has them."""
    bits = TYPES[dtype][0]
    stream = sum(e << (i * bits) for i, e in enumerate(elements))
    return stream.to_bytes((len(elements) * bits + 7) // 8, "little")


def typed_numbers(dtype, elements):
    """What the typed field holds."""
    bits, field = TYPES[dtype]
    if bits in (2, 4):
        return list(packed(dtype, elements))
    if dtype in SIGNED:
        return [e - (1 << bits) if e >> (bits - 1) else e for e in elements]
    return elements


def typed_bytes(dtype, elements, is_packed):
    """The typed field on the wire, as newer writers (packed) or older ones have it."""
    bits, field = TYPES[dtype]
    number = FIELDS[field]
    if field in ("float_data", "double_data"):
        width = 4 if field == "float_data" else 8
        raw = packed(dtype, elements)
        if is_packed:
            return w.data(number, raw)
        put = w.fixed32 if width == 4 else w.fixed64
        return b"".join(put(number, raw[i:i + width]) for i in range(0, len(raw), width))
    values = typed_numbers(dtype, elements)
    if is_packed:
        return w.data(number, b"".join(w.varint(v) for v in values))
    return b"".join(w.number(number, v) for v in values)


def string_bytes(strings):
    return b"".join(struct.pack("<Q", len(s.encode())) + s.encode() for s in strings)


def row(name, dtype, shape, raw, where, **more):
    return {"name": name, "dtype": dtype, "shape": list(shape), "sha256": hashlib.sha256(raw).hexdigest(), "where": where} | more


def raw_of(t, folder=None):
    """The bytes of a tensor that onnx's own library reads."""
    dtype = TensorProto.DataType.Name(t.data_type)
    if dtype == "STRING":
        return string_bytes([s.decode() for s in t.string_data])
    array = np.atleast_1d(numpy_helper.to_array(t, str(folder or "")))
    bits = TYPES[dtype][0]
    if bits >= 8:
        return array.tobytes()
    if array.size == 0:
        return b""
    codes = array.reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    return packed(dtype, [int(c) for c in codes])


def walk_graph(g, path, folder):
    for i, t in enumerate(g.initializer):
        yield tensor_row(t, f"{path}.initializer[{i}]", folder)
    for i, s in enumerate(g.sparse_initializer):
        yield from sparse_rows(s, f"{path}.sparse_initializer[{i}]", s.values.name, folder)
    yield from walk_nodes(g.node, path, folder)


def walk_nodes(nodes, path, folder):
    kinds = onnx.AttributeProto
    for i, node in enumerate(nodes):
        for a in node.attribute:
            here = f"{path}.node[{i}].{a.name}"
            output = node.output[0] if node.op_type == "Constant" else None
            if a.ref_attr_name:
                continue
            if a.type == kinds.TENSOR:
                yield tensor_row(a.t, here, folder, output)
            elif a.type == kinds.TENSORS:
                for j, t in enumerate(a.tensors):
                    yield tensor_row(t, f"{here}[{j}]", folder)
            elif a.type == kinds.SPARSE_TENSOR:
                yield from sparse_rows(a.sparse_tensor, here, output or "", folder)
            elif a.type == kinds.GRAPH:
                yield from walk_graph(a.g, here, folder)
            elif a.type == kinds.GRAPHS:
                for j, g in enumerate(a.graphs):
                    yield from walk_graph(g, f"{here}[{j}]", folder)
            elif node.op_type == "Constant":
                yield constant_row(a, here, output)


def constant_row(a, where, name):
    floats, ints, strings = list(a.floats), list(a.ints), [s.decode() for s in a.strings]
    return {
        "value_float": lambda: row(name, "FLOAT", [], struct.pack("<f", a.f), where),
        "value_floats": lambda: row(name, "FLOAT", [len(floats)], struct.pack(f"<{len(floats)}f", *floats), where),
        "value_int": lambda: row(name, "INT64", [], struct.pack("<q", a.i), where),
        "value_ints": lambda: row(name, "INT64", [len(ints)], struct.pack(f"<{len(ints)}q", *ints), where),
        "value_string": lambda: row(name, "STRING", [], string_bytes([a.s.decode()]), where),
        "value_strings": lambda: row(name, "STRING", [len(strings)], string_bytes(strings), where),
    }[a.name]()


def tensor_row(t, where, folder, name=None):
    dtype = TensorProto.DataType.Name(t.data_type)
    return row(t.name if name is None else name, dtype, t.dims, raw_of(t, folder), where)


def sparse_rows(s, where, name, folder):
    yield tensor_row(s.values, f"{where}.values", folder, name) | {"dense_shape": list(s.dims)}
    yield tensor_row(s.indices, f"{where}.indices", folder, name)


def walk(model, folder=None):
    """Every tensor of a model, with what onnx's library makes of it."""
    yield from walk_graph(model.graph, "graph", folder)
    for i, f in enumerate(model.functions):
        yield from walk_nodes(f.node, f"functions[{i}]", folder)
    for i, t in enumerate(model.training_info):
        for part in ("initialization", "algorithm"):
            yield from walk_graph(getattr(t, part), f"training_info[{i}].{part}", folder)


def write(name, content, check=True, expected=None, **more):
    """Writes a file and its list. `expected` rows must be what onnx's library reads, where it is given."""
    path = OUT / name / "model.onnx" if (OUT / name).is_dir() else OUT / f"{name}.onnx"
    content = content if isinstance(content, bytes) else content.SerializeToString(deterministic=True)
    path.write_bytes(content)
    model = onnx.load(path, load_external_data=False)
    rows = list(walk(model, path.parent))
    if expected is not None:
        assert rows == expected, [(a, b) for a, b in zip(rows, expected) if a != b][:3] or (len(rows), len(expected))
    if check:
        onnx.checker.check_model(str(path), full_check=False)
    about = {"ir_version": model.ir_version, "opset": {o.domain: o.version for o in model.opset_import}} | more
    lines = ",\n".join("  " + json.dumps(r, ensure_ascii=False) for r in rows)
    head = "".join(f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)},\n" for k, v in about.items())
    target = path.parent / "model.json" if path.name == "model.onnx" else OUT / f"{name}.json"
    target.write_text(f'{{\n{head} "tensors": [\n{lines}\n ]\n}}\n'.replace("[\n\n ]", "[]"))
    print(f"{name}: {len(rows)} tensors, {len(content)} bytes")

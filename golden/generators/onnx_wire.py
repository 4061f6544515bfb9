"""Protobuf put together by hand, for what no library writes: unknown fields, unpacked numbers, lengths that lie.

Used by onnx_formats.py and onnx_hostile.py. Field numbers are those of onnx.proto.
"""


def varint(value, width=0):
    """`value` (negative: as 64 bits), with at least `width` bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F or len(out) + 1 < width:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def tag(field, wire):
    return varint(field << 3 | wire)


def number(field, value, width=0):
    return tag(field, 0) + varint(value, width)


def data(field, content, length=None):
    """A length-delimited field; `length` is what it says of itself where that is another."""
    content = content.encode() if isinstance(content, str) else content
    return tag(field, 2) + varint(len(content) if length is None else length) + content


def fixed32(field, content):
    return tag(field, 5) + content


def fixed64(field, content):
    return tag(field, 1) + content


def group(field, content):
    return tag(field, 3) + content + tag(field, 4)


class Model:
    IR_VERSION, GRAPH, OPSET, METADATA, TRAINING, FUNCTIONS = 1, 7, 8, 14, 20, 25


class Graph:
    NODE, NAME, INITIALIZER, INPUT, OUTPUT, VALUE_INFO, SPARSE = 1, 2, 5, 11, 12, 13, 15


class Node:
    INPUT, OUTPUT, NAME, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 3, 4, 5, 7


class Attribute:
    NAME, T, G, GRAPHS, TYPE = 1, 5, 6, 11, 20


class Tensor:
    DIMS, TYPE, SEGMENT, FLOATS, INT32S, STRINGS, INT64S, NAME, RAW, DOUBLES, UINT64S, EXTERNAL, LOCATION = (
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14)


def tensor(name, dtype, dims, raw=None, extra=b""):
    out = b"".join(number(Tensor.DIMS, d) for d in dims) + number(Tensor.TYPE, dtype)
    out += data(Tensor.NAME, name) if name is not None else b""
    return out + (data(Tensor.RAW, raw) if raw is not None else b"") + extra


def external(name, dtype, dims, **entries):
    pairs = b"".join(data(Tensor.EXTERNAL, data(1, k) + data(2, v)) for k, v in entries.items())
    return tensor(name, dtype, dims, extra=pairs + number(Tensor.LOCATION, 1))


def graph(*initializers, nodes=b"", extra=b""):
    return nodes + data(Graph.NAME, "g") + b"".join(data(Graph.INITIALIZER, t) for t in initializers) + extra


def model(graph_bytes, extra=b"", ir=10, opset=20):
    return number(Model.IR_VERSION, ir) + data(Model.OPSET, data(1, "") + number(2, opset)) + data(
        Model.GRAPH, graph_bytes) + extra

#!/usr/bin/env python3
"""ONNX files that lie, in the form of golden/hostile: what each tries, how the program is given it, how it must exit.

    python onnx_hostile.py        writes golden/hostile/onnx: the files and cases.json

`how`: `inspect FILE`, or `convert FILE` to safetensors for what shows only when weights are read. Exit 3 unless `why` says why
not. Where a case has `link`, [name, target], a test makes that symbolic link beside the file first (none is committed); without it
the data are missing, which is refused as well. Files are small: the largest counts are of two-byte messages.

Everything is put together byte by byte; made with Python 3.11, no packages.
"""
import json
import re
import shutil
import struct
from pathlib import Path

import onnx_wire as w

OUT = Path(__file__).resolve().parent.parent / "hostile" / "onnx"
FLOAT, INT8, INT32, INT64, STRING, BOOL, FLOAT16, INT4 = 1, 3, 6, 7, 8, 9, 10, 22
FINE = "what looks odd is well-formed, and what it makes stays within limits"
LATER = "well-formed, and not read by this version"
CASES = []


def case(tries, content, how="inspect", exit=3, why="", link=None):
    name = "-".join(p for p in re.sub(r"[^a-z0-9]", "-", tries.lower()).split("-") if p)
    path = f"onnx/{name}.onnx"
    assert path not in [c["path"] for c in CASES], path
    assert (exit == 3) == (not why), tries
    assert len(content) <= 201_000, (tries, len(content))
    (OUT / f"{name}.onnx").write_bytes(content)
    more = {"why": why} if why else {}
    CASES.append({"path": path, "how": how, "exit": exit, "tries": tries} | more | ({"link": link} if link else {}))


def floats(n, start=0.0):
    return struct.pack(f"<{n}f", *(start + i for i in range(n)))


GOOD = w.tensor("w", FLOAT, [2, 3], floats(6))
MODEL = w.model(w.graph(GOOD))


def one(t, **kw):
    """A model whose only initializer is `t`."""
    return w.model(w.graph(t), **kw)


def node(op, attributes=b"", name="n", output="y", domain=""):
    return w.data(1, w.data(2, output) + w.data(3, name) + w.data(4, op) + attributes + (w.data(7, domain) if domain else b""))


def attribute(name, content, kind):
    return w.data(5, w.data(1, name) + content + w.number(20, kind))


def messages():
    case("an empty file", b"")
    case("text in place of a model", b"# a model\nversion = 1\n")
    case("nothing but zeros in place of a model", bytes(4096))
    case("a model without a graph", w.number(1, 10) + w.data(8, w.number(2, 20)))
    case("text behind a model", MODEL + b"and more")
    case("zeros behind a model", MODEL + bytes(64))
    start = MODEL.index(GOOD)
    for what, at in {"the version": 1, "the opset": 5, "the graph's length": start - 6, "an initializer's length": start - 1,
                     "an initializer's dimensions": start + 1, "an initializer's type": start + 5,
                     "an initializer's name": start + 8, "the length of the weights": start + 10, "the weights": start + 20,
                     "the last weight": len(MODEL) - 1}.items():
        case(f"cut off in {what}", MODEL[:at])
    for what, length in {"2^31": 2**31, "2^62": 2**62, "2^63": 2**63, "2^64 - 1": 2**64 - 1}.items():
        case(f"a graph of {what} bytes", w.number(1, 10) + w.data(7, w.graph(GOOD), length))
        case(f"an initializer of {what} bytes", w.model(w.data(5, GOOD, length)))
        case(f"a name of {what} bytes", one(w.number(1, 2) + w.number(2, 1) + w.data(8, "w", length) + w.data(9, floats(2))))
        case(f"weights of {what} bytes", one(w.number(1, 2) + w.number(2, 1) + w.data(8, "w") + w.data(9, floats(2), length)))
    case("an initializer that ends behind its graph", w.model(w.data(5, GOOD, len(GOOD) + 4)) + bytes(8))
    case("a number of eleven bytes", w.tag(1, 0) + b"\x80" * 10 + b"\x01" + MODEL)
    case("a number of ten bytes beyond 64 bits", w.tag(1, 0) + b"\xff" * 9 + b"\x7f" + MODEL)
    case("a number without an end", one(GOOD, extra=w.tag(5, 0) + b"\xff" * 200))
    case("a field number of 0", b"\x02\x00" + MODEL)
    case("a field number beyond 2^29", w.varint(1 << 35 | 2) + b"\x00" + MODEL)
    case("wire type 6", one(GOOD, extra=w.varint(1000 << 3 | 6) + b"abcd"))
    case("wire type 7", one(GOOD, extra=w.varint(1000 << 3 | 7) + b"abcd"))
    case("a graph that is a number", w.number(1, 10) + w.number(7, 5))
    case("a version that is a text", w.data(1, "10") + w.data(7, w.graph(GOOD)))
    case("an initializer of 32 bits", w.model(w.graph(GOOD, extra=w.fixed32(5, b"abcd"))))
    case("weights that are a number", one(w.tensor("w", FLOAT, [1], extra=w.number(9, 7))))
    case("dimensions of 32 bits", one(w.fixed32(1, b"\2\0\0\0") + w.number(2, 1) + w.data(8, "w") + w.data(9, floats(2))))
    case("a graph that is a group", w.number(1, 10) + w.group(7, w.graph(GOOD)))
    case("a group without an end", one(GOOD, extra=w.tag(1000, 3) + w.number(1, 1)))
    case("an end without a group", one(GOOD, extra=w.tag(1000, 4)))
    case("a group that ends with another number", one(GOOD, extra=w.tag(1000, 3) + w.tag(1001, 4)))
    case("20 000 groups in groups", one(GOOD, extra=w.tag(15, 3) * 20_000 + w.tag(15, 4) * 20_000))
    case("40 000 groups without an end", one(GOOD, extra=w.tag(15, 3) * 40_000))
    case("a version of 1000", one(GOOD, ir=1000), exit=4, why=LATER)
    case("a version of -1", one(GOOD, ir=-1))
    case("an opset of 2^63 - 1", one(GOOD, opset=2**63 - 1), exit=0, why="operators are not what is read")


def names():
    case("a name of 100 KB", one(w.tensor("n" * 100_000, FLOAT, [1], floats(1))))
    case("a name that is not UTF-8", one(w.tensor(b"w\xff\xfe", FLOAT, [1], floats(1))))
    case("a name with half a surrogate", one(w.tensor(b"w\xed\xa0\x80", FLOAT, [1], floats(1))))
    case("an operator that is not UTF-8", w.model(w.graph(GOOD, nodes=w.data(1, w.data(2, "y") + w.data(4, b"\xff\xfe")))))
    case("a key of metadata that is not UTF-8", one(GOOD, extra=w.data(14, w.data(1, b"\xc3\x28") + w.data(2, "v"))))
    case("an initializer without a name", one(w.tensor(None, FLOAT, [1], floats(1))))
    case("an initializer's name twice", w.model(w.graph(GOOD, w.tensor("w", FLOAT, [1], floats(1)))))
    case("an initializer's name twice, the second in external data",
         w.model(w.graph(GOOD, w.external("w", FLOAT, [1], location="an-empty-file.onnx"))))
    case("an initializer and a constant of one name", w.model(w.graph(GOOD, nodes=node(
        "Constant", attribute("value", w.data(5, w.tensor(None, FLOAT, [1], floats(1))), 4), output="w"))))
    case("a name with a line break and a control sequence", one(w.tensor("w\n\x1b[31m", FLOAT, [1], floats(1))), exit=0, why=FINE)
    case("a name that leads out of the folder", one(w.tensor("../../w", FLOAT, [1], floats(1))), exit=0,
         why="names of tensors are no paths")


def shapes():
    for what, dims in {"2^62": [2**62], "2^62 four times": [2**62] * 4, "2^32 twice": [2**32, 2**32],
                       "2^63 - 1": [2**63 - 1], "-1": [-1], "-2^63": [-2**63], "-2 and -3": [-2, -3],
                       "2^61, whose bytes are beyond 64 bits": [2**61 + 1, 2], "0 and 2^62 twice": [0, 2**62, 2**62]}.items():
        case(f"dimensions of {what}", one(w.tensor("w", FLOAT, dims, floats(6))))
    case("30 000 dimensions of 1", one(w.tensor("w", FLOAT, [], floats(1), extra=w.data(1, b"\1" * 30_000))))
    case("dimensions cut off", one(w.number(2, 1) + w.data(8, "w") + w.data(9, floats(2)) + w.data(1, b"\x80\x80")))
    case("weights shorter than their dimensions", one(w.tensor("w", FLOAT, [2, 3], floats(5))))
    case("weights longer than their dimensions", one(w.tensor("w", FLOAT, [2, 3], floats(7))))
    case("weights of half a number", one(w.tensor("w", FLOAT, [2], floats(2)[:-1])))
    case("weights of a tensor without elements", one(w.tensor("w", FLOAT, [0, 3], floats(3))))
    case("no weights", one(w.tensor("w", FLOAT, [2, 3])))
    case("int4 of an odd count, a byte too few", one(w.tensor("w", INT4, [5], b"\x21\x43")))
    case("int4 of an odd count, a byte for each", one(w.tensor("w", INT4, [5], b"\1\2\3\4\5")))
    case("int4 of an odd count, with bits in the unused half", one(w.tensor("w", INT4, [3], b"\x21\xf3")), exit=0, why=FINE)
    case("int4 of an odd count in the typed field, an entry for each",
         one(w.tensor("w", INT4, [3], extra=w.data(5, b"\1\2\3"))))
    case("six-bit numbers, a byte too few", one(w.tensor("w", 27, [5], b"\1\2\3")))
    case("element type 200", one(w.tensor("w", 200, [2], floats(2))), exit=4, why="a newer version may have it")
    case("element type 0", one(w.tensor("w", 0, [2], floats(2))))
    case("element type -1", one(w.tensor("w", -1, [2], floats(2))))
    case("no element type", one(w.number(1, 2) + w.data(8, "w") + w.data(9, floats(2))))
    case("a segment of a tensor", one(w.tensor("w", FLOAT, [2], floats(2), w.data(3, w.number(1, 0) + w.number(2, 1)))),
         exit=4, why=LATER)


def fields():
    case("two forms of data that disagree", one(w.tensor("w", FLOAT, [2], floats(2), w.data(4, floats(2, 5)))))
    case("typed data of another type", one(w.tensor("w", FLOAT, [2], extra=w.data(7, b"\1\2"))))
    case("fewer typed numbers than dimensions say", one(w.tensor("w", FLOAT, [3], extra=w.data(4, floats(2)))))
    case("more typed numbers than dimensions say", one(w.tensor("w", INT64, [3], extra=w.data(7, b"\1" * 4))))
    case("typed numbers of 2^40 elements that are not there", one(w.tensor("w", INT32, [2**40], extra=w.data(5, b"\1"))))
    case("a typed half float beyond 16 bits", one(w.tensor("w", FLOAT16, [1], extra=w.number(5, 65536))), "convert")
    case("a typed int8 of 300", one(w.tensor("w", INT8, [1], extra=w.number(5, 300))), "convert")
    case("a typed truth value of 7", one(w.tensor("w", BOOL, [1], extra=w.number(5, 7))), "convert")
    case("typed floats of half a number", one(w.tensor("w", FLOAT, [2], extra=w.data(4, floats(2)[:-1]))))
    case("typed numbers cut off", one(w.tensor("w", INT64, [2], extra=w.data(7, b"\1\xff\xff"))))
    case("typed numbers of eleven bytes", one(w.tensor("w", INT64, [1], extra=w.data(7, b"\x80" * 10 + b"\1"))), "convert")
    case("30 000 typed numbers of one byte", one(w.tensor("w", INT64, [30_000], extra=w.data(7, b"\1" * 30_000))), exit=0, why=FINE)
    case("a tensor of texts", one(w.tensor("w", STRING, [2], extra=w.data(6, "a") + w.data(6, "b"))), "convert", 0,
         "texts are no weights: they are left aside, and a note says so")
    case("texts in raw data", one(w.tensor("w", STRING, [2], b"ab")))
    case("fewer texts than dimensions say", one(w.tensor("w", STRING, [3], extra=w.data(6, "a"))))
    case("30 000 empty texts", one(w.tensor("w", STRING, [30_000], extra=w.data(6, "") * 30_000)), "convert", 0,
         "texts are no weights: they are left aside, and a note says so")
    # What only a loader that fills the whole would mind.
    kept = "values and indices are kept as they are, not looked up"
    sparse = lambda values, indices, dims: w.model(w.graph(GOOD, extra=w.data(  # noqa: E731
        15, w.data(1, values) + w.data(2, indices) + b"".join(w.number(3, d) for d in dims))))
    value = w.tensor("s", FLOAT, [2], floats(2))
    index = lambda *v: w.tensor(None, INT64, [len(v)], struct.pack(f"<{len(v)}q", *v))  # noqa: E731
    case("a sparse tensor of 2^62 elements", sparse(value, index(0, 1), [2**31, 2**31]), "convert", 0, kept)
    case("a sparse tensor beyond 64 bits", sparse(value, index(0, 1), [2**40, 2**40]))
    case("a sparse index behind the end", sparse(value, index(0, 6), [2, 3]), "convert", 0, kept)
    case("a sparse index of -1", sparse(value, index(-1, 1), [2, 3]), "convert", 0, kept)
    case("a sparse index twice", sparse(value, index(1, 1), [2, 3]), "convert", 0, kept)
    case("more sparse indices than values", sparse(value, index(0, 1, 2), [2, 3]))
    case("sparse indices that are floats", sparse(value, w.tensor(None, FLOAT, [2], floats(2)), [2, 3]))


def externals():
    """External data; `a-model-that-is-fine.onnx` is the file that is there, of MODEL's length."""
    case("a model that is fine", MODEL, exit=0, why="others name it as their data")
    there, size = "a-model-that-is-fine.onnx", len(MODEL)
    put = lambda tries, dims=(2,), link=None, **e: case(tries, one(w.external("w", FLOAT, list(dims), **e)), "convert", link=link)  # noqa: E731
    put("data at an absolute path", location="/etc/passwd")
    put("data in a device", location="/dev/zero")
    put("data outside of the folder", location="../README.md")
    put("data outside of the folder, by a detour", location="a/../../README.md")
    put("data outside of the folder, in the way of Windows", location="..\\README.md")
    put("data on a drive", location="C:\\data.bin")
    put("data on a server", location="\\\\server\\share\\data.bin")
    put("data at an address", location="file:///etc/passwd")
    put("data behind a link out of the folder", location="link.bin", link=["link.bin", "../README.md"])
    put("data behind a link to itself", location="loop.bin", link=["loop.bin", "loop.bin"])
    put("data in a folder behind a link", location="up/README.md", link=["up", ".."])
    put("data in a file that is not there", location="not-there.bin")
    put("data in a folder", location=".")
    put("data in the parent folder", location="..")
    put("data in a file without a name", location="")
    put("data in a file with a zero in its name", location="a-model\0.onnx")
    put("data in a file whose name is not UTF-8", location=b"\xff\xfe.bin")
    put("data in a file with a name of 30 KB", location="n" * 30_000)
    put("data in the model itself", location="data-in-the-model-itself.onnx", offset="0", length="8")
    put("an offset behind the file", location=there, offset=str(size + 1), length="8")
    put("an offset within the last number", location=there, offset=str(size - 4), length="8")
    put("a length beyond the file", (size,), location=there, length=str(4 * size))
    put("a length shorter than dimensions say", location=there, offset="0", length="4")
    put("a length longer than dimensions say", location=there, offset="0", length="12")
    put("a file longer than dimensions say, without a length", location=there)
    put("a file shorter than dimensions say, without a length", (1000,), location=there)
    for key in ("offset", "length"):
        other = {"offset": {"length": "8"}, "length": {"offset": "0"}}[key]
        for what, v in {"-8": "-8", "2^63": str(2**63), "2^64": str(2**64), "a number of 100 digits": "9" * 100,
                        "2^63 - 1": str(2**63 - 1), "hexadecimal": "0x8", "with an exponent": "8e0", "empty": "", "a word": "eight",
                        "with a space": " 8", "with a plus": "+8", "of other digits": "\u0668"}.items():
            put(f"{'an offset' if key == 'offset' else 'a length'}, {what}", location=there, **{key: v}, **other)
    raw = w.number(w.Tensor.LOCATION, 1)
    pair = lambda k, v: w.data(13, w.data(1, k) + w.data(2, v))  # noqa: E731
    case("external data without a location", one(w.tensor("w", FLOAT, [2], extra=pair("offset", "0") + raw)))
    case("external data without anything", one(w.tensor("w", FLOAT, [2], extra=raw)))
    case("two locations", one(w.tensor("w", FLOAT, [2], extra=pair("location", there) + pair("location", "/etc/passwd") + raw)), "convert")
    case("two offsets", one(w.tensor("w", FLOAT, [2], extra=pair("location", there) + pair("offset", "0") + pair("offset", "8")
                                     + pair("length", "8") + raw)), "convert")
    case("external data and data within", one(w.tensor("w", FLOAT, [2], floats(2), pair("location", there) + pair("length", "8") + raw)))
    case("a place of data of 7", one(w.tensor("w", FLOAT, [2], floats(2), w.number(w.Tensor.LOCATION, 7))))
    case("a checksum that is not the file's", one(w.external("w", FLOAT, [2], location=there, offset="0", length="8",
                                                           checksum="0" * 40)), "convert", 0,
         "checksums are not verified")
    case("texts in external data", one(w.external("w", STRING, [2], location=there, offset="0", length="8")))
    case("8000 entries of external data", one(w.tensor("w", FLOAT, [2], extra=pair("k", "v") * 8000 + pair("location", there)
                                                         + pair("length", "8") + raw)), "convert")


def nested(depth, innermost, wrap=lambda g: w.data(1, w.data(5, w.data(6, g)))):
    """A graph in an attribute of a node in a graph; lengths from within outward."""
    content = innermost
    for _ in range(depth):
        content = wrap(content)
    return content


def graphs():
    case("10 000 graphs in graphs", w.model(nested(10_000, w.graph(GOOD))))
    # Three messages for each: within the 100 that protobuf itself allows.
    case("30 graphs in graphs", w.model(nested(30, w.graph(GOOD))), exit=0, why=FINE)
    case("5000 graphs in lists of graphs", w.model(nested(5000, w.graph(GOOD), lambda g: w.data(1, w.data(5, w.data(11, g))))))
    case("5000 graphs in graphs of a function", one(GOOD, extra=w.data(25, w.data(1, "F") + w.data(7, nested(
        5000, w.data(5, GOOD), lambda g: w.data(5, w.data(6, w.data(1, g))))))))
    case("5000 types in types", w.model(w.graph(GOOD, extra=w.data(13, w.data(1, "x") + w.data(2, nested(
        5000, b"", lambda t: w.data(4, w.data(1, t))))))), exit=0, why="types of values are not what is read")
    call = lambda f, g: w.data(25, w.data(1, f) + w.data(7, w.data(4, g) + w.data(7, "d")) + w.data(10, "d"))  # noqa: E731
    case("functions that call each other", w.model(w.graph(GOOD, nodes=node("F", domain="d")), call("F", "G") + call("G", "F")),
         exit=0, why="functions are read, not expanded")
    case("a function that calls itself", w.model(w.graph(GOOD, nodes=node("F", domain="d")), call("F", "F")), exit=0,
         why="functions are read, not expanded")
    bomb = b"".join(w.data(25, w.data(1, f"F{i}") + w.data(7, w.data(4, f"F{i + 1}") + w.data(7, "d")) * 10 + w.data(10, "d"))
                    for i in range(60))
    case("functions that expand to 10^60 nodes", w.model(w.graph(GOOD, nodes=node("F0", domain="d")), bomb), exit=0,
         why="functions are read, not expanded")
    case("100 000 empty nodes", w.model(w.graph(GOOD, nodes=w.data(1, b"") * 100_000)), exit=0, why=FINE)
    case("100 000 empty initializers", w.model(w.graph(GOOD, extra=w.data(5, b"") * 100_000)))
    case("5000 initializers of nothing", w.model(w.graph(*(w.tensor(f"{i:x}", FLOAT, [0]) for i in range(5000)))), exit=0, why=FINE)
    case("20 000 empty sparse initializers", w.model(w.graph(GOOD, extra=w.data(15, b"") * 20_000)))
    case("20 000 empty functions", one(GOOD, extra=w.data(25, b"") * 20_000), exit=0, why=FINE)
    case("20 000 empty attributes", w.model(w.graph(GOOD, nodes=w.data(1, w.data(4, "X") + w.data(5, b"") * 20_000))), exit=0, why=FINE)
    case("20 000 empty inputs of a node", w.model(w.graph(GOOD, nodes=w.data(1, w.data(4, "X") + w.data(1, b"") * 20_000))),
         exit=0, why=FINE)
    case("20 000 empty metadata entries", one(GOOD, extra=w.data(14, b"") * 20_000), exit=0, why=FINE)
    case("20 000 opsets", one(GOOD, extra=w.data(8, b"") * 20_000), exit=0, why=FINE)
    case("a graph in 20 000 pieces", one(GOOD, extra=w.data(7, b"") * 20_000), exit=0, why=FINE)
    case("a name given 20 000 times", one(w.data(8, "x") * 20_000 + GOOD), exit=0, why="the last one counts, as protobuf says")
    case("a Constant with two values", w.model(w.graph(GOOD, nodes=node("Constant", attribute(
        "value", w.data(5, w.tensor(None, FLOAT, [1], floats(1))), 4) + attribute("value_int", w.number(3, 5), 2)))))
    case("a Constant without a value", w.model(w.graph(GOOD, nodes=node("Constant"))))
    case("a Constant whose value is of another kind", w.model(w.graph(GOOD, nodes=node("Constant", attribute("value", w.number(3, 5), 2)))))
    case("a Constant without an output", w.model(w.graph(GOOD, nodes=w.data(1, w.data(4, "Constant") + attribute(
        "value", w.data(5, w.tensor(None, FLOAT, [1], floats(1))), 4)))))
    case("a Constant that is shorter than its dimensions", w.model(w.graph(GOOD, nodes=node("Constant", attribute(
        "value", w.data(5, w.tensor(None, FLOAT, [2**40], floats(1))), 4)))))
    case("an initializer within an If that leads out of the folder", w.model(w.graph(GOOD, nodes=node("If", attribute(
        "then_branch", w.data(6, w.graph(w.external("v", FLOAT, [2], location="../../README.md"))), 5)))), "convert")


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for make in (messages, names, shapes, fields, externals, graphs):
        make()
    rows = ",\n".join("  " + json.dumps(c, ensure_ascii=False) for c in CASES)
    (OUT / "cases.json").write_text(f"[\n{rows}\n]\n")
    refused = sum(c["exit"] == 3 for c in CASES)
    print(f"{len(CASES)} files, {refused} to be refused, {sum(p.stat().st_size for p in OUT.iterdir())} bytes")


if __name__ == "__main__":
    main()

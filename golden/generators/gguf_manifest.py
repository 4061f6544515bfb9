"""Reads a GGUF file with no help from any library and describes it as JSON, keys and tensors in file order.

usage: gguf_manifest.py FILE.gguf > manifest.json

`kv` is a list of [key, type, value]. The type is the GGUF name (`u32`, `str`, `arr<f32>`, ...). A value is a JSON
value; float32 values are printed exactly as float64. Arrays longer than 32 elements are
{"len": n, "sha256": of the elements' bytes as the file holds them (strings: u64 length + UTF-8)}.
`tensors` is a list of [name, ggml type, [ne0, ne1, ...], sha256 of the bytes].
"""
import hashlib
import json
import mmap
import struct
import sys

SCALARS = {0: ("u8", "B"), 1: ("i8", "b"), 2: ("u16", "H"), 3: ("i16", "h"), 4: ("u32", "I"), 5: ("i32", "i"),
           6: ("f32", "f"), 7: ("bool", "?"), 10: ("u64", "Q"), 11: ("i64", "q"), 12: ("f64", "d")}
STRING, ARRAY = 8, 9
LONG_ARRAY = 32
# ggml type code: (name, weights per block, bytes per block)
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
         7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
         12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 20: ("IQ4_NL", 32, 18),
         23: ("IQ4_XS", 256, 136), 30: ("BF16", 1, 2)}


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        value = struct.unpack_from("<" + fmt, self.data, self.at)[0]
        self.at += struct.calcsize("<" + fmt)
        return value

    def string(self):
        n = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8")

    def value(self, code):
        if code == STRING:
            return "str", self.string()
        if code == ARRAY:
            element, n = self.take("I"), self.take("Q")
            start = self.at
            name = "str" if element == STRING else SCALARS[element][0]
            items = [self.value(element)[1] for _ in range(n)]
            if n > LONG_ARRAY:
                items = {"len": n, "sha256": hashlib.sha256(self.data[start:self.at]).hexdigest()}
            return f"arr<{name}>", items
        name, fmt = SCALARS[code]
        return name, self.take(fmt)


def manifest(path):
    """The description of one file as a dict with `kv` and `tensors`."""
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        c = Cursor(data)
        if data[:4] != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file")
        c.at = 8
        n_tensors, n_kv = c.take("Q"), c.take("Q")
        kv = []
        for _ in range(n_kv):
            key = c.string()
            kv.append([key, *c.value(c.take("I"))])
        infos = []
        for _ in range(n_tensors):
            name = c.string()
            shape = [c.take("Q") for _ in range(c.take("I"))]
            infos.append((name, shape, TYPES[c.take("I")], c.take("Q")))
        alignment = next((v for k, _, v in kv if k == "general.alignment"), 32)
        base = -(-c.at // alignment) * alignment
        tensors = []
        for name, shape, (type_name, weights, size), offset in infos:
            count = 1
            for n in shape:
                count *= n
            start = base + offset
            digest = hashlib.sha256(data[start:start + count // weights * size]).hexdigest()
            tensors.append([name, type_name, shape, digest])
        return {"kv": kv, "tensors": tensors}


def dump(document, path):
    """Writes JSON with one key-value pair and one tensor per line, so that differences read well."""
    line = lambda v: json.dumps(v, ensure_ascii=False)
    with open(path, "w", encoding="utf-8") as f:
        f.write("{\n")
        rows = []
        for key, value in document.items():
            if key in ("kv", "tensors"):
                rows.append(f"{line(key)}: [\n" + ",\n".join(line(v) for v in value) + "\n]")
            else:
                rows.append(f"{line(key)}: {line(value)}")
        f.write(",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    json.dump(manifest(sys.argv[1]), sys.stdout, ensure_ascii=False, indent=0)

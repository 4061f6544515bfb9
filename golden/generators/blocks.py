"""Writes golden/blocks: what ggml's own encoders and decoders make of rows made from seeds.

    GGML_LIB=/path/to/libggml-base.so python3 golden/generators/blocks.py golden/blocks

Needs numpy and a libggml-base built from the llama.cpp that llama-cpp-python 0.3.36 vendors (ggml 0.25.3, plain
x86-64, default flags). Inputs are not stored: `row` and `importance` below equal kernels/tests/common/inputs.rs
bit for bit, and every case carries a checksum of its input.

Output, per block type T:
  cases.tsv    one line per case: type, distribution, importance, seed, columns, checksum of the row, checksum
               of the importance, checksum of the decoded row ("random" distribution: decoded from random
               blocks, nothing encoded; "stops": ggml fails an assertion on this row)
  T.bin        per case that does not stop, in the order of cases.tsv: the row's blocks (for "random": none),
               then the first 32 decoded weights as f32
"""

import ctypes
import os
import pathlib
import sys

import numpy as np

# name: (type code, weights per block, bytes per block)
TYPES = {
    "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18), "IQ4_XS": (23, 256, 136), "TQ1_0": (34, 256, 54),
    "TQ2_0": (35, 256, 66), "MXFP4": (39, 32, 17), "NVFP4": (40, 64, 36), "Q1_0": (41, 128, 18),
    "Q2_0": (42, 64, 18), "IQ2_XXS": (16, 256, 66), "IQ2_XS": (17, 256, 74), "IQ3_XXS": (18, 256, 98),
    "IQ1_S": (19, 256, 50), "IQ3_S": (21, 256, 110), "IQ2_S": (22, 256, 82), "IQ1_M": (29, 256, 56),
    "Q8_K": (15, 256, 292),
}
# Formats whose levels index a grid: fewer rows, since they are slow, and ggml stops on some.
GRID = {"IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ3_S", "IQ2_S", "IQ1_M"}
NEED_IMPORTANCE = {"IQ2_XXS", "IQ2_XS", "IQ1_S"}
# Where negative importance leaves no neighbour, ggml reads weights of other groups, past the row's end too.
NO_SIGNED = {"IQ1_S", "IQ1_M"}
IGNORE_IMPORTANCE = {"Q8_K", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0"}
DISTRIBUTIONS = [
    "gauss", "t3", "constant", "sparse", "zeros", "negzero", "subnormal", "tiny", "huge", "mixed", "ties",
    "positive", "negative", "bf16", "bits", "outlier", "powers",
]
IMPORTANCES = ["none", "spread", "extreme", "signed"]
MASK = (1 << 64) - 1


def draw(seed, i):
    i = np.asarray(i, dtype=np.uint64)
    z = np.uint64(seed & MASK) + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def normal(seed, first):
    total = np.zeros(np.shape(first), dtype=np.int64)
    for k in range(4):
        d = draw(seed, np.asarray(first, dtype=np.uint64) + np.uint64(k))
        for shift in (0, 21, 42):
            total += ((d >> np.uint64(shift)) & np.uint64(0x1FFFFF)).astype(np.int64)
    return (total - 6 * 0x1FFFFF).astype(np.float64) / 2097152.0


def power(e):
    return ((np.asarray(e, dtype=np.int64) + 1023).astype(np.uint64) << np.uint64(52)).view(np.float64)


def row(distribution, seed, n):
    i = np.arange(n, dtype=np.uint64)
    z = normal(seed, i * np.uint64(16))
    spare = draw(seed, i * np.uint64(16) + np.uint64(15))
    low = spare.astype(np.uint32)
    inverted = ~seed & MASK
    if distribution == "gauss":
        return (z * 0.02).astype(np.float32)
    if distribution == "t3":
        a, b, c = (normal(seed, i * np.uint64(16) + np.uint64(k)) for k in (4, 8, 12))
        return (z / np.sqrt((a * a + b * b + c * c) / 3.0) * 0.02).astype(np.float32)
    if distribution == "constant":
        return normal(inverted, i // np.uint64(64) * np.uint64(4)).astype(np.float32)
    if distribution == "sparse":
        k = spare % np.uint64(10)
        out = np.where(k < 5, np.float32(0.0), np.float32(-0.0)).astype(np.float32)
        return np.where(k == 0, z.astype(np.float32), out)
    if distribution == "zeros":
        return np.zeros(n, dtype=np.float32)
    if distribution == "negzero":
        return np.full(n, -0.0, dtype=np.float32)
    if distribution == "subnormal":
        return (low & np.uint32(0x807FFFFF)).view(np.float32)
    if distribution == "tiny":
        return (z * power(-40 - 8 * (i // np.uint64(256) % np.uint64(10)).astype(np.int64))).astype(np.float32)
    if distribution == "huge":
        return (z * power(125)).astype(np.float32)
    if distribution == "mixed":
        group = (draw(inverted, i // np.uint64(32)) % np.uint64(250)).astype(np.int64)
        return (z * power(group - 140)).astype(np.float32)
    if distribution == "ties":
        quarters = (spare % np.uint64(33)).astype(np.float64) * 0.25 - 4.0
        halves = (spare % np.uint64(507)).astype(np.float64) * 0.5 - 126.5
        halves = np.where(i % np.uint64(32) == 5, -127.0, halves)
        even = draw(inverted, i // np.uint64(32)) % np.uint64(2) == 0
        return np.where(even, quarters, halves).astype(np.float32)
    if distribution == "positive":
        return (np.abs(z) + 0.125).astype(np.float32)
    if distribution == "negative":
        return -(np.abs(z) + 0.125).astype(np.float32)
    if distribution == "bf16":
        bits = (z * 0.02).astype(np.float32).view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(
            np.float32
        )
    if distribution == "bits":
        ones = (low & np.uint32(0x7F800000)) == np.uint32(0x7F800000)
        return np.where(ones, low & np.uint32(0xBFFFFFFF), low).view(np.float32)
    if distribution == "outlier":
        return np.where(spare % np.uint64(64) == 0, z * 1000.0, z).astype(np.float32)
    if distribution == "powers":
        group = draw(inverted, i // np.uint64(32))
        power_bits = (np.uint64(1) + group % np.uint64(253)) << np.uint64(23)
        around = power_bits + spare % np.uint64(129) - np.uint64(64)
        below = power_bits - np.uint64(1) - (group >> np.uint64(32)) % np.uint64(64) - spare % np.uint64(128)
        bits = np.where(group >> np.uint64(16) & np.uint64(1) == 0, around, below)
        return (bits | (spare >> np.uint64(32)) & np.uint64(0x80000000)).astype(np.uint32).view(np.float32)
    raise ValueError(distribution)


def importance(kind, seed, n):
    if kind == "none":
        return None
    seed ^= 0x5851F42D4C957F2D
    i = np.arange(n, dtype=np.uint64)
    z = normal(seed, i * np.uint64(8))
    spare = draw(seed, i * np.uint64(8) + np.uint64(7))
    mantissa = 1.0 + (spare >> np.uint64(40)).astype(np.float64) / 16777216.0
    if kind == "spread":
        return (mantissa * power(np.floor(2.0 * z).astype(np.int64))).astype(np.float32)
    if kind == "signed":
        return (z * 2.0).astype(np.float32)
    nothing = (spare % np.uint64(3) == 0) | (i // np.uint64(32) % np.uint64(7) == 3)
    anything = mantissa * power((spare >> np.uint64(8) & np.uint64(127)).astype(np.int64) - 64)
    return np.where(nothing, 0.0, anything).astype(np.float32)


def fnv(values):
    bits = np.where(np.isnan(values), np.uint32(0x7FC00000), values.view(np.uint32))
    h = 0xCBF29CE484222325
    for b in bits.tolist():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


class Ggml:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.lib.ggml_quantize_chunk.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
        ]

    def encode_or_stop(self, name, x, weights):
        """The row's blocks, or None when ggml stops the process: it runs in a child."""
        self.lib.ggml_quantize_init(TYPES[name][0])
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            with os.fdopen(writer, "wb") as out:
                out.write(self.encode(name, x, weights).tobytes())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as blocks:
            blocks = np.frombuffer(blocks.read(), dtype=np.uint8)
        return None if os.waitpid(child, 0)[1] else blocks

    def encode(self, name, x, weights):
        code, per_block, size = TYPES[name]
        out = np.zeros(len(x) // per_block * size, dtype=np.uint8)
        if name == "Q8_K":  # not among the types of ggml_quantize_chunk
            self.lib.quantize_row_q8_K_ref(
                ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(len(x))
            )
            return out
        imatrix = None if weights is None else weights.ctypes.data
        written = self.lib.ggml_quantize_chunk(code, x.ctypes.data, out.ctypes.data, 0, 1, len(x), imatrix)
        assert written == len(out), (name, written, len(out))
        return out

    def decode(self, name, blocks):
        _, per_block, size = TYPES[name]
        out = np.zeros(len(blocks) // size * per_block, dtype=np.float32)
        function = getattr(self.lib, "dequantize_row_" + name.lower().replace("_k", "_K"))
        function.restype = None
        function(ctypes.c_void_p(blocks.ctypes.data), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(len(out)))
        return out


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["GGML_NO_BACKTRACE"] = "1"
    ggml = Ggml(os.environ["GGML_LIB"])
    lines = ["#type\tdistribution\timportance\tseed\tcolumns\trow\timportance_sum\tdecoded"]
    for name in TYPES:
        chunks = []
        seed = TYPES[name][0] * 1000
        for distribution in DISTRIBUTIONS:
            # Types that ignore importance are shown once that they do.
            kinds = IMPORTANCES if name not in IGNORE_IMPORTANCE else IMPORTANCES[: 1 + (distribution == "gauss")]
            if name in NEED_IMPORTANCE:
                kinds = kinds[1:]
            if name in NO_SIGNED:
                kinds = kinds[:-1]
            for kind in kinds:
                seed += 1
                # 256 to 2304 columns, the long rows rarer.
                n = 256 * (1, 2, 1, 3, 1, 2, 1, 4, 1, 2, 9)[seed % 11]
                if name in GRID:
                    n = min(n, 512 if kind == "none" else 768)
                x, w = row(distribution, seed, n), importance(kind, seed, n)
                assert np.isfinite(x).all()
                blocks = ggml.encode_or_stop(name, x, w) if name in GRID else ggml.encode(name, x, w)
                outcome = "stops"
                if blocks is not None:
                    decoded = ggml.decode(name, blocks)
                    chunks += [blocks.tobytes(), decoded[:32].tobytes()]
                    outcome = f"{fnv(decoded):016x}"
                total = 0 if w is None else fnv(w)
                lines.append(
                    f"{name}\t{distribution}\t{kind}\t{seed}\t{n}\t{fnv(x):016x}\t{total:016x}\t{outcome}"
                )
        for seed in range(seed + 1, seed + 4):
            n = 2304
            _, per_block, size = TYPES[name]
            blocks = draw(seed, np.arange(n // per_block * size)).astype(np.uint8)
            decoded = ggml.decode(name, blocks)
            chunks.append(decoded[:32].tobytes())
            lines.append(f"{name}\trandom\tnone\t{seed}\t{n}\t{0:016x}\t{0:016x}\t{fnv(decoded):016x}")
        (folder / f"{name}.bin").write_bytes(b"".join(chunks))
    (folder / "cases.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

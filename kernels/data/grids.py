"""Extracts the point tables of the IQ1, IQ2 and IQ3 formats from llama.cpp (MIT licence).

    LLAMA_CPP=/path/to/llama.cpp python3 kernels/data/grids.py

Reads ggml/src/ggml-common.h and writes one file per table beside this script: the points one after the other,
one byte per coordinate (signed for IQ1). Written from the llama.cpp that llama-cpp-python 0.3.36 vendors.
"""

import os
import pathlib
import re
import struct

TABLES = {"iq2xxs_grid": 256, "iq2xs_grid": 512, "iq2s_grid": 1024, "iq3xxs_grid": 256, "iq3s_grid": 512, "iq1s_grid": 2048}


def main():
    source = (pathlib.Path(os.environ["LLAMA_CPP"]) / "ggml/src/ggml-common.h").read_text()
    for name, points in TABLES.items():
        head = re.search(rf"GGML_TABLE_BEGIN\((uint\d+)_t, {name}, \w+\)", source)
        body = source[head.end() : source.index("GGML_TABLE_END", head.end())]
        numbers = [int(n, 16) for n in re.findall(r"0x[0-9a-f]+", body)]
        assert len(numbers) == points, (name, len(numbers))
        code = {"uint32": "I", "uint64": "Q"}[head.group(1)]
        path = pathlib.Path(__file__).parent / f"{name}.bin"
        path.write_bytes(struct.pack(f"<{points}{code}", *numbers))


if __name__ == "__main__":
    main()

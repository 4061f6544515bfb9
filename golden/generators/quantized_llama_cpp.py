"""Writes golden/quantized/<folder>/llama_cpp.json: what llama.cpp's convert_hf_to_gguf.py makes of the quantized folder.

A manifest as gguf_manifest.py's, of the converter at its default --outtype for `kv` and `tensors`; or, where the peer refuses the
folder, {"refused": the exception's type and text}. The source's tokenizer is copied beside the model first.

usage: quantized_llama_cpp.py [NAME ...]          environment: LLAMA_CPP = the peer's source tree
"""
import json
import os
import shutil
import sys
import tempfile

import gguf_manifest
import peer
from quantized_common import ROOT, SOURCE

# llama.cpp's ggml/include/ggml.h; 8-bit floats have no type there.
gguf_manifest.TYPES |= {39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36)}


# The peer's own dequantization of these mixes real and lazy tensors, and fails on the device of the lazy ones.
EAGER = ["bitnet"]
# Pre-tokenizers that small vocabularies are not recognized by.
PRE = {"gpt-oss-mxfp4": "gpt-4o"}


def convert(name, out, options=()):
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, name)
        shutil.copytree(os.path.join(ROOT, name), folder)
        for file in ("expected.safetensors", "llama_cpp.json"):
            if os.path.exists(os.path.join(folder, file)):
                os.remove(os.path.join(folder, file))
        if not os.path.exists(os.path.join(folder, "tokenizer.json")):
            for file in ("tokenizer.model", "tokenizer_config.json"):
                shutil.copy(os.path.join(SOURCE, file), folder)
        peer.convert(folder, out, "auto", PRE.get(name), extra=options)


def main():
    names = sys.argv[1:] or sorted(set(os.listdir(ROOT)) - {"source", "README.md"})
    peer.converter()
    for name in names:
        path = os.path.join(ROOT, name, "llama_cpp.json")
        with tempfile.TemporaryDirectory() as scratch:
            out = os.path.join(scratch, "out.gguf")
            try:
                options = ["--no-lazy"] if name in EAGER else []
                convert(name, out, options)
                document = ({"options": options} if options else {}) | gguf_manifest.manifest(out)
                kinds = sorted({t[1] for t in document["tensors"]})
                print(f"{name}: {len(document['tensors'])} tensors, {' '.join(kinds)}")
                gguf_manifest.dump(document, path)
            except Exception as e:
                print(f"{name}: {type(e).__name__}: {e}")
                with open(path, "w", encoding="utf-8") as f:
                    json.dump({"refused": f"{type(e).__name__}: {e}"}, f, indent=1)
                    f.write("\n")


if __name__ == "__main__":
    main()

"""Writes MANIFEST.json beside this folder: sha256 of every golden model and card file and of the scripts that made
them, and the versions of the packages in use.

usage: write_manifest.py [GOLDEN_DIR]
"""
import hashlib
import importlib.metadata
import json
import os
import sys

AREAS = ("models", "card")
SCRIPTS = ("models.py", "model_specs.py", "tiny_tokenizers.py", "peer.py", "gguf_manifest.py", "cards.py",
           "write_manifest.py")
PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "numpy", "PyYAML", "gguf")


def files(golden):
    for area in AREAS:
        for folder, _, names in os.walk(os.path.join(golden, area)):
            for name in names:
                yield os.path.relpath(os.path.join(folder, name), golden)
    for name in SCRIPTS:
        if os.path.exists(os.path.join(golden, "generators", name)):
            yield os.path.join("generators", name)


def main():
    golden = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digests = {}
    for name in sorted(files(golden)):
        with open(os.path.join(golden, name), "rb") as f:
            digests[name.replace(os.sep, "/")] = hashlib.sha256(f.read()).hexdigest()
    versions = {p: importlib.metadata.version(p) for p in PACKAGES}
    versions |= {"python": sys.version.split()[0], "llama.cpp": "as vendored in llama_cpp_python 0.3.36"}
    with open(os.path.join(golden, "MANIFEST.json"), "w", encoding="utf-8") as f:
        json.dump({"versions": versions, "files": digests}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()

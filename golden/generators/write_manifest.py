"""Writes MANIFEST.json beside this folder: sha256 of every golden file and of the scripts that made them, and the versions
of the packages in use. A test compares the hashes with the files.

usage: write_manifest.py [GOLDEN_DIR]
"""
import hashlib
import importlib.metadata
import json
import os
import sys

EXCEPT = ("MANIFEST.json", "README.md")
PACKAGES = ("torch", "transformers", "tokenizers", "sentencepiece", "safetensors", "numpy", "PyYAML", "gguf", "onnx", "onnxruntime",
            "onnxscript", "onnxruntime-genai", "sentence-transformers", "huggingface-hub")


def files(golden):
    for folder, folders, names in os.walk(golden):
        folders[:] = [f for f in folders if f != "__pycache__"]
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), golden)
            if path not in EXCEPT:
                yield path


def main():
    golden = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digests = {}
    for name in sorted(files(golden)):
        with open(os.path.join(golden, name), "rb") as f:
            digests[name.replace(os.sep, "/")] = hashlib.sha256(f.read()).hexdigest()
    versions = {p: importlib.metadata.version(p) for p in PACKAGES}
    versions |= {"python": sys.version.split()[0], "llama.cpp": "as vendored in llama_cpp_python 0.3.36"}
    # Made in an environment of its own.
    versions |= {"deepspeed": "0.19.8", "optimum": "2.1.0", "optimum-onnx": "0.1.0 (with transformers 4.57.6)"}
    versions |= {"compressed-tensors": "0.20.0 (and 0.9.4)", "gptqmodel": "7.7.0", "autoawq": "0.2.9", "bitsandbytes": "0.50.2",
                 "mlx": "0.32.4", "mlx-lm": "0.32.2", "nvidia-modelopt": "0.47.0", "hqq": "0.2.8.post1"}
    with open(os.path.join(golden, "MANIFEST.json"), "w", encoding="utf-8") as f:
        json.dump({"versions": versions, "files": digests}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()

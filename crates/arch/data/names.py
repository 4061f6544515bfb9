"""Writes names.txt: which Hugging Face module names mean which kind of tensor, and which kinds an architecture has.

usage: LLAMA_CPP=<llama.cpp source tree> python names.py      (made with llama-cpp-python 0.3.36's tree)

Lines, in gguf-py's own order (later lines win where two kinds claim a name):
  map  <Kind> <pattern> ...              from TensorNameMap.mappings_cfg, then block_mappings_cfg
  only <arch> <Kind> <pattern> ...       arch_block_mappings_cfg: replaces the kind's patterns for one architecture
  arch <arch> <Kind> ...                 MODEL_TENSORS
"""
import os, sys, pathlib

sys.path.insert(0, os.path.join(os.environ["LLAMA_CPP"], "gguf-py"))
from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES
from gguf.tensor_mapping import TensorNameMap


def camel(t):
    return "".join(p.capitalize() for p in t.name.split("_"))


def patterns(keys):
    for k in keys:
        assert " " not in k, k
    return " ".join(keys)


out = []
for table in (TensorNameMap.mappings_cfg, TensorNameMap.block_mappings_cfg):
    for t, keys in table.items():
        if t in TENSOR_NAMES and keys:
            out.append(f"map {camel(t)} {patterns(keys)}")
for arch, table in TensorNameMap.arch_block_mappings_cfg.items():
    for t, keys in table.items():
        out.append(f"only {MODEL_ARCH_NAMES[arch]} {camel(t)} {patterns(keys)}")
for arch, kinds in MODEL_TENSORS.items():
    out.append(f"arch {MODEL_ARCH_NAMES[arch]} " + " ".join(camel(t) for t in kinds if t in TENSOR_NAMES))
pathlib.Path(__file__).with_name("names.txt").write_text("\n".join(out) + "\n")
print(len(out), "lines")

"""Runs the peer (llama.cpp's convert_hf_to_gguf.py and llama-quantize) on model folders, and makes importance matrices.

usage: peer.py FOLDER OUT.gguf [--outtype f32|f16|bf16] [--pre NAME]

The source tree is $LLAMA_CPP, the quantizer $LLAMA_QUANTIZE. `--pre` plays the part of our option of the same name:
the peer knows a pre-tokenizer only by the hash of the ids that a check string gets, and a vocabulary of our own
has no known hash, so its lookup is replaced by one that answers NAME. Nothing else of the peer is changed.
"""
import argparse
import contextlib
import logging
import os
import struct
import subprocess
import sys
import zlib

import numpy as np

_converter = None


def converter():
    """The peer's converter module, loaded once (its imports take seconds)."""
    global _converter
    if _converter is None:
        sys.path.insert(0, os.environ["LLAMA_CPP"])
        logging.disable(logging.ERROR)  # thousands of lines of progress; failures are exceptions
        import convert_hf_to_gguf
        _converter = convert_hf_to_gguf
    return _converter


def convert(folder, out, outtype, pre=None, extra=()):
    """Writes `out` with the peer's converter."""
    module = converter()
    from conversion.base import TextModel
    known = TextModel.get_vocab_base_pre
    if pre:
        TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    argv, sys.argv = sys.argv, ["convert_hf_to_gguf.py", str(folder), "--outfile", str(out), "--outtype", outtype, *extra]
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
            module.main()
    except SystemExit as e:
        if e.code:
            raise RuntimeError(f"the converter failed on {folder}") from e
    finally:
        TextModel.get_vocab_base_pre = known
        sys.argv = argv


def quantize(source, out, recipe, imatrix=None, options=()):
    """Writes `out` with llama-quantize. Runs beside the imatrix, because the file's name as given enters the output."""
    command = [os.path.abspath(os.environ["LLAMA_QUANTIZE"]), *options]
    cwd = None
    if imatrix:
        cwd = os.path.dirname(os.path.abspath(imatrix))
        command += ["--imatrix", os.path.basename(imatrix)]
    command += [os.path.abspath(source), os.path.abspath(out), recipe, "1"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def imatrix_entries(gguf_path, with_output):
    """Random sums of squares for each matrix of a GGUF file: {name: (sums [experts, columns], counts [experts])}."""
    from gguf_manifest import manifest
    entries = {}
    for name, _, shape, _ in manifest(gguf_path)["tensors"]:
        wanted = name.endswith(".weight") and len(shape) >= 2 and not name.startswith(("token_", "position_"))
        if not wanted or "_norm" in name or (name == "output.weight" and not with_output):
            continue
        experts = shape[2] if len(shape) == 3 else 1
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        counts = rng.integers(40, 600, experts).astype(np.float32)
        if experts > 2:
            counts[1] = 0  # an expert that calibration never reached
        sums = (rng.lognormal(0.0, 1.2, (experts, shape[0])) * counts[:, None]).astype(np.float32)
        entries[name] = (sums, counts)
    return dict(sorted(entries.items()))


def write_imatrix_gguf(path, entries):
    """The GGUF form: `<name>.in_sum2` and `<name>.counts`."""
    sys.path.insert(0, os.path.join(os.environ["LLAMA_CPP"], "gguf-py"))
    import gguf
    w = gguf.GGUFWriter(path, arch="imatrix")
    # The writer insists on an architecture; llama-imatrix writes general.type only.
    w.kv_data[0].pop("general.architecture", None)
    w.add_type("imatrix")
    w.add_array("imatrix.datasets", ["mill.txt"])
    w.add_uint32("imatrix.chunk_count", 12)
    w.add_uint32("imatrix.chunk_size", 512)
    for name, (sums, counts) in entries.items():
        w.add_tensor(f"{name}.in_sum2", sums)
        w.add_tensor(f"{name}.counts", counts.reshape(-1, 1))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def write_imatrix_dat(path, entries):
    """The legacy form: count, then name, calls, values; then the last chunk and the data set's name."""
    with open(path, "wb") as f:
        f.write(struct.pack("<i", len(entries)))
        for name, (sums, counts) in entries.items():
            calls = 10
            mean = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], 1).astype(np.float32)
            values = (mean * np.float32(calls)).astype("<f4").ravel()
            raw = name.encode()
            f.write(struct.pack("<i", len(raw)) + raw + struct.pack("<ii", calls, values.size) + values.tobytes())
        data_set = b"mill.txt"
        f.write(struct.pack("<ii", 12, len(data_set)) + data_set)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder")
    p.add_argument("out")
    p.add_argument("--outtype", default="f32")
    p.add_argument("--pre")
    a = p.parse_args()
    convert(a.folder, a.out, a.outtype, a.pre)

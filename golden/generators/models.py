"""Makes the golden models: tiny random-weight Hugging Face folders, and what the peer makes of them.

usage: models.py OUT_DIR [--repo GOLDEN_DIR] [--only NAME ...]

Environment: LLAMA_CPP = the peer's source tree, LLAMA_QUANTIZE = its llama-quantize.
OUT_DIR/<name>/hf is the folder, OUT_DIR/<name>/peer-<variant>.gguf the peer's files. With --repo, the folder goes to
GOLDEN_DIR/models/<name> and each file's manifest to GOLDEN_DIR/models/<name>/expected/<variant>.json.
Needs torch, transformers, tokenizers, sentencepiece, safetensors, numpy (versions: MANIFEST.json).
"""
import argparse
import json
import os
import shutil
import traceback
import zlib

import numpy as np

import gguf_manifest
import peer
from model_specs import SPECS

RECIPES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S",
           "Q5_K_M", "Q6_K"]
# variant: (recipe, options for both programs in llama-quantize's spelling)
OPTIONS = {
    "Q4_K_M.pure": ("Q4_K_M", ["--pure"]),
    "Q4_K_M.leave-output": ("Q4_K_M", ["--leave-output-tensor"]),
    "Q3_K_M.types": ("Q3_K_M", ["--output-tensor-type", "q8_0", "--token-embedding-type", "q4_0"]),
    "Q4_K_S.tensor-type": ("Q4_K_S", ["--tensor-type", "ffn_down=q6_k", "--tensor-type", "blk\\..*\\.attn_v=q8_0"]),
}
IMATRIX_RECIPES = ["Q2_K_S", "Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q5_1", "Q4_K_M", "Q6_K"]


def random_weights(model, seed):
    """Replaces every parameter by values that depend only on the seed and the parameter's name."""
    import torch
    with torch.no_grad():
        for name, p in model.named_parameters():
            rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}/{name}".encode())))
            x = rng.standard_normal(tuple(p.shape), dtype=np.float32)
            if p.dim() >= 2:
                x *= 0.02
                flat = x.reshape(-1)
                flat[rng.integers(0, flat.size, max(1, flat.size // 500))] *= 8  # outliers, as real weights have
            else:
                x *= 0.1
                if "norm" in name.lower() and name.endswith("weight") and "gemma" not in seed:
                    x += 1
            p.copy_(torch.from_numpy(x).to(p.dtype))


def classic_config(config, source):
    """Rewrites a transformers 5 config.json in the keys that most published folders have."""
    rope = config.pop("rope_parameters", None)
    config["torch_dtype"] = config.pop("dtype")
    if rope and "full_attention" in rope:
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = 6
        config.pop("layer_types", None)
    elif rope:
        config["rope_theta"] = rope.get("rope_theta", 10000.0)
        config["rope_scaling"] = source.get("rope_scaling")
    config["transformers_version"] = "4.46.0"
    return dict(sorted(config.items()))


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def make_folder(name, spec, folder):
    """Writes the Hugging Face folder of one model."""
    import torch
    import transformers
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    tokens = spec["tokenizer"](folder)
    settings = dict(spec["config"])
    if not settings["vocab_size"]:
        settings["vocab_size"] = tokens
    cls = spec["cls"]
    config_class = {"Gemma3": "Gemma3TextConfig"}.get(cls, cls + "Config")
    model_class = {"Bert": "BertModel"}.get(cls, cls + "ForCausalLM")
    config = getattr(transformers, config_class)(**settings)
    model = getattr(transformers, model_class)(config).to(getattr(torch, spec["dtype"]))
    random_weights(model, name)
    model.save_pretrained(folder, max_shard_size=spec["shard"] or "5GB")
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as f:
        saved = json.load(f)
    if spec["classic"]:
        saved = classic_config(saved, settings)
    write_json(path, saved | spec["extra_config"])
    path = os.path.join(folder, "generation_config.json")
    if spec["generation"] is not None:
        write_json(path, spec["generation"])
    elif os.path.exists(path):
        os.remove(path)
    if spec["card"]:
        with open(os.path.join(folder, "README.md"), "w", encoding="utf-8") as f:
            f.write(spec["card"])
    for file, value in spec["extra_files"].items():
        write_json(os.path.join(folder, file), value)


def run_peer(name, spec, folder, out, recipes=RECIPES, imatrix_recipes=IMATRIX_RECIPES, options=OPTIONS):
    """Runs the peer on one folder. Gives {variant: (file, recipe or dtype, imatrix name, options)}."""
    made = {}
    for dtype in ("f32", "f16", "bf16"):
        file = os.path.join(out, f"peer-{dtype.upper()}.gguf")
        peer.convert(folder, file, dtype, spec["pre"])
        made[dtype.upper()] = (file, dtype.upper(), None, [])
    lossless = made[{"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[spec["dtype"]]][0]
    imatrix = {"imatrix.gguf": peer.write_imatrix_gguf, "imatrix.dat": peer.write_imatrix_dat}
    for file, write in imatrix.items():
        write(os.path.join(out, file), peer.imatrix_entries(lossless, with_output=file.endswith("dat")))
    jobs = [(r, r, None, []) for r in recipes]
    jobs += [(f"{r}.imatrix", r, "imatrix.gguf", []) for r in imatrix_recipes]
    if imatrix_recipes:
        jobs += [("Q4_K_M.imatrix-dat", "Q4_K_M", "imatrix.dat", [])]
    jobs += [(v, r, None, o) for v, (r, o) in options.items()]
    for variant, recipe, matrix, flags in jobs:
        if variant in spec["skip"]:
            continue
        file = os.path.join(out, f"peer-{variant}.gguf")
        peer.quantize(lossless, file, recipe, os.path.join(out, matrix) if matrix else None, flags)
        made[variant] = (file, recipe, matrix, flags)
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--repo")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    failed = []
    for name, spec in SPECS.items():
        if args.only and name not in args.only:
            continue
        base = os.path.join(args.out, name)
        # The folder's own name enters the metadata, so the peer sees <name>, with a link called hf beside its files.
        folder = os.path.join(base, name)
        try:
            make_folder(name, spec, folder)
            link = os.path.join(base, "hf")
            if not os.path.islink(link):
                os.symlink(name, link)
            made = run_peer(name, spec, folder, base)
        except Exception:  # one model that fails must not stop the others
            traceback.print_exc()
            failed.append(name)
            continue
        if args.repo:
            target = os.path.join(args.repo, "models", name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target)
            os.makedirs(os.path.join(target, "expected"))
            for matrix in ("imatrix.gguf", "imatrix.dat"):
                shutil.copy(os.path.join(base, matrix), os.path.join(target, "expected", matrix))
            for variant, (file, recipe, matrix, flags) in made.items():
                head = {"model": name, "variant": variant, "recipe": recipe, "pre": spec["pre"], "imatrix": matrix,
                        "options": flags}
                gguf_manifest.dump(head | gguf_manifest.manifest(file),
                                   os.path.join(target, "expected", f"{variant}.json"))
        print(name, len(made), "variants", flush=True)
    if failed:
        raise SystemExit(f"failed: {failed}")


if __name__ == "__main__":
    main()

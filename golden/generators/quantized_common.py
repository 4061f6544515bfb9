"""What the generators of golden/quantized share: the source model, and how a folder is written.

The source is one Llama layer with tied embeddings, bf16: small enough to commit once for each layout, with rows of 32 and 96
columns, so that a mistaken axis shows. One row and one group are zero, because each library treats an empty range its own way.

usage: quantized_common.py         writes golden/quantized/source
"""
import json
import os
import shutil
import zlib

import numpy as np
import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(os.path.dirname(HERE), "quantized")
SOURCE = os.path.join(ROOT, "source")
HIDDEN, INTERMEDIATE, VOCAB = 32, 96, 64
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
    "eos_token_id": 2, "head_dim": 16, "hidden_act": "silu", "hidden_size": HIDDEN, "initializer_range": 0.02,
    "intermediate_size": INTERMEDIATE, "max_position_embeddings": 128, "mlp_bias": False, "model_type": "llama",
    "num_attention_heads": 2, "num_hidden_layers": 1, "num_key_value_heads": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-5,
    "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "transformers_version": "4.46.0", "use_cache": True, "vocab_size": VOCAB,
}
LAYER = "model.layers.0."
SHAPES = {
    "self_attn.q_proj": (32, 32), "self_attn.k_proj": (32, 32), "self_attn.v_proj": (32, 32), "self_attn.o_proj": (32, 32),
    "mlp.gate_proj": (96, 32), "mlp.up_proj": (96, 32), "mlp.down_proj": (32, 96),
}
LINEARS = [LAYER + n for n in SHAPES]
# Whose decoded values are kept: one and three groups in a row, the zero row and the zero group. The others go the same way.
KEPT = [LAYER + n for n in ("self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")]


def source():
    """The tensors of the source model by name."""
    return load_file(os.path.join(SOURCE, "model.safetensors"))


def linears():
    """Module name to weight, for the seven matrices that are quantized."""
    tensors = source()
    return {n: tensors[n + ".weight"] for n in LINEARS}


def rest(names=LINEARS):
    """What stays as it is when `names` are quantized."""
    return {n: t for n, t in source().items() if n.removesuffix(".weight") not in names}


def model():
    """The source as a transformers model."""
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(SOURCE, dtype=torch.bfloat16)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, sort_keys=True)
        f.write("\n")


def write_folder(name, tensors, method, expected, metadata=None, kept=KEPT, more=(), **config):
    """Writes ROOT/name. `method` is config.json's quantization_config; `expected` maps module names to decoded weights, `more`
    tensor names."""
    folder = os.path.join(ROOT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    tidy = lambda d: {n: t.detach().contiguous().clone() for n, t in d.items()}
    save_file(tidy(tensors), os.path.join(folder, "model.safetensors"), metadata or {"format": "pt"})
    # Three matrices in 16 bits, two in 32: all folders together are to stay small.
    wide = any(t.dtype == torch.float32 for t in expected.values())
    expected = {n + ".weight": t for n, t in expected.items() if n in kept and not (wide and n == KEPT[1])}
    expected |= dict(more)
    for n, t in expected.items():
        assert torch.isfinite(t.float()).all(), n
    save_file(tidy(expected), os.path.join(folder, "expected.safetensors"))
    document = {**CONFIG, **config}
    if method is not None:
        document["quantization_config"] = method
    write_json(os.path.join(folder, "config.json"), {k: v for k, v in document.items() if v is not ...})
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name}: {size} bytes; error " + ", ".join(error(expected, n) for n in sorted(expected)))
    return folder


def error(expected, name):
    """Root mean square of the difference from the source, relative to the source's."""
    tensors = source()
    if name not in tensors or tensors[name].shape != expected[name].shape:
        return "-"
    a, b = expected[name].float(), tensors[name].float()
    return f"{((a - b).pow(2).mean() / b.pow(2).mean()).sqrt():.4f}"


def random(name, shape):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"quantized/{name}".encode())))
    x = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) == 1:
        return torch.from_numpy(1 + 0.1 * x).bfloat16()
    x *= 0.02
    flat = x.reshape(-1)
    flat[rng.integers(0, flat.size, max(1, flat.size // 500))] *= 8  # outliers, as real weights have
    return torch.from_numpy(x).bfloat16()


def tokenizer(folder):
    """A SentencePiece of exactly VOCAB pieces: without byte fallback, so that it can be so small."""
    import io

    import sentencepiece as spm
    from tiny_tokenizers import TEXT
    out = io.BytesIO()
    lines = [line for line in TEXT.lower().splitlines() if line.isascii()]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=VOCAB, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        num_threads=1, normalization_rule_name="identity", minloglevel=2)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(out.getvalue())
    write_json(os.path.join(folder, "tokenizer_config.json"), {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "legacy": False,
        "model_max_length": 128, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>"})


def main():
    shutil.rmtree(SOURCE, ignore_errors=True)
    os.makedirs(SOURCE)
    tensors = {LAYER + n + ".weight": random(n, s) for n, s in SHAPES.items()}
    tensors[LAYER + "mlp.down_proj.weight"][1, 32:64] = 0
    tensors[LAYER + "mlp.up_proj.weight"][3] = 0
    tensors["model.embed_tokens.weight"] = random("embed", (VOCAB, HIDDEN))
    for n in ("model.norm", LAYER + "input_layernorm", LAYER + "post_attention_layernorm"):
        tensors[n + ".weight"] = random(n, (HIDDEN,))
    save_file(tensors, os.path.join(SOURCE, "model.safetensors"), {"format": "pt"})
    write_json(os.path.join(SOURCE, "config.json"), {k: v for k, v in CONFIG.items()})
    tokenizer(SOURCE)


if __name__ == "__main__":
    main()

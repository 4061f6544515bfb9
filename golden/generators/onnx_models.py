#!/usr/bin/env python3
"""Tiny random Hugging Face folders of every architecture that graphs are built for, and what transformers computes with them.

    python onnx_models.py [NAME ...]        writes golden/onnx/models

Per model a folder as save_pretrained writes it (f32, weights scaled so that attention is not uniform and outputs differ), and
`reference.safetensors`. A folder without config.json is a reference for the model that its `base.txt` names, under golden/.

What is in `reference.safetensors`:
- encoders: `input_ids`, `attention_mask` (three sequences of different lengths, padded on the right), `token_type_ids` where the
  model has them, `last_hidden_state` (also at padded places: those attend to real tokens only, so they have values; compare where
  the mask is 1 at least), `pooler_output` where the model has a pooler, `sentence_embedding` where the folder is one of
  sentence-transformers, `logits` for classifiers. Images: `pixel_values`, `last_hidden_state`, `logits`.
- decoders: `single.*`, a batch of one with 9 tokens, and `batch.*`, two sequences of 9 and 6 tokens, padded on the left:
  `input_ids`, `attention_mask`, `position_ids`, `logits` (0 at padded places, which attend to nothing), `decode_tokens`
  [batch, 10]: what each of ten cached steps is fed, greedily chosen, `decode_position_ids` and `decode_logits` [batch, 10, vocab].
  The two best logits of a step are never within 1e-3, so that another order of sums gives the same tokens.

Eager attention, f32, one thread. Made with torch 2.15.0, transformers 5.23.0, sentence-transformers 6.2.0, safetensors 0.8.0,
numpy 2.4.6, Python 3.11.
"""
import json
import shutil
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
import tiny_tokenizers  # noqa: E402
from models import classic_config, write_json  # noqa: E402

warnings.simplefilter("ignore")
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
GOLDEN = Path(__file__).resolve().parent.parent
OUT = GOLDEN / "onnx" / "models"
LENGTHS = (11, 5, 8)
LONG = {"mpnet": (44, 5, 21)}  # distances beyond those that have a bucket of their own
STEPS = 10
MARGIN = 1e-3
PROMPTS = 30

CLASSIC = "sentence_transformers.models"
MEAN = {"word_embedding_dimension": 24, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
# Poolings in the keys of published folders, and in those that sentence-transformers 6 writes.
POOLINGS = {
    "mean": MEAN,
    "cls": {"embedding_dimension": 24, "pooling_mode": "cls", "include_prompt": True},
}


def encoder(cls, sentence=None, tokenizer=False, classic=False, pooling="mean", **config):
    sizes = dict(vocab_size=80, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
                 max_position_embeddings=20)
    if cls.startswith("DistilBert"):
        sizes = dict(vocab_size=80, dim=24, hidden_dim=40, n_layers=2, n_heads=3, max_position_embeddings=20)
    return dict(cls=cls, config=sizes | config, sentence=sentence, tokenizer=tokenizer, classic=classic, pooling=pooling)


def decoder(cls, classic=False, **config):
    # Heads of 16: ONNX Runtime's GroupQueryAttention takes multiples of that only.
    sizes = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                 num_key_value_heads=1, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
                 bos_token_id=1, eos_token_id=2, rope_theta=10000.0)
    return dict(cls=cls, config=sizes | config, classic=classic)


LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
WIDE = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16)  # heads wider in all than the hidden size
ROBERTA = dict(type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, max_position_embeddings=22, layer_norm_eps=1e-5)
BERT = dict(type_vocab_size=2, pad_token_id=0)
THREE = dict(num_labels=3, id2label={0: "contradiction", 1: "neutral", 2: "entailment"},
             label2id={"contradiction": 0, "neutral": 1, "entailment": 2})
SPECS = {
    "bert": encoder("BertModel", sentence=["pool", "normalize"], tokenizer=True, **BERT | dict(vocab_size=300)),
    "bert-cls": encoder("BertModel", sentence=["pool"], pooling="cls", **BERT | dict(hidden_act="gelu_new")),
    "bert-dense": encoder("BertModel", sentence=["pool", "dense"], **BERT),
    "bert-seq-class": encoder("BertForSequenceClassification", **BERT | THREE),
    "roberta": encoder("RobertaModel", **ROBERTA),
    "roberta-seq-class": encoder("RobertaForSequenceClassification", **ROBERTA | THREE),
    "xlm-roberta": encoder("XLMRobertaModel", **ROBERTA),
    "distilbert": encoder("DistilBertModel"),
    "distilbert-seq-class": encoder("DistilBertForSequenceClassification", **THREE),
    "mpnet": encoder("MPNetModel", sentence=["pool", "normalize"],
                     **dict(pad_token_id=1, bos_token_id=0, eos_token_id=2, max_position_embeddings=48)),
    "vit": dict(cls="ViTForImageClassification", config=dict(
        image_size=24, patch_size=8, num_channels=3, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=3, num_labels=5, id2label={i: f"label {i}" for i in range(5)},
        label2id={f"label {i}": i for i in range(5)}), classic=False),
    "llama": decoder("LlamaForCausalLM"),
    "llama-tied": decoder("LlamaForCausalLM", classic=True, tie_word_embeddings=True),
    "llama-rope3": decoder("LlamaForCausalLM", classic=True, rope_scaling=LLAMA3, **WIDE),
    "mistral": decoder("MistralForCausalLM", classic=True, sliding_window=4),
    "qwen2": decoder("Qwen2ForCausalLM", tie_word_embeddings=True),
    "qwen3": decoder("Qwen3ForCausalLM", **WIDE, rope_theta=1e6, rms_norm_eps=1e-6),
}
# name: folder under golden/ that is there already
EXISTING = {"base-bert": "models/bert", "base-llama-bias": "models/llama-f32-bias", "base-llama3-bpe": "models/llama3-bpe",
            "base-qwen3": "models/qwen3"}


def scaled_weights(model, seed):
    """Replaces parameters by values of the seed and the parameter's name, large enough that layers matter."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            random = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}/{name}".encode())))
            x = random.standard_normal(tuple(p.shape), dtype=np.float32)
            if name == "model.embed_tokens.weight":
                x *= 0.2  # or a tied head would give every token back
            elif p.dim() >= 2 and ("embed" in name or "token" in name or "relative" in name):
                x *= 0.7
            elif p.dim() >= 2:
                x *= 1.3 / np.sqrt(np.prod(p.shape[1:]))
            else:
                x *= 0.2
                if "norm" in name.lower() and name.endswith("weight"):
                    x += 1
            p.copy_(torch.from_numpy(x))


def make_folder(name, spec, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if spec.get("tokenizer"):
        tiny_tokenizers.wordpiece(str(folder), spec["config"]["vocab_size"])
    model_class = getattr(transformers, spec["cls"])
    config = model_class.config_class(**spec["config"])
    torch.manual_seed(1)
    model = model_class(config).float()
    scaled_weights(model, name)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    saved = json.loads((folder / "config.json").read_text())
    if spec["classic"]:
        saved = classic_config(saved, spec["config"])
    write_json(str(folder / "config.json"), saved)
    if spec.get("sentence"):
        sentence_modules(name, spec, folder)


def sentence_modules(name, spec, folder):
    """The files that sentence-transformers puts beside a model."""
    modern = spec["pooling"] == "cls"
    types = {"transformer": "Transformer", "pool": "Pooling", "dense": "Dense", "normalize": "Normalize"}
    places = {"transformer": CLASSIC, "pool": CLASSIC, "dense": CLASSIC, "normalize": CLASSIC}
    if modern:
        places = {"transformer": "sentence_transformers.base.modules.transformer",
                  "pool": "sentence_transformers.sentence_transformer.modules.pooling"}
    modules = []
    for i, kind in enumerate(["transformer", *spec["sentence"]]):
        path = f"{i}_{types[kind]}" if i else ""
        modules.append({"idx": i, "name": str(i), "path": path, "type": f"{places[kind]}.{types[kind]}"})
        if kind == "pool":
            write_json(str(folder / path / "config.json"), POOLINGS[spec["pooling"]])
        elif kind == "dense":
            write_json(str(folder / path / "config.json"), {
                "in_features": 24, "out_features": 10, "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh"})
            random = np.random.Generator(np.random.PCG64(zlib.crc32(f"{name}/dense".encode())))
            values = lambda *shape: torch.from_numpy(random.standard_normal(shape, dtype=np.float32))  # noqa: E731
            save_file({"linear.weight": values(10, 24) * 0.2, "linear.bias": values(10) * 0.1},
                      folder / path / "model.safetensors", {"format": "pt"})
    write_json(str(folder / "modules.json"), modules)
    write_json(str(folder / "sentence_bert_config.json"), {"max_seq_length": 20, "do_lower_case": False})


def sentence_embedding(folder, hidden, mask):
    """What the folder's modules behind the transformer make of its output."""
    from sentence_transformers.sentence_transformer import modules
    features = {"token_embeddings": hidden, "attention_mask": mask}
    for entry in json.loads((folder / "modules.json").read_text())[1:]:
        module = getattr(modules, entry["type"].rsplit(".", 1)[1])
        path = folder / entry["path"]
        module = module.load(str(path)) if (path / "config.json").exists() else module()
        features = module.eval()(features)
    return features["sentence_embedding"]


def random_ids(name, shape, low, high):
    random = np.random.Generator(np.random.PCG64(zlib.crc32(f"{name}/ids".encode())))
    return torch.from_numpy(random.integers(low, high, shape))


def encoder_reference(name, folder, model):
    config, lengths = model.config, LONG.get(name, LENGTHS)
    longest = max(lengths)
    ids = random_ids(name, (3, longest), 5, config.vocab_size)
    mask = torch.tensor([[int(i < n) for i in range(longest)] for n in lengths])
    ids = torch.where(mask == 1, ids, config.pad_token_id or 0)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 1) > 1:
        inputs["token_type_ids"] = torch.where(mask == 1, (torch.arange(longest) >= 4).long(), 0)
    out = model(**inputs, output_hidden_states=True)
    found = dict(inputs)
    found["last_hidden_state"] = out.get("last_hidden_state", out.hidden_states[-1])
    if out.get("pooler_output") is not None:
        found["pooler_output"] = out.pooler_output
    if out.get("logits") is not None:
        found["logits"] = out.logits
    if (folder / "modules.json").exists():
        found["sentence_embedding"] = sentence_embedding(folder, found["last_hidden_state"], mask)
    return found


def image_reference(name, model):
    size = model.config.image_size
    random = np.random.Generator(np.random.PCG64(zlib.crc32(f"{name}/pixels".encode())))
    pixels = torch.from_numpy(random.standard_normal((2, 3, size, size), dtype=np.float32))
    # The head reads the normalized states, which output_hidden_states leaves out.
    hidden = model.vit(pixels).last_hidden_state
    return {"pixel_values": pixels, "last_hidden_state": hidden, "logits": model(pixels).logits}


def decoder_reference(name, model, lengths):
    """The reference for the prompt that leaves no step undecided and after which the tokens differ most."""
    found = {}
    for attempt in range(PROMPTS):
        this = prompt_reference(name, model, lengths, attempt)
        variety = lambda r: min(len(set(row)) for row in r["decode_tokens"].tolist())  # noqa: E731
        if this and (not found or variety(this) > variety(found)):
            found = this
    if not found:
        raise SystemExit(f"{name}: every prompt has a step with two logits nearly equal; change the weights")
    return found


def prompt_reference(name, model, lengths, attempt):
    longest = max(lengths)
    mask = torch.tensor([[int(i >= longest - n) for i in range(longest)] for n in lengths])
    prompt = random_ids(f"{name}/{lengths}/{attempt}", mask.shape, 3, model.config.vocab_size)
    ids = torch.where(mask == 1, prompt, 0)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    out = model(**inputs, use_cache=True)
    found = inputs | {"logits": out.logits * mask[..., None]}
    tokens, places, logits, cache, last = [], [], [], out.past_key_values, out.logits[:, -1]
    for _ in range(STEPS):
        best = last.topk(2).values
        if (best[:, 0] - best[:, 1] <= MARGIN).any():
            return None
        tokens.append(last.argmax(-1))
        places.append(positions[:, -1] + len(tokens))
        mask = torch.cat([mask, torch.ones(len(lengths), 1, dtype=mask.dtype)], 1)
        out = model(input_ids=tokens[-1][:, None], attention_mask=mask, position_ids=places[-1][:, None],
                    past_key_values=cache, use_cache=True)
        cache, last = out.past_key_values, out.logits[:, -1]
        logits.append(last)
    # Without a cache the same must come out, or the reference measures the cache's own error.
    whole = model(input_ids=torch.cat([ids, torch.stack(tokens, 1)], 1), attention_mask=mask, use_cache=False,
                  position_ids=torch.cat([positions, torch.stack(places, 1)], 1)).logits[:, -STEPS:]
    decoded = torch.stack(logits, 1)
    assert (whole - decoded).abs().max() < 2e-5, f"{name}: {(whole - decoded).abs().max()}"
    return found | {"decode_tokens": torch.stack(tokens, 1), "decode_position_ids": torch.stack(places, 1),
                    "decode_logits": decoded}


@torch.no_grad()
def make_reference(name, folder, target):
    config = json.loads((folder / "config.json").read_text())
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    if config["architectures"][0].endswith("ForCausalLM"):
        found = {}
        for prefix, lengths in (("single", (9,)), ("batch", (9, 6))):
            found |= {f"{prefix}.{k}": v for k, v in decoder_reference(name, model, lengths).items()}
    elif "image_size" in config:
        found = image_reference(name, model)
    else:
        found = encoder_reference(name, folder, model)
    for key, value in found.items():
        assert value.isfinite().all(), (name, key)
        if value.is_floating_point() and value.ndim > 1:
            assert (value - value[:1]).abs().max() > 0.01 or len(value) == 1, f"{name}: {key} is the same for every input"
    save_file({k: v.contiguous() for k, v in found.items()}, target / "reference.safetensors")
    shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in load_file(target / "reference.safetensors").items())
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    print(f"{name}: {size} bytes; {shapes}", flush=True)


def main():
    only = sys.argv[1:]
    for name, spec in SPECS.items():
        if not only or name in only:
            make_folder(name, spec, OUT / name)
            make_reference(name, OUT / name, OUT / name)
    for name, base in EXISTING.items():
        if not only or name in only:
            (OUT / name).mkdir(parents=True, exist_ok=True)
            (OUT / name / "base.txt").write_text(base + "\n")
            make_reference(name, GOLDEN / base, OUT / name)


if __name__ == "__main__":
    main()

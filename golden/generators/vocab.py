"""Make golden/vocab: tiny tokenizer folders of each kind, and the tokenizer.* keys the peer writes for them.

usage: LLAMA_CPP=<llama.cpp source tree> python vocab.py <repository>/golden/vocab

Made with llama.cpp as vendored in llama_cpp_python 0.3.36, transformers 5.23.0, tokenizers 0.23.3,
sentencepiece 0.2.3, gguf 0.19.0. Training is deterministic; a second run gives the same folders.

Each folder becomes <case>/ (config.json and tokenizer files) and <case>.json:
  kinds       the attempts this architecture makes, in order
  pre         name to ask for where the tiny vocabulary has none of its own (the peer's table is bypassed)
  check_hash  sha256 of the ids of the check text, as the peer computed it
  keys        [key, type, value] in order; arrays are {"len", "sha256", "head"}
Left out: tokenizer.ggml.add_space_prefix and token_type_count, which the architecture sets around the vocabulary.
"""
import hashlib
import json
import os
import pathlib
import runpy
import shutil
import struct
import sys
import tempfile

LLAMA_CPP = pathlib.Path(os.environ["LLAMA_CPP"])
sys.path.insert(0, str(LLAMA_CPP))
sys.path.insert(0, str(LLAMA_CPP / "gguf-py"))

import sentencepiece  # noqa: E402
from gguf import GGUFReader  # noqa: E402
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

TEXT = """The pipeline reads headers only and converts tensors tile by tile within a fixed amount of memory.
Every tile is a pure function of its source, so the same bytes come out under any number of threads.
I've been told he's there, but they'll say we're early; she'd know. DON'T SHOUT, it's 3.14 or 1999 or 42!
Quantized blocks hold a scale and small integers: x = d * q + m. Käse, naïve, façade, Straße, Ærø.
def convert(source, target):
    for tensor in source.tensors():
        target.write(tensor.name, tensor.shape, tensor.bytes())
Съешь же ещё этих мягких французских булок. 我们在苹果工作 и 12345 дней. こんにちは世界 ✅ 🚀
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
""".splitlines()
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HASHES = []


def added(i, text, **flags):
    return {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True, **flags}


def byte_bpe(size, split=None, normalizer=None, ignore_merges=False):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    steps = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)])
    if normalizer:
        tok.normalizer = normalizer
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    return json.loads(tok.to_str())


def template(bos=None, eos=None, pair_eos=True):
    def special(t):
        return [{"SpecialToken": {"id": t[0], "type_id": 0}}] if t else []
    a, b = [{"Sequence": {"id": "A", "type_id": 0}}], [{"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": special(bos) + a + special(eos),
            "pair": special(bos) + a + (special(eos) if pair_eos else special(bos)) + b + special(eos),
            "special_tokens": {t[0]: {"id": t[0], "ids": [t[1]], "tokens": [t[0]]} for t in (bos, eos) if t}}


def config(arch, model_type, vocab_size, **more):
    return {"architectures": [arch], "model_type": model_type, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "vocab_size": vocab_size, **more}


def spm(**options):
    with tempfile.TemporaryDirectory() as d:
        text = pathlib.Path(d) / "text.txt"
        text.write_text("\n".join(TEXT * 4), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=f"{d}/m", hard_vocab_limit=False, num_threads=1, minloglevel=2, **options)
        from sentencepiece import sentencepiece_model_pb2
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString((pathlib.Path(d) / "m.model").read_bytes())
        proto.trainer_spec.ClearField("input")
        proto.trainer_spec.ClearField("model_prefix")
        return proto.SerializeToString(), len(proto.pieces)


def cases():
    tj = byte_bpe(380, LLAMA3, ignore_merges=True)
    n = len(tj["model"]["vocab"])
    tj["added_tokens"] = [
        added(n, "<|begin_of_text|>"), added(n + 1, "<|end_of_text|>"), added(n + 2, "<|eot_id|>"),
        added(n + 3, "<tool call>", special=False), added(n + 4, "a\u2581b", special=False, normalized=True),
        added(n + 5, "<|looks|>", special=False), added(n + 6, "Ġé odd", special=False)]
    tj["post_processor"] = {"type": "Sequence", "processors": [
        tj["post_processor"], template(bos=("<|begin_of_text|>", n), pair_eos=False)]}
    tj["truncation"] = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    llama3 = {
        "config.json": config("LlamaForCausalLM", "llama", n + 16, bos_token_id=n, eos_token_id=[n + 1, n + 2]),
        "tokenizer.json": tj,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
            "chat_template": "{% for m in messages %}<|eot_id|>{{ m }}{% endfor %}",
            "clean_up_tokenization_spaces": True}}
    yield "bpe-llama3", ["SentencePiece", "LlamaHf", "Gpt2"], {}, llama3
    declared = dict(llama3)
    declared["tokenizer_config.json"] = {
        "tokenizer_class": "LlamaTokenizer", "bos_token": {"__type": "AddedToken", "content": "<|begin_of_text|>"},
        "eos_token": "<|end_of_text|>", "add_bos_token": False, "add_eos_token": True}
    declared["chat_template.json"] = {"chat_template": "from the json file"}
    yield "bpe-llama-declared", ["SentencePiece", "LlamaHf", "Gpt2"], {}, declared

    tj = byte_bpe(360)  # the file's own split is GPT-2's: Qwen2Tokenizer replaces it, and the normalizer
    tj["model"]["merges"] = [" ".join(m) for m in tj["model"]["merges"]]
    n = len(tj["model"]["vocab"])
    extra = {str(n + i): added(0, t, **f) for i, (t, f) in enumerate([
        ("<|endoftext|>", {}), ("<|im_start|>", {}), ("<|im_end|>", {}), ("<tool_call>", {"special": False}),
        ("<|fim_pad|>", {"special": False})])}
    for t in extra.values():
        del t["id"]
    tj["added_tokens"] = [added(int(i), t["content"]) for i, t in extra.items()]
    yield "bpe-qwen2", ["SentencePiece", "Gpt2"], {}, {
        "config.json": config("Qwen2ForCausalLM", "qwen2", n + 8, bos_token_id=n, eos_token_id=n + 2),
        "tokenizer.json": tj, "chat_template.jinja": "line one\r\nline two\n",
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "added_tokens_decoder": extra,
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "bos_token": None, "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>", "unk_token": None, "add_bos_token": False}}

    tj = byte_bpe(350)
    n = len(tj["model"]["vocab"])
    tj["added_tokens"] = [added(n, "<|endoftext|>")]
    merges = [" ".join(m) for m in tj["model"]["merges"]]
    yield "bpe-gpt2", ["SentencePiece", "LlamaHf", "Gpt2"], {}, {
        "config.json": config("LlamaForCausalLM", "llama", n + 1), "tokenizer.json": tj,
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
        "special_tokens_map.json": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                                    "unk_token": "<|endoftext|>"},
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}}

    data, n = spm(model_type="bpe", vocab_size=520, byte_fallback=True, normalization_rule_name="identity")
    llama_config = config("LlamaForCausalLM", "llama", n + 6, bos_token_id=1, eos_token_id=2)
    yield "spm-llama", ["SentencePiece", "LlamaHf", "Gpt2"], {}, {
        "config.json": llama_config, "tokenizer.model": data, "added_tokens.json": {"<|extra|>": n, "[x]": n + 2},
        "tokenizer_config.json": {
            "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True,
            "add_eos_token": False,
            "chat_template": [{"name": "default", "template": "the default"},
                              {"name": "tool-use", "template": "with tools"}]}}
    yield "spm-codellama", ["SentencePiece", "LlamaHf", "Gpt2"], {"infill_end": 32010}, {
        "config.json": config("LlamaForCausalLM", "llama", 32016, bos_token_id=1, eos_token_id=2),
        "tokenizer.model": data,
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "add_bos_token": True}}
    phi = {str(n + 1): {"content": "<|user|>", "special": False}, "2": {"content": "</s>", "special": False}}
    tj = {"version": "1.0", "added_tokens": [
        added(0, "<unk>"), added(1, "<s>"), added(n, "<|endoftext|>"), added(n + 1, "<|user|>"),
        added(n + 3, "x\u2581y", special=False)], "normalizer": None, "pre_tokenizer": None,
        "post_processor": template(bos=("<s>", 1)), "decoder": None, "model": {"type": "BPE", "vocab": {}, "merges": []}}
    yield "spm-phi3", ["Phi3"], {}, {
        "config.json": config("Phi3ForCausalLM", "phi3", n + 4, original_max_position_embeddings=128, bos_token_id=1,
                              eos_token_id=2, pad_token_id=0),
        "tokenizer.model": data, "added_tokens.json": {"<|endoftext|>": n, "<|past|>": n + 99}, "tokenizer.json": tj,
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": phi,
                                  "bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}}

    data, n = spm(model_type="unigram", vocab_size=330, byte_fallback=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
                  user_defined_symbols=["<mask>", "\u2581\u2581", "<unused0>", "<start_of_turn>"])
    yield "spm-gemma2", ["SentencePiece"], {}, {
        "config.json": config("Gemma2ForCausalLM", "gemma2", n + 3, bos_token_id=2, eos_token_id=1, pad_token_id=0),
        "tokenizer.model": data,
        "tokenizer_config.json": {
            "tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>",
            "added_tokens_decoder": {
                "0": {"content": "<pad>", "special": True}, "4": {"content": "<mask>", "special": False},
                "5": {"content": "\u2581\u2581", "special": False}, "6": {"content": "<unused0>", "special": False},
                "7": {"content": "<start_of_turn>", "special": True}, "900": {"content": "far", "special": True}},
            "chat_template": "{{ bos_token }}"}}

    base = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tok = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tok.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=520, special_tokens=base, show_progress=False))
    tj = json.loads(tok.to_str())
    n = len(tj["model"]["vocab"])
    tj["added_tokens"] = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>"), added(n, "<|pad|>"),
                          added(n + 1, "plain\u2581word", special=False, normalized=True)]
    tj["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}]}
    tj["post_processor"] = template(bos=("<s>", 1))
    yield "llama-hf", ["SentencePiece", "LlamaHf", "Gpt2"], {}, {
        "config.json": config("LlamaForCausalLM", "llama", n + 2, bos_token_id=1, eos_token_id=2),
        "tokenizer.json": tj,
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
                                  "unk_token": "<unk>", "pad_token": "<|pad|>", "legacy": False}}

    gemma = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", *base[3:]]
    tok = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.normalizer = normalizers.Replace(" ", "\u2581")
    tok.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=500, special_tokens=gemma, show_progress=False,
                                                      max_token_length=8))
    tj = json.loads(tok.to_str())
    tj["added_tokens"] = [added(i, t, special=i < 5) for i, t in enumerate(gemma[:6])]
    tj["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}]}
    tj["post_processor"] = template(bos=("<bos>", 2))
    yield "bpe-gemma3", ["SentencePiece", "Gpt2"], {}, {
        "config.json": config("Gemma3ForCausalLM", "gemma3_text", 512, bos_token_id=2, eos_token_id=1, pad_token_id=0),
        "tokenizer.json": tj,
        "tokenizer_config.json": {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>",
                                  "unk_token": "<unk>", "pad_token": "<pad>"}}

    for lower in (True, False):
        tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tok.normalizer = normalizers.BertNormalizer(lowercase=lower)
        tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tok.decoder = decoders.WordPiece()
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tok.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=330, special_tokens=marks,
                                                                show_progress=False))
        tj = json.loads(tok.to_str())
        n = len(tj["model"]["vocab"])
        tj["post_processor"] = template(bos=("[CLS]", 2), eos=("[SEP]", 3))
        if not lower:
            tj["added_tokens"].append(added(n, "new word", special=False))
            tj["padding"] = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                             "pad_type_id": 0, "pad_token": "[PAD]"}
        yield f"wordpiece-{'uncased' if lower else 'cased'}", ["WordPiece"], {}, {
            "config.json": config("BertModel", "bert", n + 4, pad_token_id=0, type_vocab_size=2),
            "tokenizer.json": tj,
            "tokenizer_config.json": {
                "tokenizer_class": "BertTokenizer" if lower else "BertTokenizerFast", "do_lower_case": lower,
                "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                "mask_token": "[MASK]", "strip_accents": None if lower else False}}


def run_peer(folder, out):
    """The peer's converter, with its table of digests answering for any tokenizer."""
    from conversion import base

    def any_pre(self, tokenizer):
        text = (pathlib.Path(__file__).parents[2] / "crates/vocab/data/check_text.txt").read_text(encoding="utf-8")
        HASHES.append(hashlib.sha256(str(tokenizer.encode(text)).encode()).hexdigest())
        return "gpt-2"

    base.TextModel.get_vocab_base_pre = any_pre
    sys.argv = ["convert", str(folder), "--vocab-only", "--outfile", str(out)]
    runpy.run_path(str(LLAMA_CPP / "convert_hf_to_gguf.py"), run_name="__main__")


def array(values, kind):
    h = hashlib.sha256()
    for v in values:
        if kind == "str":
            b = v.encode("utf-8")
            h.update(struct.pack("<Q", len(b)) + b)
        else:
            h.update(struct.pack({"i32": "<i", "f32": "<f"}[kind], v))
    return {"len": len(values), "sha256": h.hexdigest(), "head": values[:8]}


def keys(path):
    names = {4: "u32", 5: "i32", 6: "f32", 7: "bool", 8: "str"}
    for key, field in GGUFReader(path).fields.items():
        if not key.startswith("tokenizer.") or key.endswith((".add_space_prefix", ".token_type_count")):
            continue
        value, kind = field.contents(), names.get(int(field.types[-1]))
        if int(field.types[0]) == 9:
            yield [key, f"[{kind}]", array(value, kind)]
        else:
            yield [key, kind, value]


def main(root):
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name, kinds, tweaks, files in cases():
        folder = root / name
        folder.mkdir()
        for file, content in files.items():
            if isinstance(content, bytes):
                (folder / file).write_bytes(content)
            else:
                text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
                with open(folder / file, "w", encoding="utf-8", newline="") as f:
                    f.write(text)
        HASHES.clear()
        with tempfile.TemporaryDirectory() as d:
            run_peer(folder, f"{d}/out.gguf")
            expected = {"kinds": kinds, **tweaks, "pre": "gpt-2" if HASHES else None,
                        "check_hash": HASHES[0] if HASHES else None, "keys": list(keys(f"{d}/out.gguf"))}
        (root / f"{name}.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(name, len(expected["keys"]), "keys")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

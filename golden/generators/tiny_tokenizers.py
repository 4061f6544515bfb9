"""Small real tokenizers for the golden models: SentencePiece, byte-level BPE and WordPiece, trained on the text below.

Every run gives the same files with the package versions of MANIFEST.json.
"""
import collections
import io
import json
import os
import re

TEXT = """The mill stands where the river turns, and its wheel has turned for three hundred years.
Grain comes in by cart in the morning and leaves as flour before the evening bell rings.
A miller weighs every sack twice: once when it arrives, and once when it is sold.
If the stones are too close the flour burns; if they are too far apart it is coarse.
She wrote the numbers 12, 345 and 6789 in the ledger, then added 0.5 for the dust that is lost.
"Who's there?" he asked. "I'm the carpenter; they've sent me to mend the wheel," she said.
It isn't the water that we'd worry about, it's the frost: last winter it split the shaft.
def grind(grain, stones=2):\n    return [flour for flour in grain if flour.weight > 0]
Le moulin tourne quand la rivière est haute, et s'arrête en été.
Die Mühle steht am Fluß, und das Rad dreht sich seit dreihundert Jahren.
El molino está junto al río; el trigo llega por la mañana.
Мельница стоит у реки, и колесо вертится днём и ночью.
水车在河边转动，面粉很细。
水車は川のそばで回っています。
The wheel turns the shaft, the shaft turns the stone, and the stone turns grain into flour.
Every year the millers of the valley meet and agree on a price for the coming winter.
They measure the river, count the carts, and argue about the weather until the candles are low.
One of them always says that the old mill was better, and nobody remembers which one he means.
Water is patient. It finds the low place, the crack, the seam, and then it waits for the cold.
To mend a wheel you need oak, iron, rope, three strong people, and a day without rain.
"""

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
          "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LLAMA2_CHAT = ("{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
               "message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}")


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def added(content, special=True, normalized=False):
    return {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False,
            "special": special}


def sentencepiece_model(vocab_size, ids, symbols=()):
    """A BPE SentencePiece model with byte fallback, as Llama, Mistral, Gemma and Phi-3 use. Gives its bytes."""
    import sentencepiece as spm
    out = io.BytesIO()
    # Plain lines weigh more, so that rare letters stay out of the small vocabulary and exercise the byte fallback.
    lines = [x for line in TEXT.splitlines() for x in [line] * (12 if line.isascii() else 1)]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=vocab_size,
        byte_fallback=True, character_coverage=0.98, num_threads=1, split_digits=True, add_dummy_prefix=True,
        allow_whitespace_only_pieces=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        user_defined_symbols=list(symbols), minloglevel=2, **ids)
    return out.getvalue()


LLAMA_IDS = dict(unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
GEMMA_IDS = dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", bos_piece="<bos>", eos_piece="<eos>")


def llama_spm(folder, vocab_size=384, chat=None, extra=None, added_tokens_json=None, prefix_space=None):
    """tokenizer.model and its configuration in the way of Llama 2 and Mistral."""
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(sentencepiece_model(vocab_size, LLAMA_IDS))
    decoder = {"0": added("<unk>"), "1": added("<s>"), "2": added("</s>")}
    for token_id, (content, special) in (extra or {}).items():
        decoder[str(token_id)] = added(content, special)
    config = {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder, "bos_token": "<s>",
              "clean_up_tokenization_spaces": False, "eos_token": "</s>", "legacy": False,
              "model_max_length": 2048, "pad_token": None, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>"}
    if prefix_space is not None:
        config["add_prefix_space"] = prefix_space
    if chat:
        config["chat_template"] = chat
    write_json(folder, "tokenizer_config.json", config)
    write_json(folder, "special_tokens_map.json",
               {"bos_token": added("<s>"), "eos_token": added("</s>"), "unk_token": added("<unk>")})
    if added_tokens_json:
        write_json(folder, "added_tokens.json", added_tokens_json)


def gemma_spm(folder, vocab_size=384, chat_file=None):
    """tokenizer.model in the way of Gemma: <pad> first, turns and unused tokens as user-defined pieces."""
    symbols = ["<mask>", "<2mass>", "[@BOS@]", "<unused0>", "<unused1>", "<start_of_turn>", "<end_of_turn>", "\n",
               "\n\n", "\u2581\u2581"]
    with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
        f.write(sentencepiece_model(vocab_size, GEMMA_IDS, symbols))
    decoder = {str(i): added(t) for i, t in enumerate(["<pad>", "<eos>", "<bos>", "<unk>"])}
    for i, t in enumerate(symbols):
        decoder[str(4 + i)] = added(t, special=t.endswith("_turn>"))
    write_json(folder, "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder, "bos_token": "<bos>",
        "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 8192,
        "tokenizer_class": "GemmaTokenizer"})
    write_json(folder, "special_tokens_map.json",
               {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"})
    if chat_file:
        with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as f:
            f.write(chat_file)


def llama_hf(folder, vocab_size=320):
    """tokenizer.json alone, holding a BPE with byte fallback and no pre-tokenizer (a SentencePiece in all but name)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    from tokenizers import pre_tokenizers
    tok.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    # The trainer breaks ties between rare letters by the order of a hash map, so the alphabet is chosen here.
    letters = collections.Counter(TEXT.replace(" ", "\u2581").replace("\n", ""))
    alphabet = [c for c, _ in sorted(letters.items(), key=lambda kv: (-kv[1], kv[0]))[:40]]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet,
                                  limit_alphabet=len(alphabet), show_progress=False)
    tok.train_from_iterator(TEXT.splitlines(), trainer)
    tok.pre_tokenizer = None
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                     decoders.Strip(" ", 1, 0)])
    document = json.loads(tok.to_str())
    # Training needs the byte tokens declared special; in such files as found they are plain vocabulary.
    document["added_tokens"] = [t for t in document["added_tokens"] if t["id"] < 3]
    first = vocab_size
    document["added_tokens"].append({"id": first, "content": "<|tool|>", "single_word": False, "lstrip": False,
                                     "rstrip": False, "normalized": False, "special": False})
    write_json(folder, "tokenizer.json", document)
    write_json(folder, "tokenizer_config.json", {
        "added_tokens_decoder": {"0": added("<unk>"), "1": added("<s>"), "2": added("</s>"),
                                 str(first): added("<|tool|>", special=False)},
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>", "model_max_length": 4096,
        "tokenizer_class": "PreTrainedTokenizerFast"})
    return first + 1


def byte_bpe(folder, vocab_size, kind, chat=None):
    """Byte-level BPE with the pre-tokenizer of Llama 3 (`llama-bpe`), `qwen2` or `gpt-2`. Gives the tokens in all."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    tok = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    if kind == "gpt-2":
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        pattern = Regex(LLAMA3 if kind == "llama-bpe" else QWEN2)
        tok.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    if kind == "qwen2":
        tok.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  special_tokens=[], show_progress=False)
    tok.train_from_iterator(TEXT.splitlines(), trainer)
    tok.decoder = decoders.ByteLevel()
    specials = {"llama-bpe": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eot_id|>"],
                "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "gpt-2": ["<|endoftext|>"]}[kind]
    tok.add_special_tokens(specials)
    if kind == "qwen2":
        tok.add_tokens(["<tool_call>", "</tool_call>"])
    bos = tok.token_to_id(specials[0])
    if kind == "llama-bpe":
        tok.post_processor = processors.TemplateProcessing(
            single=f"{specials[0]} $A", pair=f"{specials[0]} $A {specials[0]} $B", special_tokens=[(specials[0], bos)])
    tok.save(os.path.join(folder, "tokenizer.json"))
    config = {"clean_up_tokenization_spaces": False, "model_max_length": 4096,
              "tokenizer_class": {"qwen2": "Qwen2Tokenizer", "gpt-2": "GPT2Tokenizer"}.get(kind, "PreTrainedTokenizerFast"),
              "eos_token": {"llama-bpe": "<|eot_id|>", "qwen2": "<|im_end|>", "gpt-2": "<|endoftext|>"}[kind],
              "added_tokens_decoder": {str(t["id"]): added(t["content"], t["special"], t["normalized"])
                                       for t in json.loads(tok.to_str())["added_tokens"]}}
    if kind == "llama-bpe":
        config["bos_token"] = specials[0]
    if kind == "qwen2":
        config |= {"add_bos_token": False, "bos_token": None, "pad_token": "<|endoftext|>"}
    if kind == "gpt-2":
        config |= {"bos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "add_prefix_space": False}
    if chat:
        config["chat_template"] = chat
    write_json(folder, "tokenizer_config.json", config)
    # Older folders carry the two files as well; the converter prefers tokenizer.json.
    return tok.get_vocab_size()


def wordpiece(folder, vocab_size=300):
    """BERT's WordPiece: vocab.txt, tokenizer.json and configuration. Gives the tokens in all."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Letters, letters inside words, frequent endings, frequent words. (The library's trainer orders its vocabulary by
    # a hash map, so that no two runs agree.)
    words = collections.Counter(re.findall(r"\w+", TEXT.lower()))
    endings = collections.Counter(w[-n:] for w in words for n in (2, 3) if len(w) > n + 1)
    frequent = lambda counts, n: [w for w, _ in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))[:n]]
    letters = sorted(c for c in set(TEXT.lower()) if c.isascii() and not c.isspace())
    inner = [c for c in letters if c.isalnum()]
    tokens = special + letters + ["##" + c for c in inner] + ["##" + e for e in frequent(endings, 40)]
    tokens += [w for w in frequent(words, vocab_size) if w not in letters][:vocab_size - len(tokens)]
    assert len(set(tokens)) == vocab_size, len(set(tokens))
    tok = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    tok.add_special_tokens(special)
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tok.save(os.path.join(folder, "tokenizer.json"))
    by_id = sorted(tok.get_vocab().items(), key=lambda kv: kv[1])
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as f:
        f.writelines(t + "\n" for t, _ in by_id)
    write_json(folder, "tokenizer_config.json", {
        "added_tokens_decoder": {str(i): added(t) for i, t in enumerate(special)}, "cls_token": "[CLS]",
        "do_lower_case": True, "mask_token": "[MASK]", "model_max_length": 128, "pad_token": "[PAD]",
        "sep_token": "[SEP]", "strip_accents": None, "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer", "unk_token": "[UNK]"})
    write_json(folder, "special_tokens_map.json", {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]",
                                                   "sep_token": "[SEP]", "unk_token": "[UNK]"})
    return len(by_id)

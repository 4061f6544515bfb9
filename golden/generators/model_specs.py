"""The golden models as data: configuration, tokenizer, how the folder is written, model card.

Shapes are the smallest that still exercise what they are for: rows of 256 for K-quants, rows of 32n for the legacy
fallbacks, rows of neither for the F16 fallback, 11 layers for the order of layers and the layer rules.
"""
import tiny_tokenizers as tk

LLAMA3_ROPE = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 8192}

TINY_CARD = """---
license: apache-2.0
language:
- en
- no
tags:
- tiny
- golden
base_model: golden-mill/Grain-1B-v0.1
datasets:
- golden-mill/river-corpus
pipeline_tag: text-generation
model_creator: The Golden Mill
---

# tiny-llama

Random weights of Llama's shape, for tests and for the first command of the README. It says nothing sensible.
"""
GEMMA_CARD = """---
license: gemma
license_name: gemma-terms
license_link: https://ai.google.dev/gemma/terms
library_name: transformers
pipeline_tag: text-generation
base_model:
- https://huggingface.co/google/gemma-2-9b
- google/gemma-2-2b-it
tags: [conversational]
language: en
---
"""
BERT_CARD = """---
language: en
license: apache-2.0
library_name: sentence-transformers
tags:
- sentence-transformers
- feature-extraction
datasets:
- s2orc
- embedding-data/QQP
pipeline_tag: sentence-similarity
---

# tiny
"""


def spec(cls, config, tokenizer, *, dtype="bfloat16", pre=None, shard=None, classic=True, card=None, generation=None,
         extra_files=None, extra_config=None, skip=()):
    return dict(skip=skip, cls=cls, config=config, tokenizer=tokenizer, dtype=dtype, pre=pre, shard=shard, classic=classic,
                card=card, generation=generation, extra_files=extra_files or {}, extra_config=extra_config or {})


def llama_like(**kw):
    return dict(vocab_size=384, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
                num_key_value_heads=1, max_position_embeddings=2048, rms_norm_eps=1e-5, tie_word_embeddings=False,
                bos_token_id=1, eos_token_id=2) | kw


GPT_OSS_ROPE = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                "rope_type": "yarn", "truncate": False}
PHI_EXTRA = {380 + i: (t, True) for i, t in enumerate(["<|user|>", "<|assistant|>", "<|end|>"])}

SPECS = {
    "tiny-llama": spec(
        "Llama", llama_like(tie_word_embeddings=True), lambda d: tk.llama_spm(d, chat=tk.LLAMA2_CHAT), card=TINY_CARD,
        generation={"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.6, "top_p": 0.9, "do_sample": True}),
    "llama3-bpe": spec(
        "Llama", llama_like(hidden_size=32, intermediate_size=64, num_hidden_layers=11, num_key_value_heads=2,
                            max_position_embeddings=131072, rope_theta=500000.0, rope_scaling=LLAMA3_ROPE,
                            tie_word_embeddings=True, bos_token_id=320, eos_token_id=323),
        lambda d: tk.byte_bpe(d, 320, "llama-bpe", chat=tk.CHATML), pre="llama-bpe", shard="100KB",
        extra_config={"_name_or_path": "golden-mill/Meta-Grain-3.2-1B-Instruct", "eos_token_id": [321, 323]}),
    "llama-f32-bias": spec(
        "Llama", llama_like(hidden_size=96, intermediate_size=352, num_attention_heads=3, vocab_size=0,
                            attention_bias=True, mlp_bias=True), tk.llama_hf, dtype="float32", classic=False,
        generation={"top_k": 40, "repetition_penalty": 1.1}),
    "mistral-f16": spec(
        "Mistral", llama_like(head_dim=32, sliding_window=4096, max_position_embeddings=32768, rope_theta=10000.0),
        lambda d: tk.llama_spm(d, vocab_size=380, added_tokens_json={"[TOOL]": 380, "[/TOOL]": 381}, prefix_space=True),
        dtype="float16", card="# no front matter here\n"),
    "mixtral-4x": spec(
        "Mixtral", llama_like(intermediate_size=64, head_dim=32, num_local_experts=4, num_experts_per_tok=2,
                              sliding_window=None, rope_theta=1e6),
        lambda d: tk.llama_spm(d, vocab_size=380), shard="300KB",
        extra_config={"_name_or_path": "golden-mill/Mixtral-4x7B-Instruct-v0.1"}),
    "qwen2-odd": spec(
        "Qwen2", llama_like(vocab_size=336, hidden_size=80, intermediate_size=176, num_attention_heads=5,
                            num_hidden_layers=2, rope_theta=1e6, tie_word_embeddings=True, bos_token_id=320,
                            eos_token_id=322),
        lambda d: tk.byte_bpe(d, 320, "qwen2", chat=tk.CHATML), pre="qwen2",
        skip=["Q3_K_M.types"],  # rows of 80 cannot be Q8_0, and the peer aborts where such a type is asked for by name
        generation={"bos_token_id": 320, "eos_token_id": [322, 320], "top_k": 20, "top_p": 0.8, "temperature": 0.7,
                    "repetition_penalty": 1.05, "do_sample": True}),
    "qwen3": spec(
        "Qwen3", llama_like(vocab_size=328, num_attention_heads=2, head_dim=64, rope_theta=1e6, rms_norm_eps=1e-6,
                            tie_word_embeddings=True, bos_token_id=320, eos_token_id=322),
        lambda d: tk.byte_bpe(d, 320, "qwen2", chat=tk.CHATML), pre="qwen2", classic=False, shard="200KB"),
    "qwen3-moe": spec(
        "Qwen3Moe", llama_like(vocab_size=328, num_attention_heads=2, head_dim=64, rope_theta=1e6, intermediate_size=128,
                               moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1,
                               norm_topk_prob=True, mlp_only_layers=[], bos_token_id=320, eos_token_id=322),
        lambda d: tk.byte_bpe(d, 320, "qwen2"), pre="qwen2",
        card="---\nlicense: other\nlicense_name: mill\nbase_model: 'golden-mill/Grain3-30B-A3B'\n---\n"),
    "gpt-oss": spec(
        "GptOss", llama_like(vocab_size=328, hidden_size=128, intermediate_size=64, num_attention_heads=2, head_dim=64,
                             num_local_experts=4, num_experts_per_tok=2, sliding_window=128, max_position_embeddings=131072,
                             rope_theta=150000.0, rope_scaling=GPT_OSS_ROPE, bos_token_id=320, eos_token_id=322),
        lambda d: tk.byte_bpe(d, 320, "qwen2"), pre="gpt-4o"),
    "gemma2": spec(
        "Gemma2", dict(vocab_size=384, hidden_size=256, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, head_dim=32, max_position_embeddings=8192, query_pre_attn_scalar=32,
                       sliding_window=4096, final_logit_softcapping=30.0, attn_logit_softcapping=50.0,
                       bos_token_id=2, eos_token_id=1, pad_token_id=0),
        lambda d: tk.gemma_spm(d), card=GEMMA_CARD),
    "gemma3": spec(
        "Gemma3", dict(vocab_size=392, hidden_size=64, intermediate_size=96, num_hidden_layers=7, num_attention_heads=2,
                       num_key_value_heads=1, head_dim=32, max_position_embeddings=32768, sliding_window=512,
                       bos_token_id=2, eos_token_id=1, pad_token_id=0),
        lambda d: tk.gemma_spm(d, chat_file="{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n"
                                            "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"),
        generation={"top_k": 64, "top_p": 0.95, "bos_token_id": 2, "eos_token_id": [1, 10]}),
    "phi3-longrope": spec(
        "Phi3", llama_like(hidden_size=128, num_hidden_layers=2, num_key_value_heads=4, max_position_embeddings=131072,
                           original_max_position_embeddings=4096, sliding_window=2047, pad_token_id=2,
                           rope_scaling={"type": "longrope", "short_factor": [1.0 + i / 16 for i in range(16)],
                                         "long_factor": [1.5 + i / 3 for i in range(16)]}),
        lambda d: tk.llama_spm(d, vocab_size=380, extra=PHI_EXTRA, chat=tk.CHATML)),
    "bert": spec(
        "Bert", dict(vocab_size=300, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
                     max_position_embeddings=128, type_vocab_size=2, pad_token_id=0),
        tk.wordpiece, dtype="float32", pre="jina-v2-en", card=BERT_CARD,
        extra_files={
            "modules.json": [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
            "1_Pooling/config.json": {
                "word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
                "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False},
            "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False}}),
}

//! Gemma 2 and Gemma 3 (the text model, also out of a multimodal checkpoint).

use crate::{
    Config, VocabForm, VocabPolicy,
    hyper::Hyper,
    text::{Item, Rewrite, Text, plain, plus_one},
    vocab::has,
};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::{borrow::Cow, fmt};
use tensormill_model::{Error, Result, RowMap};

pub(super) static GEMMA2: Text = Text {
    gguf: "gemma2",
    hf: &["Gemma2ForCausalLM"],
    filter: without_head,
    extra: plain::extra,
    modify: modify_gemma2,
    hyper: hyper_gemma2,
    vocab: |config, _| sentencepiece(config),
};

pub(super) static GEMMA3: Text = Text {
    gguf: "gemma3",
    hf: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    filter: plain::filter,
    extra: plain::extra,
    modify: modify_gemma3,
    hyper: hyper_gemma3,
    vocab: |config, assets| {
        if has(assets, "tokenizer.model") {
            sentencepiece(config)
        } else {
            VocabPolicy::new(&[VocabForm::Gpt2], config)
        }
    },
};

/// The output matrix is always tied; some quantizers store a copy.
fn without_head(name: &str) -> Option<Cow<'_, str>> {
    (name != "lm_head.weight").then_some(Cow::Borrowed(name))
}

fn sentencepiece(config: &Config) -> Result<VocabPolicy> {
    let mut p = VocabPolicy::new(&[VocabForm::SentencePiece], config)?;
    p.after.set("tokenizer.ggml.add_space_prefix", false);
    Ok(p)
}

/// Norms are stored minus one.
fn modify_gemma2(rw: &mut Rewrite, mut item: Item) -> Result<()> {
    if item.name.ends_with("norm.weight") {
        item.expr = plus_one(item.expr)?;
    }
    plain::modify(rw, item)
}

/// As Gemma 2; embeddings beyond the tokenizer's vocabulary are cut off.
fn modify_gemma3(rw: &mut Rewrite, mut item: Item) -> Result<()> {
    if item.name.contains("embed_tokens.weight") {
        let (have, want) = (item.expr.form()?.shape.rows(), real_vocab(rw)?);
        if want < have {
            item.expr = item.expr.rows(RowMap::Slice { start: 0, len: want });
        }
    }
    modify_gemma2(rw, item)
}

fn real_vocab(rw: &Rewrite) -> Result<u64> {
    if has(rw.assets, "tokenizer.model") {
        return rw
            .config
            .find_u64(&["vocab_size_per_layer_input", "vocab_size"])?
            .filter(|n| *n > 0)
            .ok_or_else(|| Error::malformed("no vocab_size").file("config.json"));
    }
    let file = "tokenizer.json";
    let bytes = rw.assets.read(file)?.ok_or_else(|| {
        Error::malformed("there is neither tokenizer.model nor tokenizer.json")
            .hint("add the tokenizer's files to the folder")
    })?;
    let t: TokenizerSizes = serde_json::from_slice(&bytes)
        .map_err(|e| Error::malformed(format!("cannot count its tokens: {e}")).file(file))?;
    Ok(t.model.vocab.0 + t.added_tokens.0)
}

#[derive(serde::Deserialize)]
struct TokenizerSizes {
    model: ModelSizes,
    added_tokens: Count,
}
#[derive(serde::Deserialize)]
struct ModelSizes {
    vocab: Count,
}

/// The length of a JSON list or object: vocabularies are too large to keep for that.
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list or an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut a: A) -> std::result::Result<Count, A::Error> {
                let mut n = 0;
                while a.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    n += 1;
                }
                Ok(Count(n))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut a: A) -> std::result::Result<Count, A::Error> {
                let mut n = 0;
                while a.next_element::<IgnoredAny>()?.is_some() {
                    n += 1;
                }
                Ok(Count(n))
            }
        }
        d.deserialize_any(Counter)
    }
}

fn hyper_gemma2(h: &mut Hyper) -> Result<()> {
    let c = h.config;
    h.u32("context_length", c.need(&["max_position_embeddings"])?)?;
    h.u32("embedding_length", c.need(&["hidden_size"])?)?;
    h.block_count()?;
    h.u32s("feed_forward_length", c.need(&["intermediate_size"])?)?;
    h.u32s("attention.head_count", c.need(&["num_attention_heads"])?)?;
    h.u32s("attention.head_count_kv", c.need(&["num_key_value_heads", "num_attention_heads"])?)?;
    h.f32("attention.layer_norm_rms_epsilon", c.need(&["rms_norm_eps"])?)?;
    h.u32("attention.key_length", c.need(&["head_dim"])?)?;
    h.u32("attention.value_length", c.need(&["head_dim"])?)?;
    h.file_type();
    h.f32("attn_logit_softcapping", c.need(&["attn_logit_softcapping"])?)?;
    h.f32("final_logit_softcapping", c.need(&["final_logit_softcapping"])?)?;
    h.u32("attention.sliding_window", c.need(&["sliding_window"])?)
}

fn hyper_gemma3(h: &mut Hyper) -> Result<()> {
    h.base()?;
    let c = h.config;
    let or = |key: &str, default: Value| c.find(&[key]).cloned().unwrap_or(default);
    h.u32("context_length", &or("max_position_embeddings", 131_072.into()))?;
    h.u32s("attention.head_count", &or("num_attention_heads", 8.into()))?;
    h.f32("attention.layer_norm_rms_epsilon", &or("rms_norm_eps", 1e-6.into()))?;
    h.u32("attention.key_length", &or("head_dim", 256.into()))?;
    h.u32("attention.value_length", &or("head_dim", 256.into()))?;
    let theta = c.rope_full().get("rope_theta").cloned().unwrap_or_else(|| Value::from(1_000_000.0));
    h.f32("rope.freq_base", &theta)?;
    if c.find(&["attn_logit_softcapping"]).is_some() {
        return Err(Error::unsupported("Gemma 3 with attn_logit_softcapping").file("config.json"));
    }
    if let Some(v) = c.find(&["final_logit_softcapping"]).filter(|v| v.as_f64() != Some(0.0)) {
        h.f32("final_logit_softcapping", v)?;
    }
    if c.find(&["sliding_window_pattern"]).and_then(Value::as_f64) != Some(1.0) {
        h.u32("attention.sliding_window", c.need(&["sliding_window"])?)?;
    }
    h.u32s("attention.head_count_kv", &or("num_key_value_heads", 4.into()))
}

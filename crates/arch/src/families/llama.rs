//! Llama and what shares its class in the peer: Mistral, Mixtral.

use crate::{
    Config, VocabForm, VocabPolicy,
    hyper::Hyper,
    rope,
    text::{Item, Rewrite, Text, permuted},
    vocab,
};
use serde_json::Value;
use std::borrow::Cow;
use tensormill_model::{Assets, Error, Kind, Metadata, Result};

pub(super) static LLAMA: Text = Text {
    gguf: "llama",
    hf: &[
        "LlamaForCausalLM",
        "LLaMAForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "LlamaModel",
        "IQuestCoderForCausalLM",
    ],
    filter,
    extra,
    modify,
    hyper,
    vocab: policy,
};

#[allow(clippy::unnecessary_wraps)] // the signature is the hook's
fn filter(name: &str) -> Option<Cow<'_, str>> {
    Some(if name.contains("text_model.") {
        Cow::Owned(name.replace("text_model.", ""))
    } else {
        Cow::Borrowed(name)
    })
}

fn extra(rw: &mut Rewrite) -> Result<()> {
    if rw.config.find(&["draft_vocab_size"]).is_some() {
        return Err(
            Error::unsupported("a draft model for speculative decoding (EAGLE-3)").file("config.json")
        );
    }
    let rope = rw.config.rope_full();
    let kind = rope.get("rope_type").and_then(Value::as_str).unwrap_or_default();
    if kind.eq_ignore_ascii_case("llama3") {
        let factors = rope::llama3_factors(rope, rw.config.head_dim()?)?;
        rw.generate(Kind::RopeFreqs, &factors)?;
    }
    Ok(())
}

const EXPERTS: [(&str, &str); 3] = [
    (
        "model.layers.{bid}.block_sparse_moe.experts.{xid}.w1.weight",
        "layers.{bid}.feed_forward.experts.w1.weight",
    ),
    (
        "model.layers.{bid}.block_sparse_moe.experts.{xid}.w2.weight",
        "layers.{bid}.feed_forward.experts.w2.weight",
    ),
    (
        "model.layers.{bid}.block_sparse_moe.experts.{xid}.w3.weight",
        "layers.{bid}.feed_forward.experts.w3.weight",
    ),
];

fn modify(rw: &mut Rewrite, mut item: Item) -> Result<()> {
    if rw.config.architecture() == "LlamaModel" {
        item.name.insert_str(0, "model.");
    }
    let ends = |stem: &str| {
        item.name
            .strip_suffix(".weight")
            .or(item.name.strip_suffix(".bias"))
            .is_some_and(|n| n.ends_with(stem))
    };
    let heads = ["n_heads", "num_attention_heads"];
    if ends("q_proj") {
        item.expr = permuted(item.expr, rw.config.need_u64(&heads)?)?;
    } else if ends("k_proj") {
        let kv = rw.config.find_u64(&["n_kv_heads", "num_key_value_heads"])?;
        item.expr = permuted(item.expr, kv.map_or_else(|| rw.config.need_u64(&heads), Ok)?)?;
    }
    if item.name.contains("block_sparse_moe.experts") {
        let experts = rw.config.need_u64(&["num_local_experts"])?;
        return rw.expert(item, experts, &EXPERTS);
    }
    rw.emit(&item.name, item.layer, item.expr)
}

fn hyper(h: &mut Hyper) -> Result<()> {
    h.base()?;
    h.u32("vocab_size", h.config.need(&["vocab_size"])?)?;
    h.u32("rope.dimension_count", &Value::from(h.config.head_dim()?))
}

fn policy(config: &Config, assets: &dyn Assets) -> Result<VocabPolicy> {
    if vocab::has(assets, "tekken.json") && !vocab::has(assets, "tokenizer.json") {
        return VocabPolicy::new(&[VocabForm::Tekken], config);
    }
    let mut p = VocabPolicy::new(&[VocabForm::SentencePiece, VocabForm::LlamaHf, VocabForm::Gpt2], config)?;
    if let Some(tokenizer) = vocab::json(assets, "tokenizer_config.json")? {
        if let Some(v) = tokenizer.get("add_prefix_space").filter(|v| !v.is_null()) {
            let v = v.as_bool().ok_or_else(|| {
                Error::malformed("add_prefix_space is no boolean").file("tokenizer_config.json")
            })?;
            p.before.set("tokenizer.ggml.add_space_prefix", v);
        }
        if tokenizer.get("tokenizer_class").and_then(Value::as_str) == Some("HybridDNATokenizer") {
            return Err(Error::unsupported("the tokenizer HybridDNATokenizer").file("tokenizer_config.json"));
        }
    }
    p.after = by_vocab_size(p.vocab_size);
    Ok(p)
}

/// Two families are known by nothing but the size of their vocabulary.
fn by_vocab_size(size: Option<u64>) -> Metadata {
    let mut m = Metadata::new();
    match size {
        // CodeLlama. The peer also names its infilling tokens, under keys that its writer no longer has.
        Some(32016) => m.set("tokenizer.ggml.eot_token_id", 32010u32),
        // The small Granite models.
        Some(49152) => m.set("tokenizer.ggml.add_bos_token", false),
        _ => {}
    }
    m
}

//! Phi-3, with its long-context rope factors.

use crate::{
    Config, VocabForm, VocabPolicy,
    hyper::Hyper,
    text::{Rewrite, Text, plain},
    vocab::json,
};
use serde_json::Value;
use tensormill_model::{Assets, Error, Kind, Result};

pub(super) static PHI3: Text = Text {
    gguf: "phi3",
    hf: &["Phi3ForCausalLM"],
    filter: plain::filter,
    extra,
    modify: plain::modify,
    hyper,
    vocab,
};

fn malformed(what: impl Into<String>) -> Error {
    Error::malformed(what).file("config.json")
}

/// Rotated elements per head, as the peer computes them.
fn rope_dims(c: &Config) -> Result<u64> {
    let embedding = c.need_u64(&["hidden_size", "n_embd"])?;
    let heads = c.need_u64(&["num_attention_heads", "n_head"])?;
    let partial = match c.rope().get("partial_rotary_factor") {
        None => 1.0,
        Some(v) => v.as_f64().ok_or_else(|| malformed("partial_rotary_factor is no number"))?,
    };
    ((partial * embedding as f64) as u64)
        .checked_div(heads)
        .ok_or_else(|| malformed("num_attention_heads is zero"))
}

fn original_context(c: &Config) -> Result<&Value> {
    c.rope()
        .get("original_max_position_embeddings")
        .ok_or_else(|| malformed("no original_max_position_embeddings"))
}

fn extra(rw: &mut Rewrite) -> Result<()> {
    let c = rw.config;
    let list = |key: &str| c.rope().get(key).and_then(Value::as_array).filter(|a| !a.is_empty());
    let dims = rope_dims(c)?;
    let original = original_context(c)?;
    let Some(long) = list("long_factor") else { return Ok(()) };
    let short = list("short_factor").ok_or_else(|| malformed("long_factor without short_factor"))?;

    let number = |v: &Value, what: &str| {
        v.as_f64().filter(|x| *x > 0.0).ok_or_else(|| malformed(format!("{what} is {v}, not a length")))
    };
    let original = number(original, "original_max_position_embeddings")?;
    let scale =
        number(c.need(&["n_positions", "max_position_embeddings"])?, "max_position_embeddings")? / original;
    let kind = c.rope().get("rope_type").and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let attention = match kind.as_str() {
        "su" | "longrope" if scale > 1.0 => (1.0 + scale.ln() / original.ln()).sqrt(),
        "yarn" if scale > 1.0 => 0.1 * scale.ln() + 1.0,
        "su" | "longrope" | "yarn" => 1.0,
        _ => {
            return Err(
                Error::unsupported(format!("rope scaling {kind:?} of a Phi-3 model")).file("config.json")
            );
        }
    };
    rw.early.set("phi3.rope.scaling.attn_factor", attention as f32);

    if long.len() != short.len() || long.len() as u64 * 2 != dims {
        return Err(malformed(format!(
            "{} long and {} short rope factors for {dims} rotated elements",
            long.len(),
            short.len()
        )));
    }
    for (kind, factors) in [(Kind::RopeFactorsLong, long), (Kind::RopeFactorsShort, short)] {
        let values: Option<Vec<f32>> = factors.iter().map(|v| v.as_f64().map(|x| x as f32)).collect();
        rw.generate(kind, &values.ok_or_else(|| malformed("a rope factor is no number"))?)?;
    }
    Ok(())
}

fn hyper(h: &mut Hyper) -> Result<()> {
    let c = h.config;
    h.u32("context_length", c.need(&["n_positions", "max_position_embeddings"])?)?;
    h.u32("rope.scaling.original_context_length", original_context(c)?)?;
    h.u32("embedding_length", c.need(&["hidden_size", "n_embd"])?)?;
    h.u32s("feed_forward_length", c.need(&["intermediate_size"])?)?;
    h.block_count()?;
    h.u32s("attention.head_count", c.need(&["num_attention_heads", "n_head"])?)?;
    h.u32s("attention.head_count_kv", c.need(&["num_key_value_heads", "n_head_kv"])?)?;
    h.f32("attention.layer_norm_rms_epsilon", c.need(&["rms_norm_eps"])?)?;
    h.u32("rope.dimension_count", &Value::from(rope_dims(c)?))?;
    let theta = c.rope_full().get("rope_theta").ok_or_else(|| malformed("no rope_theta"))?;
    h.f32("rope.freq_base", theta)?;
    h.file_type();
    // Zero tells Phi-4 from the other models of this architecture.
    h.u32("attention.sliding_window", c.find(&["sliding_window"]).unwrap_or(&Value::from(0)))
}

fn vocab(config: &Config, assets: &dyn Assets) -> Result<VocabPolicy> {
    let mut form = VocabForm::Phi3SentencePiece;
    if let Some(tokenizer) = json(assets, "tokenizer_config.json")? {
        let class = tokenizer.get("tokenizer_class").and_then(Value::as_str);
        let class =
            class.ok_or_else(|| Error::malformed("no tokenizer_class").file("tokenizer_config.json"))?;
        if class == "GPT2Tokenizer" {
            form = VocabForm::Gpt2;
        }
    }
    VocabPolicy::new(&[form], config)
}

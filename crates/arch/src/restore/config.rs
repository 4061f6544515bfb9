//! `config.json` from hyper-parameter keys. Only what transformers reads and the keys say; defaults are left to it.

use super::{Keys, tables::Family};
use serde_json::{Map, Value as Json, json};
use tensormill_model::{Error, Result, Tensor, Value};

/// `(config.json, GGUF key)` of whole numbers.
const NUMBERS: &[(&str, &str)] = &[
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("max_position_embeddings", "context_length"),
    ("head_dim", "attention.key_length"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("sliding_window", "attention.sliding_window"),
];

/// Numbers that may be one per layer.
const LISTS: &[(&str, &str)] = &[
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
];

/// `(config.json, GGUF key)` of fractions.
const FRACTIONS: &[(&str, &str)] = &[
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
];

/// `(config.json, metadata key)` of token ids.
const TOKENS: &[(&str, &str)] = &[
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
    ("pad_token_id", "tokenizer.ggml.padding_token_id"),
];

pub(super) fn config(
    family: &Family,
    keys: &Keys<'_>,
    tied: bool,
    tensors: &[Tensor],
    (lost, notes): (&mut Vec<String>, &mut Vec<String>),
) -> Result<Map<String, Json>> {
    let experts = keys.u64("expert_count");
    let (model_type, class) = family.class(experts.is_some());
    let mut c = Map::new();
    let mut set = |key: &str, value: Json| {
        c.insert(key.to_owned(), value);
    };
    set("architectures", json!([class]));
    set("model_type", json!(model_type));
    // Where all layers have experts alone, their width is the only one.
    let known =
        NUMBERS.iter().filter(|(name, _)| family.gguf != "gpt-oss" || *name != "moe_intermediate_size");
    for (name, key) in known {
        if let Some(n) = keys.u64(key) {
            set(name, json!(n));
        }
    }
    for (name, key) in LISTS {
        match keys.get(key) {
            Some(Value::Array(list)) => {
                let all: Option<Vec<u64>> =
                    (0..list.len()).map(|i| list.get(i).and_then(|v| v.as_u64())).collect();
                set(name, json!(all.ok_or_else(|| Error::malformed(format!("{key} holds no numbers")))?));
            }
            Some(_) => set(name, json!(keys.need(key)?)),
            None => {}
        }
    }
    for (name, key) in FRACTIONS {
        if let Some(x) = keys.f64(key) {
            set(name, fraction(x));
        }
    }
    if let Some(n) = experts {
        // transformers calls it differently in the families.
        let local = ["llama", "gpt-oss"].contains(&family.gguf);
        set(if local { "num_local_experts" } else { "num_experts" }, json!(n));
    }
    for (name, key) in TOKENS {
        if let Some(n) = keys.metadata.u64(key) {
            set(name, json!(n));
        }
    }
    let rows =
        |names: [&str; 2]| tensors.iter().find(|t| names.contains(&t.name())).map(|t| t.spec.shape.rows());
    let vocabulary = rows(["model.embed_tokens.weight", "embeddings.word_embeddings.weight"]);
    let vocabulary = vocabulary.ok_or_else(|| Error::malformed("there is no token embedding"))?;
    set("vocab_size", json!(vocabulary));
    if family.gguf == "bert" {
        if let Some(n) = rows(["embeddings.token_type_embeddings.weight", ""]) {
            set("type_vocab_size", json!(n));
        }
    } else {
        set("tie_word_embeddings", json!(tied));
        let has = |part: &str| tensors.iter().any(|t| t.name().ends_with(part));
        if family.gguf == "gpt-oss" {
            set("attention_bias", json!(has("self_attn.q_proj.bias")));
        }
        if family.gguf == "llama" {
            set("attention_bias", json!(has("self_attn.q_proj.bias")));
            set("mlp_bias", json!(has("mlp.gate_proj.bias")));
        }
    }
    if let Some(mut scaling) = rope_scaling(keys, lost) {
        if let (Json::Object(scaling), "gpt-oss") = (&mut scaling, family.gguf) {
            // Its frequencies are between whole numbers, which no key says and transformers otherwise takes.
            scaling.insert("truncate".to_owned(), json!(false));
        }
        set("rope_scaling", scaling);
    }
    if let (Some(dims), Some(dim)) = (keys.u64("rope.dimension_count"), head_dim(keys))
        && dims != dim
        && dim != 0
    {
        set("partial_rotary_factor", fraction(dims as f64 / dim as f64));
    }
    if family.gguf == "phi3"
        && let Some(n) = keys.u64("rope.scaling.original_context_length")
    {
        set("original_max_position_embeddings", json!(n));
    }
    if family.gguf == "gemma2"
        && let Some(dim) = keys.u64("attention.key_length")
    {
        // Not in the file: this is what it is in all published sizes but 27B.
        set("query_pre_attn_scalar", json!(dim));
        notes.push(format!("query_pre_attn_scalar: not in a GGUF file; set to the head's size, {dim}"));
    }
    if family.gguf == "llama" && experts.is_none() {
        notes.push(
            "whether this is a Mistral: named Llama, which computes the same without a sliding window".into(),
        );
    }
    Ok(c)
}

fn head_dim(keys: &Keys<'_>) -> Option<u64> {
    let heads = keys.u64("attention.head_count")?;
    keys.u64("attention.key_length").or_else(|| keys.u64("embedding_length")?.checked_div(heads))
}

/// A binary32 value as the shortest decimal number that rounds to it: what the config held.
fn fraction(x: f64) -> Json {
    let short = (x as f32).to_string().parse().unwrap_or(x);
    json!(if f64::from(x as f32) == x { short } else { x })
}

fn rope_scaling(keys: &Keys<'_>, lost: &mut Vec<String>) -> Option<Json> {
    let kind = keys.get("rope.scaling.type")?.as_str()?;
    let mut out = Map::new();
    out.insert("rope_type".into(), json!(kind));
    match kind {
        "linear" | "yarn" => {
            for (name, key) in [
                ("factor", "rope.scaling.factor"),
                ("extrapolation_factor", "rope.scaling.yarn_ext_factor"),
                ("attention_factor", "rope.scaling.yarn_attn_factor"),
                ("beta_fast", "rope.scaling.yarn_beta_fast"),
                ("beta_slow", "rope.scaling.yarn_beta_slow"),
            ] {
                if let Some(x) = keys.f64(key) {
                    out.insert(name.into(), fraction(x));
                }
            }
            if let Some(n) = keys.u64("rope.scaling.original_context_length") {
                out.insert("original_max_position_embeddings".into(), json!(n));
            }
            Some(Json::Object(out))
        }
        other => {
            lost.push(format!("rope_scaling of type {other:?}: its factors are not in the keys"));
            None
        }
    }
}

//! `genai_config.json`: what ONNX Runtime GenAI wants to know about a graph and about generating with it.

use super::hyper::{Head, Hyper};
use crate::{Config, Form};
use serde_json::{Map, Value, json};
use tensormill_model::{Error, Result};

/// The content of `genai_config.json` for the graph of a decoder that lies in the file `graph` beside it. `generation` is
/// `generation_config.json`, whose settings count more than those of `config.json`.
///
/// # Errors
/// Models that generate no text; configurations as in [`crate::build`], and those that name no token that ends a text.
pub fn genai_config(
    config: &Config,
    generation: Option<&Map<String, Value>>,
    form: Form,
    graph: &str,
) -> Result<Value> {
    let hyper = Hyper::read(config)?;
    if hyper.head != Head::Causal {
        return Err(Error::unsupported("the model generates no text").file("config.json"));
    }
    let generation = generation.cloned().unwrap_or_default();
    let said = |key: &str| generation.get(key).filter(|v| !v.is_null()).or_else(|| config.get(key)).cloned();
    let eos = said("eos_token_id").ok_or_else(|| {
        config
            .bad("eos_token_id", "is missing, and generation would never end")
            .hint("name the token in config.json or generation_config.json")
    })?;
    let first = eos.get(0).unwrap_or(&eos).clone();
    let pad = said("pad_token_id").unwrap_or(first);
    let length = hyper.rope.rows(config)?;

    let mut inputs = json!({"input_ids": "input_ids", "attention_mask": "attention_mask"});
    if form == Form::Standard {
        inputs["position_ids"] = "position_ids".into();
    }
    inputs["past_key_names"] = "past_key_values.%d.key".into();
    inputs["past_value_names"] = "past_key_values.%d.value".into();
    let setting = |key: &str, usual: Value| said(key).unwrap_or(usual);
    Ok(json!({
        "model": {
            "bos_token_id": setting("bos_token_id", 1.into()),
            "context_length": length,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": graph,
                "head_size": hyper.head_dim,
                "hidden_size": hyper.hidden,
                "inputs": inputs,
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "num_attention_heads": hyper.heads,
                "num_hidden_layers": hyper.windows.len(),
                "num_key_value_heads": hyper.kv_heads,
            },
            "eos_token_id": eos,
            "pad_token_id": pad,
            "type": config.model_type()?,
            "vocab_size": hyper.vocab,
        },
        "search": {
            "diversity_penalty": setting("diversity_penalty", 0.0.into()),
            "do_sample": setting("do_sample", false.into()),
            "early_stopping": true,
            "length_penalty": setting("length_penalty", 1.0.into()),
            "max_length": length,
            "min_length": 0,
            "no_repeat_ngram_size": setting("no_repeat_ngram_size", 0.into()),
            "num_beams": setting("num_beams", 1.into()),
            "num_return_sequences": setting("num_return_sequences", 1.into()),
            // Only GroupQueryAttention writes into the buffer that it reads.
            "past_present_share_buffer": form == Form::Contrib,
            "repetition_penalty": setting("repetition_penalty", 1.0.into()),
            "temperature": setting("temperature", 1.0.into()),
            "top_k": setting("top_k", 50.into()),
            "top_p": setting("top_p", 1.0.into()),
        },
    }))
}

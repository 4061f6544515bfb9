//! Hyper-parameter keys: names, value types and order as gguf-py's writer and the peer's base class give them.

use crate::Config;
use serde_json::Value;
use tensormill_model::{Array, Assets, Error, Metadata, Result, Value as Meta};

/// Collects an architecture's keys.
pub(crate) struct Hyper<'a> {
    /// The model's config.
    pub config: &'a Config,
    /// The model's side files.
    pub assets: &'a dyn Assets,
    arch: &'static str,
    file_type: u32,
    out: Metadata,
}

impl<'a> Hyper<'a> {
    /// No keys yet.
    pub fn new(arch: &'static str, config: &'a Config, assets: &'a dyn Assets, file_type: u32) -> Self {
        Self { config, assets, arch, file_type, out: Metadata::new() }
    }
    /// The keys.
    pub fn finish(self) -> Metadata {
        self.out
    }
    /// Sets `{arch}.key`; one that exists keeps its place.
    pub fn set(&mut self, key: &str, value: impl Into<Meta>) {
        self.out.set(format!("{}.{key}", self.arch), value);
    }
    /// Sets `{arch}.key` to a config value as u32.
    pub fn u32(&mut self, key: &str, v: &Value) -> Result<()> {
        let n = v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad_value(key, v))?;
        self.set(key, n);
        Ok(())
    }
    /// Sets `{arch}.key` to a config value as u32, or as an array of i32 where it is a list (one per layer).
    pub fn u32s(&mut self, key: &str, v: &Value) -> Result<()> {
        let Value::Array(list) = v else { return self.u32(key, v) };
        let ints: Option<Vec<i32>> =
            list.iter().map(|n| n.as_i64().and_then(|n| i32::try_from(n).ok())).collect();
        let ints = ints.ok_or_else(|| bad_value(key, v))?;
        // The peer's writer leaves empty arrays out.
        if !ints.is_empty() {
            self.set(key, Array::I32(ints));
        }
        Ok(())
    }
    /// Sets `{arch}.key` to a config value rounded to f32.
    pub fn f32(&mut self, key: &str, v: &Value) -> Result<()> {
        let x = v.as_f64().ok_or_else(|| bad_value(key, v))?;
        // Python's struct module refuses finite values that do not fit.
        if x.is_finite() && !(x as f32).is_finite() {
            return Err(bad_value(key, v));
        }
        self.set(key, x as f32);
        Ok(())
    }
    /// [`Self::u32`] of the first config key that exists, if any.
    fn maybe_u32(&mut self, key: &str, from: &[&str]) -> Result<()> {
        self.config.find(from).map_or(Ok(()), |v| self.u32(key, v))
    }
    /// [`Self::f32`] of the first config key that exists, if any.
    fn maybe_f32(&mut self, key: &str, from: &[&str]) -> Result<()> {
        self.config.find(from).map_or(Ok(()), |v| self.f32(key, v))
    }
    /// Writes `general.file_type`.
    pub fn file_type(&mut self) {
        self.out.set("general.file_type", self.file_type);
    }
    /// Writes `block_count`.
    pub fn block_count(&mut self) -> Result<()> {
        let n = self.config.layers()?;
        let n = u32::try_from(n).map_err(|_| Error::malformed(format!("{n} layers")).file("config.json"))?;
        self.set("block_count", n);
        Ok(())
    }

    /// The keys of `TextModel.set_gguf_parameters`.
    pub fn base(&mut self) -> Result<()> {
        let c = self.config;
        self.block_count()?;
        self.maybe_u32(
            "context_length",
            &[
                "max_position_embeddings",
                "n_ctx",
                "n_positions",
                "max_length",
                "max_sequence_length",
                "model_max_length",
            ],
        )?;
        self.maybe_u32("embedding_length", &["hidden_size", "n_embd", "dim"])?;
        let lists = [
            (
                "feed_forward_length",
                &[
                    "prefix_dense_intermediate_size",
                    "dense_intermediate_size",
                    "intermediate_size",
                    "n_inner",
                    "hidden_dim",
                ][..],
            ),
            ("attention.head_count", &["num_attention_heads", "n_head", "n_heads"][..]),
            ("attention.head_count_kv", &["num_key_value_heads", "n_kv_heads"][..]),
        ];
        for (key, from) in lists {
            if let Some(v) = c.find(from) {
                self.u32s(key, v)?;
            }
        }
        if c.find(&["is_causal"]) == Some(&Value::Bool(false)) {
            self.set("attention.causal", false);
        }
        self.rope()?;
        self.maybe_f32("attention.layer_norm_rms_epsilon", &["rms_norm_eps", "norm_eps"])?;
        self.maybe_f32(
            "attention.layer_norm_epsilon",
            &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"],
        )?;
        self.maybe_u32("expert_count", &["num_local_experts", "num_experts", "n_routed_experts"])?;
        if let Some(v) = c.find(&["num_experts_per_tok", "num_experts_per_token", "top_k_experts"]) {
            self.u32s("expert_used_count", v)?;
        }
        self.maybe_u32("expert_group_count", &["n_group"])?;
        self.maybe_u32("expert_group_used_count", &["topk_group"])?;
        if let Some(v) = c.find(&[
            "score_function",
            "scoring_func",
            "score_func",
            "moe_router_activation",
            "moe_router_activation_func",
            "expert_selection_fn",
        ]) {
            let code = match v.as_str() {
                Some("softmax") => 1u32,
                Some("sigmoid") => 2,
                Some("sqrtsoftplus") => 4,
                _ => {
                    return Err(
                        Error::unsupported(format!("expert score gating function {v}")).file("config.json")
                    );
                }
            };
            self.set("expert_gating_func", code);
        }
        if let Some(v) = c.find(&["head_dim"]) {
            self.u32("attention.key_length", v)?;
            self.u32("attention.value_length", v)?;
        }
        self.file_type();
        Ok(())
    }

    fn rope(&mut self) -> Result<()> {
        let (all, full) = (self.config.rope(), self.config.rope_full());
        let present = |key: &str| full.get(key).filter(|v| !v.is_null());
        let kind = present("rope_type").map_or("", |v| v.as_str().unwrap_or_default());
        match (kind, present("factor")) {
            ("linear", Some(factor)) => {
                self.set("rope.scaling.type", "linear");
                self.f32("rope.scaling.factor", factor)?;
            }
            ("yarn", Some(factor)) => {
                self.set("rope.scaling.type", "yarn");
                self.f32("rope.scaling.factor", factor)?;
                let length = full.get("original_max_position_embeddings").ok_or_else(|| {
                    Error::malformed("yarn rope scaling without original_max_position_embeddings")
                        .file("config.json")
                })?;
                self.u32("rope.scaling.original_context_length", length)?;
                let attention = match full.get("attention_factor") {
                    Some(v) => Some(v).filter(|v| !v.is_null()),
                    None => present("attn_factor"),
                };
                for (key, v) in [
                    ("rope.scaling.yarn_ext_factor", present("extrapolation_factor")),
                    ("rope.scaling.yarn_attn_factor", attention),
                    ("rope.scaling.yarn_beta_fast", present("beta_fast")),
                    ("rope.scaling.yarn_beta_slow", present("beta_slow")),
                ] {
                    if let Some(v) = v {
                        self.f32(key, v)?;
                    }
                }
            }
            ("su" | "longrope", _) => self.set("rope.scaling.type", "longrope"),
            // Everything else is written elsewhere (llama3: a tensor) or, as in the peer, not at all.
            _ => {}
        }
        if let Some(v) = all.get("mrope_section") {
            let mut sections =
                v.as_array().cloned().ok_or_else(|| bad_value("rope.dimension_sections", v))?;
            sections.resize(4, Value::from(0));
            self.u32s("rope.dimension_sections", &Value::Array(sections))?;
        }
        if let Some(v) = present("rope_theta") {
            self.f32("rope.freq_base", v)?;
        }
        if let Some(v) =
            all.get("sliding_attention").and_then(|s| s.get("rope_theta")).filter(|v| !v.is_null())
        {
            self.f32("rope.freq_base_swa", v)?;
        }
        Ok(())
    }
}

fn bad_value(key: &str, v: &Value) -> Error {
    let mut text = v.to_string();
    text.truncate(text.char_indices().nth(80).map_or(text.len(), |(i, _)| i));
    Error::malformed(format!("{text} cannot be written as {key}")).file("config.json")
}

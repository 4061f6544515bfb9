//! config.json as the peer's converter sees it.
//!
//! The converter reads it through transformers, which fills in defaults and moves rope settings about
//! ([`auto`]), then lifts `text_config` to the top and mirrors rope settings once more. All look-ups of the
//! rest of this crate go through the result.

mod auto;

use serde_json::{Map, Value};
use tensormill_model::{Assets, Error, Result};

const FILE: &str = "config.json";

/// A parsed and normalised config.json.
#[derive(Clone, Debug)]
pub struct Config {
    architecture: String,
    hparams: Map<String, Value>,
    rope: Map<String, Value>,
    quantized: Option<String>,
}

impl Config {
    /// Reads config.json, and looks whether hf_quant_config.json is beside it.
    ///
    /// # Errors
    /// When there is no config.json, or as [`Self::parse`].
    pub fn read(assets: &dyn Assets) -> Result<Self> {
        let bytes = assets.read(FILE)?.ok_or_else(|| {
            Error::malformed("there is no config.json").hint(
                "point at a folder that holds a whole Hugging Face model: config.json, tokenizer and weights; or leave \
                 tensors' names as they are, with --keep-names",
            )
        })?;
        let mut config = Self::parse(&bytes)?;
        if config.quantized.is_none() && crate::vocab::has(assets, "hf_quant_config.json") {
            config.quantized = Some("modelopt (hf_quant_config.json)".to_owned());
        }
        Ok(config)
    }

    /// Parses and normalises the text of a config.json.
    ///
    /// # Errors
    /// When it is no JSON object or names no architecture.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let raw: Value =
            serde_json::from_slice(json).map_err(|e| malformed(format!("not valid JSON: {e}")))?;
        let Value::Object(raw) = raw else { return Err(malformed("not a JSON object")) };
        let quantized = quantization(&raw);
        let mut hparams = auto::normalise(&raw)?.unwrap_or(raw);
        for (from, path) in [
            ("llm_config", &["llm_config"][..]),
            ("lm_config", &["lm_config"]),
            ("thinker_config", &["thinker_config", "text_config"]),
            ("language_config", &["language_config"]),
        ] {
            if hparams.contains_key(from) {
                let mut v = Some(&Value::Null);
                for (i, key) in path.iter().enumerate() {
                    v = if i == 0 { hparams.get(*key) } else { v.and_then(|v| v.get(key)) };
                }
                let v = v.cloned().ok_or_else(|| malformed(format!("{from} has no text_config")))?;
                hparams.insert("text_config".to_owned(), v);
            }
        }
        let architecture = architecture(&hparams)?;
        if let Some(Value::Object(text)) = hparams.get("text_config").cloned() {
            hparams.extend(text);
        }
        let quantized = quantized.or_else(|| quantization(&hparams));
        let mut config = Self { architecture, hparams, rope: Map::new(), quantized };
        config.mirror_rope();
        Ok(config)
    }

    /// `TextModel.__init__`'s treatment of rope settings.
    fn mirror_rope(&mut self) {
        let rope = self.hparams.get("rope_parameters").or_else(|| self.hparams.get("rope_scaling"));
        let mut rope = rope.and_then(Value::as_object).cloned().unwrap_or_default();
        if !rope.contains_key("full_attention") && !rope.contains_key("sliding_attention") {
            let local = self.find(&[
                "local_rope_theta",
                "rope_local_theta",
                "rope_theta_local",
                "swa_rope_theta",
                "rope_local_base_freq",
            ]);
            if let Some(theta) = local {
                rope.insert("sliding_attention".to_owned(), serde_json::json!({ "rope_theta": theta }));
            }
            let mut mirror = |key: &str, v: Option<&Value>| {
                if let (false, Some(v)) = (rope.contains_key(key), v) {
                    rope.insert(key.to_owned(), v.clone());
                }
            };
            mirror(
                "rope_theta",
                self.find(&[
                    "global_rope_theta",
                    "rope_global_theta",
                    "rope_theta_global",
                    "rope_theta",
                    "rotary_emb_base",
                ]),
            );
            mirror(
                "partial_rotary_factor",
                self.find(&["partial_rotary_factor", "rope_pct", "rope_percent"]),
            );
            mirror("original_max_position_embeddings", self.find(&["original_max_position_embeddings"]));
            if let (false, Some(kind)) =
                (rope.contains_key("rope_type"), rope.get("type").filter(|v| !v.is_null()).cloned())
            {
                rope.insert("rope_type".to_owned(), kind);
            }
        }
        self.rope = rope;
    }

    /// The class name that decides the architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The value of the first of these keys that exists; `None` also where that value is null.
    pub fn find(&self, keys: &[&str]) -> Option<&Value> {
        keys.iter().find_map(|k| self.hparams.get(*k)).filter(|v| !v.is_null())
    }

    /// [`Self::find`] for what must be there.
    ///
    /// # Errors
    /// When none of the keys has a value.
    pub fn need(&self, keys: &[&str]) -> Result<&Value> {
        self.find(keys).ok_or_else(|| malformed(format!("no value for {}", keys.join(" or "))))
    }

    /// [`Self::find`] as an unsigned integer.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn find_u64(&self, keys: &[&str]) -> Result<Option<u64>> {
        self.find(keys)
            .map(|v| {
                v.as_u64().ok_or_else(|| malformed(format!("{} is not a whole number", keys.join(" or "))))
            })
            .transpose()
    }

    /// [`Self::need`] as an unsigned integer.
    ///
    /// # Errors
    /// When there is no value or it is something else.
    pub fn need_u64(&self, keys: &[&str]) -> Result<u64> {
        self.need(keys)?;
        self.find_u64(keys)?.ok_or_else(|| malformed(format!("no value for {}", keys.join(" or "))))
    }

    /// Number of layers.
    ///
    /// # Errors
    /// When the config does not say.
    pub fn layers(&self) -> Result<u64> {
        self.need_u64(&["n_layers", "num_hidden_layers", "n_layer", "num_layers"])
    }

    /// Size of one attention head: `head_dim`, or the hidden size shared among the heads.
    ///
    /// # Errors
    /// When the config says neither.
    pub fn head_dim(&self) -> Result<u64> {
        if let Some(n) = self.find_u64(&["head_dim"])? {
            return Ok(n);
        }
        let (hidden, heads) = (self.need_u64(&["hidden_size"])?, self.need_u64(&["num_attention_heads"])?);
        hidden.checked_div(heads).ok_or_else(|| malformed("num_attention_heads is zero"))
    }

    /// Rope settings (`rope_parameters` after all mirroring).
    pub fn rope(&self) -> &Map<String, Value> {
        &self.rope
    }

    /// Rope settings of the layers with full attention.
    pub fn rope_full(&self) -> &Map<String, Value> {
        self.rope.get("full_attention").and_then(Value::as_object).unwrap_or(&self.rope)
    }

    /// Refuses checkpoints whose weights are stored quantized.
    pub(crate) fn refuse_quantized(&self) -> Result<()> {
        match &self.quantized {
            None => Ok(()),
            Some(method) => Err(Error::unsupported(format!("the weights are already quantized: {method}"))
                .file(FILE)
                .hint("convert the original checkpoint in bf16, f16 or f32 that this one was made from")),
        }
    }
}

/// `get_model_architecture` of the peer.
fn architecture(hparams: &Map<String, Value>) -> Result<String> {
    let first =
        |v: &Value| v.get("architectures")?.as_array()?.first().map(|a| a.as_str().map(str::to_owned));
    let top = hparams.get("architectures").and_then(Value::as_array).and_then(|a| a.first());
    let text = hparams.get("text_config").and_then(first).flatten();
    text.or_else(|| top.and_then(Value::as_str).map(str::to_owned)).ok_or_else(|| {
        malformed("no architectures: cannot tell what kind of model this is")
            .hint("set \"architectures\": [\"...ForCausalLM\"] as the original model has it")
    })
}

/// The method under `quantization_config`, where there is one.
fn quantization(hparams: &Map<String, Value>) -> Option<String> {
    let q = hparams.get("quantization_config")?;
    if q.is_null() || q.as_object().is_some_and(Map::is_empty) {
        return None;
    }
    let text = |k: &str| q.get(k).and_then(Value::as_str);
    let method = text("quant_method").or_else(|| text("quant_algo")).unwrap_or("unnamed method");
    Some(match text("format").or_else(|| text("checkpoint_format")) {
        Some(format) => format!("{method} ({format})"),
        None => method.to_owned(),
    })
}

fn malformed(what: impl Into<String>) -> Error {
    Error::malformed(what).file(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(v: &Value) -> Result<Config> {
        Config::parse(v.to_string().as_bytes())
    }

    #[test]
    fn rope_settings_of_old_configs_are_moved() {
        let c = parse(&json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0}}))
        .unwrap();
        assert_eq!(c.rope()["rope_theta"], json!(500000.0));
        assert_eq!(c.rope()["original_max_position_embeddings"], json!(2048));
        assert_eq!(c.need_u64(&["head_dim"]).unwrap(), 128);
    }

    #[test]
    fn what_transformers_refuses_is_taken_as_it_stands() {
        // `linear` without a factor fails validation there, and the peer falls back to the plain file.
        let c = parse(&json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": 256, "rope_scaling": {"type": "linear"}}))
        .unwrap();
        assert_eq!(c.rope()["rope_type"], json!("linear"));
        assert!(c.find(&["vocab_size"]).is_none());
    }

    #[test]
    fn the_text_part_of_a_multimodal_config_comes_to_the_top() {
        let c = parse(&json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
            "text_config": {"hidden_size": 2560, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024}}))
        .unwrap();
        assert_eq!(c.architecture(), "Gemma3ForConditionalGeneration");
        assert_eq!(c.layers().unwrap(), 34);
        assert_eq!(c.rope_full()["factor"], json!(8.0));
        assert_eq!(c.rope()["sliding_attention"]["rope_theta"], json!(10000.0));
    }

    #[test]
    fn quantized_sources_are_refused_by_name() {
        let c = parse(&json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "quantization_config": {"quant_method": "gptq", "bits": 4}}))
        .unwrap();
        let e = crate::for_config(&c).err().unwrap();
        assert!(e.to_string().contains("gptq"), "{e}");
        assert!(e.hint_text().is_some());
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(Config::parse(b"[]").is_err());
        assert!(Config::parse(b"{\"model_type\": \"llama\"}").is_err());
        let e = crate::for_config(&parse(&json!({"architectures": ["FooForCausalLM"]})).unwrap());
        assert!(e.err().unwrap().hint_text().unwrap().contains("LlamaForCausalLM"));
    }
}

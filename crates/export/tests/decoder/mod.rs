//! Tiny checkpoints as lists of tensors, and what every graph must be like.

use crate::common::well_formed;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use tensormill_export::{Config, Form, Request, build};
use tensormill_graph::{Elem, Program};
use tensormill_model::{MemoryAssets, Result};
use tensormill_tensor::Shape;

/// A decoder's configuration and the shapes of its checkpoint.
#[derive(Clone)]
pub struct Decoder {
    pub config: Map<String, Value>,
    pub tensors: HashMap<String, Shape>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub form: Form,
    pub opset: i64,
    pub float: Elem,
    pub keep_io_types: bool,
}

impl Default for Asked {
    fn default() -> Self {
        Self { form: Form::Standard, opset: 17, float: Elem::F32, keep_io_types: false }
    }
}

/// Sizes that differ from each other: vocabulary, hidden, intermediate, heads, heads of keys, size of heads.
const SIZES: [u64; 6] = [96, 24, 40, 4, 2, 16];
const LAYERS: usize = 3;

impl Decoder {
    /// A model of a class (`LlamaForCausalLM`), with `said` over the usual configuration.
    pub fn new(class: &str, said: &Value) -> Self {
        let [vocab, hidden, intermediate, heads, kv_heads, dim] = SIZES;
        let family =
            ["Llama", "Mistral", "Qwen2", "Qwen3"].into_iter().find(|f| class.starts_with(f)).unwrap();
        let mut config = json!({
            "architectures": [class], "model_type": family.to_lowercase(), "vocab_size": vocab, "hidden_size": hidden,
            "intermediate_size": intermediate, "num_hidden_layers": LAYERS, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": dim, "hidden_act": "silu", "rms_norm_eps": 1e-5,
            "max_position_embeddings": 64, "rope_theta": 10000.0, "eos_token_id": 2, "sliding_window": null,
            "tie_word_embeddings": false,
        });
        config.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let on = |key: &str| config[key].as_bool().unwrap_or(false);
        let mut tensors = HashMap::new();
        let mut add = |name: String, dims: &[u64]| {
            tensors.insert(name, Shape::new(dims.to_vec()).unwrap());
        };
        let prefix = if class.ends_with("Model") { "" } else { "model." };
        add(format!("{prefix}embed_tokens.weight"), &[vocab, hidden]);
        add(format!("{prefix}norm.weight"), &[hidden]);
        for layer in 0..LAYERS {
            let at = format!("{prefix}layers.{layer}");
            let qkv = family == "Qwen2" || on("attention_bias");
            for (name, out, input, bias) in [
                ("self_attn.q_proj", heads * dim, hidden, qkv),
                ("self_attn.k_proj", kv_heads * dim, hidden, qkv),
                ("self_attn.v_proj", kv_heads * dim, hidden, qkv),
                ("self_attn.o_proj", hidden, heads * dim, on("attention_bias")),
                ("mlp.gate_proj", intermediate, hidden, on("mlp_bias")),
                ("mlp.up_proj", intermediate, hidden, on("mlp_bias")),
                ("mlp.down_proj", hidden, intermediate, on("mlp_bias")),
            ] {
                add(format!("{at}.{name}.weight"), &[out, input]);
                if bias {
                    add(format!("{at}.{name}.bias"), &[out]);
                }
            }
            add(format!("{at}.input_layernorm.weight"), &[hidden]);
            add(format!("{at}.post_attention_layernorm.weight"), &[hidden]);
            if family == "Qwen3" {
                add(format!("{at}.self_attn.q_norm.weight"), &[dim]);
                add(format!("{at}.self_attn.k_norm.weight"), &[dim]);
            }
        }
        if class.ends_with("ForCausalLM") && !on("tie_word_embeddings") {
            add("lm_head.weight".to_owned(), &[vocab, hidden]);
        }
        if class.ends_with("ForSequenceClassification") {
            add("score.weight".to_owned(), &[2, hidden]);
        }
        Self { config: config.as_object().unwrap().clone(), tensors }
    }

    /// Its graph.
    pub fn build(&self, asked: Asked) -> Result<Program> {
        let Asked { form, opset, float, keep_io_types } = asked;
        build(&Request {
            config: &self.config(),
            assets: &MemoryAssets::default(),
            tensors: &|name| self.tensors.get(name).cloned(),
            opset,
            float,
            keep_io_types,
            form,
            metadata: Vec::new(),
        })
    }

    pub fn config(&self) -> Config {
        Config::new(self.config.clone())
    }

    /// What is said against it.
    pub fn error(&self, asked: Asked) -> String {
        let e = self.build(asked).map(|_| ()).unwrap_err();
        format!("{e} {}", e.hint_text().unwrap_or_default())
    }
}

/// Fails unless the graph is well formed, and every tensor of the checkpoint has its place in it.
pub fn check(program: &Program, tensors: &HashMap<String, Shape>) {
    well_formed(program, program.opset("").expect("has a version"));
    let used: HashSet<&String> = program.weights.iter().map(|w| &w.tensor).collect();
    let unused: Vec<&String> = tensors.keys().filter(|t| !used.contains(t)).collect();
    assert!(unused.is_empty(), "tensors without a place: {unused:?}");
}

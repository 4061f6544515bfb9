//! What `config.json` says about a decoder, with the usual values of the family's class where it says nothing.

use super::rope::Rope;
use crate::{Config, activation::Activation};
use tensormill_model::{Error, Result};

/// Architectures that differ in few things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

/// What comes behind the last layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// Logits of the next token: `LlamaForCausalLM`.
    Causal,
    /// Nothing: `LlamaModel`.
    None,
    /// Logits of classes from the last token: `LlamaForSequenceClassification`.
    Classes,
}

/// The numbers of a model.
#[derive(Debug)]
pub(super) struct Hyper {
    pub(super) kind: Kind,
    pub(super) head: Head,
    pub(super) vocab: u64,
    pub(super) hidden: u64,
    pub(super) intermediate: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    /// How many positions, itself included, a position of each layer sees; `None` where it sees all before it.
    pub(super) windows: Vec<Option<i64>>,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    /// Whether projections to queries, keys and values have a bias, and the one behind attention.
    pub(super) bias: (bool, bool),
    pub(super) mlp_bias: bool,
    pub(super) tied: bool,
    pub(super) rope: Rope,
}

impl Kind {
    const ALL: [(&'static str, &'static str, Self); 4] = [
        ("llama", "Llama", Self::Llama),
        ("mistral", "Mistral", Self::Mistral),
        ("qwen2", "Qwen2", Self::Qwen2),
        ("qwen3", "Qwen3", Self::Qwen3),
    ];

    /// By `model_type`.
    pub(super) fn of(config: &Config) -> Result<(Self, &'static str)> {
        let named = config.model_type()?;
        let found = Self::ALL.iter().find(|(model_type, _, _)| *model_type == named);
        found.map(|(_, class, kind)| (*kind, *class)).ok_or_else(|| {
            config.unsupported("model_type", &format!("is {named:?}, no decoder of these families"))
        })
    }
}

impl Head {
    fn of(config: &Config, class: &str) -> Result<Self> {
        let Some(named) = config.architecture() else { return Ok(Self::Causal) };
        match named.strip_prefix(class) {
            Some("ForCausalLM") => Ok(Self::Causal),
            Some("Model") => Ok(Self::None),
            Some("ForSequenceClassification") => Ok(Self::Classes),
            _ => Err(config
                .unsupported("architectures", &format!("names {named}, and no graph is built for it"))
                .hint(format!("known: {class}ForCausalLM, {class}Model, {class}ForSequenceClassification"))),
        }
    }
}

impl Hyper {
    /// Reads it.
    ///
    /// # Errors
    /// Where something is missing, is no number or asks for what the family does not have.
    pub(super) fn read(config: &Config) -> Result<Self> {
        let (kind, class) = Kind::of(config)?;
        let head = Head::of(config, class)?;
        let (hidden, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let layers = config.count("num_hidden_layers")?;
        let kv_heads = config.maybe_count("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match config.maybe_count("head_dim")? {
            Some(n) => n,
            // The default of Qwen3's class, whatever the other sizes.
            None if kind == Kind::Qwen3 && !config.mentions("head_dim") => 128,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(config.bad("hidden_size", &format!("is {hidden}, no multiple of {heads} heads")));
            }
        };
        if !heads.is_multiple_of(kv_heads) {
            let what = format!("is {heads}, no multiple of num_key_value_heads, {kv_heads}");
            return Err(config.bad("num_attention_heads", &what));
        }
        check_sizes(config, &[hidden, heads, kv_heads, head_dim, layers])?;
        let attention_bias = match kind {
            Kind::Llama | Kind::Qwen3 => config.switch("attention_bias", false)?,
            Kind::Mistral | Kind::Qwen2 => false,
        };
        Ok(Self {
            kind,
            head,
            vocab: config.count("vocab_size")?,
            hidden,
            intermediate: config.count("intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            windows: windows(config, kind, layers as usize)?,
            epsilon: config.real("rms_norm_eps", 1e-6)? as f32,
            activation: Activation::of(config, "hidden_act", Activation::Silu)?,
            bias: (attention_bias || kind == Kind::Qwen2, attention_bias),
            mlp_bias: kind == Kind::Llama && config.switch("mlp_bias", false)?,
            tied: config.switch("tie_word_embeddings", false)?,
            rope: Rope::read(config, head_dim)?,
        })
    }

    /// Query heads that share a head of keys and values.
    pub(super) fn group(&self) -> u64 {
        self.heads / self.kv_heads
    }

    /// What scores are multiplied by.
    pub(super) fn scale(&self) -> f32 {
        (self.head_dim as f64).powf(-0.5) as f32
    }
}

/// Sizes are multiplied with each other and become dimensions of constants: those that no model has are refused first.
fn check_sizes(config: &Config, sizes: &[u64]) -> Result<()> {
    const MOST: u64 = 1 << 20;
    match sizes.iter().find(|n| **n > MOST) {
        Some(n) => {
            Err(Error::over_limit(format!("a size of {n} is more than any model has")).file("config.json"))
        }
        None if config.count("num_hidden_layers")? > 1 << 12 => {
            Err(Error::over_limit("more layers than any model has").file("config.json"))
        }
        None => Ok(()),
    }
}

/// The sliding window of each layer.
fn windows(config: &Config, kind: Kind, layers: usize) -> Result<Vec<Option<i64>>> {
    // The classes have a window of 4096 unless the file says that there is none.
    let usual = (!config.mentions("sliding_window")).then_some(4096);
    let window = || Ok::<_, Error>(config.maybe_count("sliding_window")?.or(usual).map(|n| n as i64));
    match kind {
        Kind::Llama => return Ok(vec![None; layers]),
        Kind::Mistral => return Ok(vec![window()?; layers]),
        Kind::Qwen2 | Kind::Qwen3 => {}
    }
    let window = if config.switch("use_sliding_window", false)? { window()? } else { None };
    let Some(types) = config.get("layer_types") else {
        // Layers below this number see everything, whatever the name suggests.
        let full = match config.get("max_window_layers") {
            None => 28,
            Some(v) => {
                v.as_u64().ok_or_else(|| config.bad("max_window_layers", &format!("is {v}, no number")))?
            }
        };
        return Ok((0..layers).map(|i| window.filter(|_| i as u64 >= full)).collect());
    };
    let types = types.as_array().filter(|t| t.len() == layers).ok_or_else(|| {
        config.bad("layer_types", &format!("is no list of {layers} types, one for each of the layers"))
    })?;
    let of = |t: &serde_json::Value| match (t.as_str(), window) {
        (Some("full_attention"), _) => Ok(None),
        (Some("sliding_attention"), Some(n)) => Ok(Some(n)),
        (Some("sliding_attention"), None) => Err(config
            .bad("layer_types", "has layers with a sliding window, and there is none")
            .hint("set use_sliding_window and sliding_window, or make these layers full_attention")),
        _ => Err(config.unsupported("layer_types", &format!("names {t}, which no graph has"))),
    };
    types.iter().map(of).collect()
}

/// Names of the checkpoint: those of bare models lack the `model.` in front, and some checkpoints with heads do, too.
pub(super) fn prefix(has: impl Fn(&str) -> bool) -> &'static str {
    const BARE: &str = "embed_tokens.weight";
    if has(&format!("model.{BARE}")) || !has(BARE) { "model." } else { "" }
}

//! Encoders: layers in which every position sees every other, with texts or patches of images below and a head above.

mod head;
mod sentence;
mod text;
mod vit;

pub(crate) use text::{BERT, DISTILBERT, MPNET, ROBERTA};
pub(crate) use vit::VIT;

use crate::{
    Config,
    activation::Activation,
    layers::{Layers, attention},
};
use tensormill_graph::Value;
use tensormill_model::Result;

/// What modules of a layer are called.
struct Names {
    /// The list of layers.
    layers: &'static str,
    /// Where attention itself takes place.
    attention: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    /// What follows attention.
    output: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    norm: &'static str,
}

/// Sizes of the layers.
struct Sizes {
    hidden: u64,
    layers: u64,
    heads: u64,
    inner: u64,
    activation: Activation,
    epsilon: f32,
}

impl Sizes {
    /// What transformers' configurations call them, unless they are DistilBERT's.
    fn of(config: &Config) -> Result<Self> {
        Self {
            hidden: config.count("hidden_size")?,
            layers: config.count("num_hidden_layers")?,
            heads: config.count("num_attention_heads")?,
            inner: config.count("intermediate_size")?,
            activation: Activation::of(config, "hidden_act", Activation::Gelu)?,
            epsilon: config.real("layer_norm_eps", 1e-12)? as f32,
        }
        .checked(config, "num_attention_heads")
    }

    fn checked(self, config: &Config, heads: &str) -> Result<Self> {
        if !self.hidden.is_multiple_of(self.heads) {
            let what = format!("is {}, which does not divide the hidden size, {}", self.heads, self.hidden);
            return Err(config.bad(heads, &what));
        }
        Ok(self)
    }
}

/// The layers.
struct Stack<'a> {
    names: &'a Names,
    sizes: &'a Sizes,
    /// Whether norms stand before attention and the feed-forward part, not behind what is added up.
    norm_first: bool,
    /// Whether queries, keys and values have a bias.
    bias: bool,
}

impl Stack<'_> {
    /// Adds all layers; `prefix` is what tensors' names begin with, each of `added` is added to scores.
    fn build(&self, l: &mut Layers<'_>, prefix: &str, mut x: Value, added: &[Value]) -> Result<Value> {
        for i in 0..self.sizes.layers {
            x = self.layer(l, &format!("{prefix}{}.{i}", self.names.layers), &x, added)?;
        }
        Ok(x)
    }

    fn layer(&self, l: &mut Layers<'_>, layer: &str, x: &Value, added: &[Value]) -> Result<Value> {
        let Self { names, sizes, .. } = *self;
        let Sizes { hidden, heads, inner, activation, .. } = *sizes;
        let module = |name: &str| format!("{layer}.{name}");
        let square = (hidden, hidden);
        let x = self.around(l, layer, names.attention_norm, x, |l, h| {
            let q = l.linear(h, &module(names.query), square, self.bias)?;
            let k = l.linear(h, &module(names.key), square, self.bias)?;
            let v = l.linear(h, &module(names.value), square, self.bias)?;
            let heads = (heads, hidden / heads);
            let y = l.at(&module(names.attention), |b| attention(b, [&q, &k, &v], heads, added));
            l.linear(&y, &module(names.output), square, true)
        })?;
        self.around(l, layer, names.norm, &x, |l, h| {
            let up = module(names.up);
            let y = l.linear(h, &up, (inner, hidden), true)?;
            let y = l.at(parent(&up), |b| activation.apply(b, &y));
            l.linear(&y, &module(names.down), (hidden, inner), true)
        })
    }

    /// A part of a layer with its norm and with what goes past it.
    fn around(
        &self,
        l: &mut Layers<'_>,
        layer: &str,
        norm: &str,
        x: &Value,
        part: impl FnOnce(&mut Layers<'_>, &Value) -> Result<Value>,
    ) -> Result<Value> {
        let Sizes { hidden, epsilon, .. } = *self.sizes;
        let norm = format!("{layer}.{norm}");
        let first = if self.norm_first { l.layer_norm(x, &norm, hidden, epsilon)? } else { x.clone() };
        let y = part(l, &first)?;
        let sum = l.at(parent(&norm), |b| b.node("Add", &[&y, x], vec![]));
        if self.norm_first { Ok(sum) } else { l.layer_norm(&sum, &norm, hidden, epsilon) }
    }
}

/// The module around a module.
fn parent(module: &str) -> &str {
    module.rsplit_once('.').map_or(module, |(parent, _)| parent)
}

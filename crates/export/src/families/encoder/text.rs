//! Encoders of texts: BERT and what differs from it in names, in how positions are counted, and in what else is known of
//! them.

use super::{Names, Sizes, Stack, head, sentence::Sentence};
use crate::{
    Config, Family, Request,
    activation::Activation,
    layers::{Layers, cast, length, padding_mask, transpose, unsqueeze},
};
use tensormill_graph::{Attribute, Builder, Dim, Elem, Program, Tensor, Value};
use tensormill_model::Result;

/// A family of encoders.
pub(crate) struct Text {
    model_types: &'static [&'static str],
    /// What tensors' names begin with in models with a head.
    prefix: &'static str,
    names: Names,
    positions: Positions,
    types: Types,
    pub(super) head: head::Style,
    /// Whether the distance of two positions adds to their score.
    distances: bool,
}

/// Where a token's row in the table of positions comes from.
enum Positions {
    /// From its place.
    Place,
    /// From its place among tokens that are no padding, behind the number of the padding token: which one, the
    /// configuration says, or it is always the same.
    Counted(Option<i64>),
}

/// Kinds of tokens (which of two sentences they belong to).
enum Types {
    /// An input says them.
    Given,
    /// All are of the first one.
    First,
    /// There are none.
    None,
}

const BERT_NAMES: Names = Names {
    layers: "encoder.layer",
    attention: "attention.self",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
};

pub(crate) static BERT: Text = Text {
    model_types: &["bert"],
    prefix: "bert.",
    names: BERT_NAMES,
    positions: Positions::Place,
    types: Types::Given,
    head: head::Style::Bert,
    distances: false,
};

pub(crate) static ROBERTA: Text = Text {
    model_types: &["roberta", "xlm-roberta", "camembert"],
    prefix: "roberta.",
    names: BERT_NAMES,
    positions: Positions::Counted(None),
    types: Types::First,
    head: head::Style::Roberta,
    distances: false,
};

pub(crate) static DISTILBERT: Text = Text {
    model_types: &["distilbert"],
    prefix: "distilbert.",
    names: Names {
        layers: "transformer.layer",
        attention: "attention",
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        up: "ffn.lin1",
        down: "ffn.lin2",
        norm: "output_layer_norm",
    },
    positions: Positions::Place,
    types: Types::None,
    head: head::Style::Distilbert,
    distances: false,
};

pub(crate) static MPNET: Text = Text {
    model_types: &["mpnet"],
    prefix: "mpnet.",
    names: Names {
        attention: "attention.attn",
        query: "attention.attn.q",
        key: "attention.attn.k",
        value: "attention.attn.v",
        output: "attention.attn.o",
        attention_norm: "attention.LayerNorm",
        ..BERT_NAMES
    },
    // Whatever `pad_token_id` says.
    positions: Positions::Counted(Some(1)),
    types: Types::None,
    head: head::Style::Roberta,
    distances: true,
};

/// Inputs of the graph.
struct Inputs {
    ids: Value,
    mask: Value,
    types: Option<Value>,
}

impl Family for Text {
    fn model_types(&self) -> &'static [&'static str] {
        self.model_types
    }

    fn build(&self, request: &Request<'_>) -> Result<Program> {
        let config = request.config;
        refuse_others(config)?;
        let sizes = self.sizes(config)?;
        let sentence = Sentence::read(request.assets)?;
        // Pooling stands on the encoder itself, whatever it was trained with.
        let head = if sentence.is_some() { head::Head::None } else { head::Head::of(config)? };
        let with_head = request.has(&format!("{}embeddings.word_embeddings.weight", self.prefix));
        let prefix = if with_head { self.prefix } else { "" };
        let mut l = Layers::new(request, config.model_type()?)?;
        let dims = [Dim::from("batch_size"), Dim::from("sequence_length")];
        let mut input = |name: &str| l.b.input(name, Elem::I64, &dims);
        let (ids, mask) = (input("input_ids"), input("attention_mask"));
        let types = matches!(self.types, Types::Given).then(|| input("token_type_ids"));
        let inputs = Inputs { ids, mask, types };
        let (x, words) = self.embeddings(&mut l, config, &sizes, prefix, &inputs)?;
        let padding = padding_mask(&mut l.b, &inputs.mask);
        let mut added = Vec::new();
        if self.distances {
            added.push(distances(&mut l, config, prefix, sizes.heads, &inputs.ids)?);
        }
        added.push(padding);
        let stack = Stack { names: &self.names, sizes: &sizes, norm_first: false, bias: true };
        let x = stack.build(&mut l, prefix, x, &added)?;
        match sentence {
            Some(sentence) => {
                let pooled = sentence.build(&mut l, &x, &inputs.mask, sizes.hidden)?;
                let float = request.float;
                l.float_output("last_hidden_state", &x, float, &with(&dims, sizes.hidden));
                let (value, elem, dim) = pooled;
                l.float_output("sentence_embedding", &value, elem, &with(&dims[..1], dim));
            }
            None => head.build(
                &mut l,
                &head::Base {
                    style: self.head,
                    prefix,
                    hidden: sizes.hidden,
                    activation: sizes.activation,
                    epsilon: sizes.epsilon,
                    words: (&words, config.count("vocab_size")?),
                    dims: &dims,
                },
                &x,
            )?,
        }
        Ok(l.finish())
    }
}

/// Dimensions and a last one.
pub(super) fn with(dims: &[Dim], last: u64) -> Vec<Dim> {
    dims.iter().cloned().chain([Dim::Known(last as i64)]).collect()
}

/// Refuses models that compute something else under the same `model_type`.
fn refuse_others(config: &Config) -> Result<()> {
    for key in ["is_decoder", "add_cross_attention"] {
        if config.switch(key, false)? {
            return Err(config.unsupported(key, "is true: encoders have graphs, such decoders have none"));
        }
    }
    if let Some(kind) = config.text("position_embedding_type")?
        && kind != "absolute"
    {
        let what =
            format!("is {kind:?}; graphs know \"absolute\" only, as newer versions of transformers do");
        return Err(config.unsupported("position_embedding_type", &what));
    }
    let pruned = config.get("pruned_heads").and_then(|v| v.as_object());
    if pruned.is_some_and(|heads| !heads.is_empty()) {
        return Err(
            config.unsupported("pruned_heads", "names heads: graphs have the same heads in every layer")
        );
    }
    Ok(())
}

impl Text {
    fn sizes(&self, config: &Config) -> Result<Sizes> {
        if !matches!(self.head, head::Style::Distilbert) {
            return Sizes::of(config);
        }
        Sizes {
            hidden: config.count("dim")?,
            layers: config.count("n_layers")?,
            heads: config.count("n_heads")?,
            inner: config.count("hidden_dim")?,
            activation: Activation::of(config, "activation", Activation::Gelu)?,
            // No key says otherwise.
            epsilon: 1e-12,
        }
        .checked(config, "n_heads")
    }

    /// What goes into the first layer, and the table of words.
    fn embeddings(
        &self,
        l: &mut Layers<'_>,
        config: &Config,
        sizes: &Sizes,
        prefix: &str,
        inputs: &Inputs,
    ) -> Result<(Value, Value)> {
        let Inputs { ids, types, .. } = inputs;
        let hidden = sizes.hidden;
        let module = |name: &str| format!("{prefix}embeddings.{name}");
        let words = (config.count("vocab_size")?, hidden);
        let table = l.tensor(&module("word_embeddings.weight"), &[words.0, words.1])?;
        let mut x = l.embedding(ids, &module("word_embeddings"), words)?;
        let of_type = match self.types {
            Types::None => None,
            Types::Given | Types::First => {
                let rows = (config.maybe_count("type_vocab_size")?.unwrap_or(2), hidden);
                let first = || l.b.ints(&[], &[0]);
                let types = types.clone().unwrap_or_else(first);
                Some(l.embedding(&types, &module("token_type_embeddings"), rows)?)
            }
        };
        if let Some(y) = of_type {
            x = l.at(&format!("{prefix}embeddings"), |b| b.node("Add", &[&x, &y], vec![]));
        }
        let rows = (config.count("max_position_embeddings")?, hidden);
        let positions = module("position_embeddings");
        let y = match self.positions {
            Positions::Place => {
                let table = l.tensor(&format!("{positions}.weight"), &[rows.0, rows.1])?;
                l.at(&positions, |b| {
                    let to = length(b, ids, 1);
                    let to = unsqueeze(b, &to, &[0]);
                    let zero = b.ints(&[1], &[0]);
                    let rows = b.node("Slice", &[&table, &zero, &to, &zero], vec![]);
                    // Of longer texts there are fewer rows than tokens, and adding them up fails.
                    let float = b.float();
                    b.declare(&rows, float, &with(&["sequence_length".into()], hidden));
                    rows
                })
            }
            Positions::Counted(padding) => {
                let padding = match padding {
                    Some(token) => token,
                    None => config.token("pad_token_id", 1)?,
                };
                let places = l.at(&format!("{prefix}embeddings"), |b| counted(b, ids, padding));
                l.embedding(&places, &positions, rows)?
            }
        };
        let x = l.at(&format!("{prefix}embeddings"), |b| b.node("Add", &[&x, &y], vec![]));
        Ok((l.layer_norm(&x, &module("LayerNorm"), hidden, sizes.epsilon)?, table))
    }
}

/// Positions from tokens: `create_position_ids_from_input_ids`.
fn counted(b: &mut Builder, ids: &Value, padding: i64) -> Value {
    let (token, axis) = (b.ints(&[], &[padding]), b.ints(&[], &[1]));
    let same = b.node("Equal", &[ids, &token], vec![]);
    let other = b.node("Not", &[&same], vec![]);
    // In 32 bits as there; some runtimes take integers of 64 bits for sizes, and sum up none of these.
    let other = cast(b, &other, Elem::BOOL, Elem::I32);
    let count = b.node("CumSum", &[&other, &axis], vec![]);
    let count = b.node("Mul", &[&count, &other], vec![]);
    let count = cast(b, &count, Elem::I32, Elem::I64);
    b.node("Add", &[&count, &token], vec![])
}

/// From this distance on all are alike.
const FAR: i64 = 91;

/// The bucket of a distance from a position to one before it or to itself: with 32 buckets and distances up to 128, as
/// MPNet has them whatever the configuration says, eight for themselves, then `8 + floor(8 * log16(distance / 8))`, at
/// most 15. Later positions have those behind.
fn bucket(distance: i64) -> i64 {
    const BEGINS: [i64; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, FAR];
    let n = distance.abs();
    let half = BEGINS.iter().filter(|b| n >= **b).count() as i64;
    if distance < 0 { half + 16 } else { half }
}

/// What distances add to scores, `[1, heads, sequence, sequence]`. Buckets are looked up, not computed: logarithms that
/// differ in the last place would put whole numbers into other buckets.
fn distances(l: &mut Layers<'_>, config: &Config, prefix: &str, heads: u64, ids: &Value) -> Result<Value> {
    let rows = config.maybe_count("relative_attention_num_buckets")?.unwrap_or(32);
    if rows < 32 {
        let what = format!("is {rows}, and MPNet's distances fall into 32 buckets");
        return Err(config.bad("relative_attention_num_buckets", &what));
    }
    let table = l.tensor(&format!("{prefix}encoder.relative_attention_bias.weight"), &[rows, heads])?;
    Ok(l.at(&format!("{prefix}encoder.relative_attention_bias"), |b| {
        // From a later position to an earlier one, so that indices grow with the distance to what lies before.
        let buckets: Vec<i64> = (-FAR..=FAR).map(bucket).collect();
        let n = buckets.len() as i64;
        let buckets = b.constant(Tensor::ints("/constants/relative_attention_buckets", &[n], &buckets));
        let by_distance = b.node("Gather", &[&table, &buckets], vec![]);
        let (zero, one) = (b.ints(&[], &[0]), b.ints(&[], &[1]));
        let (low, high) = (b.ints(&[], &[-FAR]), b.ints(&[], &[FAR]));
        let to = length(b, ids, 1);
        let places = b.node("Range", &[&zero, &to, &one], vec![]);
        let (own, others) = (unsqueeze(b, &places, &[1]), unsqueeze(b, &places, &[0]));
        let distance = b.node("Sub", &[&own, &others], vec![]);
        let distance = b.node("Clip", &[&distance, &low, &high], vec![]);
        let index = b.node("Add", &[&distance, &high], vec![]);
        let bias = b.node("Gather", &[&by_distance, &index], vec![Attribute::int("axis", 0)]);
        let bias = transpose(b, &bias, &[2, 0, 1]);
        unsqueeze(b, &bias, &[0])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `8 + floor(8 * log16(n / 8))` without logarithms: `16^(k / 8) <= n / 8` where `2^k * 64 <= n * n`.
    #[test]
    fn buckets_are_those_of_the_formula() {
        for distance in -300..=300i64 {
            let n = distance.abs();
            let half = if n < 8 {
                n
            } else {
                8 + (0..8).filter(|k| 64i64 << k <= n * n).max().expect("n is 8 or more")
            };
            let wanted = if distance < 0 { 16 + half } else { half };
            assert_eq!(bucket(distance.clamp(-FAR, FAR)), wanted, "{distance}");
        }
    }
}

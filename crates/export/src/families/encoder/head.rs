//! What stands on encoders of texts: nothing, or classes of texts, of tokens, of words that are hidden, of answers.

use super::text::with;
use crate::{Config, activation::Activation, layers::Layers};
use tensormill_graph::{Attribute, Dim, Value};
use tensormill_model::{Error, Result};

/// Which head.
#[derive(Clone, Copy)]
pub(super) enum Head {
    None,
    Sequence,
    Token,
    Masked,
    Question,
}

/// What modules of heads are called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Bert,
    /// MPNet's too.
    Roberta,
    Distilbert,
}

/// The encoder below.
pub(super) struct Base<'a> {
    pub(super) style: Style,
    /// What its tensors' names begin with.
    pub(super) prefix: &'a str,
    pub(super) hidden: u64,
    pub(super) activation: Activation,
    pub(super) epsilon: f32,
    /// The table of words, and how many there are.
    pub(super) words: (&'a Value, u64),
    /// Dimensions of its inputs.
    pub(super) dims: &'a [Dim; 2],
}

const KNOWN: [(&str, Head); 5] = [
    ("Model", Head::None),
    ("ForSequenceClassification", Head::Sequence),
    ("ForTokenClassification", Head::Token),
    ("ForMaskedLM", Head::Masked),
    ("ForQuestionAnswering", Head::Question),
];

impl Head {
    /// The head that the configuration's class has; none where it names no class.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let Some(class) = config.architecture() else { return Ok(Self::None) };
        // What says words one after another is no encoder without a head.
        let head =
            KNOWN.iter().find(|(suffix, _)| class.ends_with(suffix) && !class.ends_with("LMHeadModel"));
        head.map(|(_, head)| *head).ok_or_else(|| {
            let known: Vec<&str> = KNOWN.iter().map(|(suffix, _)| *suffix).collect();
            Error::unsupported(format!("architectures names {class}, whose head no graph has"))
                .file("config.json")
                .hint(format!("known are classes that end in {}", known.join(", ")))
        })
    }

    /// Adds the head and its outputs.
    pub(super) fn build(self, l: &mut Layers<'_>, base: &Base<'_>, x: &Value) -> Result<()> {
        let float = l.request.float;
        let Base { hidden, dims, .. } = *base;
        let labels = l.request.config.labels()?;
        match self {
            Self::None => l.float_output("last_hidden_state", x, float, &with(dims, hidden)),
            Self::Sequence => {
                let y = base.sequence(l, x, labels)?;
                l.float_output("logits", &y, float, &with(&dims[..1], labels));
            }
            Self::Token => {
                let y = l.linear(x, "classifier", (labels, hidden), true)?;
                l.float_output("logits", &y, float, &with(dims, labels));
            }
            Self::Masked => {
                let y = base.masked(l, x)?;
                l.float_output("logits", &y, float, &with(dims, base.words.1));
            }
            Self::Question => {
                let y = l.linear(x, "qa_outputs", (2, hidden), true)?;
                for (i, name) in ["start_logits", "end_logits"].into_iter().enumerate() {
                    let index = l.b.ints(&[], &[i as i64]);
                    let one = l.b.node("Gather", &[&y, &index], vec![Attribute::int("axis", 2)]);
                    l.float_output(name, &one, float, dims);
                }
            }
        }
        Ok(())
    }
}

/// What the first position of each row has.
pub(super) fn first(l: &mut Layers<'_>, x: &Value) -> Value {
    let zero = l.b.ints(&[], &[0]);
    l.b.node("Gather", &[x, &zero], vec![Attribute::int("axis", 1)])
}

impl Base<'_> {
    /// Classes of a text, from its first token.
    fn sequence(&self, l: &mut Layers<'_>, x: &Value, labels: u64) -> Result<Value> {
        let pooler = format!("{}pooler", self.prefix);
        let (around, dense, activation, classes) = match self.style {
            Style::Bert => (pooler.as_str(), ".dense", Activation::Tanh, "classifier"),
            Style::Roberta => ("classifier", ".dense", Activation::Tanh, "classifier.out_proj"),
            Style::Distilbert => ("pre_classifier", "", Activation::Relu, "classifier"),
        };
        let y = first(l, x);
        let y = l.linear(&y, &format!("{around}{dense}"), (self.hidden, self.hidden), true)?;
        let y = l.at(around, |b| activation.apply(b, &y));
        l.linear(&y, classes, (labels, self.hidden), true)
    }

    /// Which word a token is.
    fn masked(&self, l: &mut Layers<'_>, x: &Value) -> Result<Value> {
        let (around, dense, norm, out, biases) = match self.style {
            Style::Bert => (
                "cls.predictions.transform",
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.decoder",
                ["cls.predictions.bias", "cls.predictions.decoder.bias"],
            ),
            Style::Roberta => (
                "lm_head",
                "lm_head.dense",
                "lm_head.layer_norm",
                "lm_head.decoder",
                ["lm_head.bias", "lm_head.decoder.bias"],
            ),
            Style::Distilbert => (
                "vocab_transform",
                "vocab_transform",
                "vocab_layer_norm",
                "vocab_projector",
                ["vocab_projector.bias"; 2],
            ),
        };
        // RoBERTa's class has its own, which no key changes.
        let activation = if self.style == Style::Roberta { Activation::Gelu } else { self.activation };
        let (hidden, words) = (self.hidden, self.words.1);
        let y = l.linear(x, dense, (hidden, hidden), true)?;
        let y = l.at(around, |b| activation.apply(b, &y));
        let y = l.layer_norm(&y, norm, hidden, self.epsilon)?;
        let tied = l.request.config.switch("tie_word_embeddings", true)?;
        // Where the bias is tied, too, the checkpoint has one of two names; else only the output layer's counts.
        let names = if tied { biases } else { [biases[1], biases[0]] };
        let bias = names.into_iter().find(|n| l.request.has(n)).unwrap_or(names[0]);
        let bias = l.tensor(bias, &[words])?;
        if tied || !l.request.has(&format!("{out}.weight")) {
            return Ok(l.tied(&y, out, self.words.0, Some(&bias)));
        }
        let y = l.linear(&y, out, (words, hidden), false)?;
        Ok(l.at(out, |b| b.node("Add", &[&y, &bias], vec![])))
    }
}

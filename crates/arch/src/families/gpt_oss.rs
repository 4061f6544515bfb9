//! gpt-oss: experts with biases, whose matrices the model multiplies from the other side and whose gate and up rows
//! alternate; attention with sinks.

use crate::{
    Config, VocabForm, VocabPolicy,
    hyper::Hyper,
    text::{Item, Rewrite, Text, plain},
};
use std::borrow::Cow;
use tensormill_model::{Assets, EveryNth, Result};

pub(super) static GPT_OSS: Text =
    Text { gguf: "gpt-oss", hf: &["GptOssForCausalLM"], filter, extra: plain::extra, modify, hyper, vocab };

#[allow(clippy::unnecessary_wraps)] // the signature is the hook's
fn filter(name: &str) -> Option<Cow<'_, str>> {
    Some(if name.contains("sinks") { Cow::Owned(format!("{name}.weight")) } else { Cow::Borrowed(name) })
}

/// What a part of the experts is called in Hugging Face checkpoints, what it becomes, and whether it is a matrix.
const PARTS: [(&str, &[&str], bool); 4] = [
    ("down_proj", &["down_proj.weight"], true),
    ("down_proj_bias", &["down_proj.bias"], false),
    ("gate_up_proj", &["gate_proj.weight", "up_proj.weight"], true),
    ("gate_up_proj_bias", &["gate_proj.bias", "up_proj.bias"], false),
];

fn modify(rw: &mut Rewrite, item: Item) -> Result<()> {
    let part = item.name.rsplit_once(".experts.").and_then(|(front, part)| {
        PARTS.iter().find(|(name, ..)| *name == part).map(|(_, to, matrix)| (front.to_owned(), to, *matrix))
    });
    let Some((front, to, matrix)) = part else { return plain::modify(rw, item) };
    let expr = if matrix { item.expr.transpose() } else { item.expr };
    for (at, name) in (0..).zip(*to) {
        let picks = EveryNth { of: to.len() as u64, at, elements: !matrix };
        let expr = if to.len() == 1 { expr.clone() } else { expr.clone().apply(picks) };
        rw.emit(&format!("{front}.experts.{name}"), item.layer, expr)?;
    }
    Ok(())
}

fn hyper(h: &mut Hyper) -> Result<()> {
    h.base()?;
    h.u32("attention.sliding_window", h.config.need(&["sliding_window"])?)?;
    h.u32("expert_feed_forward_length", h.config.need(&["intermediate_size"])?)
}

fn vocab(config: &Config, _: &dyn Assets) -> Result<VocabPolicy> {
    VocabPolicy::new(&[VocabForm::Gpt2], config)
}

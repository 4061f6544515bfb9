//! BERT, as sentence-transformers and rerankers use it.

use crate::{
    Config, VocabForm, VocabPolicy,
    hyper::Hyper,
    pooling,
    text::{Item, Rewrite, Text, plain},
};
use std::borrow::Cow;
use tensormill_model::{Array, Assets, Error, Result};

pub(super) static BERT: Text = Text {
    gguf: "bert",
    hf: &["BertModel", "BertForMaskedLM", "BertForSequenceClassification", "CamembertModel"],
    filter,
    extra: plain::extra,
    modify,
    hyper,
    vocab,
};

fn filter(name: &str) -> Option<Cow<'_, str>> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    let name = if let Some(stem) = name.strip_suffix(".gamma") {
        Cow::Owned(format!("{stem}.weight"))
    } else if let Some(stem) = name.strip_suffix(".beta") {
        Cow::Owned(format!("{stem}.bias"))
    } else {
        Cow::Borrowed(name)
    };
    // Embeddings need neither the pooler nor the heads of pre-training.
    let unused = ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"];
    let keep = !unused.contains(&&*name)
        && !name.starts_with("cls.predictions")
        && !name.starts_with("cls.seq_relationship");
    keep.then_some(name)
}

/// The labels of a classifier in order of their ids; `None` for the two that transformers makes up.
fn labels(c: &Config) -> Result<Option<Vec<String>>> {
    let Some(map) = c.find(&["id2label"]).and_then(|v| v.as_object()) else { return Ok(None) };
    let bad = || Error::malformed("id2label does not map numbers to texts").file("config.json");
    let mut labels = Vec::with_capacity(map.len());
    for (id, label) in map {
        labels.push((id.parse::<i64>().map_err(|_| bad())?, label.as_str().ok_or_else(bad)?.to_owned()));
    }
    labels.sort();
    let made_up = labels.len() == 2 && labels.first().is_some_and(|(id, l)| *id == 0 && l == "LABEL_0");
    Ok((!labels.is_empty() && !made_up).then(|| labels.into_iter().map(|(_, l)| l).collect()))
}

fn modify(rw: &mut Rewrite, mut item: Item) -> Result<()> {
    if let Some(slot) = item.name.strip_prefix("classifier.").filter(|s| matches!(*s, "weight" | "bias"))
        && labels(rw.config)?.is_some()
    {
        item.name = format!("classifier.out_proj.{slot}");
    }
    plain::modify(rw, item)
}

fn hyper(h: &mut Hyper) -> Result<()> {
    h.base()?;
    h.set("attention.causal", false);
    pooling::write(h)?;
    if let Some(labels) = labels(h.config)? {
        h.set("classifier.output_labels", Array::Str(labels));
    }
    Ok(())
}

fn vocab(config: &Config, _: &dyn Assets) -> Result<VocabPolicy> {
    let mut p = VocabPolicy::new(&[VocabForm::WordPiece], config)?;
    let types = config.find_u64(&["type_vocab_size"])?.unwrap_or(1);
    let types = u32::try_from(types)
        .map_err(|_| Error::malformed("type_vocab_size does not fit 32 bits").file("config.json"))?;
    p.before.set("tokenizer.ggml.token_type_count", types);
    Ok(p)
}

//! The facts themselves, and the order in which they become keys.
//!
//! Source: the `Metadata` class, its `load` and `set_gguf_meta_model` (gguf-py/gguf/metadata.py), the types from
//! `add_*` of gguf-py/gguf/gguf_writer.py, where empty text and empty lists are not written.

use crate::yaml::Node;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use tensormill_model::{Array, Error, Metadata, Result, Value};

/// What a sampling parameter is in GGUF.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Text,
    Int,
    Float,
}

/// Sampling parameters in order: GGUF key, type, names in `generation_config.json` (the first present one counts).
const SAMPLING: [(&str, Type, &[&str]); 12] = [
    ("general.sampling.sequence", Type::Text, &["sequence"]),
    ("general.sampling.top_k", Type::Int, &["top_k"]),
    ("general.sampling.top_p", Type::Float, &["top_p"]),
    ("general.sampling.min_p", Type::Float, &["min_p"]),
    ("general.sampling.xtc_probability", Type::Float, &["xtc_probability"]),
    ("general.sampling.xtc_threshold", Type::Float, &["xtc_threshold"]),
    ("general.sampling.temp", Type::Float, &["temperature"]),
    ("general.sampling.penalty_last_n", Type::Int, &["penalty_last_n"]),
    ("general.sampling.penalty_repeat", Type::Float, &["penalty_repeat", "repetition_penalty"]),
    ("general.sampling.mirostat", Type::Int, &["mirostat"]),
    ("general.sampling.mirostat_tau", Type::Float, &["mirostat_tau"]),
    ("general.sampling.mirostat_eta", Type::Float, &["mirostat_eta"]),
];

/// Text facts in the order of their keys.
const TEXTS: [&str; 20] = [
    "general.name",
    "general.author",
    "general.version",
    "general.organization",
    "general.finetune",
    "general.basename",
    "general.description",
    "general.quantized_by",
    "general.size_label",
    "general.license",
    "general.license.name",
    "general.license.link",
    "general.url",
    "general.doi",
    "general.uuid",
    "general.repo_url",
    "general.source.url",
    "general.source.doi",
    "general.source.uuid",
    "general.source.repo_url",
];

/// Facts about a base model or a data set, in the order of their keys.
pub const SOURCE_FACTS: [&str; 9] =
    ["name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"];

/// One base model or data set: fact and text.
pub type Source = BTreeMap<&'static str, String>;

/// Everything known about a model. An empty text is known but not written.
#[derive(Debug, Default)]
pub struct Fields {
    sampling: BTreeMap<&'static str, Value>,
    texts: BTreeMap<&'static str, String>,
    /// Base models, `None` where the card does not speak of them.
    pub base_models: Option<Vec<Source>>,
    /// Data sets, `None` where the card does not speak of them.
    pub datasets: Option<Vec<Source>>,
    /// Tags, as the card has them.
    pub tags: Option<Vec<Node>>,
    /// Languages, as the card has them.
    pub languages: Option<Vec<Node>>,
}

impl Fields {
    /// A text fact by its full key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }
    /// Sets a text fact.
    pub fn set_text(&mut self, key: &'static str, value: String) {
        self.texts.insert(key, value);
    }
    /// Sets a text fact unless it is known.
    pub fn set_default(&mut self, key: &'static str, value: Option<String>) {
        if let Some(v) = value {
            self.texts.entry(key).or_insert(v);
        }
    }

    /// Takes the sampling parameters of a generation config.
    pub fn set_sampling(&mut self, config: &Map<String, Json>, warnings: &mut Vec<String>) {
        for (key, kind, names) in SAMPLING {
            let Some((name, json)) = names.iter().find_map(|&n| Some((n, config.get(n)?))) else { continue };
            if json.is_null() {
                continue;
            }
            match from_json(kind, json) {
                Some(value) => {
                    self.sampling.insert(key, value);
                }
                None => warnings
                    .push(format!("generation_config.json: {name} ignored: {json} is not {}", kind.noun())),
            }
        }
    }

    /// Sets a fact by its full key. Says whether the key is one of this crate's.
    pub fn set_override(&mut self, key: &str, value: &str) -> Result<bool> {
        if let Some(&known) = TEXTS.iter().find(|k| **k == key) {
            self.texts.insert(known, value.into());
        } else if let Some((known, kind, _)) = SAMPLING.iter().find(|(k, ..)| *k == key) {
            let parsed = match kind {
                Type::Text => Some(Value::Str(value.into())),
                Type::Int => value.trim().parse().ok().map(Value::I32),
                Type::Float => value.trim().parse().ok().map(Value::F32),
            };
            let wrong = || Error::usage(format!("{key}={value}: the value must be {}", kind.noun()));
            self.sampling.insert(known, parsed.ok_or_else(wrong)?);
        } else if key == "general.tags" || key == "general.languages" {
            let items = value.split(',').map(str::trim).filter(|s| !s.is_empty());
            let list = Some(items.map(|s| Node::Str(s.into())).collect());
            if key == "general.tags" { self.tags = list } else { self.languages = list }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// The keys, in the peer's order.
    pub fn write(&self, warnings: &mut Vec<String>) -> Metadata {
        let mut out = Metadata::new();
        out.set("general.type", "model");
        for (key, ..) in SAMPLING {
            match self.sampling.get(key) {
                Some(Value::Str(s)) if s.is_empty() => {}
                Some(v) => out.set(key, v.clone()),
                None => {}
            }
        }
        for key in TEXTS {
            if let Some(v) = self.text(key) {
                set_text(&mut out, key, v);
            }
        }
        write_sources(&mut out, "general.base_model", self.base_models.as_deref());
        write_sources(&mut out, "general.dataset", self.datasets.as_deref());
        for (key, list) in [("general.tags", &self.tags), ("general.languages", &self.languages)] {
            if let Some(array) = list.as_deref().and_then(|l| array(key, l, warnings)) {
                out.set(key, Value::Array(array));
            }
        }
        out
    }
}

impl Type {
    fn noun(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "a 32-bit integer",
            Self::Float => "a number",
        }
    }
}

fn from_json(kind: Type, json: &Json) -> Option<Value> {
    // Python's truth values are numbers.
    let number = json.as_f64().or_else(|| json.as_bool().map(|b| f64::from(u8::from(b))));
    match kind {
        Type::Text => json.as_str().map(Value::from),
        // A whole number written as 50.0 stops the peer; its meaning is plain.
        Type::Int => number
            .filter(|x| x.fract() == 0.0 && *x >= f64::from(i32::MIN) && *x <= f64::from(i32::MAX))
            .map(|x| Value::I32(x as i32)),
        Type::Float => number.map(|x| x as f32).filter(|x| x.is_finite()).map(Value::F32),
    }
}

fn set_text(out: &mut Metadata, key: impl Into<String>, value: &str) {
    if !value.is_empty() {
        out.set(key, value);
    }
}

fn write_sources(out: &mut Metadata, key: &str, sources: Option<&[Source]>) {
    let Some(sources) = sources else { return };
    out.set(format!("{key}.count"), sources.len() as u32);
    for (i, source) in sources.iter().enumerate() {
        for fact in SOURCE_FACTS {
            if let Some(text) = source.get(fact) {
                set_text(out, format!("{key}.{i}.{fact}"), text);
            }
        }
    }
}

/// A list of one type as GGUF wants it; of several types, or of one that GGUF has not, a list of texts.
fn array(key: &str, list: &[Node], warnings: &mut Vec<String>) -> Option<Array> {
    if list.is_empty() {
        return None;
    }
    let all = |pick: fn(&Node) -> bool| list.iter().all(pick);
    if all(|n| matches!(n, Node::Bool(_))) {
        return Some(Array::Bool(list.iter().map(|n| *n == Node::Bool(true)).collect()));
    }
    let int = |n: &Node| match n {
        Node::Int(Some(i), _) => i32::try_from(*i).ok(),
        _ => None,
    };
    if let Some(ints) = list.iter().map(int).collect::<Option<Vec<_>>>() {
        return Some(Array::I32(ints));
    }
    let float = |n: &Node| match n {
        Node::Float(x, _) => Some(*x as f32),
        _ => None,
    };
    if let Some(floats) = list.iter().map(float).collect::<Option<Vec<_>>>() {
        return Some(Array::F32(floats));
    }
    if !all(|n| matches!(n, Node::Str(_))) {
        warnings.push(format!("README.md: {key} holds values that are not text; taken as they are written"));
    }
    let texts: Vec<String> = list.iter().filter_map(Node::scalar_text).map(str::to_owned).collect();
    (!texts.is_empty()).then_some(Array::Str(texts))
}

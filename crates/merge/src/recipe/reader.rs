//! The parts of a recipe's tree: models, parameters, slices. What is wrong is named by its place.

use super::{MOST, Parameters, Part, Slice, Tokenizer};
use crate::{
    Method,
    setting::{KNOWN, Setting},
};
use serde_json::{Map, Value};
use tensormill_model::{Error, Result};
use tensormill_tensor::DType;

pub(super) fn refuse_unknown(map: &Map<String, Value>, known: &[&str], place: &str) -> Result<()> {
    match map.keys().find(|k| !known.contains(&k.as_str())) {
        None => Ok(()),
        Some(key) => {
            let e = Error::usage(format!("unknown key {place}{key}"));
            Err(e.hint(format!("known here: {}", known.join(", "))))
        }
    }
}

pub(super) fn dtype(value: Option<&Value>, key: &str) -> Result<Option<DType>> {
    let name = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => name.as_str(),
        Some(other) => return Err(Error::usage(format!("{key}: {other} is no type"))),
    };
    match name.strip_prefix("torch.").unwrap_or(name) {
        "float32" | "f32" => Ok(Some(DType::F32)),
        "bfloat16" | "bf16" => Ok(Some(DType::BF16)),
        "float16" | "f16" => Ok(Some(DType::F16)),
        other => Err(Error::unsupported(format!("{key}: {other} is not computed by this version"))
            .hint("choose float32, bfloat16 or float16")),
    }
}

/// Reads parts of a recipe, and collects its models.
pub(super) struct Reader {
    pub method: Method,
    pub models: Vec<String>,
    pub notes: Vec<String>,
}

impl Reader {
    fn model(&mut self, value: &Value, place: &str) -> Result<usize> {
        let Value::String(name) = value else {
            return Err(Error::usage(format!("{place}: a model is the path of a folder or file, as text")));
        };
        if name.is_empty() {
            return Err(Error::usage(format!("{place} is empty")));
        }
        if let Some(known) = self.models.iter().position(|m| m == name) {
            return Ok(known);
        }
        if self.models.len() >= MOST {
            return Err(Error::over_limit(format!("more than {MOST} models")));
        }
        self.models.push(name.clone());
        Ok(self.models.len() - 1)
    }

    pub(super) fn optional_model(&mut self, value: Option<&Value>, place: &str) -> Result<Option<usize>> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(v) => self.model(v, place).map(Some),
        }
    }

    pub(super) fn parameters(&mut self, value: Option<&Value>, place: &str) -> Result<Parameters> {
        let mut all = Parameters::new();
        let map = match value {
            None | Some(Value::Null) => return Ok(all),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(Error::usage(format!("{place}parameters is no table"))),
        };
        for (key, value) in map {
            let place = format!("{place}parameters.{key}");
            let Some((name, kind)) = KNOWN.iter().find(|(n, _)| n == key) else {
                let known = KNOWN.iter().map(|(n, _)| *n).filter(|n| self.method.takes(n));
                let known = known.collect::<Vec<_>>().join(", ");
                return Err(Error::usage(format!("unknown parameter {place}"))
                    .hint(format!("{} has {known}", self.method.name())));
            };
            let Some(setting) = Setting::parse(*kind, value).map_err(|e| e.context(&place))? else {
                continue;
            };
            if let Some(bad) = setting.find(|v| *name == "density" && v < 0.0) {
                return Err(Error::usage(format!("{place}: a density of {bad}")));
            }
            if !self.method.takes(name) {
                self.notes.push(format!("{place} means nothing to {}", self.method.name()));
            }
            all.insert(name, setting);
        }
        Ok(all)
    }

    fn list<'v>(value: &'v Value, place: &str) -> Result<&'v [Value]> {
        match value {
            Value::Array(list) if list.len() > MOST => {
                Err(Error::over_limit(format!("{place} has {} entries", list.len())))
            }
            Value::Array(list) if !list.is_empty() => Ok(list),
            _ => Err(Error::usage(format!("{place} is no list, or an empty one"))),
        }
    }

    fn table<'v>(value: &'v Value, known: &[&str], place: &str) -> Result<&'v Map<String, Value>> {
        let Value::Object(map) = value else { return Err(Error::usage(format!("{place} is no table"))) };
        refuse_unknown(map, known, &format!("{place}."))?;
        Ok(map)
    }

    /// Whole models: one slice of all layers, to which the base belongs.
    pub(super) fn models(&mut self, value: &Value, base: Option<usize>) -> Result<Slice> {
        let mut parts = Vec::new();
        for (i, entry) in Self::list(value, "models")?.iter().enumerate() {
            let place = format!("models[{i}]");
            let map = Self::table(entry, &["model", "parameters"], &place)?;
            let model = map.get("model").unwrap_or(&Value::Null);
            let model = self.model(model, &format!("{place}.model"))?;
            let parameters = self.parameters(map.get("parameters"), &format!("{place}."))?;
            parts.push(Part { model, layers: None, parameters });
        }
        if let Some(base) = base.filter(|b| parts.iter().all(|p| p.model != *b)) {
            parts.push(Part { model: base, layers: None, parameters: Parameters::new() });
        }
        Ok(Slice { parts, base: None, parameters: Parameters::new() })
    }

    pub(super) fn slices(&mut self, value: &Value) -> Result<Vec<Slice>> {
        let mut slices = Vec::new();
        for (i, entry) in Self::list(value, "slices")?.iter().enumerate() {
            let place = format!("slices[{i}]");
            let known = &["sources", "base_model", "parameters"];
            let map = Self::table(entry, known, &place)?;
            let base = self.optional_model(map.get("base_model"), &format!("{place}.base_model"))?;
            let parameters = self.parameters(map.get("parameters"), &format!("{place}."))?;
            let sources = map.get("sources").unwrap_or(&Value::Null);
            let mut parts = Vec::new();
            for (j, source) in Self::list(sources, &format!("{place}.sources"))?.iter().enumerate() {
                let place = format!("{place}.sources[{j}]");
                let map = Self::table(source, &["model", "layer_range", "parameters"], &place)?;
                let model = map.get("model").unwrap_or(&Value::Null);
                let model = self.model(model, &format!("{place}.model"))?;
                let layers = match map.get("layer_range") {
                    Some(Value::Array(range)) => match range.as_slice() {
                        [a, b] => a.as_u64().zip(b.as_u64()).filter(|(a, b)| a < b),
                        _ => None,
                    },
                    _ => None,
                };
                let layers = layers.ok_or_else(|| {
                    Error::usage(format!("{place}.layer_range is not [first, end], for example [0, 16]"))
                })?;
                let parameters = self.parameters(map.get("parameters"), &format!("{place}."))?;
                parts.push(Part { model, layers: Some(layers), parameters });
            }
            slices.push(Slice { parts, base, parameters });
        }
        Ok(slices)
    }

    pub(super) fn tokenizer(&self, map: &Map<String, Value>) -> Result<Option<Tokenizer>> {
        let given = |key: &str| map.get(key).filter(|v| !v.is_null());
        let (source, key) = match (given("tokenizer_source"), given("tokenizer")) {
            (Some(_), Some(_)) => {
                return Err(Error::usage("a recipe has either tokenizer_source or tokenizer, not both"));
            }
            (Some(source), None) => (source, "tokenizer_source"),
            (None, Some(table)) => {
                let known = &["source", "tokens", "pad_to_multiple_of"];
                let table = Self::table(table, known, "tokenizer")?;
                for key in ["tokens", "pad_to_multiple_of"] {
                    if table.get(key).is_some_and(|v| !v.is_null()) {
                        return Err(Error::unsupported(format!(
                            "tokenizer.{key} is not done by this version"
                        ))
                        .hint("leave it out, or merge with mergekit-yaml and convert the result"));
                    }
                }
                match table.get("source").filter(|v| !v.is_null()) {
                    Some(source) => (source, "tokenizer.source"),
                    // What mergekit takes where nothing is said.
                    None => return Ok(Some(Tokenizer::Union)),
                }
            }
            (None, None) => return Ok(None),
        };
        match source.as_str() {
            Some("base") => Ok(Some(Tokenizer::Base)),
            Some("union") => Ok(Some(Tokenizer::Union)),
            Some(name) => match self.models.iter().position(|m| m == name) {
                Some(model) => Ok(Some(Tokenizer::Model(model))),
                None => Err(Error::usage(format!("{key}: {name} is none of the models"))
                    .hint(format!("choose base, union, or one of {}", self.models.join(", ")))),
            },
            None => {
                Err(Error::usage(format!("{key}: {source} is neither base, union, nor one of the models")))
            }
        }
    }
}

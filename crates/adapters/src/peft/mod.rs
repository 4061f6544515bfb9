//! Adapters as PEFT saves them: `adapter_config.json` and tensors whose names say module and part.
//!
//! Formulas: PEFT 0.21, `tuners/*/layer.py`; what is rounded on the way, see [`crate::Precision`].

mod config;
mod keys;
mod lora;
mod lycoris;
mod rotations;
mod scales;

use crate::adapter::{Adapter, Change, Layer, RowsAre, Whole};
pub use config::Config;
pub(crate) use config::FILE;
use std::collections::BTreeMap;
use tensormill_model::{Error, Index, Model, Result, Tensor};

/// The parts that an adapter has for one module, by their words in names.
type Parts<'a> = BTreeMap<&'static str, &'a Tensor>;

/// A kind of adapter: which words its tensors' names hold, and what these make of a weight.
trait Family: std::fmt::Debug + Send + Sync {
    /// Words of its parts.
    fn words(&self) -> &'static [&'static str];
    /// The change that a module's parts make; `shared` are parts that belong to no module.
    ///
    /// # Errors
    /// When parts are missing or do not fit the configuration.
    fn change(&self, module: &str, parts: &Parts<'_>, shared: &Parts<'_>) -> Result<Change>;
}

/// Reads an adapter whose tensors `index` lists, as source number `source` of a plan, by the text of its configuration.
///
/// # Errors
/// When it has no configuration, as [`Config::parse`], and when parts of a module are missing.
pub(crate) fn read(
    name: String,
    weight: f64,
    source: usize,
    index: &Index,
    config: Option<&[u8]>,
) -> Result<Adapter> {
    let json = config.ok_or_else(|| {
        Error::malformed(format!("there is no {FILE}"))
            .file(&name)
            .hint("point at the folder that PEFT's save_pretrained wrote")
    })?;
    let context = |e: Error| e.context(format!("adapter {name}"));
    let config = Config::parse(json).map_err(context)?;
    let none = std::sync::Arc::new(tensormill_model::MemoryAssets::default());
    let tensors = Model::from_index(index, source, none).tensors;
    let mut adapter = sort(&tensors, &config).map_err(context)?;
    (adapter.name, adapter.weight) = (name, weight);
    Ok(adapter)
}

/// Puts tensors to their modules.
fn sort(tensors: &[Tensor], config: &Config) -> Result<Adapter> {
    let mut modules: BTreeMap<String, Parts<'_>> = BTreeMap::new();
    let (mut whole, mut unknown) = (Vec::new(), Vec::new());
    for t in tensors {
        match keys::parse(t.name(), config.family.words()) {
            Some(keys::Key::Part { module, word }) => {
                if modules.entry(module).or_default().insert(word, t).is_some() {
                    return Err(Error::malformed("two tensors of the adapter are the same part of a module")
                        .tensor(t.name()));
                }
            }
            Some(keys::Key::Whole(parameter)) => {
                whole.push(Whole {
                    parameter,
                    tensor: t.name().to_owned(),
                    value: t.expr.clone(),
                    rows: None,
                });
            }
            Some(keys::Key::Tokens(parameter)) => {
                let rows = config.tokens(&parameter).ok_or_else(|| {
                    Error::malformed("the configuration does not say which tokens these are")
                        .tensor(t.name())
                        .hint(format!("expected token_indices or trainable_token_indices in {FILE}"))
                })?;
                let (tensor, value) = (t.name().to_owned(), t.expr.clone());
                whole.push(Whole { parameter, tensor, value, rows: Some(rows) });
            }
            None => unknown.push(t.name().to_owned()),
        }
    }
    let shared = modules.remove("").unwrap_or_default();
    let layers = modules.into_iter().map(|(module, parts)| {
        let tensors: Vec<String> = parts.values().map(|t| t.name().to_owned()).collect();
        let change = config.family.change(&module, &parts, &shared).map_err(|e| {
            if e.tensor_name().is_some() { e } else { e.tensor(tensors.first().unwrap_or(&module)) }
        })?;
        // Wrappers of several parameters of one module stand around each other.
        Ok(Layer { module: module.replace(".base_layer", ""), parameter: "weight", tensors, change })
    });
    Ok(Adapter {
        name: String::new(),
        weight: 1.0,
        layers: layers.collect::<Result<_>>()?,
        whole,
        unknown,
        notes: config.notes.clone(),
    })
}

/// A part that a module must have.
fn part<'a>(parts: &Parts<'a>, word: &str) -> Result<&'a Tensor> {
    parts.get(word).copied().ok_or_else(|| Error::malformed(format!("this module has no {word}")))
}

/// What the rows of weights are, other than embeddings.
fn rows(fields: config::Fields<'_>) -> RowsAre {
    if fields.flag("fan_in_fan_out") { RowsAre::Inputs } else { RowsAre::Outputs }
}

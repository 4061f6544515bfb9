//! Adapters beside a source: opening what a user points at, and merging it into the source's model.

mod base;
pub mod change;
mod gguf;
mod open;

use crate::{Access, Location, Source, hf::abridged, report::AdapterReport};
use base::Base;
use std::{str::FromStr, sync::Arc};
use tensormill_adapters::{combine, merge};
use tensormill_model::{Assets, Error, MemoryAssets, Metadata, Model, Result};
use tensormill_tensor::Encoding;

pub use tensormill_adapters::{Combination, Options, Precision};

/// An adapter that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its folder, or its file of weights, with `adapter_config.json` beside it.
    pub at: Location,
    /// What its change is multiplied by.
    pub scale: f64,
}

impl FromStr for Wanted {
    type Err = String;
    /// `SRC`, or `SRC=SCALE`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (path, scale) = match text.rsplit_once('=') {
            // A path may hold an equals sign: only a number behind it is a scale.
            Some((path, scale)) if scale.parse::<f64>().is_ok() => (path, scale.parse().unwrap_or(1.0)),
            _ => (text, 1.0),
        };
        if path.is_empty() || !f64::is_finite(scale) {
            return Err("expected PATH or PATH=SCALE, for example ./my-lora=0.5".into());
        }
        Ok(Self { at: path.parse().map_err(|e: Error| e.to_string())?, scale })
    }
}

/// Merges adapters into a source's model, in their order; their readers become sources of the plan.
///
/// # Errors
/// Adapters that cannot be read, are not merged by this version, or belong to another model.
pub(crate) fn apply(
    source: &mut Source,
    wanted: &[Wanted],
    options: Options,
    access: &Access,
    notes: &mut Vec<String>,
) -> Result<Vec<AdapterReport>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut adapters = Vec::with_capacity(wanted.len());
    let base = Base::of(source);
    for w in wanted {
        let (adapter, reader) = open::adapter(w, Some(&base), source.readers.len(), access)?;
        adapters.push(adapter);
        source.readers.push(reader);
    }
    if let Some(how) = options.combine {
        adapters = vec![combine(adapters, how)?];
    }
    // The source keeps a model at all times; this one is not seen by anybody.
    let none: Arc<dyn Assets> = Arc::new(MemoryAssets::default());
    let empty = Model { tensors: Vec::new(), metadata: Metadata::new(), assets: none, program: None };
    let model = std::mem::replace(&mut source.model, empty);
    let encodings: Vec<Encoding> = model.tensors.iter().map(|t| t.spec.encoding).collect();
    let merged = if source.is_gguf() {
        gguf::merge_into(&model, &source.readers, |m| merge(m, &adapters, options))?
    } else {
        merge(model, &adapters, options)?
    };
    source.model = merged.model;
    // Blocks were decoded to be merged with; who keeps types encodes them again.
    let tensors = merged.changed.iter().map(|i| (&source.model.tensors[*i], encodings[*i]));
    let blocks = tensors.filter(|(_, e)| e.is_block()).map(|(t, e)| (t.name().to_owned(), e));
    source.decoded = blocks.collect();
    notes.extend(merged.notes);
    notes.push(format!("adapters change {} of {} tensors", merged.changed.len(), source.model.tensors.len()));
    let report = |w: &Wanted| Ok(AdapterReport { path: w.at.pinned(access)?.to_string(), scale: w.scale });
    wanted.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_stand_behind_paths() {
        let of = |t: &str| t.parse::<Wanted>().unwrap();
        assert_eq!(of("a/b"), Wanted { at: "a/b".into(), scale: 1.0 });
        assert_eq!(of("a=b/c=0.5"), Wanted { at: "a=b/c".into(), scale: 0.5 });
        assert_eq!(of("r=16/x").at, Location::from("r=16/x"));
        assert!("=1".parse::<Wanted>().is_err() && "a=inf".parse::<Wanted>().is_err());
    }
}

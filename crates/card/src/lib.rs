//! Model cards: read for `general.*` metadata, written for releases, checked for anybody.
//!
//! [`general`] says what a model is called, who made it, under which licence, from which models and data.
//! The facts come from the model card's front matter, `config.json`, `generation_config.json` and the folder's name,
//! by the rules of llama.cpp's converter (`gguf-py/gguf/metadata.py`), so that the keys, their values and their order
//! equal the peer's. Where the peer stops with an exception (a broken front matter, a number where text belongs) this
//! crate carries on without that one fact and says so in [`General::warnings`].
//!
//! [`gather`] takes facts from the small files beside a model, [`front`] makes a front matter of them, [`write()`] a card by a
//! template; [`check`] finds what is wrong with a card, [`privacy`] what nobody wants to publish.
//!
//! This crate must *not* know any architecture, any tokenizer, or any file format but these small text files; it asks
//! nothing of the machine it runs on.
//!
//! ```
//! use tensormill_card::{ParamCounts, general_metadata};
//! use tensormill_model::MemoryAssets;
//! let assets = MemoryAssets { name: "Grain-1B-Instruct-v0.1".into(), ..Default::default() };
//! let counts = ParamCounts { total: 1_100_000_000, shared: 1_100_000_000, ..Default::default() };
//! let meta = general_metadata(&assets, counts).unwrap();
//! assert_eq!(meta.str("general.name"), Some("Grain 1B Instruct v0.1"));
//! assert_eq!(meta.str("general.size_label"), Some("1B"));
//! ```

pub mod check;
mod counts;
pub mod document;
pub mod facts;
mod fields;
pub mod front;
mod front_matter;
pub mod gather;
mod heuristics;
pub mod known;
mod names;
pub mod privacy;
pub mod sections;
mod template;
pub mod yaml;

pub use counts::{ParamCounts, size_label};
pub use template::{DEFAULT as DEFAULT_TEMPLATE, Template, write};

use fields::Fields;
use serde_json::{Map, Value as Json};
use tensormill_model::{Assets, Error, Metadata, Result};

/// What [`general`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct General {
    /// The keys in the peer's order, from `general.type` on (`general.architecture` stands before them).
    pub metadata: Metadata,
    /// Facts that were left out or read leniently, each a sentence naming the file.
    pub warnings: Vec<String>,
    /// Overrides whose keys are none of this crate's; the caller sets them.
    pub unused: Vec<(String, String)>,
}

/// The `general.*` keys of a model, without overrides; warnings are dropped. See [`general`].
///
/// # Errors
/// As [`general`].
pub fn general_metadata(assets: &dyn Assets, counts: ParamCounts) -> Result<Metadata> {
    Ok(general(assets, counts, &[])?.metadata)
}

/// The `general.*` keys of a model.
///
/// `overrides` are `(key, value)` pairs with full key names (`general.name`, `general.tags` with commas between tags,
/// `general.sampling.top_k`); they replace what the files say, in the place where the peer would write them.
///
/// # Errors
/// Side files that cannot be read, a `config.json` that is not a JSON object, an override that is not a number where
/// one is needed.
pub fn general(assets: &dyn Assets, counts: ParamCounts, overrides: &[(String, String)]) -> Result<General> {
    let mut out = General::default();
    let mut fields = Fields::default();

    if let Some(bytes) = assets.read("README.md")? {
        match front_matter::parse(&bytes) {
            Ok(Some(card)) => heuristics::from_card(&mut fields, &card, counts.signed(), &mut out.warnings),
            Ok(None) => {}
            Err(why) => out.warnings.push(format!("README.md: front matter ignored: {why}")),
        }
    }
    if let Some(config) = json_object(assets, "config.json")? {
        match config.get("_name_or_path") {
            Some(Json::String(id)) if id.matches('/').count() <= 1 => {
                heuristics::from_model_id(&mut fields, id, counts.signed());
            }
            None | Some(Json::String(_) | Json::Null) => {}
            Some(_) => out.warnings.push("config.json: _name_or_path ignored: it is not text".into()),
        }
    }
    heuristics::from_model_id(&mut fields, assets.name(), counts.signed());

    match json_object(assets, "generation_config.json") {
        Ok(Some(generation)) => fields.set_sampling(&generation, &mut out.warnings),
        Ok(None) => {}
        // The peer treats a generation config that is not JSON as absent.
        Err(e) if e.kind() == tensormill_model::ErrorKind::Malformed => {
            out.warnings.push(format!("generation_config.json ignored: {}", e.message()));
        }
        Err(e) => return Err(e),
    }

    for (key, value) in overrides {
        if !fields.set_override(key, value)? {
            out.unused.push((key.clone(), value.clone()));
        }
    }
    if fields.text("general.size_label").is_none() && counts.signed() > 0 {
        fields.set_text("general.size_label", size_label(counts));
    }
    out.metadata = fields.write(&mut out.warnings);
    Ok(out)
}

fn json_object(assets: &dyn Assets, file: &str) -> Result<Option<Map<String, Json>>> {
    let Some(bytes) = assets.read(file)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(Json::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(Error::malformed("not a JSON object").file(file)),
        Err(e) => Err(Error::malformed(format!("not JSON: {e}")).file(file)),
    }
}

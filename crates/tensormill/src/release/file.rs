//! The shape of a release file. Every key is known: a misspelled one is an error that points at its line.

use crate::{Location, gate::Bounds};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf};
use toml::Spanned;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub source: SourceTable,
    #[serde(default)]
    pub release: ReleaseTable,
    pub card: Option<CardTable>,
    pub limits: Option<LimitsTable>,
    #[serde(rename = "variant", default)]
    pub variants: Vec<VariantTable>,
    pub publish: Option<PublishTable>,
}

/// `[source]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceTable {
    pub path: Location,
    pub revision: Option<String>,
    pub pre: Option<String>,
    pub key: Option<String>,
    #[serde(default)]
    pub all: bool,
    #[serde(default)]
    pub keep_names: bool,
    #[serde(default)]
    pub adapters: Vec<Adapter>,
    pub merge_precision: Option<Spanned<String>>,
    pub combine: Option<Spanned<String>>,
    #[serde(default)]
    pub allow_unused: bool,
}

/// An adapter: its path, or that with its scale.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Adapter {
    Path(Location),
    Scaled { path: Location, scale: f64 },
}

/// `[release]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseTable {
    pub name: Option<String>,
    pub folder: Option<PathBuf>,
    pub format: Option<Spanned<String>>,
    pub file: Option<String>,
    #[serde(default)]
    pub allow_loss: bool,
    pub memory: Option<Size>,
    pub threads: Option<Spanned<NonZeroUsize>>,
    pub device: Option<Spanned<String>>,
    pub device_memory: Option<Size>,
    pub imatrix: Option<PathBuf>,
    pub calibration: Option<PathBuf>,
    pub damp_percent: Option<Spanned<f64>>,
    pub act_order: Option<bool>,
    pub search: Option<Spanned<String>>,
    pub max_shard_size: Option<Size>,
    pub max_shard_tensors: Option<u64>,
    pub measure: Option<bool>,
    pub verify: Option<bool>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub remove_metadata: Vec<String>,
}

/// `[card]`: a model card beside the files.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CardTable {
    pub template: Option<PathBuf>,
    pub title: Option<String>,
    pub repository: Option<String>,
    #[serde(default)]
    pub base_model: Vec<String>,
    pub relation: Option<Spanned<String>>,
    pub quantized_by: Option<String>,
    pub fields_file: Option<PathBuf>,
    /// The user's own: keys of the front matter, sections, and whatever a template asks for.
    #[serde(default)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// `[[variant]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "independent keys")]
pub(super) struct VariantTable {
    pub name: Option<String>,
    pub quant: Option<Spanned<String>>,
    pub dtype: Option<Spanned<String>>,
    pub format: Option<Spanned<String>>,
    pub file: Option<String>,
    pub imatrix: Option<Imatrix>,
    pub calibration: Option<PathBuf>,
    pub damp_percent: Option<Spanned<f64>>,
    pub act_order: Option<bool>,
    pub search: Option<Spanned<String>>,
    #[serde(default)]
    pub types: BTreeMap<String, String>,
    #[serde(default)]
    pub roles: BTreeMap<String, String>,
    pub output_tensor_type: Option<String>,
    pub token_embedding_type: Option<String>,
    #[serde(default)]
    pub leave_output_tensor: bool,
    #[serde(default)]
    pub pure: bool,
    #[serde(default)]
    pub allow_requantize: bool,
    pub max_shard_size: Option<Size>,
    pub max_shard_tensors: Option<u64>,
    pub graph: Option<Location>,
    #[serde(default)]
    pub rename_weights: bool,
    pub opset: Option<i64>,
    pub onnx_form: Option<Spanned<String>>,
    #[serde(default)]
    pub keep_io_types: bool,
    #[serde(default)]
    pub external_data: bool,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub remove_metadata: Vec<String>,
    pub limits: Option<LimitsTable>,
}

/// `[publish]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishTable {
    pub repo: String,
    pub visibility: Option<Spanned<String>>,
    #[serde(default)]
    pub create: bool,
    pub branch: Option<String>,
    #[serde(default)]
    pub branch_per_variant: bool,
    pub tag: Option<String>,
    pub message: Option<String>,
    pub description: Option<String>,
    #[serde(default)]
    pub pull_request: bool,
    #[serde(default)]
    pub include: Vec<String>,
    #[serde(default)]
    pub exclude: Vec<String>,
    #[serde(default)]
    pub delete: Vec<String>,
}

/// `[limits]`: bounds on all tensors together, on each, and on each of a role.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    max_rmse: Option<f64>,
    max_abs: Option<f64>,
    min_sqnr_db: Option<f64>,
    min_cosine: Option<f64>,
    pub tensors: Option<Bounds>,
    #[serde(default)]
    pub roles: BTreeMap<String, Bounds>,
}

impl LimitsTable {
    pub(super) fn total(&self) -> Bounds {
        Bounds {
            max_rmse: self.max_rmse,
            max_abs: self.max_abs,
            min_sqnr_db: self.min_sqnr_db,
            min_cosine: self.min_cosine,
        }
    }
}

/// An importance matrix of its own, or `false` for none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Imatrix {
    Use(bool),
    Path(PathBuf),
}

/// A number of bytes: `4GB`, `512MiB`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        crate::size::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

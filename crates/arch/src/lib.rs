//! What an architecture is called in each world, and how its Hugging Face form becomes the GGUF form.
//!
//! [`Config`] reads a config.json as the peer's converter sees it, [`for_config`] picks the [`Architecture`],
//! and [`Architecture::rewrite`] turns the tensor list into the same model under GGUF names: roles, pinned
//! encodings, row maps, stacked experts, generated tensors, all in the order in which the peer adds them,
//! with the hyper-parameter keys beside it. No weight is touched.
//!
//! This crate must *not* know any file format, any block type, or how a tokenizer is read: what an
//! architecture demands of its vocabulary leaves here as plain data ([`VocabPolicy`]).
//!
//! Adding an architecture is one static in `families/` and one line in `registry`; its tensor names are
//! already in `data/names.txt`, which is extracted for everything that gguf-py knows.

mod config;
mod families;
mod hyper;
mod linear;
mod names;
mod pooling;
mod restore;
mod rope;
mod scaling;
mod text;
mod vocab;

pub use config::Config;
pub use linear::{Layer, checkpoint_role, fused_with, layer_of};
pub use restore::{Restored, restore, restore_some, usual_type};
pub use scaling::{SameInput, Source, same_inputs, scalable_kinds};
pub use vocab::{VocabForm, VocabPolicy};

use tensormill_model::{Assets, Error, Metadata, Model, Result, Role, Tensor};

/// One architecture: its names and its rewrite.
pub trait Architecture: Sync {
    /// The name under `general.architecture`, also the prefix of its hyper-parameter keys.
    fn gguf_name(&self) -> &'static str;
    /// The class names that config.json's `architectures` may give.
    fn hf_names(&self) -> &'static [&'static str];
    /// Rewrites a Hugging Face model into the GGUF form.
    ///
    /// `model.tensors` must stand in the order in which the peer indexes them: shards by file name, tensors
    /// by name within a shard. `file_type` is the number written under `general.file_type`.
    ///
    /// # Errors
    /// Tensors that have no GGUF name, experts that are missing, hyper-parameters that are absent or of the
    /// wrong type, quantized sources.
    fn rewrite(&self, model: Model, config: &Config, file_type: u32) -> Result<Rewritten>;
    /// Some of a model's tensors in GGUF form, and the names of those that it does not have: nothing is generated.
    /// Rewrites move rows; so the factor of a low-rank change that has a weight's rows can go through in its place.
    ///
    /// # Errors
    /// As [`Self::rewrite`], of the tensors that are given.
    fn rewrite_some(
        &self,
        tensors: Vec<Tensor>,
        config: &Config,
        assets: &dyn Assets,
    ) -> Result<(Vec<Tensor>, Vec<String>)>;
    /// The hyper-parameter keys alone.
    ///
    /// # Errors
    /// Hyper-parameters that are absent or of the wrong type.
    fn hyper_parameters(&self, config: &Config, assets: &dyn Assets) -> Result<Metadata>;
}

/// What [`Architecture::rewrite`] gives.
pub struct Rewritten {
    /// The tensors under GGUF names; metadata and assets are the input's.
    pub model: Model,
    /// Keys that the peer happens to write while it prepares tensors: they stand directly after
    /// `general.architecture`, before every other `general.*` key.
    pub early: Metadata,
    /// The hyper-parameter keys, `general.file_type` among them, in the peer's order.
    pub hyper: Metadata,
    /// How the tokenizer is to be read.
    pub vocab: VocabPolicy,
    /// Source tensors that the GGUF form does not have, by their source names.
    pub dropped: Vec<String>,
}

/// Every architecture that can be converted.
pub fn registry() -> &'static [&'static dyn Architecture] {
    families::ALL
}

/// The architecture of a model, by its config.
///
/// # Errors
/// [`tensormill_model::ErrorKind::Unsupported`] for an architecture that is not registered, and for
/// checkpoints that are already quantized.
pub fn for_config(config: &Config) -> Result<&'static dyn Architecture> {
    config.refuse_quantized()?;
    let name = config.architecture();
    registry().iter().copied().find(|a| a.hf_names().contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = registry().iter().flat_map(|a| a.hf_names()).copied().collect();
        Error::unsupported(format!("the architecture {name:?} cannot be converted"))
            .file("config.json")
            .hint(format!("supported: {}", known.join(", ")))
    })
}

/// Gives the tensors of a model that already has GGUF names their roles.
#[must_use]
pub fn roles_for_gguf(mut model: Model) -> Model {
    for t in &mut model.tensors {
        t.role = Role::from_gguf_name(t.name());
    }
    model
}

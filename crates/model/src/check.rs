//! The gate in front of every writer: after [`Model::check`] a writer cannot be surprised.

use crate::{Error, Model, Result};
use std::collections::HashSet;
use tensormill_tensor::Encoding;

/// What a target can hold.
#[derive(Clone, Copy)]
pub struct Capabilities {
    /// Name of the target, for messages.
    pub format: &'static str,
    /// Longest tensor name in bytes.
    pub max_name_bytes: usize,
    /// Largest number of dimensions.
    pub max_rank: usize,
    /// Which encodings can be written.
    pub encoding: fn(Encoding) -> bool,
}

/// A model that a target can hold: unique names within limits, sizes that fit, encodings that exist there,
/// and expressions that yield what the specs say.
pub struct Checked {
    model: Model,
}

impl Checked {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl Model {
    /// Checks the model against a target.
    ///
    /// # Errors
    /// The first tensor that the target cannot hold, with the reason.
    pub fn check(self, target: &Capabilities) -> Result<Checked> {
        let mut seen = HashSet::new();
        for t in &self.tensors {
            let name = t.name();
            let fail = |e: Error| e.tensor(name);
            if name.is_empty() || name.len() > target.max_name_bytes {
                return Err(fail(Error::unsupported(format!(
                    "a tensor name of {} bytes; {} allows 1 to {}",
                    name.len(),
                    target.format,
                    target.max_name_bytes
                ))));
            }
            if !seen.insert(name) {
                return Err(fail(Error::malformed("two tensors have this name")));
            }
            if t.spec.shape.rank() > target.max_rank {
                return Err(fail(Error::unsupported(format!(
                    "shape {} has {} dimensions; {} allows {}",
                    t.spec.shape,
                    t.spec.shape.rank(),
                    target.format,
                    target.max_rank
                ))));
            }
            if !(target.encoding)(t.spec.encoding) {
                return Err(fail(
                    Error::unsupported(format!("{} cannot hold {} tensors", target.format, t.spec.encoding))
                        .hint("choose another type for it with --dtype or --tensor-type"),
                ));
            }
            let form = t.expr.form().map_err(fail)?;
            if form.shape != t.spec.shape || form.encoding != t.spec.encoding {
                return Err(fail(Error::mismatch(format!(
                    "planned as {} {} but computed as {} {}",
                    t.spec.encoding, t.spec.shape, form.encoding, form.shape
                ))));
            }
            t.spec.bytes().map_err(|e| fail(e.into()))?;
        }
        self.bytes()?;
        Ok(Checked { model: self })
    }
}

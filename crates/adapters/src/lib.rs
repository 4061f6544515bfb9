//! Adapters: small sets of tensors that change a model's weights, merged into it as one more rewrite.
//!
//! [`merge`] takes a model under the names that training code gives its tensors, and adapters as PEFT saves them, and
//! gives the model whose expressions add the adapters' products to the weights: rows of a weight need the same rows of
//! one factor and the whole of the other, so a merge streams like everything else.
//!
//! Families: LoRA with everything that belongs to it, AdaLoRA, LoHa, LoKr, OFT, BOFT, (IA)3, VeRA, layer norms, trained
//! tokens, and whole modules that were trained along. Every other family is refused by its name.
//!
//! This crate must *not* know files, formats, architectures or GGUF names.

mod adapter;
mod combine;
mod experts;
mod kohya;
mod lycoris;
mod merge;
mod mlx;
mod ops;
mod peft;
mod unet;

pub use adapter::{Adapter, Factors, Parts, scaled};
pub use combine::{Combination, combine};
pub use merge::{Merged, Options, Precision, merge};

use tensormill_model::{Assets, Reader, Result};

impl Adapter {
    /// Reads an adapter as PEFT, mlx-lm, kohya's scripts, LyCORIS or diffusers save them; names and files tell which. It is
    /// source number `source` of the plan, what it changes is multiplied by `weight`, and `model` are the names of the
    /// tensors that it may change.
    ///
    /// # Errors
    /// When it is none of these, or one that is not merged; when parts of a module are missing.
    pub fn read<'a>(
        name: String,
        weight: f64,
        source: usize,
        reader: &dyn Reader,
        assets: &dyn Assets,
        model: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let config = assets.read(peft::FILE)?;
        if let Some(adapter) = mlx::read(&name, weight, source, reader, config.as_deref())? {
            return Ok(adapter);
        }
        // A configuration says more than names do.
        if config.is_none() && kohya::knows(reader.index().tensors.iter().map(|t| t.name.as_str())) {
            return kohya::read(name, weight, source, reader, model);
        }
        peft::read(name, weight, source, reader.index(), config.as_deref())
    }
}

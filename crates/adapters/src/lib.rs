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
mod experts;
mod merge;
mod ops;
mod peft;

pub use adapter::Adapter;
pub use merge::{Merged, Options, Precision, merge};

use tensormill_model::{Assets, Index, Result};

impl Adapter {
    /// Reads an adapter as PEFT saves them, whose tensors `index` lists; they are source number `source` of the plan,
    /// and what they change is multiplied by `weight`.
    ///
    /// # Errors
    /// When there is no configuration or one of an adapter that is not merged; when parts of a module are missing.
    pub fn peft(
        name: String,
        weight: f64,
        source: usize,
        index: &Index,
        assets: &dyn Assets,
    ) -> Result<Self> {
        peft::read(name, weight, source, index, assets)
    }
}

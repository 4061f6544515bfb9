//! Adapters: small sets of tensors that change a model's weights, merged into it as one more rewrite.
//!
//! [`merge`] takes a model under the names that training code gives its tensors, and adapters as PEFT saves them, and
//! gives the model whose expressions add the adapters' products to the weights: rows of a weight need the same rows of
//! one factor and the whole of the other, so a merge streams like everything else.
//!
//! Families: LoRA with rank-stabilised scaling, DoRA, patterns of ranks and alphas, transposed weights
//! (`fan_in_fan_out`), embeddings, convolutions, biases, and whole modules that were trained along
//! (`modules_to_save`). Every other family is refused by its name. Formulas: PEFT 0.21, `tuners/lora/layer.py`,
//! `variants.py` and `dora.py`.
//!
//! This crate must *not* know files, formats, architectures or GGUF names.

mod config;
mod keys;
mod merge;
mod ops;
mod product;

pub use config::Config;
pub use merge::{Adapter, Merged, Options, Precision, merge};
pub use ops::{AddScaled, MergeLora};

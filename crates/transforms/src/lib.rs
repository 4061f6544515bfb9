//! Rewrites of a model in GGUF form: the converter's choice of plain types, and quantization by recipe.
//!
//! Everything here is planning. A rewrite looks at roles, shapes and metadata and wraps expressions in ops; the
//! engine runs the ops later, row by row. Recipes are data (`recipe`), the peer being llama.cpp's
//! `llama-quantize`: same types, same tensor order, same metadata edits.
//!
//! This crate must *not* know how any file is laid out, how other worlds spell tensor names, or how a block is
//! searched for (that is `tensormill-kernels`).

mod dtype;
pub mod imatrix;
mod ops;
mod options;
mod order;
mod quantize;
pub mod recipe;

pub use dtype::{ConvertDtype, Target};
pub use imatrix::Importance;
pub use ops::{CheckedCast, Dequantize, QuantizeOp, TensorImportance};
pub use options::{QuantizeOptions, TensorType, parse_type};
pub use order::quantized_order;
pub use quantize::{Choice, Quantize};
pub use recipe::{Recipe, recipe, recipes};

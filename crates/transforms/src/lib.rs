//! Rewrites of a model in GGUF form: the converter's choice of plain types, and quantization by recipe.
//!
//! Everything here is planning. A rewrite looks at roles, shapes and metadata and wraps expressions in ops; the
//! engine runs the ops later, row by row. Recipes are data (`recipe`), the peer being llama.cpp's
//! `llama-quantize`: same types, same tensor order, same metadata edits.
//!
//! This crate must *not* know how any file is laid out, how other worlds spell tensor names, or how a block is
//! searched for (that is `tensormill-kernels`).
//!
//! ```
//! use std::sync::Arc;
//! use tensormill_model::{Expr, Form, MemoryAssets, Metadata, Model, Tensor, Transform};
//! use tensormill_tensor::{Encoding, Shape};
//! use tensormill_transforms::{Quantize, QuantizeOptions, recipe};
//!
//! let form = Form::new(Shape::new(vec![512, 256])?, Encoding::BF16);
//! let mut metadata = Metadata::new();
//! metadata.set("general.architecture", "llama");
//! metadata.set("llama.block_count", 1u32);
//! let model = Model {
//!     tensors: vec![Tensor::new("blk.0.ffn_down.weight", Expr::Read { source: 0, tensor: 0, form })?],
//!     metadata,
//!     assets: Arc::new(MemoryAssets::default()),
//! program: None,
//! };
//! let recipe = recipe("Q4_K_M").expect("a recipe that every build has");
//! let quantize = Quantize { recipe, options: QuantizeOptions::default(), importance: None };
//! let quantized = quantize.rewrite(model)?;
//! assert_eq!(quantized.tensors[0].spec.encoding.name(), "Q6_K");
//! assert_eq!(quantized.metadata.u64("general.file_type"), Some(15));
//! # Ok::<(), tensormill_model::Error>(())
//! ```

mod dtype;
pub mod imatrix;
mod ops;
mod options;
mod order;
mod quantize;
pub mod recipe;

pub use dtype::{ConvertDtype, Target};
pub use imatrix::Importance;
pub use ops::{CheckedCast, Dequantize, QuantizeOp, TensorImportance, check_readable, widen};
pub use options::{QuantizeOptions, TensorType, parse_type};
pub use order::quantized_order;
pub use quantize::{Choice, Quantize};
pub use recipe::{Recipe, recipe, recipes};
/// How encoders look for scales and levels; see [`QuantizeOptions::search`].
pub use tensormill_kernels::Search;

//! What a tensor is made of: element types, block encodings, shapes, and numeric comparison.
//!
//! This crate is the bottom of the house. It knows how many bytes a row takes and what the bits of one
//! element mean. It must *not* know files, models, names of layers, or how a block encoding is searched for
//! (that is `tensormill-kernels`).
//!
//! ```
//! use tensormill_tensor::{Encoding, Shape, ggml};
//! let shape = Shape::new(vec![4, 512]).unwrap();
//! let q4_k = Encoding::Block(ggml::Q4_K);
//! assert_eq!(q4_k.row_bytes(512), Some(2 * 144));
//! assert_eq!(shape.rows(), 4);
//! ```

mod block;
mod compare;
mod convert;
mod dtype;
mod fp8;
mod shape;

pub use block::{BlockFormat, ggml};
pub use compare::{ErrorStats, ulp_distance_f32};
pub use convert::{decode_plain, encode_plain, encode_saturating};
pub use dtype::DType;
pub use shape::{Encoding, Shape, SizeError, TensorSpec};

//! Quantization schemes of the checkpoint worlds: which sibling tensors hold a weight, and what `config.json` says of them.
//!
//! Both ways. [`Quantize`] turns a model's weights into the tensors of a scheme (compressed-tensors, GPTQ, AWQ, bitsandbytes,
//! MLX, ...); [`open`] finds the weights that a quantized checkpoint's tensors stand for and gives them expressions that decode
//! them, so that everything else sees plain weights. Where a source holds the codes that a target wants, they are repacked
//! ([`coded`]).
//!
//! Each layout is one module of `layout`; everything they share (codes, numbers, packing) is `tensormill_kernels::groups` and
//! `ops` here. Presets are rows of one table.
//!
//! This crate must *not* know files, architectures, GGUF names or command lines.

mod blocks;
mod calibration;
pub mod layout;
pub mod ops;
pub mod packing;
mod repack;
mod scaling;
mod scheme;
mod source;
mod target;

pub use blocks::{BlockExpr, as_blocks, with_scales};
pub use calibration::{Calibration, Columns};
pub use layout::onnx::{self, Operators};
pub use repack::{CodedExpr, check_plain, coded, is_quantized, kept_note, same_codes};
pub use scaling::{Before, Group, Scaling};
pub use scheme::{Flavour, Scheme, scheme, schemes};
pub use source::{CONFIG_KEYS, Found, Opened, Quantized, SourceCx, open};
pub use target::{Coded, Made, Names, Outer, Place, Quantize, Rule, Used};
pub use tensormill_kernels::groups::{Damping, Fit};

//! Encoders and decoders of block formats: the searches that turn rows of `f32` into packed blocks, and back.
//!
//! One folder per format (or per family of formats too small to stand alone). Each holds the page that says
//! what the format is (`mod.rs`) and a plain scalar `reference.rs`, which is the truth that faster levels must
//! equal byte for byte. The searches that several formats share live in `search/`.
//!
//! The contract of the ggml formats: bytes equal to `ggml_quantize_chunk` of ggml's own library (x86-64, no
//! fused multiply-add), with and without an importance matrix, on every finite input. That fixes the order of
//! each sum, the operand order of each comparison and the width of each intermediate integer; where a line
//! here looks as if it could be simplified, it is usually such a place.
//!
//! This crate must *not* know files, models, tensor names or recipes.
//!
//! ```
//! use tensormill_kernels::codec;
//! use tensormill_tensor::ggml;
//!
//! let row: Vec<f32> = (0..256).map(|i| (i as f32 * 0.37).sin()).collect();
//! let q4_k = codec(ggml::Q4_K).expect("Q4_K has a codec");
//! let mut blocks = vec![0u8; 144];
//! q4_k.encode_row(&row, None, &mut blocks)?;
//! let mut back = vec![0f32; 256];
//! q4_k.decode_row(&blocks, &mut back)?;
//! assert!(row.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.1));
//! # Ok::<(), tensormill_kernels::KernelError>(())
//! ```

// What is generic over vectors must be inlined wherever it is used, and must not hide loops in closures: see
// `lanes`. Loops over lanes' arrays therefore count.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

mod best;
mod codec;
pub mod cuda;
mod dispatch;
mod lanes;
mod levels;
mod num;
mod search;

mod fp4;
mod grid;
pub mod groups;
mod iq4;
mod legacy;
mod low_bit;
mod q2_k;
mod q3_k;
mod q4_k;
mod q5_k;
mod q6_k;
mod q8_k;
mod superblock;
mod superblock_lanes;
mod ternary;

pub use best::{Search, codec_for, codec_for_at};
pub use codec::{BlockCodec, KernelError, Operand, RowsError};
pub use dispatch::{Level, available_levels, codec, codec_at, formats, level_of, selected_level};

//! Q2_K: 256 weights as sixteen groups of 16, each with a 4-bit scale and a 4-bit offset; 2.625 bits per
//! weight.
//!
//! ```text
//! 0            16                                  80    82      84
//! | scales[16] | qs[64]                            | d   | dmin  |
//! | scale low, | 2 x 32 bytes: weights l, l+32,    | f16 | f16   |
//! | offset high| l+64, l+96 of each half           |     |       |
//! weight = d * scale[j] * q - dmin * offset[j]
//! ```
//! Source: `block_q2_K` in `ggml-common.h`, `quantize_row_q2_K_ref` and `quantize_row_q2_K_impl` in
//! `ggml-quants.c`.
//!
//! Exactness: without importance the search minimises absolute error weighted by magnitude, with importance
//! squared error, with the mean square taken over the super-block (once, where the other K-quants take it
//! twice). Negative scales wrap into the offset's nibble.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::ggml;

pub(crate) static CODEC: Codec = Codec {
    block: ggml::Q2_K,
    importance: Importance::Optional,
    encode: Some(reference::encode),
    decode: reference::decode,
};

pub(crate) static CUDA: DeviceCode = DeviceCode {
    block: ggml::Q2_K,
    file: "q2_k/cuda.cu",
    text: include_str!("cuda.cu"),
    kernel: "encode_q2_k",
    lanes: 16,
    row_means: RowMeans::Unused,
    tables: None,
    uses_importance: true,
};

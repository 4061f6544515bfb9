//! Q4_K: 256 weights as eight groups of 32, each with a 6-bit scale and a 6-bit offset; 4.5 bits per weight.
//!
//! ```text
//! 0     2       4           16                               144
//! | d   | dmin  | scales[12] | qs[128]                        |
//! | f16 | f16   | 8 x 6+6 bit| 4 x 32 bytes: groups 2i (low)  |
//! |     |       |            |               2i+1 (high nibble)|
//! weight = d * scale[j] * q - dmin * offset[j]
//! ```
//! Source: `block_q4_K` in `ggml-common.h`, `quantize_row_q4_K_ref` and `quantize_row_q4_K_impl` in
//! `ggml-quants.c`.
//!
//! Exactness: the two ggml functions differ in candidates, in weights and in how scales are found; see
//! [`crate::superblock::encode_affine`]. With importance, negative scales wrap without a clamp.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::ggml;

pub(crate) static CODEC: Codec = Codec {
    block: ggml::Q4_K,
    importance: Importance::Optional,
    encode: Some(reference::encode),
    decode: reference::decode,
};

pub(crate) static CUDA: DeviceCode = DeviceCode {
    block: ggml::Q4_K,
    file: "q4_k/cuda.cu",
    text: include_str!("cuda.cu"),
    kernel: "encode_q4_k",
    lanes: 8,
    row_means: RowMeans::Unused,
    tables: None,
    uses_importance: true,
};

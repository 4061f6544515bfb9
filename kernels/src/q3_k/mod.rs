//! Q3_K: 256 weights as sixteen groups of 16, each with a signed 6-bit scale; 3.4375 bits per weight.
//!
//! ```text
//! 0           32                            96           108   110
//! | hmask[32] | qs[64]                      | scales[12] | d   |
//! | high bits | low 2 bits, planes as Q2_K  | 16 x 6 bit | f16 |
//! weight = d * (scale[j] - 32) * (q + 4 h - 4)
//! ```
//! Bit b of `hmask[l]` is the high bit of weight 32 b + l. Scale j has its low nibble in `scales[j % 8]` (low
//! nibble for j < 8) and its top two bits in `scales[8 + j % 4]`, at bit 2 (j / 4).
//!
//! Source: `block_q3_K` in `ggml-common.h`, `quantize_row_q3_K_ref` and `quantize_row_q3_K_impl` in
//! `ggml-quants.c`.
//!
//! Exactness: without importance levels come from coordinate descent and scales are rounded against the
//! largest; with importance both come from the symmetric search, for the scales weighted by each group's sum
//! of weights. A group of zeros keeps level 0 (not the middle level 4) where its scale is zero.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::ggml;

pub(crate) static CODEC: Codec = Codec {
    block: ggml::Q3_K,
    importance: Importance::Optional,
    encode: Some(reference::encode),
    decode: reference::decode,
};

pub(crate) static CUDA: DeviceCode = DeviceCode {
    block: ggml::Q3_K,
    file: "q3_k/cuda.cu",
    text: include_str!("cuda.cu"),
    kernel: "encode_q3_k",
    lanes: 16,
    row_means: RowMeans::Unused,
    tables: None,
    uses_importance: true,
};

//! Q5_K: as Q4_K with one more bit per weight; 5.5 bits per weight.
//!
//! ```text
//! 0     2       4            16       48                               176
//! | d   | dmin  | scales[12] | qh[32] | qs[128]                        |
//! weight = d * scale[j] * (q + 16 h) - dmin * offset[j]
//! ```
//! `scales` and `qs` are Q4_K's. Bit j of `qh[l]` is the fifth bit of weight l of group j.
//!
//! Source: `block_q5_K` in `ggml-common.h`, `quantize_row_q5_K_ref` and `quantize_row_q5_K_impl` in
//! `ggml-quants.c`. Exactness: as Q4_K, but scales found with importance are clamped to 63 after wrapping.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::ggml;

pub(crate) static CODEC: Codec = Codec {
    block: ggml::Q5_K,
    importance: Importance::Optional,
    encode: Some(reference::encode),
    decode: reference::decode,
};

pub(crate) static CUDA: DeviceCode = DeviceCode {
    block: ggml::Q5_K,
    file: "q5_k/cuda.cu",
    text: include_str!("cuda.cu"),
    kernel: "encode_q5_k",
    lanes: 8,
    row_means: RowMeans::Unused,
    tables: None,
    uses_importance: true,
};

//! Q6_K: 256 weights as sixteen groups of 16, each with a signed 8-bit scale; 6.5625 bits per weight.
//!
//! ```text
//! 0         128       192          208   210
//! | ql[128] | qh[64]  | scales[16] | d   |
//! | low 4   | high 2  | i8         | f16 |
//! weight = d * scale[j] * (q - 32)
//! ```
//! In each half of 128 weights, `ql[l]` holds weights l (low) and l + 64 (high nibble), `ql[l + 32]` weights
//! l + 32 and l + 96, and `qh[l]` the top two bits of l, l + 32, l + 64 and l + 96, lowest bits first.
//!
//! Source: `block_q6_K` in `ggml-common.h`, `quantize_row_q6_K_ref` and `quantize_row_q6_K_impl` in
//! `ggml-quants.c`.
//!
//! Exactness: importance weighs the errors as it is, without the variance term of the other formats. A
//! super-block whose scales all vanish is all zero bytes.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::ggml;

pub(crate) static CODEC: Codec = Codec {
    block: ggml::Q6_K,
    importance: Importance::Optional,
    encode: Some(reference::encode),
    decode: reference::decode,
};

pub(crate) static CUDA: DeviceCode = DeviceCode {
    block: ggml::Q6_K,
    file: "q6_k/cuda.cu",
    text: include_str!("cuda.cu"),
    kernel: "encode_q6_k",
    lanes: 16,
    row_means: RowMeans::Unused,
    tables: None,
    uses_importance: true,
};

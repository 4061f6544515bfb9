//! Q8_K: the intermediate that ggml quantizes activations to, before dot products with K- and IQ-formats.
//!
//! ```text
//! d:f32 qs:i8[256] bsums:i16[16]     256 weights, 9.125 bits per weight
//! weight = d * q; bsums[j] = sum of q over the j-th sixteen
//! ```
//! `llama-quantize` never writes it and `ggml_quantize_chunk` refuses to, but a file may hold it.
//!
//! Source: `block_q8_K` in `ggml-common.h`; `quantize_row_q8_K_ref` and `dequantize_row_q8_K` in
//! `ggml-quants.c`. Of an all-zero block, ggml leaves the sums as they were in memory; they are zero here.

mod reference;

use crate::codec::{Codec, Importance};
use tensormill_tensor::ggml;

pub(crate) static CODEC: Codec = Codec {
    block: ggml::Q8_K,
    importance: Importance::Ignored,
    encode: Some(reference::encode),
    decode: reference::decode,
};

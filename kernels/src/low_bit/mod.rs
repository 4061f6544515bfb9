//! Q1_0 and Q2_0: one or two bits per weight under one scale.
//!
//! ```text
//! Q1_0  d:f16 qs[16]   128 weights, 1.125 bits per weight: +d for a set bit, -d for a clear one
//! Q2_0  d:f16 qs[16]    64 weights, 2.25 bits per weight:  d * (q - 1), q in 0..=3
//! ```
//! Levels fill each byte from its lowest bit. The scale of Q1_0 is the mean magnitude, summed first to last;
//! that of Q2_0 is the largest magnitude. Importance is ignored.
//!
//! Source: `block_q1_0`, `block_q2_0` in `ggml-common.h`, `quantize_row_q1_0_ref` and `quantize_row_q2_0_ref`
//! in `ggml-quants.c`.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use tensormill_tensor::ggml;

pub(crate) static Q1_0: Codec = Codec {
    block: ggml::Q1_0,
    importance: Importance::Ignored,
    encode: Some(reference::encode_q1_0),
    decode: reference::decode_q1_0,
};
pub(crate) static Q2_0: Codec = Codec {
    block: ggml::Q2_0,
    importance: Importance::Ignored,
    encode: Some(reference::encode_q2_0),
    decode: reference::decode_q2_0,
};

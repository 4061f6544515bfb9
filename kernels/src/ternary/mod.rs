//! TQ1_0 and TQ2_0: weights that are -1, 0 or +1 times one scale (BitNet b1.58, TriLMs).
//!
//! ```text
//! TQ1_0  qs[48] qh[4] d:f16   256 weights, 1.6875 bits per weight, five trits to a byte
//! TQ2_0  qs[64] d:f16         256 weights, 2.0625 bits per weight, four 2-bit levels to a byte
//! ```
//! TQ1_0 stores five trits as the fraction t0/3 + t1/9 + ... scaled to 256 and rounded up, so that repeated
//! multiplication by three brings one trit after the other above the byte. Bytes 0..32 hold weights m + 32 n
//! (n = 0..5), bytes 32..48 weights 160 + m + 16 n, and the four of `qh` weights 240 + m + 4 n (n = 0..4).
//! TQ2_0's bytes hold weights m + 32 n of each half of 128.
//!
//! Source: `block_tq1_0`, `block_tq2_0` in `ggml-common.h`, `quantize_row_tq1_0_ref` and
//! `quantize_row_tq2_0_ref` in `ggml-quants.c`. Importance is ignored.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use tensormill_tensor::ggml;

pub(crate) static TQ1_0: Codec = Codec {
    block: ggml::TQ1_0,
    importance: Importance::Ignored,
    encode: Some(reference::encode_tq1_0),
    decode: reference::decode_tq1_0,
};
pub(crate) static TQ2_0: Codec = Codec {
    block: ggml::TQ2_0,
    importance: Importance::Ignored,
    encode: Some(reference::encode_tq2_0),
    decode: reference::decode_tq2_0,
};

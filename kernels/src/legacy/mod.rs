//! The five formats of ggml's first generation: 32 weights under one scale.
//!
//! ```text
//!        bytes                                  weight               bits per weight
//! Q4_0   d:f16            qs[16]                d * (q - 8)          4.5
//! Q4_1   d:f16 m:f16      qs[16]                d * q + m            5.0
//! Q5_0   d:f16      qh[4] qs[16]                d * (q - 16)         5.5
//! Q5_1   d:f16 m:f16 qh[4] qs[16]               d * q + m            6.0
//! Q8_0   d:f16            qs[32] (signed)       d * q                8.5
//! ```
//! Byte j of `qs` holds the low four bits of weights j (low nibble) and j + 16 (high nibble); bit i of the
//! little-endian word `qh` is the fifth bit of weight i.
//!
//! Source: `ggml-common.h` (blocks), `ggml-quants.c` (`quantize_row_q4_0_ref`, `quantize_row_q4_0_impl` and
//! their siblings).
//!
//! Exactness:
//! - Without importance, levels come from a float cut to 8 bits as x86-64 does it. Blocks so small that `1/d`
//!   is infinite get level 0 from that cut, not the saturated level.
//! - With importance, each weight's error counts by the mean square over the *whole row*, so rows cannot be
//!   cut. Q8_0 ignores importance.
//! - Q4_0, Q4_1 and Q5_0 clamp the level after the cut, Q5_1 only masks it.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::{BlockFormat, ggml};

pub(crate) static Q4_0: Codec = Codec {
    block: ggml::Q4_0,
    importance: Importance::Optional,
    encode: Some(reference::encode_symmetric::<4>),
    decode: reference::decode_symmetric::<4>,
};
pub(crate) static Q4_1: Codec = Codec {
    block: ggml::Q4_1,
    importance: Importance::Optional,
    encode: Some(reference::encode_affine::<4>),
    decode: reference::decode_affine::<4>,
};
pub(crate) static Q5_0: Codec = Codec {
    block: ggml::Q5_0,
    importance: Importance::Optional,
    encode: Some(reference::encode_symmetric::<5>),
    decode: reference::decode_symmetric::<5>,
};
pub(crate) static Q5_1: Codec = Codec {
    block: ggml::Q5_1,
    importance: Importance::Optional,
    encode: Some(reference::encode_affine::<5>),
    decode: reference::decode_affine::<5>,
};
pub(crate) static Q8_0: Codec = Codec {
    block: ggml::Q8_0,
    importance: Importance::Ignored,
    encode: Some(reference::encode_q8_0),
    decode: reference::decode_q8_0,
};

/// One file holds the device code of all five.
const fn device_code(
    block: &'static BlockFormat,
    kernel: &'static str,
    lanes: u32,
    uses_importance: bool,
) -> DeviceCode {
    DeviceCode {
        block,
        file: "legacy/cuda.cu",
        text: include_str!("cuda.cu"),
        kernel,
        lanes,
        row_means: if uses_importance { RowMeans::WithImportance } else { RowMeans::Unused },
        tables: None,
        uses_importance,
    }
}

pub(crate) static CUDA: [DeviceCode; 5] = [
    device_code(ggml::Q4_0, "encode_q4_0", 4, true),
    device_code(ggml::Q4_1, "encode_q4_1", 1, true),
    device_code(ggml::Q5_0, "encode_q5_0", 4, true),
    device_code(ggml::Q5_1, "encode_q5_1", 1, true),
    device_code(ggml::Q8_0, "encode_q8_0", 4, false),
];

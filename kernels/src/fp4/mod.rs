//! MXFP4 and NVFP4: 4-bit floats (E2M1) under a small float scale.
//!
//! ```text
//! MXFP4  e:E8M0 qs[16]           32 weights, 4.25 bits per weight: 2^(e-128) * value2[q]
//! NVFP4  d[4]:UE4M3 qs[4][8]     64 weights as four groups of 16, 4.5 bits per weight: d/2 * value2[q]
//! ```
//! `value2` is twice the E2M1 value, so that it is an integer. Byte j of a group's levels holds its weights j
//! (low nibble) and j + half.
//!
//! Source: `block_mxfp4`, `block_nvfp4` and `kvalues_fp4` in `ggml-common.h`, the scale conversions in
//! `ggml-impl.h`, `quantize_row_mxfp4_ref` and `quantize_row_nvfp4_ref` in `ggml-quants.c`. Importance is
//! ignored.
//!
//! Exactness: MXFP4's exponent is the floor of a binary32 logarithm, which rounds up to the next integer just
//! below powers of two; `reference::floor_log2` reproduces a correctly rounded `log2f`. NVFP4's scale code
//! 0x7f decodes to zero, its rounding adds bit 19 only (halves go up), and scales from 256 up become 448.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use tensormill_tensor::ggml;

pub(crate) static MXFP4: Codec = Codec {
    block: ggml::MXFP4,
    importance: Importance::Ignored,
    encode: Some(reference::encode_mxfp4),
    decode: reference::decode_mxfp4,
};
pub(crate) static NVFP4: Codec = Codec {
    block: ggml::NVFP4,
    importance: Importance::Ignored,
    encode: Some(reference::encode_nvfp4),
    decode: reference::decode_nvfp4,
};

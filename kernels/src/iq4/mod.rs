//! IQ4_NL and IQ4_XS: four bits per weight that name entries of a fixed, non-uniform codebook.
//!
//! ```text
//! IQ4_NL  d:f16 qs[16]                             32 weights, 4.5 bits per weight
//!         weight = d * codebook[q]
//! IQ4_XS  d:f16 scales_h:u16 scales_l[4] qs[128]   256 weights, 4.25 bits per weight
//!         weight = d * (scale[j] - 32) * codebook[q], j = group of 32
//! ```
//! Byte j of each sixteen of `qs` holds weights j (low nibble) and j + 16 of its group. The 6-bit scale of
//! group j has its low nibble in `scales_l[j / 2]` and its top bits in `scales_h` at bit 2 j.
//!
//! Source: `block_iq4_nl`, `block_iq4_xs` and `kvalues_iq4nl` in `ggml-common.h`, `quantize_row_iq4_nl_impl`
//! in `ggml-quants.c`.
//!
//! Exactness: the mean square that goes with importance is taken over the block (32 or 256 weights), twice.
//! IQ4_XS picks levels with the scale before it is rounded to binary16.

pub(crate) mod lanes;
mod reference;

use crate::codec::{Codec, Importance};
use crate::cuda::{DeviceCode, RowMeans};
use tensormill_tensor::{BlockFormat, ggml};

pub(crate) static IQ4_NL: Codec = Codec {
    block: ggml::IQ4_NL,
    importance: Importance::Optional,
    encode: Some(reference::encode_nl),
    decode: reference::decode_nl,
};
pub(crate) static IQ4_XS: Codec = Codec {
    block: ggml::IQ4_XS,
    importance: Importance::Optional,
    encode: Some(reference::encode_xs),
    decode: reference::decode_xs,
};

const fn device_code(block: &'static BlockFormat, kernel: &'static str, lanes: u32) -> DeviceCode {
    DeviceCode {
        block,
        file: "iq4/cuda.cu",
        text: include_str!("cuda.cu"),
        kernel,
        lanes,
        row_means: RowMeans::Unused,
        tables: None,
        uses_importance: true,
    }
}

pub(crate) static CUDA: [DeviceCode; 2] =
    [device_code(ggml::IQ4_NL, "encode_iq4_nl", 1), device_code(ggml::IQ4_XS, "encode_iq4_xs", 8)];

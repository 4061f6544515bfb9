//! The formats whose levels are indices of points in a fixed grid: IQ1, IQ2 and IQ3.
//!
//! ```text
//! format   bpw     bytes of a super-block of 256
//! IQ2_XXS  2.0625  d:f16 [index[4] tail:u32][8]
//! IQ2_XS   2.3125  d:f16 code:u16[32] scales[8]
//! IQ2_S    2.5625  d:f16 index[32] signs[32] high[8] scales[8]
//! IQ3_XXS  3.0625  d:f16 index[64] tail:u32[8]
//! IQ3_S    3.4375  d:f16 index[64] high[8] signs[32] scales[4]
//! IQ1_S    1.5625  d:f16 index[32] high:u16[8]
//! IQ1_M    1.75    index[32] high[16] scales:u16[4]
//! ```
//! An IQ2 or IQ1 point gives eight weights, an IQ3 point four. Points of IQ2 and IQ3 are positive; each eight
//! weights have a byte of signs, bit j for weight j. Where a format has only seven bits for it (`tail` has four
//! times seven and a 4-bit scale; `code` has nine bits of index, then seven), the eighth sign makes the number
//! of negative ones even. Coordinates of IQ1 points are -1, 0 or 1, moved by plus or minus 1/8.
//!
//! Source: the blocks and tables of `ggml-common.h` (tables: `kernels/data`, with the script that extracts
//! them); the `dequantize_row_iq*` and `quantize_row_iq*_impl` functions of `ggml-quants.c`.
//!
//! Encoding IQ2_XXS, IQ2_XS and IQ1_S needs importance (`ggml_quantize_requires_imatrix`). The mean square that
//! goes with it is taken over the super-block: once for IQ2_XXS and IQ2_XS, twice for the others.
//!
//! IQ3_S misplaces groups that follow a group of zeros; `iq3` says how, and does the same.
//!
//! ggml stops the process where squares or importance overflow or importance is negative, so that errors are
//! infinite or NaN; `lattice`, `magnitude` and `iq1` say what happens here instead.

pub(crate) mod cuda;
mod decode;
mod decode_lanes;
mod iq1;
mod iq1_lanes;
mod iq2;
mod iq3;
pub(crate) mod lanes;
mod lattice;
mod magnitude;
mod neighbours;
mod tables;

use crate::codec::{Codec, DecodeRow, EncodeRow, Importance};
use tensormill_tensor::{BlockFormat, ggml};

const fn codec(
    block: &'static BlockFormat,
    importance: Importance,
    encode: EncodeRow,
    decode: DecodeRow,
) -> Codec {
    Codec { block, importance, encode: Some(encode), decode }
}

pub(crate) static IQ2_XXS: Codec =
    codec(ggml::IQ2_XXS, Importance::Required, iq2::encode_xxs, decode::decode_iq2_xxs);
pub(crate) static IQ2_XS: Codec =
    codec(ggml::IQ2_XS, Importance::Required, iq2::encode_xs, decode::decode_iq2_xs);
pub(crate) static IQ2_S: Codec =
    codec(ggml::IQ2_S, Importance::Optional, iq2::encode_s, decode::decode_iq2_s);
pub(crate) static IQ3_XXS: Codec =
    codec(ggml::IQ3_XXS, Importance::Optional, iq3::encode_xxs, decode::decode_iq3_xxs);
pub(crate) static IQ3_S: Codec =
    codec(ggml::IQ3_S, Importance::Optional, iq3::encode_s, decode::decode_iq3_s);
pub(crate) static IQ1_S: Codec =
    codec(ggml::IQ1_S, Importance::Required, iq1::encode_s, decode::decode_iq1_s);
pub(crate) static IQ1_M: Codec =
    codec(ggml::IQ1_M, Importance::Optional, iq1::encode_m, decode::decode_iq1_m);

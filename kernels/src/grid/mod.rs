//! The formats whose levels are indices of points in a fixed grid: IQ1, IQ2 and IQ3. Decoders only.
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
//! them), the `dequantize_row_iq*` functions of `ggml-quants.c`.
//!
//! Encoding would need importance for IQ2_XXS, IQ2_XS and IQ1_S (`ggml_quantize_requires_imatrix`).

mod reference;

use crate::codec::{Codec, DecodeRow, Importance};
use tensormill_tensor::{BlockFormat, ggml};

const fn decoder(block: &'static BlockFormat, importance: Importance, decode: DecodeRow) -> Codec {
    Codec { block, importance, encode: None, decode }
}

pub(crate) static IQ2_XXS: Codec = decoder(ggml::IQ2_XXS, Importance::Required, reference::decode_iq2_xxs);
pub(crate) static IQ2_XS: Codec = decoder(ggml::IQ2_XS, Importance::Required, reference::decode_iq2_xs);
pub(crate) static IQ2_S: Codec = decoder(ggml::IQ2_S, Importance::Optional, reference::decode_iq2_s);
pub(crate) static IQ3_XXS: Codec = decoder(ggml::IQ3_XXS, Importance::Optional, reference::decode_iq3_xxs);
pub(crate) static IQ3_S: Codec = decoder(ggml::IQ3_S, Importance::Optional, reference::decode_iq3_s);
pub(crate) static IQ1_S: Codec = decoder(ggml::IQ1_S, Importance::Required, reference::decode_iq1_s);
pub(crate) static IQ1_M: Codec = decoder(ggml::IQ1_M, Importance::Optional, reference::decode_iq1_m);

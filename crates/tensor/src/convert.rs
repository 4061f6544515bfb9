//! Plain elements to and from `f32`, with the rounding that numpy, torch and ggml agree on.
//!
//! All readers and writers go through these two functions; blocks are the kernels' business.

use crate::{DType, fp8};
use half::f16;

/// Decodes little-endian plain elements to `f32`. `src` holds exactly `out.len()` elements.
///
/// Integers and `f64` are rounded to nearest even; the exact value is not representable beyond 2^24.
/// Complex, 4-bit and 6-bit types have no single `f32` each in this layout and return `false`
/// with `out` untouched.
///
/// # Panics
/// When `src` is not exactly as long as `out` demands (a caller's bug, never a file's doing).
#[must_use]
pub fn decode_plain(dtype: DType, src: &[u8], out: &mut [f32]) -> bool {
    if matches!(dtype, DType::C64 | DType::F4 | DType::F6E2M3 | DType::F6E3M2) {
        return false;
    }
    assert_eq!(dtype.bytes(out.len() as u64), Some(src.len() as u64), "length of {dtype} input");
    macro_rules! each {
        ($n:literal, $f:expr) => {{
            let f = $f;
            for (o, b) in out.iter_mut().zip(src.as_chunks::<$n>().0) {
                *o = f(*b);
            }
        }};
    }
    match dtype {
        DType::F32 => each!(4, f32::from_le_bytes),
        DType::F16 => each!(2, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => widen_bf16(src.as_chunks::<2>().0, out),
        DType::F64 => each!(8, |b| f64::from_le_bytes(b) as f32),
        DType::Bool => each!(1, |b: [u8; 1]| f32::from(u8::from(b[0] != 0))),
        DType::U8 => each!(1, |b: [u8; 1]| f32::from(b[0])),
        DType::I8 => each!(1, |b: [u8; 1]| f32::from(b[0] as i8)),
        DType::U16 => each!(2, |b| f32::from(u16::from_le_bytes(b))),
        DType::I16 => each!(2, |b| f32::from(i16::from_le_bytes(b))),
        DType::U32 => each!(4, |b| u32::from_le_bytes(b) as f32),
        DType::I32 => each!(4, |b| i32::from_le_bytes(b) as f32),
        DType::U64 => each!(8, |b| u64::from_le_bytes(b) as f32),
        DType::I64 => each!(8, |b| i64::from_le_bytes(b) as f32),
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz | DType::F8E8M0 => {
            return fp8::decode(dtype, src, out);
        }
        DType::C64 | DType::F4 | DType::F6E2M3 | DType::F6E3M2 => unreachable!(),
    }
    true
}

/// Checkpoints are mostly of this type: every conversion begins here.
#[multiversion::multiversion(targets("x86_64+avx512f+avx512bw", "x86_64+avx2"))]
fn widen_bf16(src: &[[u8; 2]], out: &mut [f32]) {
    for (o, b) in out.iter_mut().zip(src) {
        *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    }
}

/// Encodes `f32` values as little-endian F32, F16, BF16, F64 or an 8-bit float; `false` for any other type.
///
/// F16 rounds to nearest even and overflows to infinity (numpy's `astype`); BF16 rounds to nearest even on
/// the bit pattern and quiets NaN by setting the top mantissa bit (`ggml_compute_fp32_to_bf16`).
///
/// 8-bit floats are what torch 2.15's casts make: nearest even. Beyond the largest number, infinity included, E4M3 becomes
/// that number (older versions of torch made NaN of it), E5M2 infinity, the FNUZ forms NaN. E8M0 drops the sign.
///
/// # Panics
/// When `out` is not exactly as long as `src` demands.
#[must_use]
pub fn encode_plain(dtype: DType, src: &[f32], out: &mut [u8]) -> bool {
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64) {
        return encode_fp8(dtype, src, out, false);
    }
    assert_eq!(dtype.bytes(src.len() as u64), Some(out.len() as u64), "length of {dtype} output");
    match dtype {
        DType::F32 => {
            for (o, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(src) {
                *o = x.to_le_bytes();
            }
        }
        DType::F64 => {
            for (o, x) in out.as_chunks_mut::<8>().0.iter_mut().zip(src) {
                *o = f64::from(*x).to_le_bytes();
            }
        }
        DType::F16 => {
            for (o, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(src) {
                *o = f16::from_f32(*x).to_le_bytes();
            }
        }
        _ => {
            for (o, x) in out.as_chunks_mut::<2>().0.iter_mut().zip(src) {
                *o = bf16_bits(*x).to_le_bytes();
            }
        }
    }
    true
}

/// Encodes `f32` values as 8-bit floats to nearest even; what lies beyond the largest number, infinity included, becomes
/// that number. NaN stays NaN. `false` for any type but the five 8-bit floats.
///
/// # Panics
/// When `out` is not exactly as long as `src`.
#[must_use]
pub fn encode_saturating(dtype: DType, src: &[f32], out: &mut [u8]) -> bool {
    encode_fp8(dtype, src, out, true)
}

fn encode_fp8(dtype: DType, src: &[f32], out: &mut [u8], saturate: bool) -> bool {
    assert!(dtype.bits() != 8 || src.len() == out.len(), "length of {dtype} output");
    fp8::encode(dtype, src, out, saturate)
}

#[inline]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return ((bits >> 16) | 64) as u16;
    }
    ((bits + (0x7fff + ((bits >> 16) & 1))) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn every_half_survives_the_round_trip() {
        for bits in 0..=u16::MAX {
            for dtype in [DType::F16, DType::BF16] {
                let (mut x, mut back) = ([0f32], [0u8; 2]);
                assert!(decode_plain(dtype, &bits.to_le_bytes(), &mut x));
                assert!(encode_plain(dtype, &x, &mut back));
                if x[0].is_nan() {
                    continue;
                }
                assert_eq!(u16::from_le_bytes(back), bits, "{dtype}");
            }
        }
    }

    #[test]
    fn bf16_rounds_as_the_half_crate_does() {
        for i in 0..2_000_000u32 {
            let x = f32::from_bits(i.wrapping_mul(2147)); // spread over all exponents
            if !x.is_nan() {
                assert_eq!(bf16_bits(x), bf16::from_f32(x).to_bits());
            }
        }
    }
}

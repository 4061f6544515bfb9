//! Plain elements to and from `f32`, with the rounding that numpy, torch and ggml agree on.
//!
//! All readers and writers go through these two functions; blocks are the kernels' business.

use crate::DType;
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
        DType::BF16 => each!(2, |b: [u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
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
        DType::F8E4M3 => each!(1, |b: [u8; 1]| small_float(b[0], 4, 3, 7, Specials::MaxIsNan)),
        DType::F8E5M2 => each!(1, |b: [u8; 1]| small_float(b[0], 5, 2, 15, Specials::Ieee)),
        DType::F8E4M3Fnuz => each!(1, |b: [u8; 1]| small_float(b[0], 4, 3, 8, Specials::NegZeroIsNan)),
        DType::F8E5M2Fnuz => each!(1, |b: [u8; 1]| small_float(b[0], 5, 2, 16, Specials::NegZeroIsNan)),
        DType::F8E8M0 => each!(1, |b: [u8; 1]| if b[0] == 255 {
            f32::NAN
        } else {
            // 2^(e-127); e = 0 is the subnormal 2^-127.
            f32::from_bits(if b[0] == 0 { 0x0040_0000 } else { u32::from(b[0]) << 23 })
        }),
        DType::C64 | DType::F4 | DType::F6E2M3 | DType::F6E3M2 => unreachable!(),
    }
    true
}

#[derive(Clone, Copy)]
enum Specials {
    /// Exponent all ones is infinity or NaN.
    Ieee,
    /// Only exponent and mantissa all ones is NaN; no infinity (OCP E4M3).
    MaxIsNan,
    /// Only 0x80 is NaN; no infinity, no negative zero.
    NegZeroIsNan,
}

fn small_float(byte: u8, exp_bits: u32, man_bits: u32, bias: i32, specials: Specials) -> f32 {
    let man_mask = (1u8 << man_bits) - 1;
    let exp_mask = (1u8 << exp_bits) - 1;
    let sign = if byte & 0x80 != 0 { -1.0f32 } else { 1.0 };
    let man = byte & man_mask;
    let exp = (byte >> man_bits) & exp_mask;
    match specials {
        Specials::NegZeroIsNan if byte == 0x80 => return f32::NAN,
        Specials::MaxIsNan if exp == exp_mask && man == man_mask => return f32::NAN,
        Specials::Ieee if exp == exp_mask => {
            return if man == 0 { sign * f32::INFINITY } else { f32::NAN };
        }
        _ => {}
    }
    let scale = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    if exp == 0 {
        sign * f32::from(man) * scale(1 - bias - man_bits as i32)
    } else {
        sign * f32::from(man | (1 << man_bits)) * scale(i32::from(exp) - bias - man_bits as i32)
    }
}

/// Encodes `f32` values as little-endian F32, F16, BF16 or F64; `false` for any other type.
///
/// F16 rounds to nearest even and overflows to infinity (numpy's `astype`); BF16 rounds to nearest even on
/// the bit pattern and quiets NaN by setting the top mantissa bit (`ggml_compute_fp32_to_bf16`).
///
/// # Panics
/// When `out` is not exactly as long as `src` demands.
#[must_use]
pub fn encode_plain(dtype: DType, src: &[f32], out: &mut [u8]) -> bool {
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64) {
        return false;
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

    #[test]
    fn small_floats_hit_their_landmarks() {
        let one = |d, b: u8| {
            let mut o = [0f32];
            assert!(decode_plain(d, &[b], &mut o));
            o[0]
        };
        assert_eq!(one(DType::F8E4M3, 0x7e), 448.0);
        assert!(one(DType::F8E4M3, 0x7f).is_nan());
        assert_eq!(one(DType::F8E4M3, 0x01), 2f32.powi(-9));
        assert_eq!(one(DType::F8E5M2, 0x7b), 57344.0);
        assert_eq!(one(DType::F8E5M2, 0xfc), f32::NEG_INFINITY);
        assert_eq!(one(DType::F8E4M3Fnuz, 0x7f), 240.0);
        assert!(one(DType::F8E4M3Fnuz, 0x80).is_nan());
        assert_eq!(one(DType::F8E5M2Fnuz, 0x7f), 57344.0);
        assert_eq!(one(DType::F8E8M0, 127), 1.0);
        assert_eq!(one(DType::F8E8M0, 0), 2f32.powi(-127));
    }
}

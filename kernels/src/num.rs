//! Scalar arithmetic as ggml's C code does it on x86-64: conversions, roundings and selections whose edge
//! cases decide bytes. Knows no format.

/// What the sign of a NaN has to change by to be the one that x86-64 would have made. Weights are finite, so a NaN in
/// an encoder comes from an invalid operation (infinity times zero), whose result x86-64 gives a set sign, and other
/// machines a clear one. What follows, negation included, treats both alike.
pub(crate) const NAN_SIGN: u16 = if cfg!(target_arch = "x86_64") { 0 } else { 0x8000 };

/// Binary32 to binary16, nearest even, overflow to infinity, NaN to the quiet NaN 0x7e00 with the sign that it has on
/// x86-64 (`ggml_compute_fp32_to_fp16`).
#[inline]
pub(crate) fn f16_bits(x: f32) -> u16 {
    const HALF: u32 = 0x3f00_0000;
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let rounded = if magnitude > 0x7f80_0000 {
        0x7e00 ^ u32::from(NAN_SIGN)
    } else if magnitude >= 0x477f_f000 {
        0x7c00 // 65520 and above: the midpoint to the next power of two rounds to infinity
    } else if magnitude < 0x3880_0000 {
        // Below 2^-14. The last place of numbers in [0.5, 1) is 2^-24, binary16's smallest step, so one
        // addition rounds to nearest even.
        (f32::from_bits(magnitude) + 0.5).to_bits() - HALF
    } else {
        let odd = (magnitude >> 13) & 1;
        (magnitude - (112 << 23) + 0x0fff + odd) >> 13
    };
    sign ^ rounded as u16
}

/// Binary16 to binary32; exact.
#[inline]
pub(crate) fn f16_value(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let mantissa = u32::from(bits) & 0x3ff;
    let magnitude = match exponent {
        0 => (mantissa as f32 * f32::from_bits((127 - 24) << 23)).to_bits(),
        31 => 0x7f80_0000 | (mantissa << 13),
        _ => ((exponent + 112) << 23) | (mantissa << 13),
    };
    f32::from_bits(sign | magnitude)
}

/// The little-endian binary16 at the start of `bytes`.
#[inline]
pub(crate) fn read_f16(bytes: &[u8]) -> f32 {
    f16_value(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Writes a little-endian binary16 to the start of `bytes`.
#[inline]
pub(crate) fn write_f16(bytes: &mut [u8], bits: u16) {
    bytes[..2].copy_from_slice(&bits.to_le_bytes());
}

/// Nearest integer, ties to even, for |x| up to 2^22; outside, and for infinities, low bits of the sum's
/// pattern, which ggml lets through and so must we (`nearest_int`).
#[inline]
pub(crate) fn nearest_int(x: f32) -> i32 {
    // Adding 1.5 * 2^23 leaves the integer in the low 23 bits of the pattern.
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x007f_ffff) as i32 - 0x0040_0000
}

/// C's cast of a float to `int` as x86-64 executes it: towards zero, and `INT_MIN` for NaN and whatever does
/// not fit. Rust's `as` saturates instead, which differs once the result is cut to eight bits.
#[inline]
pub(crate) fn truncate(x: f32) -> i32 {
    if x.abs() < 2_147_483_648.0 { x as i32 } else { i32::MIN }
}

/// `(int) roundf(x)`: ties away from zero. Exact for |x| < 2^22; otherwise as [`truncate`].
#[inline]
pub(crate) fn round_away(x: f32) -> i32 {
    // The largest float below one half: one half itself would carry 0.49999997 up to one.
    const BELOW_HALF: f32 = 0.499_999_97;
    truncate(x + BELOW_HALF.copysign(x))
}

/// C's `MAX(a, b)`: the *second* operand when the comparison is false, so also when one is NaN.
#[inline]
pub(crate) fn c_max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `1 / x`, or zero for zero, which turns an all-zero block into zero levels.
#[inline]
pub(crate) fn reciprocal_or_zero(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The value of largest magnitude with its sign, and that magnitude; the first one on a tie.
#[inline]
pub(crate) fn signed_max(x: &[f32]) -> (f32, f32) {
    let (mut max, mut amax) = (0.0, 0.0);
    for &v in x {
        if v.abs() > amax {
            amax = v.abs();
            max = v;
        }
    }
    (max, amax)
}

/// Sum of squares, first to last.
#[inline]
pub(crate) fn sum_of_squares(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, &v| sum + v * v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_and_halfway_points_go_to_even() {
        for bits in 0..=u16::MAX {
            let x = f16_value(bits);
            if x.is_nan() {
                assert_eq!(f16_bits(x), 0x7e00 | ((bits & 0x8000) ^ NAN_SIGN));
                continue;
            }
            assert_eq!(f16_bits(x), bits);
            let next = f16_value(bits.wrapping_add(1));
            if next.is_finite() && (bits & 0x7fff) < 0x7bff {
                let middle = x + (next - x) / 2.0;
                assert_eq!(f16_bits(middle) & 1, 0, "tie above {bits:#06x}");
                let above = f32::from_bits(middle.to_bits() + 1);
                assert_eq!(f16_bits(above), bits + 1);
                let below = f32::from_bits(middle.to_bits() - 1);
                assert_eq!(f16_bits(below), bits);
            }
        }
        assert_eq!(f16_bits(65519.996), 0x7bff);
        assert_eq!(f16_bits(65520.0), 0x7c00);
        assert_eq!(f16_bits(f32::MAX), 0x7c00);
    }

    #[test]
    fn roundings_at_their_edges() {
        assert_eq!([0.5, 1.5, 2.5, -0.5, -1.5].map(nearest_int), [0, 2, 2, 0, -2]);
        assert_eq!([0.5, 1.5, -0.5, 0.499_999_97, -2.5].map(round_away), [1, 2, -1, 0, -3]);
        assert_eq!([f32::NAN, f32::INFINITY, -1e20].map(nearest_int)[0], 0);
        assert_eq!([f32::NAN, f32::INFINITY, 3e9].map(truncate), [i32::MIN; 3]);
        assert_eq!([2.9, -2.9].map(truncate), [2, -2]);
    }

    #[test]
    fn rounding_away_equals_roundf_where_it_must() {
        for i in 0..2_000_000u32 {
            let x = (i as f32 - 1_000_000.0) * 0.000_977 * 0.5;
            assert_eq!(round_away(x), x.round() as i32, "{x}");
        }
    }
}

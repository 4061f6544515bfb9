//! The functions of [`crate::num`] over lanes, operation by operation.

use super::{MAX_LANES, Simd};
use crate::num::NAN_SIGN;

/// [`crate::num::nearest_int`].
#[inline(always)]
pub(crate) fn nearest_int<V: Simd>(v: V, x: V::F) -> V::I {
    let bits = v.bits(x + v.splat(12_582_912.0));
    (bits & v.splat_i(0x007f_ffff)) - v.splat_i(0x0040_0000)
}

/// `nearest_int(x)` clamped to `low..=high`, as a float. Wants |x| < 2^22; outside, the reference lets bits of
/// the sum through and this does not.
#[inline(always)]
pub(crate) fn clamped_level<V: Simd>(v: V, x: V::F, low: V::F, high: V::F) -> V::F {
    // A rounded -0 must become 0: the maximum gives its second operand when both are zero.
    v.max(v.min(v.round(x), high), low)
}

/// The same for every x.
#[inline(always)]
pub(crate) fn exact_level<V: Simd>(v: V, x: V::F, low: i32, high: i32) -> V::I {
    v.max_i(v.min_i(nearest_int(v, x), v.splat_i(high)), v.splat_i(low))
}

/// [`crate::num::f16_bits`].
#[inline(always)]
pub(crate) fn f16_bits<V: Simd>(v: V, x: V::F) -> V::I {
    let bits = v.bits(x);
    let magnitude = bits & v.splat_i(0x7fff_ffff);
    let sign = v.shr(bits, 16) & v.splat_i(0x8000);
    let odd = v.shr(magnitude, 13) & v.splat_i(1);
    let normal = v.shr(magnitude - v.splat_i((112 << 23) - 0x0fff) + odd, 13);
    let subnormal = v.bits(v.float(magnitude) + v.splat(0.5)) - v.splat_i(0x3f00_0000);
    let rounded = v.select_i(v.lt_i(magnitude, v.splat_i(0x3880_0000)), subnormal, normal);
    let rounded = v.select_i(v.lt_i(magnitude, v.splat_i(0x477f_f000)), rounded, v.splat_i(0x7c00));
    // One bit: the sum is the exclusive or.
    let nan_sign = (sign + v.splat_i(i32::from(NAN_SIGN))) & v.splat_i(0x8000);
    let nan = nan_sign | v.splat_i(0x7e00);
    v.select_i(v.lt_i(v.splat_i(0x7f80_0000), magnitude), nan, sign | rounded)
}

/// [`crate::num::f16_value`].
#[inline(always)]
pub(crate) fn f16_value<V: Simd>(v: V, bits: V::I) -> V::F {
    let sign = v.shl(bits & v.splat_i(0x8000), 16);
    let magnitude = bits & v.splat_i(0x7fff);
    let moved = v.shl(magnitude, 13);
    let normal = moved + v.splat_i(112 << 23);
    let special = moved | v.splat_i(0x7f80_0000);
    let subnormal = v.bits(v.to_f(magnitude) * v.splat(f32::from_bits((127 - 24) << 23)));
    let value = v.select_i(v.lt_i(magnitude, v.splat_i(0x400)), subnormal, normal);
    v.float(sign | v.select_i(v.lt_i(magnitude, v.splat_i(0x7c00)), value, special))
}

/// [`crate::num::reciprocal_or_zero`].
#[inline(always)]
pub(crate) fn reciprocal_or_zero<V: Simd>(v: V, x: V::F) -> V::F {
    v.select(v.eq(x, v.splat(0.0)), v.splat(0.0), v.splat(1.0) / x)
}

/// [`crate::num::signed_max`].
#[inline(always)]
pub(crate) fn signed_max<V: Simd>(v: V, x: &[V::F]) -> (V::F, V::F) {
    let (mut max, mut amax) = (v.splat(0.0), v.splat(0.0));
    for &value in x {
        let magnitude = v.abs(value);
        let more = v.lt(amax, magnitude);
        amax = v.max(magnitude, amax);
        max = v.select(more, value, max);
    }
    (max, amax)
}

/// [`crate::num::sum_of_squares`].
#[inline(always)]
pub(crate) fn sum_of_squares<V: Simd>(v: V, x: &[V::F]) -> V::F {
    let mut sum = v.splat(0.0);
    for &value in x {
        sum = sum + value * value;
    }
    sum
}

/// [`crate::num::round_away`].
#[inline(always)]
pub(crate) fn round_away<V: Simd>(v: V, x: V::F) -> V::I {
    let below_half = v.bits(v.splat(0.499_999_97));
    let signed = v.float(below_half | (v.bits(x) & v.splat_i(i32::MIN)));
    v.trunc(x + signed)
}

/// An integer cut to eight bits, with its sign.
#[inline(always)]
pub(crate) fn as_i8<V: Simd>(v: V, x: V::I) -> V::I {
    (x & v.splat_i(127)) - (x & v.splat_i(128))
}

/// `first`, shifted left by `step` more from each lane to the next.
#[inline(always)]
pub(crate) fn lane_bits<V: Simd>(v: V, first: u32, step: u32) -> V::I {
    let mut bits = [0.0; MAX_LANES];
    for l in 0..V::N {
        bits[l] = f32::from_bits(first << (step * l as u32));
    }
    v.bits(v.load(&bits))
}

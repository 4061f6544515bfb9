//! Weights to codes and back, vectors running along the group.
//!
//! Stretches that are no multiple of the lanes end in a vector that overlaps the one before: minima, codes and values do
//! not mind being made twice.

use super::reference;
use super::rounding::{BF16, F16, F32, Float, round, weight};
use super::rules::{Coding, Style};
use crate::lanes::{Scan, Simd, round_away};

/// What an encoder does with the weights of a group.
pub(super) trait Weights {
    /// The least and the largest.
    fn range(&self, x: &[f32]) -> (f32, f32);
    /// As the library sees them.
    fn weights(&self, float: Float, x: &[f32], out: &mut [f32]);
    /// Their codes.
    fn codes(&self, style: Style, coding: &Coding, x: &[f32], out: &mut [u8]);
}

/// One by one.
pub(super) struct Reference;

impl Weights for Reference {
    fn range(&self, x: &[f32]) -> (f32, f32) {
        reference::range(x)
    }
    fn weights(&self, float: Float, x: &[f32], out: &mut [f32]) {
        reference::weights(float, x, out);
    }
    fn codes(&self, style: Style, coding: &Coding, x: &[f32], out: &mut [u8]) {
        reference::codes(style, coding, x, out);
    }
}

/// Over lanes.
pub(super) struct Lanes<V>(pub(super) V);

impl<V: Scan> Weights for Lanes<V> {
    #[inline(always)]
    fn range(&self, x: &[f32]) -> (f32, f32) {
        let v = self.0;
        if x.len() < V::N {
            return reference::range(x);
        }
        let (mut low, mut high) = ([v.load_from(x); 2], [v.load_from(x); 2]);
        let mut i = 0;
        while i + 2 * V::N <= x.len() {
            for k in 0..2 {
                let x = v.load_from(&x[i + k * V::N..]);
                low[k] = v.min(x, low[k]);
                high[k] = v.max(x, high[k]);
            }
            i += 2 * V::N;
        }
        if i < x.len() {
            let (near, last) = (v.load_from(&x[i.min(x.len() - V::N)..]), v.load_from(&x[x.len() - V::N..]));
            low = [v.min(near, low[0]), v.min(last, low[1])];
            high = [v.max(near, high[0]), v.max(last, high[1])];
        }
        let low = v.least(v.min(low[0], low[1]));
        let high = v.least(v.neg(v.max(high[0], high[1])));
        (v.store(low)[0], -v.store(high)[0])
    }

    #[inline(always)]
    fn weights(&self, float: Float, x: &[f32], out: &mut [f32]) {
        match float {
            Float::F16 => weights::<V, F16>(self.0, float, x, out),
            _ => weights::<V, BF16>(self.0, float, x, out),
        }
    }

    #[inline(always)]
    fn codes(&self, style: Style, coding: &Coding, x: &[f32], out: &mut [u8]) {
        let v = self.0;
        match (style.divide, style.away, style.arithmetic) {
            (true, _, Float::F32) => codes::<V, true, false, F32>(v, coding, x, out),
            (true, _, Float::F16) => codes::<V, true, false, F16>(v, coding, x, out),
            (true, _, Float::BF16) => match inverse_for_bf16(coding.by) {
                Some(by) => codes::<V, false, false, BF16>(v, &Coding { by, ..*coding }, x, out),
                None => codes::<V, true, false, BF16>(v, coding, x, out),
            },
            (false, false, _) => codes::<V, false, false, F32>(v, coding, x, out),
            (false, true, _) => codes::<V, false, true, F32>(v, coding, x, out),
        }
    }
}

#[inline(always)]
fn weights<V: Simd, const T: u8>(v: V, float: Float, x: &[f32], out: &mut [f32]) {
    let whole = x.len() / V::N * V::N;
    let mut i = 0;
    while i < whole {
        v.store_to(weight::<V, T>(v, v.load_from(&x[i..])), &mut out[i..]);
        i += V::N;
    }
    reference::weights(float, &x[whole..], &mut out[whole..]);
}

/// A number by which to multiply bfloat16 weights instead of dividing them by a bfloat16 `by`, where the quotients are
/// then rounded to bfloat16: the results are the same.
///
/// A quotient of significands of 8 bits is never halfway between two numbers of 8 bits: that would be an odd number of 9 bits, whose
/// product with `by` no weight of 8 bits is. So in units of the last place of that product, which has at most 17 bits, it is
/// away from halfway by one at least, 2^-17 of itself; two roundings of binary32 move it by 2^-23. Neither `by` nor its inverse may
/// be near the ends of the exponents.
#[inline(always)]
fn inverse_for_bf16(by: f32) -> Option<f32> {
    (by.to_bits().trailing_zeros() >= 16 && (1e-30..1e30).contains(&by.abs())).then(|| 1.0 / by)
}

/// Weights whose codes are made at once.
const STRETCH: usize = 32;

#[inline(always)]
fn codes<V: Simd, const DIVIDE: bool, const AWAY: bool, const T: u8>(
    v: V,
    coding: &Coding,
    x: &[f32],
    out: &mut [u8],
) {
    if T != F32 && coding.minus == 0.0 && coding.plus == 0.0 {
        stretches::<V, DIVIDE, AWAY, false, T>(v, coding, x, out);
    } else {
        stretches::<V, DIVIDE, AWAY, true, T>(v, coding, x, out);
    }
}

/// Without `SHIFTED`, neither `minus` nor `plus` is anything, and weights are of the type `T`.
#[inline(always)]
fn stretches<V: Simd, const DIVIDE: bool, const AWAY: bool, const SHIFTED: bool, const T: u8>(
    v: V,
    coding: &Coding,
    x: &[f32],
    out: &mut [u8],
) {
    if x.len() < STRETCH {
        let mut padded = [0.0; STRETCH];
        padded[..x.len()].copy_from_slice(x);
        out.copy_from_slice(&stretch::<V, DIVIDE, AWAY, SHIFTED, T>(v, coding, &padded)[..x.len()]);
        return;
    }
    let (whole, rest) = x.as_chunks::<STRETCH>();
    for (x, out) in whole.iter().zip(out.as_chunks_mut::<STRETCH>().0) {
        *out = stretch::<V, DIVIDE, AWAY, SHIFTED, T>(v, coding, x);
    }
    if let (false, Some(last), Some(out)) = (rest.is_empty(), x.last_chunk(), out.last_chunk_mut()) {
        *out = stretch::<V, DIVIDE, AWAY, SHIFTED, T>(v, coding, last);
    }
}

#[inline(always)]
fn stretch<V: Simd, const DIVIDE: bool, const AWAY: bool, const SHIFTED: bool, const T: u8>(
    v: V,
    coding: &Coding,
    x: &[f32; STRETCH],
) -> [u8; STRETCH] {
    let (minus, by, plus) = (v.splat(coding.minus), v.splat(coding.by), v.splat(coding.plus));
    let (low, high, base) = (v.splat(coding.low), v.splat(coding.high), v.splat(coding.base));
    let mut levels = [v.splat_i(0); STRETCH];
    let mut i = 0;
    while i < STRETCH {
        let x = v.load_from(&x[i..]);
        let x = if SHIFTED { round::<V, T>(v, x - minus) } else { x };
        let level = round::<V, T>(v, if DIVIDE { x / by } else { x * by });
        let level = if SHIFTED { round::<V, T>(v, level + plus) } else { level };
        // In this order what is no number becomes the lowest code, as it does where it is cast.
        let level = v.min(v.max(level, low), high);
        // What ties away from zero is never negative, and its base is zero.
        levels[i / V::N] = if AWAY { round_away(v, level) } else { v.trunc(v.round(level) + base) };
        i += V::N;
    }
    v.to_bytes(&levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_quotients_by_the_inverse() {
        let exponents = [-60, -9, 0, 7, 60];
        for (x, by) in (128..256).flat_map(|x| (128..256).map(move |by| (x as f32, by as f32))) {
            for by in exponents.map(|e| by * 2f32.powi(e)) {
                let inverse = inverse_for_bf16(by).expect("an ordinary number");
                assert_eq!(Float::BF16.round(x * inverse), Float::BF16.round(x / by), "{x} / {by}");
            }
        }
        for by in [0.1, 0.0, f32::MIN_POSITIVE, f32::INFINITY, f32::from_bits(0x7f7f_0000)] {
            assert_eq!(inverse_for_bf16(by), None, "{by}");
        }
    }
}

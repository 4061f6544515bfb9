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
            (true, _, Float::BF16) => codes::<V, true, false, BF16>(v, coding, x, out),
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

/// Weights whose codes are made at once.
const STRETCH: usize = 32;

#[inline(always)]
fn codes<V: Simd, const DIVIDE: bool, const AWAY: bool, const T: u8>(
    v: V,
    coding: &Coding,
    x: &[f32],
    out: &mut [u8],
) {
    if x.len() < STRETCH {
        let mut padded = [0.0; STRETCH];
        padded[..x.len()].copy_from_slice(x);
        out.copy_from_slice(&stretch::<V, DIVIDE, AWAY, T>(v, coding, &padded)[..x.len()]);
        return;
    }
    let (whole, rest) = x.as_chunks::<STRETCH>();
    for (x, out) in whole.iter().zip(out.as_chunks_mut::<STRETCH>().0) {
        *out = stretch::<V, DIVIDE, AWAY, T>(v, coding, x);
    }
    if let (false, Some(last), Some(out)) = (rest.is_empty(), x.last_chunk(), out.last_chunk_mut()) {
        *out = stretch::<V, DIVIDE, AWAY, T>(v, coding, last);
    }
}

#[inline(always)]
fn stretch<V: Simd, const DIVIDE: bool, const AWAY: bool, const T: u8>(
    v: V,
    coding: &Coding,
    x: &[f32; STRETCH],
) -> [u8; STRETCH] {
    let (minus, by, plus) = (v.splat(coding.minus), v.splat(coding.by), v.splat(coding.plus));
    let (low, high, base) = (v.splat(coding.low), v.splat(coding.high), v.splat(coding.base));
    let mut levels = [v.splat_i(0); STRETCH];
    let mut i = 0;
    while i < STRETCH {
        let x = round::<V, T>(v, v.load_from(&x[i..]) - minus);
        let level = round::<V, T>(v, if DIVIDE { x / by } else { x * by });
        let level = v.max(v.min(round::<V, T>(v, level + plus), high), low);
        // What ties away from zero is never negative, and its base is zero.
        levels[i / V::N] = if AWAY { round_away(v, level) } else { v.trunc(v.round(level) + base) };
        i += V::N;
    }
    v.to_bytes(&levels)
}

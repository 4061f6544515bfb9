//! One group on its own: rounding under a fan of scales, and least squares after each. Knows no format.

use super::levels::{Group, Levels};
use crate::lanes::Simd;

/// Trials that go side by side.
pub(super) const SIDE: usize = 4;

/// Scale and offset of a group when they need not be rounded.
#[derive(Clone, Copy)]
pub(super) struct Free<V: Simd> {
    pub(super) scale: V::F,
    pub(super) offset: V::F,
    /// The mean level, weighted as errors are: where the scale changes, the best offset keeps it where it was.
    pub(super) mean: V::F,
}

/// The least and the largest weight, and zero.
#[inline(always)]
fn extent<V: Simd, const N: usize, const FREE: bool>(v: V, x: &[V::F; N]) -> (V::F, V::F) {
    let start = if FREE { x[0] } else { v.splat(0.0) };
    let (mut min, mut max) = (start, start);
    for &x in x {
        min = v.min(x, min);
        max = v.max(x, max);
    }
    (min, max)
}

/// What the entries of a fan divide to give scales: the extent of the weights, or without `OFFSET` the weight of
/// largest magnitude; and the middle of the extent.
#[inline(always)]
pub(super) fn span<V: Simd, const N: usize, const OFFSET: bool, const FREE: bool>(
    v: V,
    x: &[V::F; N],
) -> (V::F, V::F) {
    let (min, max) = extent::<V, N, FREE>(v, x);
    if OFFSET {
        return (max - min, v.splat(0.5) * (min + max));
    }
    (v.select(v.lt(v.neg(min), max), max, min), v.splat(0.0))
}

/// The best of every [`SIDE`]th entry of a fan.
#[derive(Clone, Copy)]
pub(super) struct Fits<V: Simd> {
    pub(super) free: [Free<V>; SIDE],
    /// Errors, less that of a scale and offset of zero.
    errors: [V::F; SIDE],
}

/// Scales and offsets that fit a group on its own. `fan` has the levels that the span is put on, a multiple of
/// [`SIDE`]; `middle` is the middle level. Unless `FREE`, offsets are not above zero.
#[inline(always)]
pub(super) fn fit_alone<V, L, const N: usize, const W: bool, const OFFSET: bool, const FREE: bool>(
    v: V,
    levels: L,
    group: Group<'_, V, N, W>,
    fan: &[f32],
    middle: f32,
) -> Fits<V>
where
    V: Simd,
    L: Levels<V>,
{
    let zero = v.splat(0.0);
    let own = group.own(v);
    let (span, centre) = span::<V, N, OFFSET, FREE>(v, group.x);
    let none = Free { scale: zero, offset: zero, mean: zero };
    let mut best = Fits { free: [none; SIDE], errors: [v.splat(f32::INFINITY); SIDE] };
    for tops in fan.as_chunks::<SIDE>().0 {
        let (mut scale, mut offset) = ([zero; SIDE], [zero; SIDE]);
        for k in 0..SIDE {
            scale[k] = span * v.splat(1.0 / tops[k]);
            if OFFSET {
                offset[k] = centre - scale[k] * v.splat(middle);
                if !FREE {
                    offset[k] = v.min(offset[k], zero);
                }
            }
        }
        let sums = group.moments::<L, SIDE, OFFSET>(v, levels, &scale, &offset);
        for k in 0..SIDE {
            let fit = sums[k].fit::<OFFSET, FREE>(v, own);
            let better = v.lt(fit.error, best.errors[k]);
            best.errors[k] = v.select(better, fit.error, best.errors[k]);
            let free = &mut best.free[k];
            free.scale = v.select(better, fit.scale, free.scale);
            if OFFSET {
                free.offset = v.select(better, fit.offset, free.offset);
                free.mean = v.select(better, sums[k].q / own.w, free.mean);
            }
        }
    }
    best
}

impl<V: Simd> Fits<V> {
    /// The one of least error.
    #[inline(always)]
    pub(super) fn best(&self, v: V) -> Free<V> {
        let (mut best, mut least) = (self.free[0], self.errors[0]);
        for k in 1..SIDE {
            let (free, better) = (self.free[k], v.lt(self.errors[k], least));
            least = v.select(better, self.errors[k], least);
            best.scale = v.select(better, free.scale, best.scale);
            best.offset = v.select(better, free.offset, best.offset);
            best.mean = v.select(better, free.mean, best.mean);
        }
        best
    }
}

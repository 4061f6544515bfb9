//! [`super::super::fit_affine`] over lanes.

use crate::lanes::{Simd, clamped_level, exact_level};
use crate::search::Candidates;

/// What the search of one group found.
#[derive(Clone, Copy)]
pub(crate) struct AffineFit<V: Simd> {
    pub(crate) scale: V::F,
    pub(crate) offset: V::F,
    /// The levels of the search are `inverse * (x - base)`, rounded and clamped.
    pub(crate) inverse: V::F,
    pub(crate) base: V::F,
}

impl<V: Simd> AffineFit<V> {
    /// The level that the search gave to `x`.
    #[inline(always)]
    pub(crate) fn level(&self, v: V, x: V::F, max_level: i32) -> V::I {
        exact_level(v, self.inverse * (x - self.base), 0, max_level)
    }
}

/// Fits `U` groups of `N` weights. With `ABSOLUTE` the penalty is the magnitude of an error, else its square.
#[inline(always)]
pub(crate) fn fit_affine<V: Simd, const N: usize, const U: usize, const ABSOLUTE: bool>(
    v: V,
    x: &[[V::F; N]; U],
    weights: &[[V::F; N]; U],
    max_level: i32,
    candidates: Candidates,
) -> [AffineFit<V>; U] {
    let (fits, in_range) = search::<V, N, U, ABSOLUTE, false>(v, x, weights, max_level, candidates);
    if in_range {
        return fits;
    }
    search::<V, N, U, ABSOLUTE, true>(v, x, weights, max_level, candidates).0
}

/// Level of `t`: by float rounding, or by the reference's integer sequence.
#[inline(always)]
fn level<V: Simd, const EXACT: bool>(v: V, t: V::F, max_level: i32) -> V::F {
    if EXACT {
        v.to_f(exact_level(v, t, 0, max_level))
    } else {
        clamped_level(v, t, v.splat(0.0), v.splat(max_level as f32))
    }
}

/// Sum of the penalties.
#[inline(always)]
fn errors<V: Simd, const N: usize, const U: usize, const ABSOLUTE: bool>(
    v: V,
    x: &[[V::F; N]; U],
    weights: &[[V::F; N]; U],
    levels: &[[V::F; U]; N],
    scale: &[V::F; U],
    min: &[V::F; U],
) -> [V::F; U] {
    let mut sum = [v.splat(0.0); U];
    for i in 0..N {
        for u in 0..U {
            let diff = scale[u] * levels[i][u] + min[u] - x[u][i];
            let penalty = if ABSOLUTE { v.abs(diff) } else { diff * diff };
            sum[u] = sum[u] + weights[u][i] * penalty;
        }
    }
    sum
}

/// The search, and whether no scaled value left the range in which float rounding equals `nearest_int`.
///
/// A scaled value is a monotone function of x, rounding included, so that the least and the largest x bound all.
#[inline(always)]
fn search<V: Simd, const N: usize, const U: usize, const ABSOLUTE: bool, const EXACT: bool>(
    v: V,
    x: &[[V::F; N]; U],
    weights: &[[V::F; N]; U],
    max_level: i32,
    candidates: Candidates,
) -> ([AffineFit<V>; U], bool) {
    let zero = v.splat(0.0);
    let limit = v.splat(4_000_000.0);
    let top = max_level as f32;
    let (mut lowest, mut max) = ([zero; U], [zero; U]);
    let (mut sum_w, mut sum_x) = ([zero; U], [zero; U]);
    for u in 0..U {
        lowest[u] = x[u][0];
        max[u] = x[u][0];
        sum_w[u] = weights[u][0];
        sum_x[u] = sum_w[u] * x[u][0];
    }
    for i in 1..N {
        for u in 0..U {
            lowest[u] = v.min(x[u][i], lowest[u]);
            max[u] = v.max(x[u][i], max[u]);
            sum_w[u] = sum_w[u] + weights[u][i];
            sum_x[u] = sum_x[u] + weights[u][i] * x[u][i];
        }
    }

    let (mut min, mut inverse, mut base, mut scale) = ([zero; U], [zero; U], [zero; U], [zero; U]);
    let mut flat = [v.lt(zero, zero); U];
    let mut in_range = flat;
    for u in 0..U {
        min[u] = v.min(zero, lowest[u]);
        flat[u] = v.le(max[u], min[u]);
        inverse[u] = v.splat(top) / (max[u] - min[u]);
        base[u] = min[u];
        scale[u] = v.splat(1.0) / inverse[u];
        let far = v.abs(inverse[u] * (max[u] - min[u]));
        in_range[u] = flat[u] | v.le(far, limit);
    }
    let mut levels = [[zero; U]; N];
    for i in 0..N {
        for u in 0..U {
            levels[i][u] = level::<V, EXACT>(v, inverse[u] * (x[u][i] - min[u]), max_level);
        }
    }
    let mut best = errors::<V, N, U, ABSOLUTE>(v, x, weights, &levels, &scale, &min);
    for u in 0..U {
        // Nothing is better than this, so that a flat group keeps its minimum.
        best[u] = v.select(flat[u], v.splat(f32::NEG_INFINITY), best[u]);
    }

    for step in 0..=candidates.last {
        let range = candidates.first + candidates.step * f32::from(step) + top;
        let mut trial = [zero; U];
        for u in 0..U {
            trial[u] = v.splat(range) / (max[u] - min[u]);
            let above = v.abs(trial[u] * (max[u] - min[u]));
            let below = v.abs(trial[u] * (lowest[u] - min[u]));
            in_range[u] = in_range[u] & (flat[u] | (v.le(above, limit) & v.le(below, limit)));
        }
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([zero; U], [zero; U], [zero; U]);
        for i in 0..N {
            for u in 0..U {
                let l = level::<V, EXACT>(v, trial[u] * (x[u][i] - min[u]), max_level);
                levels[i][u] = l;
                let wl = weights[u][i] * l;
                sum_l[u] = sum_l[u] + wl;
                sum_l2[u] = sum_l2[u] + wl * l;
                sum_xl[u] = sum_xl[u] + wl * x[u][i];
            }
        }
        let (mut trial_scale, mut trial_min, mut valid) = ([zero; U], [zero; U], flat);
        for u in 0..U {
            let determinant = sum_w[u] * sum_l2[u] - sum_l[u] * sum_l[u];
            valid[u] = v.lt(zero, determinant);
            let s = (sum_w[u] * sum_xl[u] - sum_x[u] * sum_l[u]) / determinant;
            let m = (sum_l2[u] * sum_x[u] - sum_l[u] * sum_xl[u]) / determinant;
            let positive = v.lt(zero, m);
            trial_min[u] = v.select(positive, zero, m);
            trial_scale[u] = v.select(positive, sum_xl[u] / sum_l2[u], s);
        }
        let error = errors::<V, N, U, ABSOLUTE>(v, x, weights, &levels, &trial_scale, &trial_min);
        for u in 0..U {
            let better = valid[u] & v.lt(error[u], best[u]);
            best[u] = v.select(better, error[u], best[u]);
            scale[u] = v.select(better, trial_scale[u], scale[u]);
            inverse[u] = v.select(better, trial[u], inverse[u]);
            base[u] = v.select(better, min[u], base[u]);
            min[u] = v.select(better, trial_min[u], min[u]);
        }
    }

    let mut fits = [AffineFit { scale: zero, offset: zero, inverse: zero, base: zero }; U];
    let mut all_in_range = true;
    for u in 0..U {
        fits[u] = AffineFit {
            scale: v.select(flat[u], zero, scale[u]),
            offset: v.neg(min[u]),
            inverse: v.select(flat[u], zero, inverse[u]),
            base: v.select(flat[u], zero, base[u]),
        };
        all_in_range &= v.all(in_range[u]);
    }
    (fits, all_in_range)
}

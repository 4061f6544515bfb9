//! [`super::super::fit_symmetric`] over lanes.

use crate::lanes::{Simd, clamped_level, exact_level, signed_max};
use crate::search::ZERO_BELOW;

/// What the search of one group found.
#[derive(Clone, Copy)]
pub(crate) struct SymmetricFit<V: Simd> {
    pub(crate) scale: V::F,
    /// The levels of the search are `half + inverse * x`, rounded and clamped, or all 0 ...
    pub(crate) inverse: V::F,
    /// ... where the group counts as zero.
    pub(crate) nothing: V::M,
}

impl<V: Simd> SymmetricFit<V> {
    /// Nothing found yet.
    #[inline(always)]
    pub(crate) fn none(v: V) -> Self {
        let zero = v.splat(0.0);
        Self { scale: zero, inverse: zero, nothing: v.eq(zero, zero) }
    }

    /// The level that the search gave to `x`, in `0..2 * half`.
    #[inline(always)]
    pub(crate) fn level(&self, v: V, x: V::F, half: i32) -> V::I {
        let level = exact_level(v, self.inverse * x, -half, half - 1) + v.splat_i(half);
        v.select_i(self.nothing, v.splat_i(0), level)
    }
}

/// Fits `U` groups of `N` values. A scaled value stays close to `half` as long as x is finite, so that float
/// rounding serves; `EXACT` is for x that may be infinite or NaN.
#[inline(always)]
pub(crate) fn fit_symmetric<V: Simd, const N: usize, const U: usize, const EXACT: bool>(
    v: V,
    x: &[[V::F; N]; U],
    weights: &[[V::F; N]; U],
    half: i32,
) -> [SymmetricFit<V>; U] {
    let zero = v.splat(0.0);
    let mut fits = [SymmetricFit::none(v); U];
    let (mut max, mut best) = ([zero; U], [zero; U]);
    let mut weighted = [[zero; N]; U];
    for u in 0..U {
        let (signed, amax) = signed_max(v, &x[u]);
        max[u] = signed;
        fits[u].nothing = v.lt(amax, v.splat(ZERO_BELOW));
        fits[u].inverse = v.splat(-half as f32) / signed;
        for i in 0..N {
            weighted[u][i] = weights[u][i] * x[u][i];
        }
    }
    for step in -10..=9i8 {
        if step == 0 {
            continue;
        }
        let mut trial = [zero; U];
        for u in 0..U {
            trial[u] = if step == -10 {
                fits[u].inverse
            } else {
                v.splat(-(half as f32 + 0.1 * f32::from(step))) / max[u]
            };
        }
        let (mut sum_lx, mut sum_l2) = ([zero; U], [zero; U]);
        for i in 0..N {
            for u in 0..U {
                let l = if EXACT {
                    v.to_f(exact_level(v, trial[u] * x[u][i], -half, half - 1))
                } else {
                    let (low, high) = (v.splat(-half as f32), v.splat((half - 1) as f32));
                    clamped_level(v, trial[u] * x[u][i], low, high)
                };
                sum_lx[u] = sum_lx[u] + weighted[u][i] * l;
                sum_l2[u] = sum_l2[u] + weights[u][i] * l * l;
            }
        }
        for u in 0..U {
            let scale = sum_lx[u] / sum_l2[u];
            if step == -10 {
                // The first one, by which the others are measured.
                fits[u].scale = v.select(v.eq(sum_l2[u], zero), zero, scale);
                best[u] = fits[u].scale * sum_lx[u];
            } else {
                let better = v.lt(zero, sum_l2[u]) & v.lt(best[u] * sum_l2[u], sum_lx[u] * sum_lx[u]);
                fits[u].inverse = v.select(better, trial[u], fits[u].inverse);
                fits[u].scale = v.select(better, scale, fits[u].scale);
                best[u] = v.select(better, scale * sum_lx[u], best[u]);
            }
        }
    }
    for fit in &mut fits {
        fit.scale = v.select(fit.nothing, zero, fit.scale);
    }
    fits
}

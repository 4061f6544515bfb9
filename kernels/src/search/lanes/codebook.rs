//! [`super::super::fit_codebook`] over lanes.

use crate::lanes::{Codebook, Simd, signed_max};
use crate::search::ZERO_BELOW;

/// The scales of `U` groups of `N` values; `book` stands for the entries' values, the first of which is `first`.
#[inline(always)]
pub(crate) fn fit_codebook<V: Simd, const N: usize, const U: usize>(
    v: V,
    x: &[[V::F; N]; U],
    weights: &[[V::F; N]; U],
    book: &Codebook,
) -> [V::F; U] {
    let (zero, first) = (v.splat(0.0), book.entries[0]);
    let (mut max, mut best, mut scale) = ([zero; U], [zero; U], [zero; U]);
    let mut nothing = [v.lt(zero, zero); U];
    for u in 0..U {
        let (signed, amax) = signed_max(v, &x[u]);
        max[u] = signed;
        nothing[u] = v.lt(amax, v.splat(ZERO_BELOW));
    }
    for step in -8..=7i8 {
        let mut trial = [zero; U];
        for u in 0..U {
            trial[u] = if step == -8 {
                v.splat(1.0) / (v.neg(max[u]) / v.splat(first))
            } else {
                v.splat(f32::from(step) + first) / max[u]
            };
            // Groups that count as zero would leave the codebook's reach.
            trial[u] = v.select(nothing[u], zero, trial[u]);
        }
        let (mut sum_qx, mut sum_q2) = ([zero; U], [zero; U]);
        for i in 0..N {
            for u in 0..U {
                let q = v.nearest(book, trial[u] * x[u][i]);
                let wq = weights[u][i] * q;
                sum_qx[u] = sum_qx[u] + wq * x[u][i];
                sum_q2[u] = sum_q2[u] + wq * q;
            }
        }
        for u in 0..U {
            let positive = v.lt(zero, sum_q2[u]);
            let fitted = sum_qx[u] / sum_q2[u];
            if step == -8 {
                // The first one, by which the others are measured.
                scale[u] = v.select(positive, fitted, zero);
                best[u] = scale[u] * sum_qx[u];
            } else {
                let better = positive & v.lt(best[u] * sum_q2[u], sum_qx[u] * sum_qx[u]);
                scale[u] = v.select(better, fitted, scale[u]);
                best[u] = v.select(better, fitted * sum_qx[u], best[u]);
            }
        }
    }
    for u in 0..U {
        scale[u] = v.select(nothing[u], zero, scale[u]);
    }
    scale
}

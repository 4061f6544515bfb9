//! [`super::super::fit_by_descent`] over lanes.

use crate::lanes::{Simd, exact_level, signed_max};
use crate::search::ZERO_BELOW;

/// Fits `U` groups of `N` values; `levels` come in `0..2 * half`. As in [`super::fit_positive`], passes after
/// a lane's last change are harmless.
#[inline(always)]
pub(crate) fn fit_by_descent<V: Simd, const N: usize, const U: usize>(
    v: V,
    x: &[[V::F; N]; U],
    half: i32,
    levels: &mut [[V::I; N]; U],
) -> [V::F; U] {
    let zero = v.splat(0.0);
    let mut nothing = [v.lt(zero, zero); U];
    let (mut sum_lx, mut sum_l2) = ([zero; U], [zero; U]);
    let mut signed = [[zero; N]; U];
    for u in 0..U {
        let (max, amax) = signed_max(v, &x[u]);
        nothing[u] = v.lt(amax, v.splat(ZERO_BELOW));
        let inverse = v.splat(-half as f32) / max;
        for i in 0..N {
            let l = v.to_f(exact_level(v, inverse * x[u][i], -half, half - 1));
            let w = x[u][i] * x[u][i];
            signed[u][i] = l;
            sum_lx[u] = sum_lx[u] + w * x[u][i] * l;
            sum_l2[u] = sum_l2[u] + w * l * l;
        }
    }
    for _ in 0..5 {
        let mut changed = v.lt(zero, zero);
        for i in 0..N {
            for u in 0..U {
                let (x, l) = (x[u][i], signed[u][i]);
                let w = x * x;
                let wx = w * x;
                let rest_lx = sum_lx[u] - wx * l;
                let rest_l2 = sum_l2[u] - w * l * l;
                let new = v.to_f(exact_level(v, x * rest_l2 / rest_lx, -half, half - 1));
                let with_lx = rest_lx + wx * new;
                let with_l2 = rest_l2 + w * new * new;
                let better = v.lt(sum_lx[u] * sum_lx[u] * with_l2, with_lx * with_lx * sum_l2[u]);
                // The same level again would only recompute the sums, differently rounded.
                let other = v.lt(zero, v.abs(new - l));
                let takes = v.lt(zero, rest_lx) & other & v.lt(zero, with_l2) & better;
                signed[u][i] = v.select(takes, new, l);
                sum_lx[u] = v.select(takes, with_lx, sum_lx[u]);
                sum_l2[u] = v.select(takes, with_l2, sum_l2[u]);
                changed = changed | takes;
            }
        }
        if !v.any(changed) {
            break;
        }
    }
    let mut scales = [zero; U];
    for u in 0..U {
        for i in 0..N {
            let level = exact_level(v, signed[u][i], -half, half - 1) + v.splat_i(half);
            levels[u][i] = v.select_i(nothing[u], v.splat_i(0), level);
        }
        let scale = v.select(v.lt(zero, sum_l2[u]), sum_lx[u] / sum_l2[u], zero);
        scales[u] = v.select(nothing[u], zero, scale);
    }
    scales
}

//! [`super::super::fit_positive`] over lanes.

use crate::lanes::{Simd, nearest_int};
use crate::search::ZERO_BELOW;

/// Finds byte-sized `levels` of `K` values and returns the scale.
///
/// A pass of the refinement that changes nothing would change nothing again, so lanes that finished early may
/// take part in the others' passes.
#[inline(always)]
pub(crate) fn fit_positive<V: Simd, const K: usize>(
    v: V,
    x: &[V::F; K],
    weights: &[V::F; K],
    max_level: i32,
    levels: &mut [V::I; K],
) -> V::F {
    let (zero, one) = (v.splat(0.0), v.splat(1.0));
    let (top, byte) = (v.splat_i(max_level), v.splat_i(255));
    let mut max = zero;
    for i in 0..K {
        max = v.max(max, x[i]);
    }
    let nothing = v.lt(max, v.splat(ZERO_BELOW));

    let mut inverse = v.splat(max_level as f32) / max;
    let mut best = zero;
    let scale = one / inverse;
    for i in 0..K {
        let diff = x[i] - scale * v.to_f(nearest_int(v, inverse * x[i]) & byte);
        best = best + weights[i] * diff * diff;
    }
    for step in -4..=4i8 {
        if step == 0 {
            continue;
        }
        let trial = v.splat(0.1 * f32::from(step) + max_level as f32) / max;
        let scale = one / trial;
        let mut sum = zero;
        for i in 0..K {
            let diff = x[i] - scale * v.to_f(v.min_i(nearest_int(v, trial * x[i]), top));
            sum = sum + weights[i] * diff * diff;
        }
        let better = v.lt(sum, best);
        best = v.select(better, sum, best);
        inverse = v.select(better, trial, inverse);
    }

    let (mut sum_lx, mut sum_l2) = (zero, zero);
    for i in 0..K {
        let level = v.min_i(nearest_int(v, inverse * x[i]), top);
        levels[i] = level & byte;
        let (w, l) = (weights[i], v.to_f(level));
        sum_lx = sum_lx + w * x[i] * l;
        sum_l2 = sum_l2 + w * l * l;
    }
    for _ in 0..5 {
        let mut changed = v.lt(zero, zero);
        for i in 0..K {
            let (w, l) = (weights[i], v.to_f(levels[i]));
            let rest_lx = sum_lx - w * x[i] * l;
            let rest_l2 = sum_l2 - w * l * l;
            let new = v.min_i(nearest_int(v, x[i] * rest_l2 / rest_lx), top);
            let l = v.to_f(new);
            let with_lx = rest_lx + w * x[i] * l;
            let with_l2 = rest_l2 + w * l * l;
            let better = v.lt(sum_lx * sum_lx * with_l2, with_lx * with_lx * sum_l2);
            let takes = v.lt(zero, rest_lx) & v.lt(zero, rest_l2) & better;
            // The same level again would only recompute the sums, differently rounded.
            let takes = takes & (v.lt_i(new, levels[i]) | v.lt_i(levels[i], new));
            levels[i] = v.select_i(takes, new & byte, levels[i]);
            sum_lx = v.select(takes, with_lx, sum_lx);
            sum_l2 = v.select(takes, with_l2, sum_l2);
            changed = changed | takes;
        }
        if !v.any(changed) {
            break;
        }
    }
    for i in 0..K {
        levels[i] = v.select_i(nothing, v.splat_i(0), levels[i]);
    }
    let scale = v.select(v.lt(zero, sum_l2), sum_lx / sum_l2, zero);
    v.select(nothing, zero, scale)
}

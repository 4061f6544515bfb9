//! Scale of a group around zero: x ~ scale * (level - half) (ggml: `make_qx_quants` with `rmse_type` 1).

use super::ZERO_BELOW;
use crate::num::{nearest_int, signed_max};

/// Finds `levels` in `0..2 * half` and returns the scale, whose sign is free: the value of largest magnitude
/// goes to the end that has one level more.
#[inline]
pub(crate) fn fit_symmetric<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    half: i32,
    levels: &mut [u8; N],
) -> f32 {
    let (max, amax) = signed_max(x);
    if amax < ZERO_BELOW {
        levels.fill(0);
        return 0.0;
    }
    let level = |inverse: f32, v: f32| nearest_int(inverse * v).min(half - 1).max(-half);
    let sums = |inverse: f32| {
        let (mut sum_lx, mut sum_l2) = (0.0f32, 0.0f32);
        for i in 0..N {
            let (w, l) = (weights[i], level(inverse, x[i]) as f32);
            sum_lx += w * x[i] * l;
            sum_l2 += w * l * l;
        }
        (sum_lx, sum_l2)
    };

    let mut best_inverse = -half as f32 / max;
    let (sum_lx, sum_l2) = sums(best_inverse);
    // The C code tests for non-zero, so a NaN sum takes the division.
    let mut scale = if sum_l2 == 0.0 { 0.0 } else { sum_lx / sum_l2 };
    let mut best = scale * sum_lx;
    for step in (-9..=9i8).filter(|&s| s != 0) {
        let inverse = -(half as f32 + 0.1 * f32::from(step)) / max;
        let (sum_lx, sum_l2) = sums(inverse);
        if sum_l2 > 0.0 && sum_lx * sum_lx > best * sum_l2 {
            best_inverse = inverse;
            scale = sum_lx / sum_l2;
            best = scale * sum_lx;
        }
    }
    for i in 0..N {
        levels[i] = (half + level(best_inverse, x[i])) as u8;
    }
    scale
}

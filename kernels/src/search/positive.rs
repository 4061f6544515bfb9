//! Scale of a group of non-negative values: x ~ scale * level (ggml: `make_qp_quants`), used for the scales
//! and offsets of a super-block when importance is given.

use super::ZERO_BELOW;
use crate::num::{c_max, nearest_int};

/// Finds `levels` in `0..=max_level` and returns the scale.
///
/// A negative value (a group's scale can come out negative) gets a negative level, which the byte wraps to
/// 256 minus it; the passes below then compute with the wrapped byte. ggml does so, and formats mask or keep
/// the high bits each in its own way.
#[inline]
pub(crate) fn fit_positive<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    max_level: i32,
    levels: &mut [u8; N],
) -> f32 {
    let max = x.iter().fold(0.0, |max, &v| c_max(max, v));
    if max < ZERO_BELOW {
        levels.fill(0);
        return 0.0;
    }
    let mut inverse = max_level as f32 / max;
    let mut best = {
        let scale = 1.0 / inverse;
        let mut sum = 0.0;
        for i in 0..N {
            let diff = x[i] - scale * f32::from(nearest_int(inverse * x[i]) as u8);
            sum += weights[i] * diff * diff;
        }
        sum
    };
    for step in (-4..=4i8).filter(|&s| s != 0) {
        let trial = (0.1 * f32::from(step) + max_level as f32) / max;
        let scale = 1.0 / trial;
        let mut sum = 0.0;
        for i in 0..N {
            let diff = x[i] - scale * nearest_int(trial * x[i]).min(max_level) as f32;
            sum += weights[i] * diff * diff;
        }
        if sum < best {
            best = sum;
            inverse = trial;
        }
    }

    let (mut sum_lx, mut sum_l2) = (0.0f32, 0.0f32);
    for i in 0..N {
        let level = nearest_int(inverse * x[i]).min(max_level);
        levels[i] = level as u8;
        let (w, l) = (weights[i], level as f32);
        sum_lx += w * x[i] * l;
        sum_l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            let (w, l) = (weights[i], f32::from(levels[i]));
            let mut rest_lx = sum_lx - w * x[i] * l;
            let mut rest_l2 = sum_l2 - w * l * l;
            if rest_lx > 0.0 && rest_l2 > 0.0 {
                let new = nearest_int(x[i] * rest_l2 / rest_lx).min(max_level);
                if new != i32::from(levels[i]) {
                    let l = new as f32;
                    rest_lx += w * x[i] * l;
                    rest_l2 += w * l * l;
                    if rest_lx * rest_lx * sum_l2 > sum_lx * sum_lx * rest_l2 {
                        levels[i] = new as u8;
                        sum_lx = rest_lx;
                        sum_l2 = rest_l2;
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }
}

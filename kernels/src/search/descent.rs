//! Scale of a group around zero by coordinate descent on the levels (ggml: `make_q3_quants` with `do_rmse`),
//! used by Q3_K without importance.

use super::ZERO_BELOW;
use crate::num::{nearest_int, signed_max};

/// Finds `levels` in `0..2 * half` and returns the scale. At most five passes; each changes one level at a
/// time and keeps the running sums, so the order of weights matters.
#[inline]
pub(crate) fn fit_by_descent<const N: usize>(x: &[f32; N], half: i32, levels: &mut [u8; N]) -> f32 {
    let (max, amax) = signed_max(x);
    if amax < ZERO_BELOW {
        levels.fill(0);
        return 0.0;
    }
    let clamp = |l: i32| l.min(half - 1).max(-half);
    let inverse = -half as f32 / max;
    let mut signed = [0i32; N];
    let (mut sum_lx, mut sum_l2) = (0.0f32, 0.0f32);
    for i in 0..N {
        signed[i] = clamp(nearest_int(inverse * x[i]));
        let (w, l) = (x[i] * x[i], signed[i] as f32);
        sum_lx += w * x[i] * l;
        sum_l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..N {
            let (w, l) = (x[i] * x[i], signed[i] as f32);
            let mut rest_lx = sum_lx - w * x[i] * l;
            if rest_lx > 0.0 {
                let mut rest_l2 = sum_l2 - w * l * l;
                let new = clamp(nearest_int(x[i] * rest_l2 / rest_lx));
                if new != signed[i] {
                    let l = new as f32;
                    rest_lx += w * x[i] * l;
                    rest_l2 += w * l * l;
                    if rest_l2 > 0.0 && rest_lx * rest_lx * sum_l2 > sum_lx * sum_lx * rest_l2 {
                        signed[i] = new;
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
    for i in 0..N {
        levels[i] = (signed[i] + half) as u8;
    }
    if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }
}

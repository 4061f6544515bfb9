//! Scale of a group whose levels are entries of a fixed, increasing codebook (ggml: `best_index_int8` and the
//! search in `quantize_row_iq4_nl_impl`).

use super::ZERO_BELOW;
use crate::num::signed_max;

/// Index of the entry nearest to `x`; the higher one on a tie, and the last one for NaN.
#[inline]
pub(crate) const fn nearest_entry(values: &[i8; 16], x: f32) -> u8 {
    if x <= values[0] as f32 {
        return 0;
    }
    if x >= values[15] as f32 {
        return 15;
    }
    let (mut below, mut above) = (0, 15);
    while above - below > 1 {
        let middle = usize::midpoint(below, above);
        if x < values[middle] as f32 {
            above = middle;
        } else {
            below = middle;
        }
    }
    let (low, high) = (values[above - 1] as f32, values[above] as f32);
    (if x - low < high - x { above - 1 } else { above }) as u8
}

/// The scale of x ~ scale * entry. The candidates put the value of largest magnitude on the first entry moved
/// by -7..=7.
#[inline]
pub(crate) fn fit_codebook<const N: usize>(x: &[f32; N], weights: &[f32; N], values: &[i8; 16]) -> f32 {
    let (max, amax) = signed_max(x);
    if amax < ZERO_BELOW {
        return 0.0;
    }
    let sums = |inverse: f32| {
        let (mut sum_qx, mut sum_q2) = (0.0f32, 0.0f32);
        for i in 0..N {
            let q = f32::from(values[usize::from(nearest_entry(values, inverse * x[i]))]);
            sum_qx += weights[i] * q * x[i];
            sum_q2 += weights[i] * q * q;
        }
        (sum_qx, sum_q2)
    };
    let first = i16::from(values[0]);
    let (sum_qx, sum_q2) = sums(1.0 / (-max / f32::from(first)));
    let mut scale = if sum_q2 > 0.0 { sum_qx / sum_q2 } else { 0.0 };
    let mut best = scale * sum_qx;
    for step in -7..=7i16 {
        let (sum_qx, sum_q2) = sums(f32::from(step + first) / max);
        if sum_q2 > 0.0 && sum_qx * sum_qx > best * sum_q2 {
            scale = sum_qx / sum_q2;
            best = scale * sum_qx;
        }
    }
    scale
}

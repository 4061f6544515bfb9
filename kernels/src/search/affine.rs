//! Scale and offset of a group: x ~ scale * level - offset (ggml: `make_qkx2_quants`, `make_qkx3_quants`).
//!
//! The two C functions agree on finite input and with weights given, so one function stands for both.

use crate::num::nearest_int;

/// The scales to try: after the first fit, level ranges `max_level + first + step * i` for i in 0..=last.
#[derive(Clone, Copy)]
pub(crate) struct Candidates {
    pub(crate) first: f32,
    pub(crate) step: f32,
    pub(crate) last: u8,
}

impl Candidates {
    /// What every format uses when importance is given.
    pub(crate) const WITH_IMPORTANCE: Self = Self { first: -0.9, step: 0.05, last: 36 };
}

/// How one weight's error counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Penalty {
    /// Its magnitude.
    Absolute,
    /// Its square.
    Squared,
}

/// Finds `levels` in `0..=max_level`; returns `(scale, offset)` with offset >= 0 (or -0).
///
/// Sequential by nature: an accepted candidate replaces `min`, and all later candidates are measured from the
/// new one. Trying them independently gives other bytes.
#[inline]
pub(crate) fn fit_affine<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    max_level: i32,
    candidates: Candidates,
    penalty: Penalty,
    levels: &mut [u8; N],
) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for i in 1..N {
        if x[i] < min {
            min = x[i];
        }
        if x[i] > max {
            max = x[i];
        }
        sum_w += weights[i];
        sum_x += weights[i] * x[i];
    }
    if min > 0.0 {
        min = 0.0;
    }
    if max <= min {
        levels.fill(0);
        return (0.0, -min);
    }
    let error = |levels: &[u8; N], scale: f32, min: f32| {
        let mut sum = 0.0;
        for i in 0..N {
            let diff = scale * f32::from(levels[i]) + min - x[i];
            sum += weights[i] * if penalty == Penalty::Absolute { diff.abs() } else { diff * diff };
        }
        sum
    };
    let to_levels = |inverse: f32, min: f32, levels: &mut [u8; N]| {
        for i in 0..N {
            levels[i] = nearest_int(inverse * (x[i] - min)).min(max_level).max(0) as u8;
        }
    };

    let inverse = max_level as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    to_levels(inverse, min, levels);
    let mut best = error(levels, scale, min);
    let mut trial = [0u8; N];
    for i in 0..=candidates.last {
        let range = candidates.first + candidates.step * f32::from(i) + max_level as f32;
        to_levels(range / (max - min), min, &mut trial);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for i in 0..N {
            let (w, l) = (weights[i], f32::from(trial[i]));
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x[i];
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut trial_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut trial_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if trial_min > 0.0 {
                trial_min = 0.0;
                trial_scale = sum_xl / sum_l2;
            }
            let trial_error = error(&trial, trial_scale, trial_min);
            if trial_error < best {
                *levels = trial;
                best = trial_error;
                scale = trial_scale;
                min = trial_min;
            }
        }
    }
    (scale, -min)
}

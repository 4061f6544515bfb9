//! One block as a weighted rounding problem. Weights are divided by a power of two that brings the largest near
//! one, so that no square overflows and nothing rounds differently; binary16 factors are rounded at their true
//! magnitude. Knows no format.

use crate::num::{f16_bits, f16_value};

/// Importance counts at least as much as this part of the block's largest, so that unimportant weights still
/// follow where they cost nothing.
const LEAST_IMPORTANCE: f32 = 1.0 / (1 << 24) as f32;
/// The largest binary16.
const HALF_MAX: u16 = 0x7bff;

/// `G` groups of `N` weights.
pub(super) struct Problem<const N: usize, const G: usize> {
    pub(super) x: [[f32; N]; G],
    pub(super) w: [[f32; N]; G],
    /// What the weights were divided by.
    unit: f64,
}

impl<const N: usize, const G: usize> Problem<N, G> {
    /// `None` for a block that is zero or that nothing depends on.
    pub(super) fn new(x: &[f32], importance: Option<&[f32]>) -> Option<Self> {
        let largest = |v: &[f32]| v.iter().fold(0f32, |max, v| max.max(v.abs()));
        let unit = power_below(largest(x))?;
        let mut problem = Self { x: [[0.0; N]; G], w: [[1.0; N]; G], unit };
        for (to, v) in problem.x.as_flattened_mut().iter_mut().zip(x) {
            *to = (f64::from(*v) / unit) as f32;
        }
        if let Some(importance) = importance {
            let unit = power_below(importance.iter().fold(0f32, |max, v| max.max(*v)))?;
            for (to, v) in problem.w.as_flattened_mut().iter_mut().zip(importance) {
                *to = ((f64::from(*v) / unit) as f32).max(LEAST_IMPORTANCE);
            }
        }
        Some(problem)
    }

    /// The binary16 nearest to a factor of this problem, never infinite.
    pub(super) fn half(&self, factor: f64) -> u16 {
        let bits = f16_bits((factor * self.unit) as f32);
        bits & 0x8000 | (bits & 0x7fff).min(HALF_MAX)
    }

    /// A binary16 in this problem's unit.
    pub(super) fn value(&self, bits: u16) -> f32 {
        (f64::from(f16_value(bits)) / self.unit) as f32
    }
}

/// The power of two at or below a positive number.
fn power_below(v: f32) -> Option<f64> {
    (v > 0.0).then(|| f64::from_bits(f64::from(v).to_bits() & 0x7ff0_0000_0000_0000))
}

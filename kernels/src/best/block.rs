//! One super-block of a grid format as a weighted rounding problem: [`super::problem`] without lanes, because there
//! lanes are points. Knows no format.

use super::problem::{HALF_MAX, LEAST_IMPORTANCE};
use crate::num::{f16_bits, f16_value};

/// `G` groups of `N` weights, and the weights of their errors.
pub(super) struct Block<const N: usize, const G: usize> {
    pub(super) x: [[f32; N]; G],
    pub(super) w: [[f32; N]; G],
    /// What the weights were divided by, and its reciprocal.
    unit: f32,
    inverse: f32,
}

impl<const N: usize, const G: usize> Block<N, G> {
    #[inline(always)]
    pub(super) fn new(x: &[f32], importance: Option<&[f32]>) -> Self {
        let (unit, inverse) = power_below(x.iter().fold(0f32, |max, v| max.max(v.abs())));
        let mut block = Self { x: [[0.0; N]; G], w: [[1.0; N]; G], unit, inverse };
        for (to, v) in block.x.as_flattened_mut().iter_mut().zip(x) {
            *to = v * inverse;
        }
        if let Some(importance) = importance {
            let (_, inverse) = power_below(importance.iter().fold(0f32, |max, v| max.max(*v)));
            for (to, v) in block.w.as_flattened_mut().iter_mut().zip(importance) {
                *to = (v * inverse).max(LEAST_IMPORTANCE);
            }
        }
        block
    }

    /// The binary16 nearest to a factor of this block, never infinite.
    #[inline(always)]
    pub(super) fn half(&self, factor: f32) -> u16 {
        let bits = f16_bits(factor * self.unit);
        bits & 0x8000 | (bits & 0x7fff).min(HALF_MAX)
    }

    /// A binary16 in this block's unit.
    #[inline(always)]
    pub(super) fn value(&self, bits: u16) -> f32 {
        f16_value(bits) * self.inverse
    }
}

/// See [`super::problem`].
#[inline(always)]
fn power_below(x: f32) -> (f32, f32) {
    let exponent = (x.to_bits() >> 23).clamp(1, 253);
    (f32::from_bits(exponent << 23), f32::from_bits((254 - exponent) << 23))
}

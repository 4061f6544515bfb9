//! Blocks as weighted rounding problems, one per lane. Weights are divided by a power of two that brings the
//! largest near one, so that no square overflows and (but far below the largest) nothing rounds differently; binary16
//! factors are rounded at their true magnitude. Knows no format.

use super::levels::Group;
use crate::lanes::{Batch, Rows, Simd, f16_bits, f16_value};

/// Importance counts at least as much as this part of the block's largest, so that unimportant weights still
/// follow where they cost nothing.
pub(super) const LEAST_IMPORTANCE: f32 = 1.0 / (1 << 24) as f32;
/// The largest binary16.
pub(super) const HALF_MAX: u16 = 0x7bff;

/// `G` groups of `N` weights in each lane; with `W`, their errors have weights.
pub(super) struct Problem<V: Simd, const N: usize, const G: usize, const W: bool> {
    x: [[V::F; N]; G],
    w: [[V::F; N]; G],
    /// What the weights were divided by, and its reciprocal.
    unit: V::F,
    inverse: V::F,
}

impl<V: Simd, const N: usize, const G: usize, const W: bool> Problem<V, N, G, W> {
    #[inline(always)]
    pub(super) fn new(v: V) -> Self {
        let (zero, one) = (v.splat(0.0), v.splat(1.0));
        Self { x: [[zero; N]; G], w: [[zero; N]; G], unit: one, inverse: one }
    }

    /// Reads a batch of blocks.
    #[inline(always)]
    pub(super) fn load(&mut self, v: V, rows: &Rows<'_>, batch: &Batch) {
        let x = self.x.as_flattened_mut();
        batch.load(v, rows, x);
        let mut largest = v.splat(0.0);
        for &x in &*x {
            largest = v.max(v.abs(x), largest);
        }
        (self.unit, self.inverse) = power_below(v, largest);
        for x in x {
            *x = *x * self.inverse;
        }
        if W {
            let w = self.w.as_flattened_mut();
            batch.load_importance(v, rows.importance.unwrap_or_default(), w);
            let mut most = v.splat(0.0);
            for &w in &*w {
                most = v.max(w, most);
            }
            let (_, inverse) = power_below(v, most);
            for w in w {
                *w = v.max(*w * inverse, v.splat(LEAST_IMPORTANCE));
            }
        }
    }

    #[inline(always)]
    pub(super) fn group(&self, j: usize) -> Group<'_, V, N, W> {
        Group { x: &self.x[j], w: &self.w[j] }
    }

    /// The binary16 nearest to a factor of this problem, never infinite.
    #[inline(always)]
    pub(super) fn half(&self, v: V, factor: V::F) -> V::I {
        let bits = f16_bits(v, factor * self.unit);
        (bits & v.splat_i(0x8000)) | v.min_i(bits & v.splat_i(0x7fff), v.splat_i(i32::from(HALF_MAX)))
    }

    /// A binary16 in this problem's unit.
    #[inline(always)]
    pub(super) fn value(&self, v: V, bits: V::I) -> V::F {
        f16_value(v, bits) * self.inverse
    }
}

/// The power of two at or below a number that is not negative, and its reciprocal; of subnormal numbers the least
/// normal power, of the largest ones half their power, so that both are normal.
#[inline(always)]
fn power_below<V: Simd>(v: V, x: V::F) -> (V::F, V::F) {
    let exponent = v.max_i(v.min_i(v.shr(v.bits(x), 23), v.splat_i(253)), v.splat_i(1));
    (v.float(v.shl(exponent, 23)), v.float(v.shl(v.splat_i(254) - exponent, 23)))
}

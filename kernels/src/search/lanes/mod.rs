//! The searches again, over lanes: each lane runs the scalar search of its own group, operation by operation.
//!
//! `U` groups go through a search together, because each one alone is a chain of dependent sums that leaves
//! most of the arithmetic units idle. Levels come as floats or not at all: what a caller nearly always needs is
//! the scale; the levels of the search itself, kept only where the rounded scale vanishes, are recomputed from
//! the inverse scale that won.

mod affine;
mod codebook;
mod descent;
mod positive;
mod symmetric;

pub(crate) use affine::{AffineFit, fit_affine};
pub(crate) use codebook::fit_codebook;
pub(crate) use descent::{DescentFit, Searches, fit_by_descent};
pub(crate) use positive::fit_positive;
pub(crate) use symmetric::{SymmetricFit, fit_symmetric};

use crate::lanes::Simd;

/// [`super::importance_weights`], in place of the importance.
#[inline(always)]
pub(crate) fn importance_weights<V: Simd>(v: V, x: &[V::F], importance: &mut [V::F], sigma2: V::F) {
    for (w, &x) in importance.iter_mut().zip(x) {
        *w = *w * v.sqrt(sigma2 + x * x);
    }
}

/// [`super::total`].
#[inline(always)]
pub(crate) fn total<V: Simd>(v: V, w: &[V::F]) -> V::F {
    let mut sum = v.splat(0.0);
    for &w in w {
        sum = sum + w;
    }
    sum
}

//! The scale searches that several formats share, one per file. Each finds a scale (and offset) and integer
//! levels for a short group of weights, trying candidates one after the other as ggml does.
//!
//! They work on `f32` groups only and must not know how any format packs its bits.

mod affine;
mod codebook;
mod descent;
pub(crate) mod lanes;
mod positive;
mod symmetric;

pub(crate) use affine::{Candidates, Penalty, fit_affine};
pub(crate) use codebook::{fit_codebook, nearest_entry};
pub(crate) use descent::fit_by_descent;
pub(crate) use positive::fit_positive;
pub(crate) use symmetric::fit_symmetric;

/// Groups whose largest magnitude lies below this count as zero (`GROUP_MAX_EPS`).
pub(crate) const ZERO_BELOW: f32 = 1e-15;

/// ggml's weight of each error when importance is given: importance times the root of `sigma2` (a mean square
/// over the row or super-block) plus the square of the weight itself.
#[inline]
pub(crate) fn importance_weights<const N: usize>(
    x: &[f32; N],
    importance: &[f32; N],
    sigma2: f32,
) -> [f32; N] {
    std::array::from_fn(|i| importance[i] * (sigma2 + x[i] * x[i]).sqrt())
}

/// The weights used without importance by the symmetric and codebook searches: the squares.
#[inline]
pub(crate) fn square_weights<const N: usize>(x: &[f32; N]) -> [f32; N] {
    x.map(|v| v * v)
}

/// Sum, first to last.
#[inline]
pub(crate) fn total<const N: usize>(w: &[f32; N]) -> f32 {
    w.iter().fold(0.0, |sum, &v| sum + v)
}

//! What IQ2 and IQ3 share: signs apart from magnitudes, and the search for a scale under which a group's
//! magnitudes lie near grid points. A level l stands for the odd number 2 l + 1. Must not know byte offsets.
//!
//! Where ggml stops because a scale is NaN (sums over importance that overflows), the scale is zero here.

use super::lattice::Lattice;
use super::neighbours::Neighbours;
use crate::num::{c_max, f16_bits, nearest_int, sum_of_squares, write_f16};
use crate::search::{fit_positive, importance_weights, square_weights};
use crate::superblock::{WEIGHTS, group, super_blocks};
use std::sync::LazyLock;

/// Points of one search, at most.
pub(super) const GROUPS: usize = 8;

/// Which points are looked up again under the best scale.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Refit {
    /// All of them.
    Always,
    /// Those whose levels were no point.
    OffGrid,
    /// All of them, unless all levels were points.
    AllIfAnyOffGrid,
}

/// How a format searches.
pub(super) struct Search {
    /// Candidates on each side of the middle one.
    pub(super) candidates: i8,
    /// How far apart they are, in levels.
    pub(super) step: f32,
    pub(super) refit: Refit,
}

/// A group of weights, ready for the search.
#[derive(Clone, Copy)]
pub(super) struct Group<const N: usize> {
    /// Magnitudes, with the exception that [`split_even_signs`] makes.
    pub(super) x: [f32; N],
    pub(super) weights: [f32; N],
    pub(super) signs: [u8; 4],
    /// What has the top level under the middle candidate.
    pub(super) range: f32,
    /// The scale to keep when no candidate is any good.
    pub(super) start: f32,
    /// Not so small that it counts as zero.
    pub(super) live: bool,
}

/// What the search found for one group of weights.
#[derive(Clone, Copy)]
pub(super) struct Fit {
    /// Not negative.
    pub(super) scale: f32,
    /// Of eight weights each. When the scale came out negative, all signs turn.
    pub(super) signs: [u8; 4],
    /// A point per `D` weights; as many as the group has.
    pub(super) points: [u16; GROUPS],
}

impl Fit {
    /// The fit whose scale came out as it is, of a group with these signs.
    pub(super) fn new(scale: f32, signs: [u8; 4], points: [u16; GROUPS]) -> Self {
        let signs = if scale < 0.0 { signs.map(|s| !s) } else { signs };
        Self { scale: if scale.is_nan() { 0.0 } else { scale.abs() }, signs, points }
    }
}

/// The scales of a super-block's groups; zero for those that count as zero.
pub(super) fn scales<const G: usize>(fits: &[Option<Fit>; G]) -> [f32; G] {
    fits.each_ref().map(|fit| fit.as_ref().map_or(0.0, |fit| fit.scale))
}

/// How a format encodes: `G` groups of `N` weights to a super-block of `BYTES`.
pub(super) struct Format<const D: usize, const R: usize, const N: usize, const G: usize, const BYTES: usize> {
    pub(super) lattice: &'static LazyLock<Lattice<D, R>>,
    /// The same for encoders over lanes.
    pub(super) neighbours: &'static LazyLock<Neighbours<D, R>>,
    pub(super) search: Search,
    /// How many times the mean square goes with importance.
    pub(super) sigma: f32,
    /// The search starts from the best scale for free levels of 0 to 4, and spreads around three of it.
    pub(super) from_free_levels: bool,
    /// Group, importance, mean square.
    pub(super) prepare: fn(&[f32; N], Option<&[f32; N]>, f32) -> Group<N>,
    /// Fills a block. Groups that count as zero have no fit.
    pub(super) pack: fn(&[Option<Fit>; G], &mut [u8; BYTES]),
}

impl<const D: usize, const R: usize, const N: usize, const G: usize, const BYTES: usize>
    Format<D, R, N, G, BYTES>
{
    /// The groups of a super-block.
    pub(super) fn groups(&self, x: &[f32; WEIGHTS], importance: Option<&[f32; WEIGHTS]>) -> [Group<N>; G] {
        let sigma2 = self.sigma * sum_of_squares(x) / WEIGHTS as f32;
        std::array::from_fn(|j| (self.prepare)(group(x, j), importance.map(|w| group(w, j)), sigma2))
    }

    pub(super) fn encode(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<BYTES>().0) {
            let fits = self.groups(xb, w).map(|mut group| {
                if self.from_free_levels && group.live {
                    group.start = fit_positive(&group.x, &group.weights, 4, &mut [0; N]);
                    group.spread_around_start();
                }
                group.live.then(|| self.search.fit(self.lattice, &group))
            });
            (self.pack)(&fits, block);
        }
    }
}

impl<const N: usize> Group<N> {
    /// Splits off the signs. The group counts as zero when its largest value lies below `zero_below`; the middle
    /// candidate gives that value the level `top`.
    pub(super) fn new((x, signs): ([f32; N], [u8; 4]), weights: [f32; N], zero_below: f32, top: f32) -> Self {
        let max = largest(&x);
        let dead = max < zero_below;
        Self { x, weights, signs, range: max, start: max / top, live: !dead }
    }

    /// The candidates spread around three times the start.
    pub(super) fn spread_around_start(&mut self) {
        self.range = self.start * 3.0;
        // Not `range > 0.0`: a NaN goes on.
        let nothing = self.range <= 0.0;
        self.live &= !nothing;
    }
}

/// Splits signs (bit set: negative) from magnitudes, eight weights to a byte.
pub(super) fn split_signs<const N: usize>(x: &[f32; N]) -> ([f32; N], [u8; 4]) {
    let mut signs = [0u8; 4];
    for (sign, eight) in signs.iter_mut().zip(x.as_chunks::<8>().0) {
        for (i, &v) in eight.iter().enumerate() {
            // Not `v.is_sign_negative()`: a zero counts as positive.
            *sign |= u8::from(v < 0.0) << i;
        }
    }
    (x.map(|v| if v < 0.0 { -v } else { v }), signs)
}

/// The same for formats that store seven of eight signs: where the number of negative weights is odd, the one
/// that matters least changes sign, and its "magnitude" becomes negative. The eighth bit is dropped.
pub(super) fn split_even_signs<const N: usize>(x: &[f32; N], weights: &[f32; N]) -> ([f32; N], [u8; 4]) {
    let (mut magnitudes, mut signs) = split_signs(x);
    for (k, sign) in signs.iter_mut().enumerate().take(N / 8) {
        if sign.count_ones() % 2 == 1 {
            let cost = |i: usize| weights[i] * x[i] * x[i];
            let (mut least, mut min) = (8 * k, cost(8 * k));
            for i in 8 * k + 1..8 * k + 8 {
                if cost(i) < min {
                    min = cost(i);
                    least = i;
                }
            }
            magnitudes[least] = -magnitudes[least];
            *sign ^= 1 << (least % 8);
        }
        *sign &= 127;
    }
    (magnitudes, signs)
}

/// The largest value, as C's `MAX` finds it.
fn largest<const N: usize>(x: &[f32; N]) -> f32 {
    x[1..].iter().fold(x[0], |max, &v| c_max(max, v))
}

/// The point for D magnitudes, whose levels come with `inverse`, and whether these are a point.
pub(super) fn snap<const D: usize, const R: usize>(
    lattice: &Lattice<D, R>,
    x: &[f32; D],
    roots: &[f32; D],
    inverse: f32,
    scale: f32,
) -> (u16, bool) {
    let odd = std::array::from_fn(|level| (2 * level + 1) as f32);
    let level = |v: f32| nearest_int(0.5 * (inverse * v - 1.0)).min(R as i32 - 1).max(0) as u8;
    lattice.snap(&x.map(level), x, roots, scale, &odd)
}

impl Search {
    /// Finds a scale and points for a group.
    ///
    /// Errors are weighed by the weights between candidates, but by their roots between neighbours, as in ggml.
    pub(super) fn fit<const D: usize, const R: usize, const N: usize>(
        &self,
        lattice: &Lattice<D, R>,
        group: &Group<N>,
    ) -> Fit {
        let Group { x, weights, signs, range, start, .. } = *group;
        let odd: [f32; R] = std::array::from_fn(|level| (2 * level + 1) as f32);
        let roots = weights.map(f32::sqrt);
        let (x_points, root_points) = (x.as_chunks::<D>().0, roots.as_chunks::<D>().0);
        let point =
            |k: usize, inverse: f32, scale: f32| snap(lattice, &x_points[k], &root_points[k], inverse, scale);
        let sums = |points: &[u16; GROUPS]| {
            let (mut sum_qx, mut sum_q2) = (0.0f32, 0.0f32);
            for k in 0..N / D {
                for (i, &level) in lattice.levels(points[k]).iter().enumerate() {
                    let (w, q) = (weights[D * k + i], odd[usize::from(level)]);
                    sum_qx += w * x[D * k + i] * q;
                    sum_q2 += w * q * q;
                }
            }
            (sum_qx, sum_q2)
        };

        let (mut scale, mut best) = (start, 0.0);
        let mut points = [0u16; GROUPS];
        // Without a good candidate, ggml counts untouched groups of IQ3_S as off the grid, all others as on it.
        let mut on_grid = [self.refit != Refit::AllIfAnyOffGrid; GROUPS];
        for step in -self.candidates..=self.candidates {
            let inverse = (odd[R - 1] + f32::from(step) * self.step) / range;
            let trial_scale = 1.0 / inverse;
            let (mut trial, mut trial_on_grid) = ([0u16; GROUPS], [true; GROUPS]);
            for k in 0..N / D {
                (trial[k], trial_on_grid[k]) = point(k, inverse, trial_scale);
            }
            let (sum_qx, sum_q2) = sums(&trial);
            if sum_q2 > 0.0 && sum_qx * sum_qx > best * sum_q2 {
                scale = sum_qx / sum_q2;
                best = scale * sum_qx;
                points = trial;
                on_grid = trial_on_grid;
            }
        }

        let all_on_grid = on_grid[..N / D].iter().all(|on| *on);
        if scale > 0.0 && (self.refit == Refit::Always || !all_on_grid) {
            let inverse = 1.0 / scale;
            for k in 0..N / D {
                if self.refit != Refit::OffGrid || !on_grid[k] {
                    points[k] = point(k, inverse, scale).0;
                }
            }
            let (sum_qx, sum_q2) = sums(&points);
            if sum_q2 > 0.0 {
                scale = sum_qx / sum_q2;
            }
        }
        Fit::new(scale, signs, points)
    }
}

/// Weights of the errors: squares, unless there is importance. (Some formats are never encoded without: their
/// [`Codec`] refuses.)
///
/// [`Codec`]: crate::codec::Codec
pub(super) fn weigh<const N: usize>(x: &[f32; N], importance: Option<&[f32; N]>, sigma2: f32) -> [f32; N] {
    importance.map_or_else(|| square_weights(x), |w| importance_weights(x, w, sigma2))
}

/// Writes the super-block's binary16 scale, `fudge` times what spans the scales, and returns the 4-bit level of
/// each scale: level l stands for 2 l + 1 of 31 parts of the largest. `None` when all scales are zero.
pub(super) fn scale_levels<const G: usize>(
    scales: &[f32; G],
    fudge: f32,
    block: &mut [u8],
) -> Option<[u8; G]> {
    let max = scales.iter().fold(0.0, |max, &s| c_max(max, s));
    if max == 0.0 {
        return None;
    }
    let d = max / 31.0;
    write_f16(block, f16_bits(d * fudge));
    let inverse = 1.0 / d;
    Some(scales.map(|s| nearest_int(0.5 * (inverse * s - 1.0)).clamp(0, 15) as u8))
}

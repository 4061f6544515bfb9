//! Scalar reference encoders of IQ1_S and IQ1_M (`quantize_row_iq1_s_impl`, `quantize_row_iq1_m_impl`).
//!
//! A group has three levels, so in ascending order its weights fall into three runs, and all splits can be
//! tried: prefix sums give each split's best scale. Equal weights keep their order when sorted. ggml leaves
//! that to the C library's `qsort`, which is a stable merge sort in glibc 2.36; their order matters for the
//! rounding of sums and for which of them a split takes.
//!
//! Where ggml stops because a scale is NaN (sums that overflow), the scale is zero here.

use super::lattice::IQ1;
use crate::num::{c_max, f16_bits, nearest_int, sum_of_squares, write_f16};
use crate::search::{importance_weights, square_weights};
use crate::superblock::{WEIGHTS, group, super_blocks};

/// What the levels stand for when shifted up, and when shifted down.
pub(super) const UP: [f32; 3] = [-0.875, 0.125, 1.125];
pub(super) const DOWN: [f32; 3] = [-1.125, -0.125, 0.875];

fn values(down: bool) -> &'static [f32; 3] {
    if down { &DOWN } else { &UP }
}

/// IQ1_S groups whose largest magnitude lies below this count as zero (`GROUP_MAX_EPS_IQ1_S`).
pub(super) const S_ZERO_BELOW: f32 = 1e-12;
/// The same for IQ1_M (`GROUP_MAX_EPS_IQ1_M`).
pub(super) const M_ZERO_BELOW: f32 = 1e-7;

/// The best split so far.
struct Split {
    scale: f32,
    score: f32,
    /// Where the second and third run start, in ascending order.
    starts: [usize; 2],
    /// Whether the first and the second half of the group are shifted down.
    down: [bool; 2],
}

impl Split {
    const NONE: Self = Self { scale: 0.0, score: -f32::MAX, starts: [usize::MAX; 2], down: [false; 2] };

    fn consider(&mut self, sum_qx: f32, sum_q2: f32, starts: [usize; 2], down: [bool; 2]) {
        if sum_q2 > 0.0 && sum_qx * sum_qx > self.score * sum_q2 {
            self.scale = sum_qx / sum_q2;
            self.score = self.scale * sum_qx;
            self.starts = starts;
            self.down = down;
        }
    }

    /// Levels of the split, turned around where the scale is negative so that it is not; `None` when no split
    /// was any good.
    fn levels<const N: usize>(mut self, order: &[usize; N]) -> Option<(Self, [u8; N])> {
        if self.starts[0] > N {
            return None;
        }
        let mut levels = [0u8; N];
        for (j, &i) in order.iter().enumerate() {
            levels[i] = u8::from(j >= self.starts[0]) + u8::from(j >= self.starts[1]);
        }
        if self.scale < 0.0 {
            levels = levels.map(|l| 2 - l);
            self.scale = -self.scale;
            self.down = self.down.map(|down| !down);
        }
        Some((self, levels))
    }
}

/// Indices of the weights in ascending order, equal ones as they come.
fn ascending<const N: usize>(x: &[f32; N]) -> [usize; N] {
    let mut order = std::array::from_fn(|i| i);
    // Values are finite, so all compare; the two zeros are equal.
    order.sort_by(|&a: &usize, &b: &usize| x[a].partial_cmp(&x[b]).unwrap_or(std::cmp::Ordering::Equal));
    order
}

/// The best split with one shift for the whole group of 32.
fn split_s(x: &[f32; 32], weights: &[f32; 32], order: &[usize; 32]) -> Split {
    let (mut sum_x, mut sum_w) = ([0f32; 33], [0f32; 33]);
    for (j, &i) in order.iter().enumerate() {
        sum_x[j + 1] = sum_x[j] + weights[i] * x[i];
        sum_w[j + 1] = sum_w[j] + weights[i];
    }
    let runs = |sums: &[f32; 33], i1: usize, i2: usize| {
        [sums[i1] - sums[0], sums[i2] - sums[i1], sums[32] - sums[i2]]
    };
    let mut best = Split::NONE;
    for i1 in 0..=32 {
        for i2 in i1..=32 {
            let (xs, ws) = (runs(&sum_x, i1, i2), runs(&sum_w, i1, i2));
            for down in [false, true] {
                let v = values(down);
                let sum_qx = xs[0] * v[0] + xs[1] * v[1] + xs[2] * v[2];
                let sum_q2 = ws[0] * v[0] * v[0] + ws[1] * v[1] * v[1] + ws[2] * v[2] * v[2];
                best.consider(sum_qx, sum_q2, [i1, i2], [down; 2]);
            }
        }
    }
    best
}

/// Prefix sums of one half of a group of 16, over the order of the whole.
struct Half {
    x: [f32; 17],
    w: [f32; 17],
}

impl Half {
    /// `sum w q x` and `sum w q q` of a split. The values of neighbouring levels differ by one, so ggml reduces
    /// the three runs to the total and two prefixes.
    fn sums(&self, i1: usize, i2: usize, v: &[f32; 3]) -> (f32, f32) {
        let (first, second) = (v[0] * v[0] - v[1] * v[1], v[1] * v[1] - v[2] * v[2]);
        let sum_qx = self.x[16] * v[2] - (self.x[i1] + self.x[i2]);
        let sum_q2 = self.w[16] * v[2] * v[2] + self.w[i1] * first + self.w[i2] * second;
        (sum_qx, sum_q2)
    }
}

/// The best split with a shift for each half of the group of 16.
fn split_m(x: &[f32; 16], weights: &[f32; 16], order: &[usize; 16]) -> Split {
    let halves = [0, 1].map(|h| {
        let mut half = Half { x: [0.0; 17], w: [0.0; 17] };
        for (j, &i) in order.iter().enumerate() {
            half.x[j + 1] = half.x[j];
            half.w[j + 1] = half.w[j];
            if i / 8 == h {
                half.x[j + 1] += weights[i] * x[i];
                half.w[j + 1] += weights[i];
            }
        }
        half
    });
    let mut best = Split::NONE;
    for i1 in 0..=16 {
        for i2 in i1..=16 {
            let [first, second] =
                halves.each_ref().map(|half| [false, true].map(|down| half.sums(i1, i2, values(down))));
            for down in [[false, false], [false, true], [true, false], [true, true]] {
                let (a, b) = (first[usize::from(down[0])], second[usize::from(down[1])]);
                best.consider(a.0 + b.0, a.1 + b.1, [i1, i2], down);
            }
        }
    }
    best
}

/// A group's points, a scale for them and how each half is shifted.
#[derive(Clone, Copy)]
pub(super) struct Fit<const G: usize> {
    pub(super) scale: f32,
    pub(super) points: [u16; G],
    pub(super) down: [bool; 2],
}

impl<const G: usize> Fit<G> {
    /// Of a group that counts as zero, or of which no split is any good.
    pub(super) const NONE: Self = Self { scale: 0.0, points: [0; G], down: [false; 2] };
}

/// Points for the levels of a split; when some were no point, the scale is fitted again.
fn fit<const N: usize, const G: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    split: &Split,
    levels: &[u8; N],
) -> Fit<G> {
    let (xs, ws, ls) = (x.as_chunks::<8>().0, weights.as_chunks::<8>().0, levels.as_chunks::<8>().0);
    let shifted = |k: usize| values(split.down[k * 2 / G]);
    let mut all_on_grid = true;
    let points: [u16; G] = std::array::from_fn(|k| {
        let (point, on_grid) = IQ1.snap(&ls[k], &xs[k], &ws[k], split.scale, shifted(k));
        all_on_grid &= on_grid;
        point
    });
    let mut scale = split.scale;
    if !all_on_grid {
        let mut sums = Sums::default();
        for (k, &point) in points.iter().enumerate() {
            sums.add(&xs[k], &ws[k], point, shifted(k));
        }
        if sums.qx > 0.0 && sums.q2 > 0.0 {
            scale = sums.qx / sums.q2;
        }
    }
    Fit { scale: if scale.is_nan() { 0.0 } else { scale }, points, down: split.down }
}

/// What a scale is fitted from.
#[derive(Default)]
struct Sums {
    qx: f32,
    q2: f32,
}

impl Sums {
    fn add(&mut self, x: &[f32; 8], weights: &[f32; 8], point: u16, values: &[f32; 3]) {
        for (i, &level) in IQ1.levels(point).iter().enumerate() {
            let (w, q) = (weights[i], values[usize::from(level)]);
            self.qx += w * q * x[i];
            self.q2 += w * q * q;
        }
    }
}

pub(super) fn largest_magnitude(x: &[f32]) -> f32 {
    x[1..].iter().fold(x[0].abs(), |max, v| c_max(max, v.abs()))
}

/// Largest scale divided by fifteen, and the 3-bit level of each; `None` when all scales are zero.
fn scale_levels<const G: usize>(scales: &[f32; G]) -> Option<(f32, [u8; G])> {
    let max = scales.iter().fold(0.0, |max, &s| c_max(max, s));
    if max == 0.0 {
        return None;
    }
    let d = max / 15.0;
    let inverse = 1.0 / d;
    Some((d, scales.map(|s| nearest_int(0.5 * (inverse * s - 1.0)).clamp(0, 7) as u8)))
}

pub(super) fn weights<const N: usize>(x: &[f32; N], importance: Option<&[f32; N]>, sigma2: f32) -> [f32; N] {
    importance.map_or_else(|| square_weights(x), |w| importance_weights(x, w, sigma2))
}

/// Always with importance: the format's `Codec` refuses otherwise.
pub(super) fn encode_s(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<50>().0) {
        let sigma2 = mean_square(xb);
        let fits = std::array::from_fn(|j| {
            let xg = group::<32>(xb, j);
            let weights = weights(xg, w.map(|w| group(w, j)), sigma2);
            if largest_magnitude(xg) < S_ZERO_BELOW {
                return Fit::NONE;
            }
            let order = ascending(xg);
            let split = split_s(xg, &weights, &order).levels(&order);
            split.map_or(Fit::NONE, |(split, levels)| fit(xg, &weights, &split, &levels))
        });
        pack_s(&fits, block);
    }
}

/// Twice the mean square, which goes with importance.
pub(super) fn mean_square(x: &[f32; WEIGHTS]) -> f32 {
    2.0 * sum_of_squares(x) / WEIGHTS as f32
}

pub(super) fn pack_s(fits: &[Fit<4>; 8], block: &mut [u8; 50]) {
    block.fill(0);
    let mut high = [0u16; 8];
    for (j, fit) in fits.iter().enumerate() {
        for (k, point) in fit.points.iter().enumerate() {
            block[2 + 4 * j + k] = *point as u8;
            high[j] |= point >> 8 << (3 * k);
        }
    }
    if let Some((d, levels)) = scale_levels(&fits.each_ref().map(|fit| fit.scale)) {
        write_f16(block, f16_bits(d * 1.125));
        for j in 0..8 {
            high[j] |= u16::from(levels[j]) << 12 | u16::from(fits[j].down[0]) << 15;
        }
    }
    for (bytes, word) in block[34..].as_chunks_mut::<2>().0.iter_mut().zip(high) {
        *bytes = word.to_le_bytes();
    }
}

pub(super) fn encode_m(x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for ((xb, w), block) in super_blocks(x, importance).zip(out.as_chunks_mut::<56>().0) {
        let sigma2 = mean_square(xb);
        let weights: [[f32; 16]; 16] =
            std::array::from_fn(|j| weights(group(xb, j), w.map(|w| group(w, j)), sigma2));
        let fits: [Fit<2>; 16] = std::array::from_fn(|j| {
            let xg = group::<16>(xb, j);
            let order = ascending(xg);
            let split = if largest_magnitude(xg) < M_ZERO_BELOW {
                Split::NONE
            } else {
                split_m(xg, &weights[j], &order)
            };
            let split = split.levels(&order);
            split.map_or(Fit::NONE, |(split, levels)| fit(xg, &weights[j], &split, &levels))
        });
        pack_m(xb, &weights, &fits, block);
    }
}

pub(super) fn pack_m(
    x: &[f32; WEIGHTS],
    weights: &[[f32; 16]; 16],
    fits: &[Fit<2>; 16],
    block: &mut [u8; 56],
) {
    block.fill(0);
    for (j, fit) in fits.iter().enumerate() {
        for (k, point) in fit.points.iter().enumerate() {
            block[2 * j + k] = *point as u8;
            block[32 + j] |= ((point >> 8) as u8) << (4 * k);
        }
    }
    let Some((mut d, levels)) = scale_levels(&fits.each_ref().map(|fit| fit.scale)) else { return };
    let mut words = [0u16; 4];
    let mut sums = Sums::default();
    for (j, (fit, level)) in fits.iter().zip(levels).enumerate() {
        words[j / 4] |= u16::from(level) << (j % 4 * 3);
        for k in 0..2 {
            block[32 + j] |= u8::from(fit.down[k]) << (3 + 4 * k);
            let w = &weights[j].as_chunks::<8>().0[k];
            let scaled = values(fit.down[k]).map(|v| v * f32::from(2 * level + 1));
            sums.add(group(x, 2 * j + k), w, fit.points[k], &scaled);
        }
    }
    if sums.q2 > 0.0 {
        d = sums.qx / sums.q2;
    }
    // The binary16 scale is spread over the top nibbles of the four words.
    let d = f16_bits(d * 1.1125);
    for (k, (bytes, word)) in block[48..].as_chunks_mut::<2>().0.iter_mut().zip(words).enumerate() {
        *bytes = (word | d >> (4 * k) << 12).to_le_bytes();
    }
}

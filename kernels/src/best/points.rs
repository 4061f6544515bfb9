//! Rounding to the points of a grid (IQ1, IQ2, IQ3). For a given scale every point is looked at, so the result is
//! the best there is for given signs; ggml looks at the neighbours of the rounded weights. Must not know blocks.

use super::levels::Levels;
use std::sync::LazyLock;

/// Points looked at side by side.
const SIDE: usize = 16;
/// Most points in a group: 32 weights, four to a point.
pub(super) const MAX_POINTS: usize = 8;
/// Set in the code of a point that is shifted down.
pub(super) const DOWN: u16 = 1 << 15;

/// Coordinates by place, then by batch of points, for loops over points.
pub(super) struct Points<const D: usize> {
    batches: Vec<[[f32; SIDE]; D]>,
}

impl<const D: usize> Points<D> {
    /// `unit` is what coordinates are counted in.
    fn new(table: &[u8], unit: f32) -> Self {
        let batch = |points: &[[u8; D]]| {
            std::array::from_fn(|d| std::array::from_fn(|p| f32::from(points[p][d] as i8) * unit))
        };
        Self { batches: table.as_chunks::<D>().0.chunks_exact(SIDE).map(batch).collect() }
    }

    fn point(&self, index: u16) -> [f32; D] {
        let (batch, p) = (&self.batches[usize::from(index) / SIDE], usize::from(index) % SIDE);
        std::array::from_fn(|d| batch[d][p])
    }

    /// The point `v` of least `sum a v^2 - 2 b v`, and that sum; the first of equals.
    fn nearest(&self, a: &[f32; D], b: &[f32; D]) -> (u16, f32) {
        let (mut least, mut at) = ([f32::INFINITY; SIDE], [0u32; SIDE]);
        let b = b.map(|b| -2.0 * b);
        for (i, batch) in self.batches.iter().enumerate() {
            let mut sums = [0f32; SIDE];
            for d in 0..D {
                for p in 0..SIDE {
                    let v = batch[d][p];
                    sums[p] += (a[d] * v + b[d]) * v;
                }
            }
            for p in 0..SIDE {
                let better = sums[p] < least[p];
                least[p] = if better { sums[p] } else { least[p] };
                at[p] = if better { i as u32 } else { at[p] };
            }
        }
        let mut best = 0;
        for p in 1..SIDE {
            if (least[p], at[p]) < (least[best], at[best]) {
                best = p;
            }
        }
        ((at[best] as usize * SIDE + best) as u16, least[best])
    }
}

macro_rules! points {
    ($($name:ident: $d:literal, $file:literal, $unit:expr;)*) => {
        $(pub(super) static $name: LazyLock<Points<$d>> =
            LazyLock::new(|| Points::new(include_bytes!(concat!("../../data/", $file)), $unit));)*
    };
}

// A scale of IQ2 is `d * (2 l + 1) / 8`, of IQ3_XXS `d * (2 l + 1) / 4`: the fractions are counted to the points.
points! {
    IQ2_XXS: 8, "iq2xxs_grid.bin", 0.125;
    IQ2_XS: 8, "iq2xs_grid.bin", 0.125;
    IQ2_S: 8, "iq2s_grid.bin", 0.125;
    IQ3_XXS: 4, "iq3xxs_grid.bin", 0.25;
    IQ3_S: 4, "iq3s_grid.bin", 1.0;
    IQ1: 8, "iq1s_grid.bin", 1.0;
}

/// What is stored beside the points.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// A sign for each weight.
    Signs,
    /// Seven signs for eight weights: the number of negative ones is even.
    EvenSigns,
    /// Coordinates carry their signs; all of a group are moved by an eighth, up or down.
    GroupShift,
    /// The same for each point.
    PointShift,
}

/// Points and what goes with them.
pub(super) struct Grid<const D: usize> {
    pub(super) points: &'static LazyLock<Points<D>>,
    pub(super) beside: Beside,
}

impl<const D: usize> Grid<D> {
    /// Rounds a group; returns the code of each point.
    pub(super) fn snap<const N: usize>(
        &self,
        x: &[f32; N],
        w: &[f32; N],
        scale: f32,
        q: &mut [f32; N],
    ) -> [u16; MAX_POINTS] {
        let mut codes = [0; MAX_POINTS];
        let groups = x.as_chunks::<D>().0.iter().zip(w.as_chunks::<D>().0);
        match self.beside {
            Beside::Signs | Beside::EvenSigns => {
                let mut magnitudes = x.map(f32::abs);
                let mut flipped = [None; MAX_POINTS];
                if self.beside == Beside::EvenSigns {
                    for (k, m) in magnitudes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                        let eight = 8 * k..8 * k + 8;
                        if x[eight.clone()].iter().filter(|v| v.is_sign_negative()).count() % 2 == 1 {
                            let i = cheapest(|i| w[8 * k + i] * m[i] * m[i]);
                            m[i] = -m[i];
                            flipped[k] = Some(i);
                        }
                    }
                }
                let groups = magnitudes.as_chunks::<D>().0.iter().zip(w.as_chunks::<D>().0);
                for (k, ((m, w), q)) in groups.zip(q.as_chunks_mut::<D>().0).enumerate() {
                    let a: [f32; D] = std::array::from_fn(|i| w[i] * scale * scale);
                    let b = std::array::from_fn(|i| w[i] * scale * m[i]);
                    codes[k] = self.points.nearest(&a, &b).0;
                    *q = self.points.point(codes[k]);
                }
                for (k, q) in q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                    let (x, w) = (&x[8 * k..], &w[8 * k..]);
                    // Now that the point is known, another sign may be cheaper to get wrong.
                    let flip = flipped[k].map(|_| cheapest(|i| w[i] * q[i] * x[i].abs()));
                    for (i, q) in q.iter_mut().enumerate() {
                        let kept = flip != Some(i);
                        *q = if x[i].is_sign_negative() == kept { -*q } else { *q };
                    }
                }
            }
            Beside::GroupShift | Beside::PointShift => {
                let mut errors = [[0f32; MAX_POINTS]; 2];
                let mut found = [[0u16; MAX_POINTS]; 2];
                for (k, (x, w)) in groups.enumerate() {
                    for (down, shift) in [0.125f32, -0.125].into_iter().enumerate() {
                        // (c + shift)^2 a - 2 (c + shift) b, without the part that is common to all points.
                        let a: [f32; D] = std::array::from_fn(|i| w[i] * scale * scale);
                        let b: [f32; D] = std::array::from_fn(|i| w[i] * scale * (x[i] - scale * shift));
                        let (index, error) = self.points.nearest(&a, &b);
                        let common: f32 =
                            (0..D).map(|i| (a[i] * shift - 2.0 * w[i] * scale * x[i]) * shift).sum();
                        (found[down][k], errors[down][k]) = (index, error + common);
                    }
                }
                let whole = errors[1].iter().sum::<f32>() < errors[0].iter().sum();
                for (k, q) in q.as_chunks_mut::<D>().0.iter_mut().enumerate() {
                    let down =
                        if self.beside == Beside::GroupShift { whole } else { errors[1][k] < errors[0][k] };
                    let (index, shift) = if down { (found[1][k], -0.125) } else { (found[0][k], 0.125) };
                    *q = self.points.point(index).map(|c| c + shift);
                    codes[k] = index | if down { DOWN } else { 0 };
                }
            }
        }
        codes
    }
}

/// The first of eight with the least cost.
fn cheapest(cost: impl Fn(usize) -> f32) -> usize {
    (1..8).fold(0, |best, i| if cost(i) < cost(best) { i } else { best })
}

impl<const D: usize, const N: usize> Levels<N> for Grid<D> {
    fn round(&self, x: &[f32; N], w: &[f32; N], scale: f32, _offset: f32, q: &mut [f32; N]) {
        self.snap(x, w, scale, q);
    }
}

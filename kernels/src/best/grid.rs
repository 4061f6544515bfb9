//! The search of grid formats. A group's scale is `d * s` with a binary16 `d` for the super-block and an odd integer
//! `s` for the group. It starts from ggml's block. Rounds: with `d` fixed, each group tries the `s` around its own,
//! its points being chosen anew each time; then least squares over the whole super-block moves `d`. Until
//! nothing improves.
//!
//! Must not know how blocks are packed.

use super::block::Block;
use super::points::Points;
use crate::lanes::{Rows, Scan};
use crate::superblock::WEIGHTS;
use std::sync::LazyLock;

/// Most points in a group: 32 weights, four to a point.
pub(super) const MAX_POINTS: usize = 8;
/// Set in the code of a point that is shifted down.
pub(super) const DOWN: u16 = 1 << 15;

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

/// What a super-block stores, except points and signs, which follow.
#[derive(Clone, Copy)]
pub(super) struct Choice<const G: usize> {
    pub(super) d: u16,
    pub(super) s: [i32; G],
}

/// Codes of points by group, and a byte of signs for each eight weights.
pub(super) struct Found<const G: usize> {
    pub(super) codes: [[u16; MAX_POINTS]; G],
    pub(super) signs: [u8; 32],
}

/// A format: `G` groups of `N` weights to a super-block of `BYTES`, points of `D` weights.
pub(super) struct Scheme<const D: usize, const N: usize, const G: usize, const BYTES: usize> {
    pub(super) points: &'static LazyLock<Points<D>>,
    pub(super) beside: Beside,
    /// Largest `s`.
    pub(super) most: i32,
    /// How many `s` to go on either side in each round, after which `d` moves.
    pub(super) rounds: &'static [i32],
    /// ggml's choice.
    pub(super) start: fn(&[u8]) -> Choice<G>,
    pub(super) pack: fn(&Choice<G>, &Found<G>, &mut [u8]),
}

/// A group under a scale.
#[derive(Clone, Copy)]
struct Snapped<const N: usize> {
    codes: [u16; MAX_POINTS],
    q: [f32; N],
    /// Weighted squared error, and `sum w q q` and `sum w q r` with `r = x - scale * q`.
    rr: f32,
    qq: f32,
    rq: f32,
}

/// The first of eight with the least cost.
#[inline(always)]
fn cheapest(costs: &[f32; 8]) -> usize {
    let mut best = 0;
    for i in 1..8 {
        if costs[i] < costs[best] {
            best = i;
        }
    }
    best
}

impl<const D: usize, const N: usize, const G: usize, const BYTES: usize> Scheme<D, N, G, BYTES> {
    /// Replaces the blocks of these rows, which hold ggml's choice.
    #[inline(always)]
    pub(super) fn find<V: Scan>(&self, v: V, rows: Rows<'_>, out: &mut [u8]) {
        let points = &**self.points;
        let blocks = rows.x.as_chunks::<WEIGHTS>().0.iter().zip(out.as_chunks_mut::<BYTES>().0);
        for (i, (x, bytes)) in blocks.enumerate() {
            let column = i * WEIGHTS % rows.len;
            let block = Block::<N, G>::new(x, rows.importance.map(|w| &w[column..][..WEIGHTS]));
            let (choice, found, error) = self.refine(v, points, &block, (self.start)(bytes));
            if error.is_finite() {
                bytes.fill(0);
                (self.pack)(&choice, &found, bytes);
            }
        }
    }

    /// Rounds from a start: the best of them, and its error.
    #[inline(always)]
    fn refine<V: Scan>(
        &self,
        v: V,
        points: &Points<D>,
        block: &Block<N, G>,
        start: Choice<G>,
    ) -> (Choice<G>, Found<G>, f32) {
        let mut found = Found { codes: [[0; MAX_POINTS]; G], signs: [0; 32] };
        let (mut best, mut least) = (start, f32::INFINITY);
        let mut now = start;
        for &reach in self.rounds {
            let d = block.value(now.d);
            let mut codes = [[0; MAX_POINTS]; G];
            let mut levels = [[0f32; N]; G];
            let (mut error, mut ss, mut rs) = (0f32, 0f32, 0f32);
            for j in 0..G {
                let at = now.s[j];
                let mut group = self.snap(v, points, &block.x[j], &block.w[j], d * at as f32);
                for k in -reach..=reach {
                    let s = at + 2 * k;
                    if k != 0 && (1..=self.most).contains(&s) {
                        let other = self.snap(v, points, &block.x[j], &block.w[j], d * s as f32);
                        if other.rr < group.rr {
                            (group, now.s[j]) = (other, s);
                        }
                    }
                }
                (codes[j], levels[j]) = (group.codes, group.q);
                let s = now.s[j] as f32;
                error += group.rr;
                ss += s * s * group.qq;
                rs += s * group.rq;
            }
            if error >= least || error.is_nan() {
                break;
            }
            (best, least) = (now, error);
            found.codes = codes;
            for (signs, q) in found.signs.iter_mut().zip(levels.as_flattened().as_chunks::<8>().0) {
                *signs = 0;
                for i in 0..8 {
                    *signs |= u8::from(q[i].is_sign_negative()) << i;
                }
            }
            let moved = block.half(d + if ss > 0.0 { rs / ss } else { 0.0 });
            if moved == now.d {
                break;
            }
            now.d = moved;
        }
        (best, found, least)
    }

    /// The points and signs of least error for a group under a scale.
    #[inline(always)]
    fn snap<V: Scan>(&self, v: V, points: &Points<D>, x: &[f32; N], w: &[f32; N], scale: f32) -> Snapped<N> {
        let mut group = Snapped { codes: [0; MAX_POINTS], q: [0.0; N], rr: 0.0, qq: 0.0, rq: 0.0 };
        match self.beside {
            Beside::Signs | Beside::EvenSigns => self.snap_signed(v, points, x, w, scale, &mut group),
            Beside::GroupShift | Beside::PointShift => {
                self.snap_shifted(v, points, x, w, scale, &mut group);
            }
        }
        let mut sums = [[0f32; 8]; 3];
        let eights = x.as_chunks::<8>().0.iter().zip(w.as_chunks::<8>().0).zip(group.q.as_chunks::<8>().0);
        for ((x, w), q) in eights {
            for i in 0..8 {
                let r = x[i] - scale * q[i];
                let (wq, wr) = (w[i] * q[i], w[i] * r);
                sums[0][i] += wr * r;
                sums[1][i] += wq * q[i];
                sums[2][i] += wr * q[i];
            }
        }
        for i in 0..8 {
            group.rr += sums[0][i];
            group.qq += sums[1][i];
            group.rq += sums[2][i];
        }
        group
    }

    /// Points of magnitudes, and signs apart.
    #[inline(always)]
    fn snap_signed<V: Scan>(
        &self,
        v: V,
        points: &Points<D>,
        x: &[f32; N],
        w: &[f32; N],
        scale: f32,
        group: &mut Snapped<N>,
    ) {
        let mut magnitudes = *x;
        let mut odd = [false; MAX_POINTS];
        for (k, m) in magnitudes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut negative = 0;
            for m in &mut *m {
                negative ^= m.to_bits() >> 31;
                *m = m.abs();
            }
            if self.beside == Beside::EvenSigns && negative == 1 {
                odd[k] = true;
                let mut costs = [0.0; 8];
                for i in 0..8 {
                    costs[i] = w[8 * k + i] * m[i] * m[i];
                }
                let i = cheapest(&costs);
                m[i] = -m[i];
            }
        }
        let (magnitudes, w) = (magnitudes.as_chunks::<D>().0, w.as_chunks::<D>().0);
        let (q, _) = group.q.as_chunks_mut::<D>();
        for k in (0..N / D).step_by(2) {
            let near =
                points.nearest(v, [&magnitudes[k], &magnitudes[k + 1]], [&w[k], &w[k + 1]], scale, [0.0; 2]);
            for u in 0..2 {
                group.codes[k + u] = near[u].0;
                q[k + u] = *points.point(near[u].0);
            }
        }
        for (k, q) in group.q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (x, w) = (&x[8 * k..][..8], &w.as_flattened()[8 * k..][..8]);
            // Now that the points are known, another sign may be cheaper to get wrong.
            let mut costs = [0.0; 8];
            for i in 0..8 {
                costs[i] = w[i] * q[i] * x[i].abs();
            }
            let flip = if odd[k] { cheapest(&costs) } else { 8 };
            for i in 0..8 {
                if x[i].is_sign_negative() == (flip != i) {
                    q[i] = -q[i];
                }
            }
        }
    }

    /// Points that carry their signs, all moved by an eighth.
    #[inline(always)]
    fn snap_shifted<V: Scan>(
        &self,
        v: V,
        points: &Points<D>,
        x: &[f32; N],
        w: &[f32; N],
        scale: f32,
        group: &mut Snapped<N>,
    ) {
        const SHIFTS: [f32; 2] = [0.125, -0.125];
        let mut near = [[(0, 0f32); 2]; MAX_POINTS];
        let mut errors = [0f32; 2];
        for (k, (x, w)) in x.as_chunks::<D>().0.iter().zip(w.as_chunks::<D>().0).enumerate() {
            near[k] = points.nearest(v, [x; 2], [w; 2], scale, SHIFTS);
            for u in 0..2 {
                errors[u] += near[k][u].1;
            }
        }
        let whole = errors[1] < errors[0];
        for (k, q) in group.q.as_chunks_mut::<D>().0.iter_mut().enumerate() {
            let own = near[k][1].1 < near[k][0].1;
            let down = if self.beside == Beside::GroupShift { whole } else { own };
            let index = near[k][usize::from(down)].0;
            group.codes[k] = index | if down { DOWN } else { 0 };
            *q = *points.point(index);
            for q in q {
                *q += SHIFTS[usize::from(down)];
            }
        }
    }
}

//! The joint search of super-blocks. A group's scale is `d * s`, its offset `-dmin * m`, with binary16 `d` and `dmin`
//! for the block and small integers `s` and `m` for the group.
//!
//! 1. Each group alone, its scale and offset free.
//! 2. `d` and `dmin` that span the groups' scales and offsets.
//! 3. Rounds: with `d` and `dmin` fixed at their binary16 values each group tries a window of `s` and `m`
//!    around its free scale and offset, levels being rounded anew at the decoded ones each time; then least squares
//!    gives each group new free ones, and the block new `d` and `dmin`. The best round wins.
//!
//! Must not know how levels are rounded or blocks packed.

use super::fan::{Free, SIDE, fit_alone};
use super::levels::Levels;
use super::problem::Problem;
use crate::lanes::{Simd, reciprocal_or_zero};

/// Steps from where a round expects `s`, and from the `m` that it expects to go with that `s`. A window pays by its
/// number: errors under neighbouring integers differ by chance as much as by distance.
pub(super) type Window = [(f32, f32)];

/// A format as the search sees it.
pub(super) struct Scheme<L> {
    pub(super) levels: L,
    /// The middle level.
    pub(super) middle: f32,
    /// Smallest and largest `s`.
    pub(super) scales: (f32, f32),
    /// Largest `m`.
    pub(super) most: f32,
    /// See [`fit_alone`].
    pub(super) fan: &'static [f32],
    /// One round each; their lengths are multiples of [`SIDE`].
    pub(super) rounds: &'static [&'static Window],
}

/// What blocks will store, except the levels, which follow.
#[derive(Clone, Copy)]
pub(super) struct Choice<V: Simd, const G: usize> {
    pub(super) d: V::I,
    pub(super) dmin: V::I,
    /// Integers.
    pub(super) s: [V::F; G],
    pub(super) m: [V::F; G],
}

#[inline(always)]
fn clamp<V: Simd>(v: V, x: V::F, low: f32, high: f32) -> V::F {
    v.max(v.min(x, v.splat(high)), v.splat(low))
}

/// The best choice found.
#[inline(always)]
pub(super) fn search<V, L, const N: usize, const G: usize, const W: bool, const OFFSET: bool>(
    v: V,
    scheme: &Scheme<L>,
    problem: &Problem<V, N, G, W>,
) -> Choice<V, G>
where
    V: Simd,
    L: Levels<V>,
{
    let zero = v.splat(0.0);
    let mut free = [Free { scale: zero, offset: zero, mean: zero }; G];
    let (mut widest, mut lowest) = (zero, zero);
    for j in 0..G {
        free[j] = fit_alone::<V, L, N, W, OFFSET, false>(
            v,
            scheme.levels,
            problem.group(j),
            scheme.fan,
            scheme.middle,
        )
        .best(v);
        widest = v.select(v.lt(v.abs(widest), v.abs(free[j].scale)), free[j].scale, widest);
        lowest = v.min(free[j].offset, lowest);
    }
    let span = if scheme.scales.0 < 0.0 { scheme.scales.0 } else { scheme.scales.1 };
    let mut now =
        Choice { d: problem.half(v, widest / v.splat(span)), dmin: v.splat_i(0), s: [zero; G], m: [zero; G] };
    if OFFSET {
        now.dmin = problem.half(v, v.neg(lowest) / v.splat(scheme.most));
    }

    let (mut best, mut least) = (now, v.splat(f32::INFINITY));
    let mut round = 0;
    loop {
        let (d, dmin) = (problem.value(v, now.d), problem.value(v, now.dmin));
        let mut error = zero;
        for j in 0..G {
            let found = nearby::<V, L, N, G, W, OFFSET>(v, scheme, problem, j, (d, dmin), free[j], round);
            (now.s[j], now.m[j]) = (found.s, found.m);
            error = error + found.error;
        }
        let better = v.lt(error, least);
        least = v.select(better, error, least);
        best.d = v.select_i(better, now.d, best.d);
        best.dmin = v.select_i(better, now.dmin, best.dmin);
        for j in 0..G {
            best.s[j] = v.select(better, now.s[j], best.s[j]);
            best.m[j] = v.select(better, now.m[j], best.m[j]);
        }
        round += 1;
        if round == scheme.rounds.len() {
            return best;
        }
        move_factors::<V, L, N, G, W, OFFSET>(v, scheme, problem, (d, dmin), &mut now, &mut free);
    }
}

/// The integers of a group, and its error.
struct Steps<V: Simd> {
    s: V::F,
    m: V::F,
    error: V::F,
}

/// The integers of group `j` of least error in the window of a round.
#[inline(always)]
fn nearby<V, L, const N: usize, const G: usize, const W: bool, const OFFSET: bool>(
    v: V,
    scheme: &Scheme<L>,
    problem: &Problem<V, N, G, W>,
    j: usize,
    (d, dmin): (V::F, V::F),
    free: Free<V>,
    round: usize,
) -> Steps<V>
where
    V: Simd,
    L: Levels<V>,
{
    let zero = v.splat(0.0);
    let (low, high) = scheme.scales;
    let group = problem.group(j);
    let s0 = v.round(free.scale * reciprocal_or_zero(v, d));
    let per_offset = reciprocal_or_zero(v, dmin);
    let centre = free.offset + free.scale * free.mean;
    let mut best = Steps::<V> { s: zero, m: zero, error: v.splat(f32::INFINITY) };
    for steps in scheme.rounds[round].as_chunks::<SIDE>().0 {
        let (mut s, mut m) = ([zero; SIDE], [zero; SIDE]);
        let (mut scale, mut offset) = ([zero; SIDE], [zero; SIDE]);
        for k in 0..SIDE {
            s[k] = clamp(v, s0 + v.splat(steps[k].0), low, high);
            scale[k] = d * s[k];
            if OFFSET {
                let expected = v.round((scale[k] * free.mean - centre) * per_offset);
                m[k] = clamp(v, expected + v.splat(steps[k].1), 0.0, scheme.most);
                offset[k] = v.neg(dmin * m[k]);
            }
        }
        let errors = group.errors::<L, SIDE, OFFSET>(v, scheme.levels, &scale, &offset);
        for k in 0..SIDE {
            let better = v.lt(errors[k], best.error);
            best.error = v.select(better, errors[k], best.error);
            best.s = v.select(better, s[k], best.s);
            best.m = v.select(better, m[k], best.m);
        }
    }
    best
}

/// Least squares, the levels being fixed: for each group on its own, and for `d` and `dmin` over all groups with their
/// integers fixed.
#[inline(always)]
fn move_factors<V, L, const N: usize, const G: usize, const W: bool, const OFFSET: bool>(
    v: V,
    scheme: &Scheme<L>,
    problem: &Problem<V, N, G, W>,
    (d, dmin): (V::F, V::F),
    now: &mut Choice<V, G>,
    free: &mut [Free<V>; G],
) where
    V: Simd,
    L: Levels<V>,
{
    let zero = v.splat(0.0);
    let (mut ss, mut sm, mut mm, mut rs, mut rm) = (zero, zero, zero, zero, zero);
    for j in 0..G {
        let group = problem.group(j);
        let total = group.total(v);
        let (s, m) = (now.s[j], v.neg(now.m[j]));
        let (scale, offset) = (d * s, dmin * m);
        let [sums] = group.sums::<L, 1, OFFSET>(v, scheme.levels, &[scale], &[offset]);
        let (a, b) = if OFFSET { sums.steps(v, total) } else { (sums.scale_step(v), zero) };
        free[j] = Free { scale: scale + a, offset: v.min(offset + b, zero), mean: sums.q / total };
        ss = ss + s * s * sums.qq;
        rs = rs + s * sums.rq;
        if OFFSET {
            sm = sm + s * m * sums.q;
            mm = mm + m * m * total;
            rm = rm + m * sums.r;
        }
    }
    let alone = v.select(v.lt(zero, ss), rs / ss, zero);
    if !OFFSET {
        now.d = problem.half(v, d + alone);
        return;
    }
    let determinant = ss * mm - sm * sm;
    let apart = v.lt(v.splat(1e-5) * (ss * mm), determinant);
    let a = v.select(apart, (rs * mm - rm * sm) / determinant, alone);
    let b = v.select(apart, (ss * rm - sm * rs) / determinant, zero);
    now.d = problem.half(v, d + a);
    now.dmin = problem.half(v, dmin + b);
}

//! The search of blocks that are one group: a binary16 scale and, with `OFFSET`, a binary16 offset of any sign. A
//! fan of scales, then least squares from the best, rounded to what is stored, as long as it helps.
//! Must not know how levels are rounded or blocks packed.

use super::fan::{SIDE, fit_alone, span};
use super::levels::Levels;
use super::problem::Problem;
use crate::lanes::Simd;

/// A format as the search sees it.
pub(super) struct Scheme<L> {
    pub(super) levels: L,
    /// The middle level.
    pub(super) middle: f32,
    /// See [`fit_alone`].
    pub(super) fan: &'static [f32],
    /// Whether least squares follow each scale of the fan. So many levels fit about as well as they can.
    pub(super) coarse: bool,
    /// Least squares after the fan.
    pub(super) moves: usize,
}

/// What blocks will store, except the levels, which follow.
#[derive(Clone, Copy)]
pub(super) struct Choice<V: Simd> {
    pub(super) d: V::I,
    pub(super) offset: V::I,
}

/// The best choice found.
#[inline(always)]
pub(super) fn search<V, L, const N: usize, const W: bool, const OFFSET: bool>(
    v: V,
    scheme: &Scheme<L>,
    problem: &Problem<V, N, 1, W>,
) -> Choice<V>
where
    V: Simd,
    L: Levels<V>,
{
    let zero = v.splat(0.0);
    let group = problem.group(0);
    let total = group.total(v);
    // As many starts as trials that go side by side: the best of every `SIDE`th of the fan.
    let mut now = [Choice { d: v.splat_i(0), offset: v.splat_i(0) }; SIDE];
    if scheme.coarse {
        let fits = fit_alone::<V, L, N, W, OFFSET, true>(v, scheme.levels, group, scheme.fan, scheme.middle);
        for k in 0..SIDE {
            now[k].d = problem.half(v, fits.free[k].scale);
            if OFFSET {
                now[k].offset = problem.half(v, fits.free[k].offset);
            }
        }
    } else {
        let (span, _) = span::<V, N, false, true>(v, group.x);
        let mut least = [v.splat(f32::INFINITY); SIDE];
        for tops in scheme.fan.as_chunks::<SIDE>().0 {
            let mut bits = [v.splat_i(0); SIDE];
            let mut scale = [zero; SIDE];
            for k in 0..SIDE {
                bits[k] = problem.half(v, span * v.splat(1.0 / tops[k]));
                scale[k] = problem.value(v, bits[k]);
            }
            let errors = group.errors::<L, SIDE, false>(v, scheme.levels, &scale, &[zero; SIDE]);
            for k in 0..SIDE {
                let better = v.lt(errors[k], least[k]);
                least[k] = v.select(better, errors[k], least[k]);
                now[k].d = v.select_i(better, bits[k], now[k].d);
            }
        }
    }

    let (mut best, mut least) = (now[0], v.splat(f32::INFINITY));
    let mut moved = 0;
    loop {
        let (mut scale, mut offset) = ([zero; SIDE], [zero; SIDE]);
        for k in 0..SIDE {
            scale[k] = problem.value(v, now[k].d);
            offset[k] = problem.value(v, now[k].offset);
        }
        if moved == scheme.moves {
            let errors = group.errors::<L, SIDE, OFFSET>(v, scheme.levels, &scale, &offset);
            for k in 0..SIDE {
                best.take(v, &mut least, now[k], errors[k]);
            }
            return best;
        }
        let sums = group.sums::<L, SIDE, OFFSET>(v, scheme.levels, &scale, &offset);
        for k in 0..SIDE {
            best.take(v, &mut least, now[k], sums[k].rr);
            if OFFSET {
                let (a, b) = sums[k].steps(v, total);
                now[k].d = problem.half(v, scale[k] + a);
                now[k].offset = problem.half(v, offset[k] + b);
            } else {
                now[k].d = problem.half(v, scale[k] + sums[k].scale_step(v));
            }
        }
        moved += 1;
    }
}

impl<V: Simd> Choice<V> {
    /// Takes another one where that has a smaller error.
    #[inline(always)]
    fn take(&mut self, v: V, least: &mut V::F, other: Self, error: V::F) {
        let better = v.lt(error, *least);
        *least = v.select(better, error, *least);
        self.d = v.select_i(better, other.d, self.d);
        self.offset = v.select_i(better, other.offset, self.offset);
    }
}

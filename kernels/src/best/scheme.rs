//! The formats with a search of their own, as data, and the walk over their blocks.

use super::fan::SIDE;
use super::grid::{self, Beside};
use super::joint;
use super::levels::{Entries, Even, Levels};
use super::pack::{self, PackJoint, PackSingle};
use super::problem::Problem;
use super::single;
use super::{pack_grid, points};
use crate::iq4::lanes::{BY_INDEX, BY_VALUE};
use crate::lanes::{Batch, Rows, Scan, Simd, reciprocal_or_zero, stamp};

/// Divisors that put the largest weight on level `top` and beyond or before it, in even steps of parts of it.
const fn fan<const M: usize>(top: f32, from: f32, to: f32) -> [f32; M] {
    let mut tops = [0.0; M];
    let mut i = 0;
    while i < M {
        tops[i] = top * (1.0 + from + (to - from) * i as f32 / (M - 1) as f32);
        i += 1;
    }
    tops
}

/// The same on both ends, which makes scales of either sign.
const fn two_fans<const M: usize>(low: f32, high: f32, from: f32, to: f32) -> [f32; M] {
    let mut tops = [0.0; M];
    let mut i = 0;
    while i < M {
        let end = if i % 2 == 0 { low } else { high };
        tops[i] = end * (1.0 + from + (to - from) * (i / 2) as f32 / (M / 2 - 1) as f32);
        i += 1;
    }
    tops
}

/// `s` up to `reach` away, and `m` up to `height` away. `M` is a multiple of [`SIDE`]: what is left over repeats the
/// middle.
const fn window<const M: usize>(reach: i32, height: i32) -> [(f32, f32); M] {
    assert!(M.is_multiple_of(SIDE) && (2 * reach + 1) * (2 * height + 1) <= M as i32);
    let mut steps = [(0.0, 0.0); M];
    let (mut n, mut s) = (0, -reach);
    while s <= reach {
        let mut m = -height;
        while m <= height {
            steps[n] = (s as f32, m as f32);
            n += 1;
            m += 1;
        }
        s += 1;
    }
    steps
}

const IQ4: Entries = Entries { by_value: &BY_VALUE, by_index: &BY_INDEX };

static Q4_0: single::Scheme<Even> = single::Scheme {
    levels: Even { low: -8.0, high: 7.0 },
    middle: 0.0,
    fan: &two_fans::<16>(-8.0, 7.0, -0.2, 0.15),
    coarse: true,
    moves: 1,
};
static Q5_0: single::Scheme<Even> = single::Scheme {
    levels: Even { low: -16.0, high: 15.0 },
    middle: 0.0,
    fan: &two_fans::<16>(-16.0, 15.0, -0.12, 0.08),
    coarse: true,
    moves: 1,
};
static Q8_0: single::Scheme<Even> = single::Scheme {
    levels: Even { low: -127.0, high: 127.0 },
    middle: 0.0,
    fan: &fan::<8>(127.0, -0.03, 0.01),
    coarse: false,
    moves: 1,
};
static Q4_1: single::Scheme<Even> = single::Scheme {
    levels: Even { low: 0.0, high: 15.0 },
    middle: 7.5,
    fan: &fan::<16>(15.0, -0.2, 0.15),
    coarse: true,
    moves: 2,
};
static Q5_1: single::Scheme<Even> = single::Scheme {
    levels: Even { low: 0.0, high: 31.0 },
    middle: 15.5,
    fan: &fan::<16>(31.0, -0.1, 0.08),
    coarse: true,
    moves: 2,
};
static IQ4_NL: single::Scheme<Entries> = single::Scheme {
    levels: IQ4,
    middle: 0.0,
    fan: &two_fans::<16>(-127.0, 113.0, -0.3, 0.2),
    coarse: true,
    moves: 1,
};

static Q2_K: joint::Scheme<Even> = joint::Scheme {
    levels: Even { low: 0.0, high: 3.0 },
    middle: 1.5,
    scales: (0.0, 15.0),
    most: 15.0,
    fan: &fan::<12>(3.0, -0.3, 0.5),
    rounds: &[&window::<4>(0, 1), &window::<36>(3, 2), &window::<4>(0, 1)],
};
static Q4_K: joint::Scheme<Even> = joint::Scheme {
    levels: Even { low: 0.0, high: 15.0 },
    middle: 7.5,
    scales: (0.0, 63.0),
    most: 63.0,
    fan: &fan::<8>(15.0, -0.15, 0.15),
    rounds: &[&window::<4>(0, 1), &window::<48>(4, 2), &window::<12>(1, 1)],
};
static Q5_K: joint::Scheme<Even> = joint::Scheme {
    levels: Even { low: 0.0, high: 31.0 },
    middle: 15.5,
    scales: (0.0, 63.0),
    most: 63.0,
    fan: &fan::<8>(31.0, -0.1, 0.1),
    rounds: &[&window::<4>(0, 1), &window::<36>(3, 2), &window::<4>(0, 1)],
};
static Q3_K: joint::Scheme<Even> = joint::Scheme {
    levels: Even { low: -4.0, high: 3.0 },
    middle: 0.0,
    scales: (-32.0, 31.0),
    most: 0.0,
    fan: &two_fans::<16>(-4.0, 3.0, -0.2, 0.3),
    rounds: &[&window::<12>(5, 0), &window::<4>(1, 0)],
};
static Q6_K: joint::Scheme<Even> = joint::Scheme {
    levels: Even { low: -32.0, high: 31.0 },
    middle: 0.0,
    scales: (-128.0, 127.0),
    most: 0.0,
    fan: &two_fans::<12>(-32.0, 31.0, -0.1, 0.06),
    rounds: &[&window::<20>(9, 0), &window::<4>(1, 0)],
};
static IQ4_XS: joint::Scheme<Entries> = joint::Scheme {
    levels: IQ4,
    middle: 0.0,
    scales: (-32.0, 31.0),
    most: 0.0,
    fan: &two_fans::<16>(-127.0, 113.0, -0.3, 0.2),
    rounds: &[&window::<4>(1, 0), &window::<12>(5, 0), &window::<4>(1, 0)],
};

const fn grid<const D: usize, const N: usize, const G: usize, const BYTES: usize>(
    points: &'static std::sync::LazyLock<points::Points<D>>,
    beside: Beside,
    scale_bits: u32,
    rounds: &'static [i32],
    start: fn(&[u8]) -> grid::Choice<G>,
    pack: fn(&grid::Choice<G>, &grid::Found<G>, &mut [u8]),
) -> grid::Scheme<D, N, G, BYTES> {
    grid::Scheme { points, beside, most: (2 << scale_bits) - 1, rounds, start, pack }
}

static IQ2_XXS: grid::Scheme<8, 32, 8, 66> =
    grid(&points::IQ2_XXS, Beside::EvenSigns, 4, &[2, 1, 0, 0], pack_grid::start_iq2_xxs, pack_grid::iq2_xxs);
static IQ2_XS: grid::Scheme<8, 16, 16, 74> =
    grid(&points::IQ2_XS, Beside::EvenSigns, 4, &[2, 1, 0, 0], pack_grid::start_iq2_xs, pack_grid::iq2_xs);
static IQ2_S: grid::Scheme<8, 16, 16, 82> =
    grid(&points::IQ2_S, Beside::Signs, 4, &[1, 0, 0], pack_grid::start_iq2_s, pack_grid::iq2_s);
static IQ3_XXS: grid::Scheme<4, 32, 8, 98> =
    grid(&points::IQ3_XXS, Beside::EvenSigns, 4, &[2, 1, 0, 0], pack_grid::start_iq3_xxs, pack_grid::iq3_xxs);
static IQ3_S: grid::Scheme<4, 32, 8, 110> =
    grid(&points::IQ3_S, Beside::Signs, 4, &[1, 0, 0], pack_grid::start_iq3_s, pack_grid::iq3_s);
static IQ1_S: grid::Scheme<8, 32, 8, 50> =
    grid(&points::IQ1, Beside::GroupShift, 3, &[0, 0], pack_grid::start_iq1_s, pack_grid::iq1_s);
static IQ1_M: grid::Scheme<8, 16, 16, 56> =
    grid(&points::IQ1, Beside::PointShift, 3, &[0, 0], pack_grid::start_iq1_m, pack_grid::iq1_m);

/// Searches all super-blocks of these rows and writes what was found.
#[inline(always)]
fn super_blocks<
    V,
    L,
    P,
    const N: usize,
    const G: usize,
    const W: bool,
    const OFFSET: bool,
    const BYTES: usize,
    const WORDS: usize,
>(
    v: V,
    scheme: &joint::Scheme<L>,
    layout: P,
    rows: &Rows<'_>,
    out: &mut [u8],
) where
    V: Simd,
    L: Levels<V>,
    P: PackJoint<V, N, G> + Copy,
{
    let mut problem = Problem::<V, N, G, W>::new(v);
    let mut levels = [[v.splat_i(0); N]; G];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, rows, N * G, first) {
        problem.load(v, rows, &batch);
        let choice = joint::search::<V, L, N, G, W, OFFSET>(v, scheme, &problem);
        let (d, dmin) = (problem.value(v, choice.d), problem.value(v, choice.dmin));
        for j in 0..G {
            let inverse = reciprocal_or_zero(v, d * choice.s[j]);
            let offset = v.neg(dmin * choice.m[j]);
            let group = problem.group(j);
            for i in 0..N {
                let y = if OFFSET { group.x[i] - offset } else { group.x[i] };
                levels[j][i] = scheme.levels.index(v, y * inverse);
            }
        }
        let mut words = [v.splat_i(0); WORDS];
        layout.pack(v, &choice, &mut levels, &mut words);
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

/// Searches all blocks of one group of these rows and writes what was found.
#[inline(always)]
fn blocks<V, L, P, const W: bool, const OFFSET: bool, const BYTES: usize>(
    v: V,
    scheme: &single::Scheme<L>,
    layout: P,
    rows: &Rows<'_>,
    out: &mut [u8],
) where
    V: Simd,
    L: Levels<V>,
    P: PackSingle<V> + Copy,
{
    let mut problem = Problem::<V, 32, 1, W>::new(v);
    let mut levels = [v.splat_i(0); 32];
    let mut first = 0;
    while let Some(batch) = Batch::at(v, rows, 32, first) {
        problem.load(v, rows, &batch);
        let choice = single::search::<V, L, 32, W, OFFSET>(v, scheme, &problem);
        let (scale, offset) = (problem.value(v, choice.d), problem.value(v, choice.offset));
        let inverse = reciprocal_or_zero(v, scale);
        let group = problem.group(0);
        for i in 0..32 {
            let y = if OFFSET { group.x[i] - offset } else { group.x[i] };
            levels[i] = scheme.levels.index(v, y * inverse);
        }
        let mut words = [v.splat_i(0); 16];
        layout.pack(v, &choice, &levels, &mut words);
        batch.store::<V, BYTES, _>(v, &words, out);
        first += V::N;
    }
}

/// One function per format over [`super_blocks`], [`blocks`] or [`grid::Scheme::find`], for either kind of rows. ggml's
/// encoder comes first and has found the weights finite, which is what the functions return.
macro_rules! formats {
    ($(joint $name:ident: $scheme:ident, $layout:expr, $n:literal x $g:literal, offsets $offset:literal, $bytes:literal in $words:literal;)*
     $(single $one:ident: $one_scheme:ident, $one_layout:expr, offsets $one_offset:literal, $one_bytes:literal;)*
     $(grid $grid:ident: $grid_scheme:ident;)*) => {
        $(#[inline(always)]
        pub(super) fn $name<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
            if rows.importance.is_some() {
                super_blocks::<V, _, _, $n, $g, true, $offset, $bytes, $words>(v, &$scheme, $layout, &rows, out);
            } else {
                super_blocks::<V, _, _, $n, $g, false, $offset, $bytes, $words>(v, &$scheme, $layout, &rows, out);
            }
            true
        })*
        $(#[inline(always)]
        pub(super) fn $one<V: Simd>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
            if rows.importance.is_some() {
                blocks::<V, _, _, true, $one_offset, $one_bytes>(v, &$one_scheme, $one_layout, &rows, out);
            } else {
                blocks::<V, _, _, false, $one_offset, $one_bytes>(v, &$one_scheme, $one_layout, &rows, out);
            }
            true
        })*
        $(#[inline(always)]
        pub(super) fn $grid<V: Scan>(v: V, rows: Rows<'_>, out: &mut [u8]) -> bool {
            $grid_scheme.find(v, rows, out);
            true
        })*
    };
}

formats! {
    joint q2_k: Q2_K, pack::Q2K, 16 x 16, offsets true, 84 in 32;
    joint q3_k: Q3_K, pack::Q3K, 16 x 16, offsets false, 110 in 32;
    joint q4_k: Q4_K, pack::Q4K, 32 x 8, offsets true, 144 in 48;
    joint q5_k: Q5_K, pack::Q5K, 32 x 8, offsets true, 176 in 48;
    joint q6_k: Q6_K, pack::Q6K, 16 x 16, offsets false, 210 in 64;
    joint iq4_xs: IQ4_XS, pack::Iq4Xs, 32 x 8, offsets false, 136 in 48;
    single q4_0: Q4_0, pack::ScaleAndNibbles { bias: 8, five: false }, offsets false, 18;
    single q4_1: Q4_1, pack::ScaleAndOffset { five: false }, offsets true, 20;
    single q5_0: Q5_0, pack::ScaleAndNibbles { bias: 16, five: true }, offsets false, 22;
    single q5_1: Q5_1, pack::ScaleAndOffset { five: true }, offsets true, 24;
    single q8_0: Q8_0, pack::Q80, offsets false, 34;
    single iq4_nl: IQ4_NL, pack::ScaleAndNibbles { bias: 0, five: false }, offsets false, 18;
    grid iq2_xxs: IQ2_XXS;
    grid iq2_xs: IQ2_XS;
    grid iq2_s: IQ2_S;
    grid iq3_xxs: IQ3_XXS;
    grid iq3_s: IQ3_S;
    grid iq1_s: IQ1_S;
    grid iq1_m: IQ1_M;
}

stamp! {
    direct q2_k = q2_k;
    direct q3_k = q3_k;
    direct q4_k = q4_k;
    direct q5_k = q5_k;
    direct q6_k = q6_k;
    direct iq4_xs = iq4_xs;
    direct q4_0 = q4_0;
    direct q4_1 = q4_1;
    direct q5_0 = q5_0;
    direct q5_1 = q5_1;
    direct q8_0 = q8_0;
    direct iq4_nl = iq4_nl;
    direct iq2_xxs = iq2_xxs;
    direct iq2_xs = iq2_xs;
    direct iq2_s = iq2_s;
    direct iq3_xxs = iq3_xxs;
    direct iq3_s = iq3_s;
    direct iq1_s = iq1_s;
    direct iq1_m = iq1_m;
}

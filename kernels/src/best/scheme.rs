//! The formats with a search of their own, as data.

use super::joint::{Choice, Effort, Joint, Offsets, Scheme, Steps, search};
use super::levels::{Codebook, Even, Levels};
use super::pack_grid::{self, Found};
use super::points::{self, Beside, Grid, MAX_POINTS};
use super::problem::Problem;
use super::{Best, pack};
use tensormill_tensor::ggml;

const ONE: Steps = Steps { low: 1, high: 1, stride: 1 };

/// Levels from zero; integer scales and offsets from zero.
const fn affine(bits: u32, most: i32, effort: Effort) -> Scheme<Even> {
    let high = ((1 << bits) - 1) as f32;
    let scales = Steps { low: 0, high: most, stride: 1 };
    let levels = Even { low: 0.0, high };
    Scheme { levels, range: (0.0, high), scales, offsets: Offsets::UpTo(most), effort }
}

/// One group with a binary16 scale and a binary16 offset.
const fn affine_block(bits: u32, effort: Effort) -> Scheme<Even> {
    Scheme { scales: ONE, offsets: Offsets::Free, ..affine(bits, 1, effort) }
}

/// Levels on both sides of zero; `scales` is their bits with sign, or none for a block of one group.
const fn symmetric(low: f32, high: f32, scales: Option<u32>, effort: Effort) -> Scheme<Even> {
    let levels = Even { low, high };
    Scheme { levels, range: (low, high), scales: signed(scales), offsets: Offsets::Zero, effort }
}

const fn signed(bits: Option<u32>) -> Steps {
    match bits {
        Some(bits) => Steps { low: -(1 << (bits - 1)), high: (1 << (bits - 1)) - 1, stride: 1 },
        None => ONE,
    }
}

/// The codebook of IQ4_NL and IQ4_XS (`kvalues_iq4nl`).
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

const fn codebook(scales: Option<u32>, effort: Effort) -> Scheme<Codebook> {
    let levels = Codebook::new(&IQ4);
    Scheme { levels, range: (-127.0, 113.0), scales: signed(scales), offsets: Offsets::Zero, effort }
}

const fn grid<const D: usize>(
    points: &'static std::sync::LazyLock<points::Points<D>>,
    beside: Beside,
    scale_bits: u32,
    reach: i32,
    rounds: usize,
) -> Scheme<Grid<D>> {
    Scheme {
        levels: Grid { points, beside },
        range: (0.0, 0.0),
        scales: Steps { low: 1, high: (2 << scale_bits) - 1, stride: 2 },
        offsets: Offsets::Zero,
        // These start from ggml's choice.
        effort: Effort { fan: 0, spread: (0.0, 0.0), reach, rounds, starts: &[] },
    }
}

/// Of formats with one group: every scale of the fan is a start, refined this often.
const fn starts(fan: usize, spread: (f32, f32), rounds: usize) -> Effort {
    Effort { fan, spread, reach: 0, rounds, starts: &[1.0; 4] }
}

const fn rounds(fan: usize, spread: (f32, f32), reach: i32, rounds: usize) -> Effort {
    Effort { fan, spread, reach, rounds, starts: &[1.0] }
}

static Q4_0: Scheme<Even> = symmetric(-8.0, 7.0, None, starts(12, (-0.2, 0.15), 2));
static Q5_0: Scheme<Even> = symmetric(-16.0, 15.0, None, starts(16, (-0.12, 0.08), 2));
static Q8_0: Scheme<Even> = symmetric(-127.0, 127.0, None, starts(12, (-0.03, 0.01), 1));
static Q4_1: Scheme<Even> = affine_block(4, starts(32, (-0.2, 0.15), 3));
static Q5_1: Scheme<Even> = affine_block(5, starts(32, (-0.1, 0.08), 3));
static Q2_K: Scheme<Even> = affine(2, 15, rounds(21, (-0.3, 0.5), 4, 6));
static Q3_K: Scheme<Even> = symmetric(-4.0, 3.0, Some(6), rounds(12, (-0.3, 0.3), 4, 5));
static Q4_K: Scheme<Even> = affine(4, 63, rounds(21, (-0.2, 0.2), 8, 6));
static Q5_K: Scheme<Even> = affine(5, 63, rounds(21, (-0.1, 0.1), 8, 6));
static Q6_K: Scheme<Even> = symmetric(-32.0, 31.0, Some(8), rounds(10, (-0.08, 0.05), 8, 4));
static IQ4_NL: Scheme<Codebook> = codebook(None, starts(24, (-0.3, 0.2), 2));
static IQ4_XS: Scheme<Codebook> = codebook(Some(6), rounds(24, (-0.3, 0.2), 8, 5));
static IQ2_XXS: Scheme<Grid<8>> = grid(&points::IQ2_XXS, Beside::EvenSigns, 4, 2, 3);
static IQ2_XS: Scheme<Grid<8>> = grid(&points::IQ2_XS, Beside::EvenSigns, 4, 2, 3);
static IQ2_S: Scheme<Grid<8>> = grid(&points::IQ2_S, Beside::Signs, 4, 1, 2);
static IQ3_XXS: Scheme<Grid<4>> = grid(&points::IQ3_XXS, Beside::EvenSigns, 4, 2, 3);
static IQ3_S: Scheme<Grid<4>> = grid(&points::IQ3_S, Beside::Signs, 4, 1, 2);
static IQ1_S: Scheme<Grid<8>> = grid(&points::IQ1, Beside::GroupShift, 3, 0, 1);
static IQ1_M: Scheme<Grid<8>> = grid(&points::IQ1, Beside::PointShift, 3, 0, 1);

/// `find` and `snap` with a format's own types.
macro_rules! best {
    ($format:ident, $n:literal x $g:literal, $level:expr, $pack:path) => {
        Best {
            block: ggml::$format,
            find: |x, w, _, out| find::<_, $n, $g>(&$format, x, w, out, $level, $pack),
        }
    };
    ($format:ident, $n:literal x $g:literal from $start:path, $pack:path) => {
        Best {
            block: ggml::$format,
            find: |x, w, ggml, out| snap::<_, $n, $g>(&$format, x, w, $start(ggml), out, $pack),
        }
    };
}

pub(super) static BEST: &[Best] = &[
    best!(Q4_0, 32 x 1, |q| (q + 8.0) as u8, pack::scale_and_nibbles),
    best!(Q4_1, 32 x 1, |q| q as u8, pack::q4_1),
    best!(Q5_0, 32 x 1, |q| (q + 16.0) as u8, pack::q5_0),
    best!(Q5_1, 32 x 1, |q| q as u8, pack::q5_1),
    best!(Q8_0, 32 x 1, |q| q as i8 as u8, pack::q8_0),
    best!(Q2_K, 16 x 16, |q| q as u8, pack::q2_k),
    best!(Q3_K, 16 x 16, |q| (q + 4.0) as u8, pack::q3_k),
    best!(Q4_K, 32 x 8, |q| q as u8, pack::q4_k),
    best!(Q5_K, 32 x 8, |q| q as u8, pack::q5_k),
    best!(Q6_K, 16 x 16, |q| (q + 32.0) as u8, pack::q6_k),
    best!(IQ4_NL, 32 x 1, |q| IQ4_NL.levels.index(q), pack::scale_and_nibbles),
    best!(IQ4_XS, 32 x 8, |q| IQ4_XS.levels.index(q), pack::iq4_xs),
    best!(IQ2_XXS, 32 x 8 from pack_grid::start_iq2_xxs, pack_grid::iq2_xxs),
    best!(IQ2_XS, 16 x 16 from pack_grid::start_iq2_xs, pack_grid::iq2_xs),
    best!(IQ2_S, 16 x 16 from pack_grid::start_iq2_s, pack_grid::iq2_s),
    best!(IQ3_XXS, 32 x 8 from pack_grid::start_iq3_xxs, pack_grid::iq3_xxs),
    best!(IQ3_S, 32 x 8 from pack_grid::start_iq3_s, pack_grid::iq3_s),
    best!(IQ1_S, 32 x 8 from pack_grid::start_iq1_s, pack_grid::iq1_s),
    best!(IQ1_M, 16 x 16 from pack_grid::start_iq1_m, pack_grid::iq1_m),
];

/// Searches a block and packs what was found; `level` is the stored level of a rounded value.
fn find<L: Levels<N>, const N: usize, const G: usize>(
    scheme: &Scheme<L>,
    x: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
    level: impl Fn(f32) -> u8,
    pack: fn(&Choice<G>, &[u8], &mut [u8]),
) -> bool {
    let Some(problem) = Problem::<N, G>::new(x, importance) else { return false };
    let Some(choice) = search(&problem, scheme) else { return false };
    let (d, dmin) = (problem.value(choice.d), problem.value(choice.dmin));
    let mut levels = [[0u8; N]; G];
    for (j, levels) in levels.iter_mut().enumerate() {
        let mut q = [0f32; N];
        let (scale, offset) = (d * choice.s[j] as f32, -(dmin * choice.m[j] as f32));
        scheme.levels.round(&problem.x[j], &problem.w[j], scale, offset, &mut q);
        *levels = q.map(&level);
    }
    pack(&choice, levels.as_flattened(), out);
    true
}

/// The same for grid formats, from ggml's choice.
fn snap<const D: usize, const N: usize, const G: usize>(
    scheme: &Scheme<Grid<D>>,
    x: &[f32],
    importance: Option<&[f32]>,
    start: Choice<G>,
    out: &mut [u8],
    pack: fn(&Choice<G>, &Found<G>, &mut [u8]),
) -> bool {
    let Some(problem) = Problem::<N, G>::new(x, importance) else { return false };
    let (choice, error) = Joint { problem: &problem, scheme }.refine(start);
    if !error.is_finite() {
        return false;
    }
    let d = problem.value(choice.d);
    let mut found = Found { codes: [[0; MAX_POINTS]; G], signs: [0; 32] };
    let mut q = [[0f32; N]; G];
    for j in 0..G {
        let scale = d * choice.s[j] as f32;
        found.codes[j] = scheme.levels.snap(&problem.x[j], &problem.w[j], scale, &mut q[j]);
    }
    for (signs, q) in found.signs.iter_mut().zip(q.as_flattened().as_chunks::<8>().0) {
        *signs = (0..8).map(|i| u8::from(q[i].is_sign_negative()) << i).sum();
    }
    pack(&choice, &found, out);
    true
}

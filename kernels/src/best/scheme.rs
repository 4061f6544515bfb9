//! The formats with a search of their own, as data.

use super::joint::{Choice, Effort, Offsets, Scheme, Steps, search};
use super::levels::{Even, Levels};
use super::problem::Problem;
use super::{Best, pack};
use tensormill_tensor::ggml;

/// Integers from zero, to which an affine format's levels are rounded.
const fn unsigned(bits: u32) -> (Even, (f32, f32)) {
    let high = ((1 << bits) - 1) as f32;
    (Even { low: 0.0, high }, (0.0, high))
}

const fn up_to(high: i32) -> Steps {
    Steps { low: 0, high, stride: 1 }
}

const fn affine(bits: u32, integers: i32, effort: Effort) -> Scheme<Even> {
    let (levels, range) = unsigned(bits);
    Scheme { levels, range, scales: up_to(integers), offsets: Offsets::UpTo(integers), effort }
}

static Q4_K: Scheme<Even> =
    affine(4, 63, Effort { fan: 21, spread: (-0.2, 0.2), reach: 4, rounds: 6, starts: &[1.0] });
static Q5_K: Scheme<Even> =
    affine(5, 63, Effort { fan: 21, spread: (-0.1, 0.1), reach: 4, rounds: 6, starts: &[1.0] });

pub(super) static BEST: &[Best] = &[
    Best { block: ggml::Q4_K, find: |x, w, out| find::<_, 32, 8>(&Q4_K, x, w, out, |q| q as u8, pack::q4_k) },
    Best { block: ggml::Q5_K, find: |x, w, out| find::<_, 32, 8>(&Q5_K, x, w, out, |q| q as u8, pack::q5_k) },
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

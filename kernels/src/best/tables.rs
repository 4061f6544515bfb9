//! Which formats have a search of their own at each level. Every level has them all.

use super::compare::keep_better;
use super::scheme;
use super::{Best, compare};
#[cfg(test)]
use crate::codec::EncodeRows;
use crate::dispatch::Level;
use crate::lanes::Portable;
#[cfg(test)]
use tensormill_tensor::BlockFormat;
use tensormill_tensor::ggml;

macro_rules! tables {
    ($($format:ident: $name:ident;)*) => {
        static SCALAR: &[Best] = &[$(Best {
            block: ggml::$format,
            level: Level::Scalar,
            find: |rows, out| scheme::$name(Portable::<PORTABLE_LANES>, rows, out),
            keep: keep_better,
        }),*];
        tables!(@level "x86_64", AVX2, Avx2, avx2, $($format: $name;)*);
        tables!(@level "x86_64", AVX512, Avx512, avx512, $($format: $name;)*);
        tables!(@level "aarch64", NEON, Neon, neon, $($format: $name;)*);
    };
    (@level $arch:literal, $table:ident, $level:ident, $module:ident, $($format:ident: $name:ident;)*) => {
        #[cfg(target_arch = $arch)]
        static $table: &[Best] = &[$(Best {
            block: ggml::$format,
            level: Level::$level,
            find: scheme::$module::$name,
            keep: compare::$module::keep_better,
        }),*];
        #[cfg(not(target_arch = $arch))]
        static $table: &[Best] = &[];
    };
}

/// Lanes of plain arrays, which the compiler turns into what vectors there are.
const PORTABLE_LANES: usize = 8;

tables! {
    Q4_0: q4_0;
    Q4_1: q4_1;
    Q5_0: q5_0;
    Q5_1: q5_1;
    Q8_0: q8_0;
    Q2_K: q2_k;
    Q3_K: q3_k;
    Q4_K: q4_k;
    Q5_K: q5_k;
    Q6_K: q6_k;
    IQ4_NL: iq4_nl;
    IQ4_XS: iq4_xs;
    IQ2_XXS: iq2_xxs;
    IQ2_XS: iq2_xs;
    IQ2_S: iq2_s;
    IQ3_XXS: iq3_xxs;
    IQ3_S: iq3_s;
    IQ1_S: iq1_s;
    IQ1_M: iq1_m;
}

/// One format of each kind at a width that no level has.
#[cfg(test)]
pub(super) static NARROW: &[(&BlockFormat, EncodeRows)] = &[
    (ggml::Q4_K, |rows, out| scheme::q4_k(Portable::<4>, rows, out)),
    (ggml::Q3_K, |rows, out| scheme::q3_k(Portable::<4>, rows, out)),
    (ggml::Q4_1, |rows, out| scheme::q4_1(Portable::<4>, rows, out)),
    (ggml::Q8_0, |rows, out| scheme::q8_0(Portable::<4>, rows, out)),
    (ggml::IQ4_NL, |rows, out| scheme::iq4_nl(Portable::<4>, rows, out)),
    (ggml::IQ3_XXS, |rows, out| scheme::iq3_xxs(Portable::<4>, rows, out)),
    (ggml::IQ1_M, |rows, out| scheme::iq1_m(Portable::<4>, rows, out)),
];

/// The formats at `level`.
pub(super) fn at(level: Level) -> &'static [Best] {
    let table = match level {
        Level::Avx512 => AVX512,
        Level::Avx2 => AVX2,
        Level::Neon => NEON,
        Level::Scalar => SCALAR,
    };
    if table.is_empty() { SCALAR } else { table }
}

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
        /// The same at widths of no instruction set and not of [`SCALAR`].
        #[cfg(test)]
        pub(super) static PORTABLE: &[(&BlockFormat, [EncodeRows; 2])] = &[$((ggml::$format, [
            |rows, out| scheme::$name(Portable::<1>, rows, out),
            |rows, out| scheme::$name(Portable::<4>, rows, out),
        ])),*];
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

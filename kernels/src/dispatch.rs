//! Which formats exist, at which levels, and which level runs.
//!
//! One table per level; a format missing from a level's table is served by the next lower one, down to
//! [`Level::Scalar`], which has them all. A format in no table is unsupported. Must not know how any format
//! works.

use crate::codec::{BlockCodec, Codec, LaneCodec};
use crate::levels;
use crate::{fp4, grid, iq4, legacy, low_bit, q2_k, q3_k, q4_k, q5_k, q6_k, q8_k, ternary};
use std::sync::OnceLock;
use tensormill_tensor::BlockFormat;

/// A way of computing the same bytes. On one architecture, ordered from slow to fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Plain scalar Rust: the reference.
    Scalar,
    /// Eight lanes of AVX2.
    Avx2,
    /// Sixteen lanes of AVX-512 (F, BW, VL, DQ).
    Avx512,
    /// Eight lanes of NEON, as pairs of vectors of four.
    Neon,
}

impl Level {
    /// Every level, whether this machine has it or not: those of one architecture slowest first.
    pub const ALL: &'static [Self] = &[Self::Scalar, Self::Avx2, Self::Avx512, Self::Neon];

    /// Name as `TENSORMILL_SIMD` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The level with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|l| l.name().eq_ignore_ascii_case(name))
    }

    fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => crate::lanes::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => crate::lanes::Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => crate::lanes::Neon::detect().is_some(),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon => false,
        }
    }

    /// The formats that this level has over lanes.
    fn table(self) -> &'static [LaneCodec] {
        match self {
            Self::Scalar => &[],
            Self::Avx2 => levels::AVX2,
            Self::Avx512 => levels::AVX512,
            Self::Neon => levels::NEON,
        }
    }

    fn find(self, block: &BlockFormat) -> Option<&'static dyn BlockCodec> {
        if self == Self::Scalar {
            return SCALAR.iter().find(|c| c.block == block).map(|&c| c as &dyn BlockCodec);
        }
        self.table().iter().find(|c| c.reference.block == block).map(|c| c as &dyn BlockCodec)
    }
}

static SCALAR: &[&Codec] = &[
    &legacy::Q4_0,
    &legacy::Q4_1,
    &legacy::Q5_0,
    &legacy::Q5_1,
    &legacy::Q8_0,
    &q2_k::CODEC,
    &q3_k::CODEC,
    &q4_k::CODEC,
    &q5_k::CODEC,
    &q6_k::CODEC,
    &q8_k::CODEC,
    &iq4::IQ4_NL,
    &iq4::IQ4_XS,
    &ternary::TQ1_0,
    &ternary::TQ2_0,
    &fp4::MXFP4,
    &fp4::NVFP4,
    &low_bit::Q1_0,
    &low_bit::Q2_0,
    &grid::IQ3_S,
    &grid::IQ3_XXS,
    &grid::IQ2_S,
    &grid::IQ2_XS,
    &grid::IQ2_XXS,
    &grid::IQ1_M,
    &grid::IQ1_S,
];

/// The levels that this machine can run, slowest first. Found out once.
pub fn available_levels() -> &'static [Level] {
    static AVAILABLE: OnceLock<Vec<Level>> = OnceLock::new();
    AVAILABLE.get_or_init(|| Level::ALL.iter().copied().filter(|l| l.is_available()).collect())
}

/// The level that [`codec`] starts from: the best available one, unless the environment variable
/// `TENSORMILL_SIMD` names a lower one when this is first called. The variable can only lower the level; a
/// name that is unknown, or of a level that this machine lacks, changes nothing.
pub fn selected_level() -> Level {
    static SELECTED: OnceLock<Level> = OnceLock::new();
    *SELECTED.get_or_init(|| {
        let best = available_levels().last().copied().unwrap_or(Level::Scalar);
        let asked = std::env::var("TENSORMILL_SIMD").ok().and_then(|name| Level::from_name(&name));
        asked.filter(|level| available_levels().contains(level)).unwrap_or(best)
    })
}

/// The codec of a format at the best level; `None` when the format is unsupported.
pub fn codec(block: &BlockFormat) -> Option<&'static dyn BlockCodec> {
    codec_at(block, selected_level())
}

/// The codec of a format at `level`, or at the highest level below it that has this format; `None` when the
/// format is unsupported or this machine cannot run `level`.
pub fn codec_at(block: &BlockFormat, level: Level) -> Option<&'static dyn BlockCodec> {
    if !available_levels().contains(&level) {
        return None;
    }
    available_levels().iter().rev().filter(|&&l| l <= level).find_map(|l| l.find(block))
}

/// The level at which [`codec`] encodes a format (the lowest for a format that can only be decoded); `None`
/// when the format is unsupported.
pub fn level_of(block: &BlockFormat) -> Option<Level> {
    let encodes =
        |level: Level| level.table().iter().any(|c| c.reference.block == block && c.encode.is_some());
    codec(block)?;
    let usable = available_levels().iter().rev().copied().filter(|&l| l <= selected_level());
    usable.into_iter().find(|&l| l == Level::Scalar || encodes(l))
}

/// Every format that can at least be decoded, in a fixed order fit for listing.
pub fn formats() -> impl Iterator<Item = &'static dyn BlockCodec> {
    SCALAR.iter().filter_map(|c| codec(c.block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::ggml;

    #[test]
    fn every_level_serves_every_format_of_the_reference() {
        for &level in available_levels() {
            for c in SCALAR {
                let found = codec_at(c.block, level).expect("falls back down to scalar");
                assert_eq!(found.block(), c.block);
            }
        }
        assert_eq!(formats().count(), SCALAR.len());
    }

    #[test]
    fn formats_without_a_decoder_are_absent() {
        assert!(codec(ggml::Q8_1).is_none());
    }

    #[test]
    fn level_names_round_trip() {
        for &level in Level::ALL {
            assert_eq!(Level::from_name(&level.name().to_uppercase()), Some(level));
        }
        assert_eq!(Level::from_name("avx9000"), None);
    }
}

//! Which formats exist, at which levels, and which level runs.
//!
//! One table per level; a format missing from a level's table is served by the next lower one, down to
//! [`Level::Scalar`], which has them all. A format in no table is unsupported. Must not know how any format
//! works.

use crate::codec::{BlockCodec, Codec};
use crate::{fp4, grid, iq4, legacy, low_bit, q2_k, q3_k, q4_k, q5_k, q6_k, q8_k, ternary};
use std::sync::OnceLock;
use tensormill_tensor::BlockFormat;

/// A way of computing the same bytes. Ordered from slow to fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Plain scalar Rust: the reference.
    Scalar,
}

impl Level {
    /// Every level, slowest first, whether this machine has it or not.
    pub const ALL: &'static [Self] = &[Self::Scalar];

    /// Name as `TENSORMILL_SIMD` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
        }
    }

    /// The level with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|l| l.name().eq_ignore_ascii_case(name))
    }

    fn table(self) -> &'static [&'static Codec] {
        match self {
            Self::Scalar => SCALAR,
        }
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
    Level::ALL
}

/// The level that [`codec`] starts from: the best available one, unless the environment variable
/// `TENSORMILL_SIMD` names a lower one when this is first called. The variable can only lower the level; a
/// name that is unknown or too high changes nothing.
pub fn selected_level() -> Level {
    static SELECTED: OnceLock<Level> = OnceLock::new();
    *SELECTED.get_or_init(|| {
        let best = available_levels().last().copied().unwrap_or(Level::Scalar);
        let asked = std::env::var("TENSORMILL_SIMD").ok().and_then(|name| Level::from_name(&name));
        asked.map_or(best, |level| level.min(best))
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
    let downward = Level::ALL.iter().rev().filter(|&&l| l <= level && available_levels().contains(&l));
    downward.flat_map(|l| l.table()).find(|c| c.block == block).map(|&c| c as &'static dyn BlockCodec)
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

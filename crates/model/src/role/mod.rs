//! Roles: what a tensor is for, independent of how any world spells its name.
//!
//! Recipes, adapters and calibration see roles, never `name.contains("attn_v")`. The kinds are those that
//! gguf-py registers, with the GGUF spelling as the one canonical text; every other spelling is `arch`'s.

use std::{collections::HashMap, fmt, sync::LazyLock};

macro_rules! kinds {
    ($($name:ident $text:literal;)*) => {
        /// What a tensor is for. Named after gguf-py's `MODEL_TENSOR`.
        #[allow(missing_docs)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[non_exhaustive]
        pub enum Kind { $($name),* }

        impl Kind {
            /// Every kind, in gguf-py's order.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// The GGUF spelling, with `{bid}` for the layer number.
            pub const fn pattern(self) -> &'static str {
                match self { $(Kind::$name => $text),* }
            }
        }
    };
}

include!("kinds.rs");

impl Kind {
    /// Kinds whose weights stay binary32 whatever type is asked for: small, and read by code that expects it
    /// (`prepare_tensors` in llama.cpp's `conversion/base.py`).
    pub const STAY_F32: &'static [Kind] = &[
        Kind::FfnGateInp,
        Kind::FfnGateInpShexp,
        Kind::PosEmbd,
        Kind::TokenTypes,
        Kind::SsmConv1d,
        Kind::ShortconvConv,
        Kind::TimeMixFirst,
        Kind::TimeMixW1,
        Kind::TimeMixW2,
        Kind::TimeMixDecayW1,
        Kind::TimeMixDecayW2,
        Kind::TimeMixLerpFused,
        Kind::PosnetNorm1,
        Kind::PosnetNorm2,
        Kind::VEncEmbdPos,
        Kind::AEncEmbdPos,
        Kind::AltupCorrectCoef,
        Kind::AltupPredictCoef,
        Kind::SsmConv1dQ,
        Kind::SsmConv1dK,
        Kind::SsmConv1dV,
        Kind::IndexerProj,
    ];

    /// The GGUF spelling without the layer: `attn_v`, `token_embd`, `v.attn_v` for a vision tower's.
    pub fn label(self) -> String {
        self.pattern().replace("blk.{bid}.", "")
    }

    /// Whether this is one of [`Self::STAY_F32`].
    pub fn stays_f32(self) -> bool {
        Self::STAY_F32.contains(&self)
    }
}

/// Which parameter of its module a tensor is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Slot {
    /// `.weight`
    Weight,
    /// `.bias`
    Bias,
    /// No suffix.
    Bare,
    /// Any other suffix, without the dot (`scale`, `input_scale`).
    Other(String),
}

/// What one tensor is for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Role {
    /// What kind of module.
    pub kind: Kind,
    /// Layer number, for kinds that repeat.
    pub layer: Option<u32>,
    /// Which of its parameters.
    pub slot: Slot,
}

impl Role {
    /// Makes a role.
    pub fn new(kind: Kind, layer: Option<u32>, slot: Slot) -> Self {
        Self { kind, layer, slot }
    }

    /// The role that a GGUF tensor name spells. The first kind that matches, in gguf-py's order: a few
    /// kinds of different architectures share a spelling.
    pub fn from_gguf_name(name: &str) -> Option<Self> {
        let (base, slot) = match name.rsplit_once('.') {
            Some((base, "weight")) => (base, Slot::Weight),
            Some((base, "bias")) => (base, Slot::Bias),
            _ => (name, Slot::Bare),
        };
        let find = |base: &str, slot: Slot| {
            let (kind, layer) = match_pattern(base)?;
            Some(Role { kind, layer, slot })
        };
        find(base, slot).or_else(|| {
            let (base, suffix) = name.rsplit_once('.')?;
            find(base, Slot::Other(suffix.to_owned()))
        })
    }
}

/// The first kind whose pattern a base name fits, and the layer where the pattern has one.
fn match_pattern(base: &str) -> Option<(Kind, Option<u32>)> {
    /// Places of patterns in the list of kinds: thousands of names are looked up, and there are hundreds of patterns.
    static PLACES: LazyLock<HashMap<&str, usize>> = LazyLock::new(|| {
        let mut places = HashMap::new();
        for (i, kind) in Kind::ALL.iter().enumerate() {
            places.entry(kind.pattern()).or_insert(i);
        }
        places
    });
    let literal = PLACES.get(base).filter(|_| !base.contains("{bid}")).map(|&i| (i, None));
    // A layer's number is a whole part of the name.
    let mut start = 0;
    let numbered = base.split('.').filter_map(|part| {
        let (head, tail) = (&base[..start], &base[start + part.len()..]);
        start += part.len() + 1;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let layer = part.parse().ok()?;
        PLACES.get(format!("{head}{{bid}}{tail}").as_str()).map(|&i| (i, Some(layer)))
    });
    let (i, layer) = numbered.chain(literal).min_by_key(|(i, _)| *i)?;
    Some((Kind::ALL[i], layer))
}

impl fmt::Display for Role {
    /// The GGUF name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = self.kind.pattern();
        match (pattern.split_once("{bid}"), self.layer) {
            (Some((head, tail)), Some(layer)) => write!(f, "{head}{layer}{tail}")?,
            _ => f.write_str(pattern)?,
        }
        match &self.slot {
            Slot::Weight => f.write_str(".weight"),
            Slot::Bias => f.write_str(".bias"),
            Slot::Bare => Ok(()),
            Slot::Other(s) => write!(f, ".{s}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_roles_are_inverse() {
        for name in [
            "token_embd.weight",
            "blk.17.attn_q.bias",
            "blk.0.ffn_gate_exps.weight",
            "rope_freqs.weight",
            "output.weight",
            "blk.3.ffn_gate_exps.scale",
        ] {
            assert_eq!(Role::from_gguf_name(name).unwrap().to_string(), name);
        }
        for &kind in Kind::ALL {
            let pattern = kind.pattern();
            let first = Kind::ALL.iter().find(|k| k.pattern() == pattern).unwrap();
            let layer = pattern.contains("{bid}").then_some(7);
            let role = Role::from_gguf_name(&pattern.replace("{bid}", "7")).unwrap();
            assert_eq!((role.kind, role.layer), (*first, layer), "{pattern}");
            assert!(layer.is_none() || Role::from_gguf_name(pattern).is_none(), "{pattern}");
        }
        assert_eq!(Role::from_gguf_name("blk.99999999999.attn_q.weight"), None);
        assert_eq!(Role::from_gguf_name("blk.x.attn_q.weight"), None);
        assert_eq!(Role::from_gguf_name("model.layers.0.mlp.up_proj.weight"), None);
        let r = Role::from_gguf_name("blk.2.attn_v.weight").unwrap();
        assert_eq!(r, Role::new(Kind::AttnV, Some(2), Slot::Weight));
    }
}

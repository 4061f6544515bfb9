//! Recipes as data: which block type each part of a model gets, under which conditions.
//!
//! A recipe has a base type; `rows` says where it departs from it. To choose a type, the first row that names
//! the recipe and the tensor's [`Part`] and whose conditions all hold wins, and the base type stands where none
//! does. `choose` evaluates that and keeps the counters that positions are measured with. Source of all
//! choices: llama.cpp, `src/llama-quant.cpp` (`llama_tensor_get_type_impl`, `llama_ftype_get_default_type`) and
//! `tools/quantize/quantize.cpp` (names and numbers).
//!
//! Must not know tensor names: parts are made of roles.

mod choose;
mod rows;

pub(crate) use choose::{Chooser, Facts, Subject, fallback, is_always_plain, needs_importance};

use tensormill_kernels::codec;
use tensormill_model::{Kind, Role, Slot};
use tensormill_tensor::{Encoding, ggml};

macro_rules! recipes {
    ($($id:ident $name:literal $alias:expr, $file_type:literal, $base:expr, $about:literal;)*) => {
        /// Identifies a recipe in rows.
        #[allow(missing_docs, non_camel_case_types)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Id { $($id),* }

        static RECIPES: &[Recipe] = &[$(Recipe {
            id: Id::$id,
            name: $name,
            alias: $alias,
            file_type: $file_type,
            base: $base,
            about: $about,
        }),*];
    };
}

/// A named mixture of encodings.
#[derive(Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What rows call it.
    pub id: Id,
    /// Name as the command line spells it.
    pub name: &'static str,
    /// A second name.
    pub alias: Option<&'static str>,
    /// The number under `general.file_type` (`enum llama_ftype`).
    pub file_type: u32,
    /// The encoding of whatever no row speaks of.
    pub base: Encoding,
    /// One line for `list recipes`.
    pub about: &'static str,
}

impl Recipe {
    /// Whether the base type can be encoded by this build.
    pub fn available(&self) -> bool {
        match self.base {
            Encoding::Plain(_) => true,
            Encoding::Block(b) => codec(b).is_some_and(tensormill_kernels::BlockCodec::can_encode),
        }
    }
}

const fn block(format: &'static tensormill_tensor::BlockFormat) -> Encoding {
    Encoding::Block(format)
}

recipes! {
    F32 "F32" None, 0, Encoding::F32, "every weight as binary32";
    F16 "F16" None, 1, Encoding::F16, "matrices as binary16, vectors as binary32";
    BF16 "BF16" None, 32, Encoding::BF16, "matrices as bfloat16, vectors as binary32";
    Q8_0 "Q8_0" None, 7, block(ggml::Q8_0), "8-bit blocks of 32: nearly lossless";
    Q6_K "Q6_K" None, 18, block(ggml::Q6_K), "6-bit super-blocks throughout";
    Q5_K_M "Q5_K_M" Some("Q5_K"), 17, block(ggml::Q5_K), "5-bit super-blocks, the sensitive half of values and down projections at 6";
    Q5_K_S "Q5_K_S" None, 16, block(ggml::Q5_K), "5-bit super-blocks throughout";
    Q5_1 "Q5_1" None, 9, block(ggml::Q5_1), "5-bit blocks of 32 with a minimum";
    Q5_0 "Q5_0" None, 8, block(ggml::Q5_0), "5-bit blocks of 32";
    Q4_K_M "Q4_K_M" Some("Q4_K"), 15, block(ggml::Q4_K), "4-bit super-blocks, the sensitive half of values and down projections at 6: the usual choice";
    Q4_K_S "Q4_K_S" None, 14, block(ggml::Q4_K), "4-bit super-blocks, the first layers' values and down projections at 5";
    Q4_1 "Q4_1" None, 3, block(ggml::Q4_1), "4-bit blocks of 32 with a minimum";
    Q4_0 "Q4_0" None, 2, block(ggml::Q4_0), "4-bit blocks of 32";
    Q3_K_L "Q3_K_L" None, 13, block(ggml::Q3_K), "3-bit super-blocks, values, attention output and down projections at 5";
    Q3_K_M "Q3_K_M" Some("Q3_K"), 12, block(ggml::Q3_K), "3-bit super-blocks, values, attention output and down projections at 4 or 5";
    Q3_K_S "Q3_K_S" None, 11, block(ggml::Q3_K), "3-bit super-blocks throughout";
    Q2_K "Q2_K" None, 10, block(ggml::Q2_K), "2-bit super-blocks, values, attention output and down projections at 3 or 4";
    Q2_K_S "Q2_K_S" None, 21, block(ggml::Q2_K), "2-bit super-blocks almost throughout; needs an importance matrix";
    IQ4_NL "IQ4_NL" None, 25, block(ggml::IQ4_NL), "4-bit non-linear blocks of 32";
    IQ4_XS "IQ4_XS" None, 30, block(ggml::IQ4_XS), "4-bit non-linear super-blocks";
    IQ3_M "IQ3_M" None, 27, block(ggml::IQ3_S), "3-bit grids, values, attention output and first down projections at 4";
    IQ3_S "IQ3_S" None, 26, block(ggml::IQ3_S), "3-bit grids";
    IQ3_XS "IQ3_XS" None, 22, block(ggml::IQ3_S), "3-bit grids, the coarser one for queries, keys and the middle layers";
    IQ3_XXS "IQ3_XXS" None, 23, block(ggml::IQ3_XXS), "3-bit coarse grids; needs an importance matrix";
    IQ2_M "IQ2_M" None, 29, block(ggml::IQ2_S), "2-bit grids; needs an importance matrix";
    IQ2_S "IQ2_S" None, 28, block(ggml::IQ2_XS), "2-bit coarser grids; needs an importance matrix";
    IQ2_XS "IQ2_XS" None, 20, block(ggml::IQ2_XS), "2-bit coarser grids, lighter mixture; needs an importance matrix";
    IQ2_XXS "IQ2_XXS" None, 19, block(ggml::IQ2_XXS), "2-bit coarsest grids; needs an importance matrix";
    IQ1_M "IQ1_M" None, 31, block(ggml::IQ1_M), "below 2 bits; needs an importance matrix";
    IQ1_S "IQ1_S" None, 24, block(ggml::IQ1_S), "about 1.5 bits; needs an importance matrix";
    TQ2_0 "TQ2_0" None, 37, block(ggml::TQ2_0), "ternary weights, 2 bits each";
    TQ1_0 "TQ1_0" None, 36, block(ggml::TQ1_0), "ternary weights, five to a byte";
    MXFP4_MOE "MXFP4_MOE" None, 38, block(ggml::MXFP4), "experts as 4-bit floats with shared exponents, the rest 8-bit";
    Q2_0 "Q2_0" None, 41, block(ggml::Q2_0), "2-bit blocks of 64";
    Q1_0 "Q1_0" None, 40, block(ggml::Q1_0), "signs with a scale per block of 128";
}

/// Every recipe, finest first within each family. Some need encoders that a build may lack:
/// [`Recipe::available`] tells.
pub fn recipes() -> &'static [Recipe] {
    RECIPES
}

/// The recipe of this name, alias or file type number, in any case.
pub fn recipe(name: &str) -> Option<&'static Recipe> {
    let named = |n: &str| n.eq_ignore_ascii_case(name);
    RECIPES.iter().find(|r| named(r.name) || r.alias.is_some_and(named)).or_else(|| {
        let number: u32 = name.parse().ok()?;
        RECIPES.iter().find(|r| r.file_type == number)
    })
}

/// Groups of kinds that recipes treat alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// The output projection; also the token embedding where the two share one matrix.
    Output,
    /// Token embeddings.
    TokenEmbd,
    /// Attention queries.
    AttnQ,
    /// Attention keys.
    AttnK,
    /// Attention values.
    AttnV,
    /// Fused queries, keys and values.
    AttnQkv,
    /// The shared key-value up-projection of latent attention.
    AttnKvB,
    /// Attention output.
    AttnOut,
    /// Feed-forward up projections, of experts too.
    FfnUp,
    /// Feed-forward gates, of experts too.
    FfnGate,
    /// Feed-forward down projections, of experts too.
    FfnDown,
    /// Everything else.
    Other,
}

macro_rules! parts {
    ($($part:ident: $($kind:ident)*;)*) => {
        static PARTS: &[(Part, &[Kind])] = &[$((Part::$part, &[$(Kind::$kind),*])),*];
    };
}
macro_rules! lists {
    (Always: $($a:ident)*; Glm5Next: $($g:ident)*; FloorQ8: $($f:ident)*;) => {
        /// Kinds that no recipe quantizes.
        static KEPT: &[Kind] = &[$(Kind::$a),*];
        /// Kinds kept besides in the architecture `glm5-next`.
        static KEPT_GLM5_NEXT: &[Kind] = &[$(Kind::$g),*];
        /// Kinds of `glm5-next` that never go below `Q8_0`.
        static FLOOR_Q8_0: &[Kind] = &[$(Kind::$f),*];
    };
}
include!("parts.rs");

/// The part that a role belongs to.
pub fn part(role: Option<&Role>) -> Part {
    let Some(Role { kind, slot: Slot::Weight, .. }) = role else {
        return Part::Other;
    };
    PARTS.iter().find(|(_, kinds)| kinds.contains(kind)).map_or(Part::Other, |(part, _)| *part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_and_numbers_find_recipes() {
        assert_eq!(recipe("q4_k").unwrap().name, "Q4_K_M");
        assert_eq!(recipe("Q5_K").unwrap().id, Id::Q5_K_M);
        assert_eq!(recipe("32").unwrap().name, "BF16");
        assert_eq!(recipe("nope"), None);
        assert_eq!(recipe("33"), None);
    }

    #[test]
    fn no_two_recipes_share_a_name_or_number() {
        for (i, a) in RECIPES.iter().enumerate() {
            for b in &RECIPES[..i] {
                assert!(a.name != b.name && a.file_type != b.file_type, "{} {}", a.name, b.name);
            }
        }
    }

    #[test]
    fn parts_follow_roles() {
        let of = |name: &str| part(Role::from_gguf_name(name).as_ref());
        assert_eq!(of("blk.3.ffn_down_exps.weight"), Part::FfnDown);
        assert_eq!(of("blk.3.attn_v.weight"), Part::AttnV);
        assert_eq!(of("blk.3.attn_v.bias"), Part::Other);
        assert_eq!(of("dec.blk.3.cross_attn_v.weight"), Part::AttnV);
        assert_eq!(of("output.weight"), Part::Output);
    }
}

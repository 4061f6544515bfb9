//! The rows: where recipes depart from their base types.
//!
//! Read per part, top to bottom; the first row that fits wins. Must hold data only.

use super::{FLOOR_Q8_0, Id, Part};
use Cond::{
    Arch, Experts, ExpertsAtLeast, First, FirstCounted, Grouped, Imatrix, Kinds, Large, Middle, MoreBits,
    NotArch, NotExperts, Nth, RaggedRow, Result, Stacked,
};
use Recipes::{All, Except, Only};
use tensormill_model::Kind;
use tensormill_tensor::{BlockFormat, ggml};

/// Which recipes a row speaks of.
pub(super) enum Recipes {
    All,
    Only(&'static [Id]),
    Except(&'static [Id]),
}

impl Recipes {
    pub(super) fn contains(&self, id: Id) -> bool {
        match self {
            All => true,
            Only(ids) => ids.contains(&id),
            Except(ids) => !ids.contains(&id),
        }
    }
}

/// A condition on the model, the tensor or the position.
///
/// A position is `i` of `n`: how many tensors of the same part came before, of how many. In feed-forward parts
/// `n` is the number of layers, and in models with experts `i` is the layer's number.
pub(super) enum Cond {
    /// `general.architecture` is this.
    Arch(&'static str),
    /// `general.architecture` is not this.
    NotArch(&'static str),
    /// Four or more query heads share a key-value head in the first layer.
    Grouped,
    /// The model is what the peer calls 70B.
    Large,
    /// Exactly this many experts.
    Experts(u64),
    /// Any other number of experts.
    NotExperts(u64),
    /// This many experts or more.
    ExpertsAtLeast(u64),
    /// Whether there is an importance matrix.
    Imatrix(bool),
    /// The row length is not a multiple of the base type's block.
    RaggedRow,
    /// The tensor stacks several matrices.
    Stacked,
    /// The tensor's kind is one of these.
    Kinds(&'static [Kind]),
    /// `i < n / d`.
    First(u32),
    /// As `First`, with `i` counted even in models with experts.
    FirstCounted(u32),
    /// `i < k`.
    Nth(u32),
    /// The first and last eighth, and every third layer between.
    MoreBits,
    /// `n/8 <= i < 7n/8`.
    Middle,
    /// The type chosen so far is one of these (second pass only).
    Result(&'static [&'static BlockFormat]),
}

/// One row of the table.
pub(super) struct Row {
    pub(super) recipes: Recipes,
    pub(super) parts: &'static [Part],
    pub(super) when: &'static [Cond],
    pub(super) gives: &'static BlockFormat,
}

const fn row(
    recipes: Recipes,
    parts: &'static [Part],
    when: &'static [Cond],
    gives: &'static BlockFormat,
) -> Row {
    Row { recipes, parts, when, gives }
}

/// The recipes whose base types take less than three bits with grids.
const LOW: &[Id] = &[Id::IQ2_XXS, Id::IQ2_XS, Id::IQ2_S, Id::IQ2_M, Id::IQ1_S, Id::IQ1_M];
/// Recipes with a second, separate set of habits: the late adjustments do not touch them.
const APART: &[Id] = &[Id::IQ2_XXS, Id::IQ2_XS, Id::IQ2_S, Id::IQ2_M, Id::IQ1_S, Id::IQ1_M, Id::MXFP4_MOE];

const ANY: &[Part] = &[
    Part::Output,
    Part::TokenEmbd,
    Part::AttnQ,
    Part::AttnK,
    Part::AttnV,
    Part::AttnQkv,
    Part::AttnKvB,
    Part::AttnOut,
    Part::FfnUp,
    Part::FfnGate,
    Part::FfnDown,
    Part::Other,
];
const OUTPUT: &[Part] = &[Part::Output];
const EMBED: &[Part] = &[Part::TokenEmbd];
const Q: &[Part] = &[Part::AttnQ];
const K: &[Part] = &[Part::AttnK];
/// Whatever holds values.
pub(super) const V: &[Part] = &[Part::AttnV, Part::AttnQkv, Part::AttnKvB];
const ATTN_OUT: &[Part] = &[Part::AttnOut];
const DOWN: &[Part] = &[Part::FfnDown];
const UP_GATE: &[Part] = &[Part::FfnUp, Part::FfnGate];
const FFN: &[Part] = &[Part::FfnUp, Part::FfnGate, Part::FfnDown];

/// Tried before everything else, and before positions are counted.
pub(super) static FLOORS: &[Row] = &[row(All, ANY, &[Arch("glm5-next"), Kinds(FLOOR_Q8_0)], ggml::Q8_0)];

/// The choices.
#[rustfmt::skip]
pub(super) static CHOICES: &[Row] = &[
    row(Only(&[Id::MXFP4_MOE]), OUTPUT, &[],               ggml::Q8_0),
    row(All,                    OUTPUT, &[Arch("falcon")], ggml::Q8_0),
    row(All,                    OUTPUT, &[RaggedRow],      ggml::Q8_0),
    row(Only(LOW),              OUTPUT, &[],               ggml::Q5_K),
    row(Only(&[Id::IQ3_XXS]),   OUTPUT, &[],               ggml::Q5_K),
    row(Except(&[Id::Q8_0]),    OUTPUT, &[],               ggml::Q6_K),

    row(Only(&[Id::MXFP4_MOE]), ANY, &[Stacked, NotArch("bailingmoe3")], ggml::MXFP4),
    row(Only(&[Id::MXFP4_MOE]), FFN, &[Stacked],                         ggml::MXFP4),
    row(Only(&[Id::MXFP4_MOE]), ANY, &[],                                ggml::Q8_0),

    row(Only(&[Id::IQ2_XXS, Id::IQ2_XS, Id::IQ1_S, Id::IQ1_M]), EMBED, &[], ggml::Q2_K),
    row(Only(&[Id::IQ2_S, Id::IQ2_M, Id::IQ3_XXS]),             EMBED, &[], ggml::IQ3_S),
    row(Only(&[Id::TQ1_0, Id::TQ2_0, Id::Q2_0]),                EMBED, &[], ggml::Q4_K),

    row(Only(LOW),                      V, &[Grouped],           ggml::Q4_K),
    row(Only(LOW),                      V, &[ExpertsAtLeast(4)], ggml::Q4_K),
    row(Only(&[Id::IQ2_S, Id::IQ2_M]),  V, &[],                  ggml::IQ3_S),
    row(Only(LOW),                      V, &[],                  ggml::Q2_K),
    row(Only(&[Id::Q2_K]),              V, &[Grouped],           ggml::Q4_K),
    row(Only(&[Id::Q2_K]),              V, &[],                  ggml::Q3_K),
    row(Only(&[Id::Q2_K_S]),            V, &[Grouped],           ggml::Q4_K),
    row(Only(&[Id::IQ3_XXS]),           V, &[Grouped],           ggml::Q4_K),
    row(Only(&[Id::IQ3_XXS]),           V, &[Imatrix(false)],    ggml::IQ3_S),
    row(Only(&[Id::IQ3_XS, Id::IQ3_S]), V, &[Grouped],           ggml::Q4_K),
    row(Only(&[Id::IQ3_M]),             V, &[],                  ggml::Q4_K),
    row(Only(&[Id::Q3_K_M]),            V, &[Nth(2)],            ggml::Q5_K),
    row(Only(&[Id::Q3_K_M]),            V, &[],                  ggml::Q4_K),
    row(Only(&[Id::Q3_K_L]),            V, &[],                  ggml::Q5_K),
    row(Only(&[Id::IQ4_NL, Id::IQ4_XS]), V, &[Grouped],          ggml::Q5_K),
    row(Only(&[Id::Q4_K_M, Id::Q5_K_M]), V, &[MoreBits],         ggml::Q6_K),
    row(Only(&[Id::Q4_K_S]),            V, &[Nth(4)],            ggml::Q5_K),

    row(Only(LOW),            K, &[Experts(8)], ggml::Q4_K),
    row(Except(APART),        K, &[Experts(8)], ggml::Q8_0),
    row(Only(&[Id::IQ3_XS]),  K, &[],           ggml::IQ3_XXS),
    row(Only(&[Id::IQ3_XXS]), K, &[],           ggml::IQ2_S),

    row(Only(&[Id::IQ3_XS]),  Q, &[], ggml::IQ3_XXS),
    row(Only(&[Id::IQ3_XXS]), Q, &[], ggml::IQ2_S),

    row(Only(&[Id::IQ2_S, Id::IQ2_M]),   DOWN, &[FirstCounted(8)],             ggml::IQ3_S),
    row(Only(LOW),                       DOWN, &[FirstCounted(8)],             ggml::Q2_K),
    row(Only(&[Id::Q2_K]),               DOWN, &[],                            ggml::Q3_K),
    row(Only(&[Id::Q2_K_S]),             DOWN, &[First(8)],                    ggml::Q4_K),
    row(Only(&[Id::IQ3_XXS]),            DOWN, &[Imatrix(false), First(8)],    ggml::Q4_K),
    row(Only(&[Id::IQ3_XXS]),            DOWN, &[Imatrix(false)],              ggml::Q3_K),
    row(Only(&[Id::Q3_K_M]),             DOWN, &[First(16)],                   ggml::Q5_K),
    row(Only(&[Id::Q3_K_M]),             DOWN, &[NotArch("falcon")],           ggml::Q4_K),
    row(Only(&[Id::Q3_K_M]),             DOWN, &[MoreBits],                    ggml::Q4_K),
    row(Only(&[Id::IQ3_M]),              DOWN, &[First(8)],                    ggml::Q4_K),
    row(Only(&[Id::IQ3_M]),              DOWN, &[Experts(8), MoreBits],        ggml::Q4_K),
    row(Only(&[Id::Q3_K_L]),             DOWN, &[Arch("falcon")],              ggml::Q4_K),
    row(Only(&[Id::Q3_K_L]),             DOWN, &[],                            ggml::Q5_K),
    row(Only(&[Id::Q4_K_M]),             DOWN, &[Arch("falcon"), First(16)],   ggml::Q6_K),
    row(Only(&[Id::Q4_K_M]),             DOWN, &[Arch("falcon"), MoreBits],    ggml::Q5_K),
    row(Only(&[Id::Q4_K_M]),             DOWN, &[NotArch("falcon"), MoreBits], ggml::Q6_K),
    row(Only(&[Id::IQ4_NL, Id::IQ4_XS]), DOWN, &[Imatrix(false), First(8)],    ggml::Q5_K),
    row(Only(&[Id::Q5_K_M]),             DOWN, &[MoreBits],                    ggml::Q6_K),
    row(Only(&[Id::Q4_K_S]),             DOWN, &[NotArch("falcon"), First(8)], ggml::Q5_K),
    // With importance, symmetric blocks can go astray in the first layers' down projections.
    row(Only(&[Id::Q4_0]),               DOWN, &[Imatrix(true), First(8)],     ggml::Q4_1),
    row(Only(&[Id::Q5_0]),               DOWN, &[Imatrix(true), First(8)],     ggml::Q5_1),

    row(Only(LOW),                        ATTN_OUT, &[Experts(8)], ggml::Q5_K),
    row(Only(&[Id::IQ1_S, Id::IQ1_M]),    ATTN_OUT, &[],           ggml::IQ2_XXS),
    row(Only(&[Id::IQ2_S, Id::IQ2_M]),    ATTN_OUT, &[],           ggml::IQ3_S),
    row(Only(&[Id::Q2_K, Id::IQ3_XS, Id::IQ3_XXS, Id::Q3_K_S, Id::Q3_K_M, Id::IQ4_NL, Id::Q4_K_S, Id::Q4_K_M,
               Id::IQ3_S, Id::IQ3_M, Id::IQ4_XS]),
                                          ATTN_OUT, &[NotArch("falcon"), Experts(8)],    ggml::Q5_K),
    row(Only(&[Id::Q2_K]),                ATTN_OUT, &[NotArch("falcon"), NotExperts(8)], ggml::Q3_K),
    row(Only(&[Id::IQ3_XXS]),             ATTN_OUT, &[NotArch("falcon"), NotExperts(8)], ggml::IQ3_S),
    row(Only(&[Id::Q3_K_M, Id::IQ3_M]),   ATTN_OUT, &[NotArch("falcon"), NotExperts(8)], ggml::Q4_K),
    row(Only(&[Id::Q3_K_L]),              ATTN_OUT, &[NotArch("falcon"), NotExperts(8)], ggml::Q5_K),
    row(Only(&[Id::Q3_K_L]),              ATTN_OUT, &[Arch("falcon")],                   ggml::Q4_K),

    row(Only(&[Id::IQ3_XS]), UP_GATE, &[Middle], ggml::IQ3_XXS),
];

/// Applied to what the choices gave, each in turn.
pub(super) static ADJUSTMENTS: &[Row] = &[
    // Many heads share these small matrices: more bits cost little.
    row(Except(APART), V, &[Large, Result(&[ggml::Q3_K, ggml::Q4_K])], ggml::Q5_K),
    row(Except(APART), V, &[Experts(8)], ggml::Q8_0),
];

/// Models that the peer calls 70B: architecture, layers, and whether key-value heads must be shared and the
/// number of experts not eight. (`load_arch_hparams` in llama.cpp's `src/models/`.)
pub(super) static LARGE: &[(&str, u64, bool)] = &[
    ("llama", 80, true),
    ("llama-embed", 80, true),
    ("qwen2", 80, false),
    ("deci", 80, false),
    ("olmo", 80, false),
    ("jais2", 68, false),
];

/// What a block type becomes when rows do not fill its blocks; F16 if they do not fill these either.
pub(super) static FALLBACKS: &[(&[&BlockFormat], &BlockFormat)] = &[
    (
        &[
            ggml::IQ1_S,
            ggml::IQ1_M,
            ggml::IQ2_XXS,
            ggml::IQ2_XS,
            ggml::IQ2_S,
            ggml::IQ3_XXS,
            ggml::IQ3_S,
            ggml::IQ4_XS,
        ],
        ggml::IQ4_NL,
    ),
    (&[ggml::Q2_0, ggml::Q2_K, ggml::Q3_K, ggml::TQ1_0, ggml::TQ2_0], ggml::Q4_0),
    (&[ggml::Q4_K], ggml::Q5_0),
    (&[ggml::Q5_K], ggml::Q5_1),
    (&[ggml::Q6_K], ggml::Q8_0),
];

/// Block types that are garbage without importance, whatever the recipe (embeddings and output excepted).
pub(super) static NEED_IMPORTANCE: &[&BlockFormat] =
    &[ggml::IQ3_XXS, ggml::IQ2_XXS, ggml::IQ2_XS, ggml::IQ2_S, ggml::IQ1_M, ggml::IQ1_S];

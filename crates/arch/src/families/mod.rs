//! The architectures, one module per family.
//!
//! Adding one: a static [`Text`] naming its hooks, and a line in [`ALL`].

mod bert;
mod gemma;
mod gpt_oss;
mod llama;
mod phi;
mod qwen;

use crate::Architecture;
#[cfg(doc)]
use crate::text::Text;

/// Every registered architecture.
pub(crate) static ALL: &[&dyn Architecture] = &[
    &llama::LLAMA,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi::PHI3,
    &gpt_oss::GPT_OSS,
    &bert::BERT,
];

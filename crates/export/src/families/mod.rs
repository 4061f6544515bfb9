//! One file for each family.

mod decoder;
mod encoder;

use crate::Family;

pub use decoder::genai_config;

/// Every family.
pub(crate) static ALL: &[&dyn Family] = &[
    &encoder::BERT,
    &encoder::ROBERTA,
    &encoder::DISTILBERT,
    &encoder::MPNET,
    &encoder::VIT,
    &decoder::DECODER,
];

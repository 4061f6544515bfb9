//! One file for each family.

mod encoder;

use crate::Family;

/// Every family.
pub(crate) static ALL: &[&dyn Family] =
    &[&encoder::BERT, &encoder::ROBERTA, &encoder::DISTILBERT, &encoder::MPNET, &encoder::VIT];

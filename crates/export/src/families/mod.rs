//! One file for each family.

use crate::Family;

/// Every family.
pub(crate) static ALL: &[&dyn Family] = &[];

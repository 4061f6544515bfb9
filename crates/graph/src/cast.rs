//! A graph that computes in another float type.

use crate::{Elem, Program};
use std::fmt;

/// Why a program cannot be cast.
#[derive(Debug)]
pub struct CastError(String);

impl fmt::Display for CastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CastError {}

impl Program {
    /// Casts.
    pub fn cast(&mut self, _to: Elem, _keep_io: bool) -> Result<(), CastError> {
        Err(CastError("not yet".into()))
    }
}

//! Low-rank approximation of matrices that are never in memory as a whole.
//!
//! [`decompose`] is a randomised singular value decomposition (Halko, Martinsson and Tropp, "Finding structure with
//! randomness", 2011, algorithms 4.4 and 5.1) of a [`Matrix`] that is read by rows. Passes over the rows make a small
//! orthonormal basis of the row space, by orthogonal iteration on `D^T D`; a last pass projects the matrix on it, and
//! what is left to decompose has as many columns as the basis. [`product`] decomposes a product of two factors exactly,
//! and [`residual`] measures how far factors, as they are stored, are from the matrix.
//!
//! Invariants:
//! - Results depend on matrix and [`Options`] alone, never on the number of threads: the test matrix comes from a counter,
//!   tiles and stripes follow from the shape, and sums are taken in a fixed order.
//! - Memory grows with `(rank + oversampling) * (rows + columns)`; [`memory`] says how much it is.
//! - Large products are `f32` with fused multiply-adds, one rounding per term; what is small is `f64`.
//!
//! This crate must *not* know files, models or adapters.

mod dense;
mod kernel;
mod passes;
mod svd;
mod test_matrix;

pub use passes::{residual, tile_rows};
pub use svd::{Failure, Options, Svd, decompose, memory, product};

use std::ops::Range;

/// A matrix that is read by rows, from many threads and several times over.
pub trait Matrix: Sync {
    /// Why rows cannot be read.
    type Error: Send;
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Number of columns.
    fn columns(&self) -> usize;
    /// Fills `out` with whole rows, row by row. The same rows are the same numbers each time.
    ///
    /// # Errors
    /// Whatever the source of the rows says; it ends the decomposition.
    fn read(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Self::Error>;
}

/// A matrix in memory, row by row.
#[derive(Clone, Copy, Debug)]
pub struct Dense<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// Elements of a row.
    pub columns: usize,
}

impl Matrix for Dense<'_> {
    type Error = std::convert::Infallible;
    fn rows(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }
    fn columns(&self) -> usize {
        self.columns
    }
    fn read(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Self::Error> {
        out.copy_from_slice(&self.values[rows.start * self.columns..rows.end * self.columns]);
        Ok(())
    }
}

//! Reductions: a few numbers about the whole of some inputs, found by passes over their rows. A norm is one; the k-th
//! largest magnitude takes several passes, each of which looks where the one before it pointed.
//!
//! An op with a reduction ([`crate::Op::reduction`]) is the input of another op that needs its numbers
//! ([`crate::Locality::Whole`]): what is large stays on disk, what is small is an input like any other.
//!
//! Must not know how passes are scheduled.

use crate::{Form, Result, Rows};

/// What a pass has found so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Counts, which add up in any order.
    pub counts: Vec<u64>,
    /// Sums. Rounding depends on their order, so each block's are kept apart until a pass is complete, and then added
    /// in the order of blocks.
    pub sums: Vec<f64>,
    /// Largest values; what is absent counts as negative infinity.
    pub maxima: Vec<f64>,
}

impl Tally {
    /// Takes the larger of each of two lists of maxima.
    pub fn join_maxima(&mut self, more: &[f64]) {
        if self.maxima.len() < more.len() {
            self.maxima.resize(more.len(), f64::NEG_INFINITY);
        }
        for (m, x) in self.maxima.iter_mut().zip(more) {
            *m = m.max(*x);
        }
    }
}

/// Finds numbers by passes over blocks of rows. All inputs have as many rows; blocks depend on their forms alone.
pub trait Reduction: Send + Sync {
    /// How many passes it takes at most.
    fn passes(&self) -> usize;

    /// Adds what a block holds to the tally of the pass at hand; `earlier` are those of the passes before it. Called
    /// for every block of a pass once, in any order, with `sums` empty.
    ///
    /// # Errors
    /// What the values make impossible.
    fn add(
        &self,
        earlier: &[Tally],
        rows: Rows,
        forms: &[Form],
        inputs: &[&[u8]],
        tally: &mut Tally,
    ) -> Result<()>;

    /// The op's value from the passes made, each tally as long as its largest index that was counted; `false` when there
    /// must be another pass. Called before the first one, too.
    fn value(&self, tallies: &[Tally], forms: &[Form], out: &mut [u8]) -> bool;
}

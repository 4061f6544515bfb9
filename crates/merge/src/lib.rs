//! Merges of several models of one shape into one, as release engineers publish them: averages, spherical interpolation,
//! sums of task vectors, pruned or not, and stacks of layers.
//!
//! [`Recipe`] is what a merge recipe says: the keys are mergekit's, from a tree that somebody else has parsed. [`merge`]
//! rewrites models into one whose expressions compute the merge, row by row. What a formula needs to know of a whole
//! tensor (a norm, the k-th largest change) is a reduction, an input like any other, so that no tensor is ever in memory.
//!
//! Arithmetic is mergekit 0.1.5's on a CPU (`merge_methods/*.py`, `sparsify.py`): where it rounds to the recipe's `dtype`
//! in between, this does. Each op's module says where. Two things are this crate's own: of equal magnitudes at TIES'
//! threshold the first ones in the tensor stay (mergekit leaves it to an unstable sort), and DARE's random numbers come
//! from a counter ([`random`]), so that they depend on a seed and on places, not on threads or tiles.
//!
//! This crate must *not* know files, formats, architectures or GGUF names.

mod layers;
mod merge;
mod method;
mod ops;
pub mod random;
mod recipe;
mod round;
mod setting;

pub use layers::{layer_count, layer_of};
pub use merge::{Input, Merged, merge};
pub use method::Method;
pub use ops::{Angle, Delta, Linear, Prune, Same, Scale, Slerp, Sparsify};
pub use recipe::{Part, Recipe, Slice, Tokenizer};

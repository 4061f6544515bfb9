//! The computations of merges: rows of several models to rows of one.

mod delta;
mod linear;
mod prune;
mod single;
mod slerp;

pub use delta::{Delta, Sparsify};
pub use linear::Linear;
pub use prune::Prune;
pub use single::{Same, Scale};
pub use slerp::{Angle, Slerp};

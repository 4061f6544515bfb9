//! The computations of a merge, each a function of floats on rows.
//!
//! [`MergeLora`] is what nearly every adapter is, and is made for speed. The others are small and put together: a
//! Kronecker product is added by [`AddScaled`], whatever it came from. Most say what they compute on `f32` alone
//! ([`Compute`]); decoding, rounding and the look at what cannot be stored are written once ([`Floats`]).

mod add;
mod floats;
mod low_rank;
mod matrices;
mod packed;
mod rotate;
mod scale;

pub use add::AddScaled;
pub(crate) use floats::{Compute, Floats};
pub use low_rank::MergeLora;
pub(crate) use matrices::{Columns, Kronecker, Multiply, Product, Tucker};
pub(crate) use rotate::{Butterfly, Cayley, CayleyOf, Rotate};
pub(crate) use scale::{Along, Scale};

//! The computations of a merge, each a function of floats on rows.
//!
//! [`MergeLora`] is what nearly every adapter is, and is made for speed. The others are small and put together: a
//! Kronecker product is added by [`AddScaled`], whatever it came from. Most say what they compute on `f32` alone
//! ([`Compute`]); decoding, rounding and the look at what cannot be stored are written once ([`Floats`]).

mod add;
mod floats;
mod lengths;
mod low_rank;
mod matrices;
mod mix;
mod packed;
mod rotate;
mod scale;
mod truncate;

pub use add::AddScaled;
pub(crate) use floats::{Compute, Floats};
pub(crate) use lengths::{ColumnLengths, Ratio};
pub use low_rank::MergeLora;
pub(crate) use matrices::{Columns, Kronecker, Multiply, Product, Tucker};
pub use mix::Election;
pub(crate) use mix::{Beside, Mix, Prune};
pub(crate) use rotate::{Butterfly, Cayley, CayleyOf, Rotate};
pub(crate) use scale::{Along, Scale};
pub(crate) use truncate::{Recent, Side, Truncate};

use std::sync::Arc;
use tensormill_model::{Expr, Result};
use tensormill_tensor::DType;

/// Applies a computation, with its result in `f32`.
///
/// # Errors
/// For inputs that do not go together.
pub(crate) fn in_f32<C: Compute + 'static>(compute: C, inputs: Vec<Expr>) -> Result<Expr> {
    let expr = Expr::Apply { op: Arc::new(Floats { compute, out: DType::F32 }), inputs };
    expr.form()?;
    Ok(expr)
}

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
pub(crate) use matrices::{Columns, Kronecker, Multiply, Product, Transpose, Tucker};
pub use mix::Election;
pub(crate) use mix::{Beside, Mix, Prune};
pub(crate) use rotate::{Butterfly, Cayley, CayleyOf, Rotate};
pub(crate) use scale::{Along, Scale};
pub(crate) use truncate::{Recent, Side, Truncate};

use std::sync::Arc;
use tensormill_model::{Expr, Result};
use tensormill_tensor::{DType, Shape};

/// Applies a computation, with its result in `f32`.
///
/// # Errors
/// For inputs that do not go together.
pub(crate) fn in_f32<C: Compute + 'static>(compute: C, inputs: Vec<Expr>) -> Result<Expr> {
    let expr = Expr::Apply { op: Arc::new(Floats { compute, out: DType::F32 }), inputs };
    expr.form()?;
    Ok(expr)
}

/// The Kronecker product of LoKr's two factors (`make_kron`). A second factor that was made with a `core` and `b` is a
/// matrix here; it has the core's kernel and `b`'s columns.
///
/// # Errors
/// For factors that do not go together.
pub(crate) fn kronecker(first: Expr, second: Expr, core: Option<Expr>, b: Option<Expr>) -> Result<Expr> {
    let second = match (core, b) {
        (Some(core), Some(b)) => {
            let core = core.form()?.shape;
            let kernel = core.dims().get(2..).unwrap_or(&[]);
            let dims = [&[second.form()?.shape.rows(), b.form()?.shape.row_len()], kernel].concat();
            second.reshape(Shape::new(dims)?)
        }
        _ => second,
    };
    // Kernels of two dimensions get the first factor's elements one by one.
    let first = if second.form()?.shape.rank() == 4 {
        let dims = [first.form()?.shape.dims(), &[1, 1]].concat();
        first.reshape(Shape::new(dims)?)
    } else {
        first
    };
    in_f32(Kronecker, vec![first, second])
}

//! The differences of LoHa and LoKr, whichever names their parts came under: PEFT and LyCORIS call them alike.

use crate::ops::{Kronecker, Multiply, Tucker, in_f32};
use tensormill_model::{Error, Expr, Result};
use tensormill_tensor::Shape;

/// A part of a module, by its word.
type Part<'a> = &'a dyn Fn(&str) -> Option<Expr>;
/// The product of two parts.
type Times = fn(Expr, Expr) -> Result<Expr>;

/// [`loha`] or [`lokr`].
pub(crate) type Formula = fn(Part<'_>, Times) -> Result<Expr>;

/// A matrix from two factors, or from two and a core.
fn matrix(part: Part<'_>, times: Times, [a, b, core]: [&str; 3]) -> Result<Expr> {
    let need = |word: &str| part(word).ok_or_else(|| Error::malformed(format!("this module has no {word}")));
    let (a, b) = (need(a)?, need(b)?);
    match part(core) {
        Some(core) => in_f32(Tucker, vec![core, a, b]),
        None => times(a, b),
    }
}

/// `(w1_a w1_b) * (w2_a w2_b)`, element by element.
pub(crate) fn loha(part: Part<'_>, times: Times) -> Result<Expr> {
    let first = matrix(part, times, ["hada_w1_a", "hada_w1_b", "hada_t1"])?;
    let second = matrix(part, times, ["hada_w2_a", "hada_w2_b", "hada_t2"])?;
    in_f32(Multiply, vec![first, second])
}

/// The Kronecker product of two matrices, each whole or from factors (`make_kron`).
pub(crate) fn lokr(part: Part<'_>, times: Times) -> Result<Expr> {
    let first = match part("lokr_w1") {
        Some(w) => w,
        None => matrix(part, times, ["lokr_w1_a", "lokr_w1_b", ""])?,
    };
    let second = match part("lokr_w2") {
        Some(w) => w,
        None => matrix(part, times, ["lokr_w2_a", "lokr_w2_b", "lokr_t2"])?,
    };
    // One that was made with a core is a matrix here; it has the core's kernel and the second factor's columns.
    let second = match (part("lokr_t2"), part("lokr_w2_b")) {
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

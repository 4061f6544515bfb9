//! Weights whose codes and numbers ggml's blocks hold exactly: the blocks are then made of these, not of decoded values.

use crate::{
    ops::{Scaled, ToBlocks, grid_of},
    repack::{CodedExpr, coded, stacked, widens},
    target::Outer,
};
use std::sync::Arc;
use tensormill_kernels::groups::{Code, ScaleType};
use tensormill_model::{Error, Expr, Result, RowMap};
use tensormill_tensor::{BlockFormat, Shape, ggml};

/// More experts than any model has: a file must not decide how long a list becomes.
const MATRICES: u64 = 1 << 16;

/// A weight as blocks of a source's codes.
#[derive(Clone, Debug)]
pub struct BlockExpr {
    /// The blocks, in the weight's shape.
    pub expr: Expr,
    /// What scales are multiplied or divided by besides, which blocks have no place for: of the matrix, or of each one of a
    /// stack; nothing where there is no such number.
    pub outers: Vec<Outer>,
}

/// The weight as such blocks, where it decodes codes and numbers that these hold exactly.
pub fn as_blocks(expr: &Expr, block: &'static BlockFormat) -> Option<BlockExpr> {
    let shape = expr.form().ok()?.shape;
    let columns = shape.row_len();
    let (found, outers) = parts(expr)?;
    if !holds(&found, block, columns) || (!outers.is_empty() && block != ggml::NVFP4) {
        return None;
    }
    let made = found.bundle.apply(ToBlocks { grid: found.grid, columns, block });
    let made = if made.form().ok()?.shape == shape { made } else { made.reshape(shape) };
    made.form().ok()?;
    Some(BlockExpr { expr: made, outers })
}

/// Whether blocks hold such codes and numbers.
fn holds(found: &CodedExpr, block: &BlockFormat, columns: u64) -> bool {
    let Some((to, scale)) = grid_of(block) else { return false };
    let codes = match (found.grid.code, to.code) {
        (Code::Int(from), Code::Int(to)) => from <= to,
        (from, to) => from == to,
    };
    let group = match found.grid.group {
        0 => columns,
        n => u64::from(n),
    };
    // Scales of scales are found by a search.
    scale != ScaleType::F32
        && codes
        && found.grid.offset == to.offset
        && group.is_multiple_of(u64::from(to.group))
        && columns.is_multiple_of(u64::from(block.weights))
        && widens(found.scale, scale)
}

/// Codes, and numbers about whole matrices, of which a stack has one for each.
fn parts(expr: &Expr) -> Option<(CodedExpr, Vec<Outer>)> {
    if let Some(mut found) = coded(expr) {
        let outers = found.outer.take().into_iter().collect();
        return Some((found, outers));
    }
    let Expr::Concat { inputs, .. } = expr else { return None };
    let mut found = inputs.iter().map(coded).collect::<Option<Vec<_>>>()?;
    let outers = found.iter_mut().map(|c| c.outer.take()).collect::<Option<Vec<_>>>()?;
    Some((stacked(found)?, outers))
}

/// Weights times the numbers that stand beside them: one, or one for each matrix of a stack.
///
/// # Errors
/// Weights that cannot be decoded; other numbers of numbers.
pub fn with_scales(weights: &Expr, scales: &Expr) -> Result<Expr> {
    let (shape, n) = (weights.form()?.shape, scales.form()?.shape.elements());
    let scaled = |weights: Expr, scale: Expr| {
        let made = Expr::Apply { op: Arc::new(Scaled), inputs: vec![weights, scale] };
        made.form().map(|_| made)
    };
    if n == 1 {
        return scaled(weights.clone(), scales.clone());
    }
    let &[matrices, rows, columns] = shape.dims() else {
        return Err(Error::malformed(format!("{n} scales for weights of shape {shape}")));
    };
    if matrices != n || n > MATRICES {
        return Err(Error::malformed(format!("{n} scales for {matrices} matrices")));
    }
    let (matrix, one) = (Shape::new(vec![rows, columns])?, Shape::new(vec![1])?);
    let column = scales.clone().reshape(Shape::new(vec![n, 1])?);
    let part = |x: u64| {
        let of = weights.clone().rows(RowMap::Slice { start: x * rows, len: rows }).reshape(matrix.clone());
        scaled(of, column.clone().rows(RowMap::Slice { start: x, len: 1 }).reshape(one.clone()))
    };
    Ok(Expr::Concat { inputs: (0..n).map(part).collect::<Result<_>>()?, shape })
}

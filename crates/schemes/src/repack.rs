//! Codes that a source holds, for targets that want the same.

use crate::{
    ops::{Blocks, Join, Scaled, Values, grid_of},
    target::Outer,
};
use std::sync::Arc;
use tensormill_kernels::groups::{Grid, Offset, ScaleType};
use tensormill_model::{Cast, Error, EveryNth, Expr, Result, RowMap, Tensor};
use tensormill_tensor::{Encoding, Shape};
use tensormill_transforms::Dequantize;

/// A weight's expression as bundles of the source's codes.
#[derive(Clone, Debug)]
pub struct CodedExpr {
    /// The bundles.
    pub bundle: Expr,
    /// What they hold.
    pub grid: Grid,
    /// How the source stores scales.
    pub scale: ScaleType,
    /// The number about the whole matrix, where there is one.
    pub outer: Option<Outer>,
    /// Whether the source stores its offsets, where it has some, as integers: HQQ's zero points lie between.
    pub whole: bool,
}

impl CodedExpr {
    /// Whether a target that has a zero point for each group, and so stores an integer, can have this one.
    pub fn points_fit(&self) -> bool {
        self.grid.offset != Offset::Point || self.whole
    }
}

/// The codes that a weight's expression decodes, through whatever moves whole rows and through casts on top.
pub fn coded(expr: &Expr) -> Option<CodedExpr> {
    match expr {
        Expr::Apply { op, inputs } => {
            if let ([input], Some(_)) = (inputs.as_slice(), op.any()?.downcast_ref::<Cast>()) {
                return coded(input);
            }
            if let ([input], Some(_)) = (inputs.as_slice(), op.any()?.downcast_ref::<Dequantize>()) {
                return of_blocks(input);
            }
            if let ([input], Some(picks)) = (inputs.as_slice(), op.any()?.downcast_ref::<EveryNth>()) {
                return picked(input, *picks);
            }
            if let ([weights, scale], Some(_)) = (inputs.as_slice(), op.any()?.downcast_ref::<Scaled>()) {
                return of_scaled(weights, scale, inputs);
            }
            let values = op.any()?.downcast_ref::<Values>()?;
            let n = values.numbers;
            if shares_rows(&n.grid) && inputs.first()?.form().ok()?.shape.rank() > 2 {
                // Each matrix of a stack begins with new scales.
                return None;
            }
            let outer = inputs.get(2 + usize::from(n.grid.offset.is_stored()));
            let outer = outer.filter(|_| n.grid.outer).map(|e| Outer { expr: e.clone(), divides: n.divides });
            let whole = !n.grid.offset.is_stored() || inputs.get(2).is_some_and(is_integer);
            let bundle = Expr::Apply { op: Arc::new(Join(n)), inputs: inputs.clone() };
            Some(CodedExpr { bundle, grid: n.grid, scale: n.scale, outer, whole })
        }
        Expr::Rows { input, map } => {
            // One of the matrices of a stack has a number of its own.
            if let Some(part) = part_of(input, *map) {
                return coded(part);
            }
            let inner = coded(input).filter(|c| !shares_rows(&c.grid))?;
            Some(CodedExpr { bundle: inner.bundle.rows(*map), ..inner })
        }
        Expr::Reshape { input, shape } => {
            // Rows that stay what they are, or become it again.
            let mut input = input;
            while let Expr::Reshape { input: inner, .. } = &**input {
                input = inner;
            }
            let form = input.form().ok()?;
            coded(input).filter(|_| form.shape.row_len() == shape.row_len())
        }
        Expr::Concat { inputs, .. } => {
            let parts = inputs.iter().map(coded).collect::<Option<Vec<_>>>()?;
            stacked(parts.into_iter().map(|p| p.outer.is_none().then_some(p)).collect::<Option<Vec<_>>>()?)
        }
        Expr::Read { .. } | Expr::Const { .. } | Expr::Transpose { .. } => None,
    }
}

/// Some of the rows of matrices, each of which is codes of its own.
fn picked(input: &Expr, picks: EveryNth) -> Option<CodedExpr> {
    let mut dims = input.form().ok()?.shape.dims().to_vec();
    let inner = coded(input).filter(|c| !picks.elements && !shares_rows(&c.grid))?;
    *dims.last_mut()? = inner.bundle.form().ok()?.shape.row_len();
    let bundle = inner.bundle.reshape(Shape::new(dims).ok()?).apply(picks);
    bundle.form().ok()?;
    Some(CodedExpr { bundle, ..inner })
}

/// One below the other, what holds the same kind of codes; numbers about whole matrices are another's to look after.
pub(crate) fn stacked(parts: Vec<CodedExpr>) -> Option<CodedExpr> {
    let first = parts.first()?.clone();
    if shares_rows(&first.grid) || parts.iter().any(|p| (p.grid, p.scale) != (first.grid, first.scale)) {
        return None;
    }
    let rows = parts.iter().map(|p| Some(p.bundle.form().ok()?.shape.rows())).sum::<Option<u64>>()?;
    let bytes = first.bundle.form().ok()?.shape.row_len();
    let shape = Shape::new(vec![rows, bytes]).ok()?;
    let whole = parts.iter().all(|p| p.whole);
    let bundle = Expr::Concat { inputs: parts.into_iter().map(|p| p.bundle).collect(), shape };
    Some(CodedExpr { bundle, whole, ..first })
}

/// The codes of blocks.
fn of_blocks(expr: &Expr) -> Option<CodedExpr> {
    let Encoding::Block(block) = expr.form().ok()?.encoding else { return None };
    let (grid, scale) = grid_of(block)?;
    Some(CodedExpr { bundle: expr.clone().apply(Blocks), grid, scale, outer: None, whole: false })
}

/// Whether an expression gives integers.
fn is_integer(expr: &Expr) -> bool {
    expr.form().is_ok_and(|f| matches!(f.encoding, Encoding::Plain(d) if !d.is_float()))
}

/// The codes of blocks with a scale beside them.
fn of_scaled(weights: &Expr, scale: &Expr, inputs: &[Expr]) -> Option<CodedExpr> {
    let (grid, kind) = Scaled::grid(weights.form().ok()?.encoding)?;
    let bundle = Expr::Apply { op: Arc::new(Blocks), inputs: inputs.to_vec() };
    let outer = Outer { expr: scale.clone(), divides: false };
    Some(CodedExpr { bundle, grid, scale: kind, outer: Some(outer), whole: false })
}

/// The part of which exactly these rows of an expression are.
fn part_of(expr: &Expr, map: RowMap) -> Option<&Expr> {
    let (Expr::Concat { inputs, .. }, RowMap::Slice { start, len }) = (expr, map) else { return None };
    let mut at = 0;
    for part in inputs {
        let rows = part.form().ok()?.shape.rows();
        if at == start {
            return (rows == len).then_some(part);
        }
        at += rows;
    }
    None
}

/// Whether rows share scales: then they cannot be moved one by one.
fn shares_rows(grid: &Grid) -> bool {
    grid.rows > 1
}

/// Whether numbers of one type are numbers of another one, too.
pub(crate) fn widens(from: ScaleType, to: ScaleType) -> bool {
    from == to
        || to == ScaleType::F32
        || (from == ScaleType::E8M0 && to == ScaleType::BF16)
        || (from == ScaleType::E4M3 && matches!(to, ScaleType::F16 | ScaleType::BF16))
}

/// The codes of a weight of so many columns, where they are those that a target wants, and its scales, of this type where it
/// has one, hold the source's.
pub fn same_codes(expr: &Expr, wanted: Grid, scale: Option<ScaleType>, columns: u64) -> Option<CodedExpr> {
    let found = coded(expr).filter(CodedExpr::points_fit)?;
    let one_group = |g: &Grid| g.groups(columns as usize) == 1;
    let same_groups = found.grid.group == wanted.group || one_group(&found.grid) && one_group(&wanted);
    let same = same_groups && Grid { group: wanted.group, ..found.grid } == wanted;
    let fits = scale.is_none_or(|s| widens(found.scale, s));
    (same && fits).then_some(CodedExpr { grid: wanted, ..found })
}

/// What is said of weights whose codes are the source's.
pub fn kept_note(weights: usize) -> Option<String> {
    (weights > 0).then(|| format!("{weights} weights keep the codes that the source has"))
}

/// That a weight is not quantized yet, unless it may lose twice.
///
/// # Errors
/// `Unsupported`, naming the consent that is needed.
pub fn check_plain(t: &Tensor, allow_requantize: bool) -> Result<()> {
    if (t.spec.encoding.is_block() || is_quantized(&t.expr)) && !allow_requantize {
        return Err(Error::unsupported("is already quantized, and holds other codes than those wanted")
            .hint("start from a plain model, or accept the double loss with --allow-requantize"));
    }
    Ok(())
}

/// Whether an expression decodes codes, whatever becomes of their values.
pub fn is_quantized(expr: &Expr) -> bool {
    match expr {
        Expr::Apply { op, inputs } => {
            let decodes =
                |op: &dyn std::any::Any| op.is::<Values>() || op.is::<Dequantize>() || op.is::<Scaled>();
            op.any().is_some_and(decodes) || inputs.iter().any(is_quantized)
        }
        Expr::Rows { input, .. } | Expr::Reshape { input, .. } | Expr::Transpose { input } => {
            is_quantized(input)
        }
        Expr::Concat { inputs, .. } => inputs.iter().any(is_quantized),
        Expr::Read { .. } | Expr::Const { .. } => false,
    }
}

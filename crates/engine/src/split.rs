//! How a tensor's expression comes apart: what variants share, and what each of them does with it.
//!
//! At the bottom is the *base*: what is read, and what all variants have in common. A tensor is an op on it, or a *part*
//! of a bundle ([`Op::makes_bundle`]) that a *stem* makes of it. Must not know what groups make of that.

use std::sync::Arc;
use tensormill_model::{EveryNth, Expr, Locality, Op, Result};

/// A tensor's expression, taken apart.
pub(crate) struct Split<'e> {
    /// The expression without what changes no byte at its top.
    pub whole: &'e Expr,
    pub base: &'e Expr,
    /// The op on the base that makes the bundle.
    pub stem: Option<&'e Expr>,
    /// Ops on the base, or on the stem's bundle, from the bottom up.
    pub chain: Vec<&'e Expr>,
    /// Where the result is then transposed: ops on that, from the bottom up.
    pub turned: Option<Vec<&'e Expr>>,
}

impl Split<'_> {
    /// Tells what becomes of a base: equal texts, equal bytes.
    pub(crate) fn text(&self) -> String {
        match (self.stem, self.chain.as_slice(), &self.turned) {
            (None, [], None) => String::new(),
            (None, [Expr::Apply { op, inputs }], None) if inputs.len() == 1 => op.describe(),
            _ => self.whole.to_string(),
        }
    }
}

/// Takes an expression apart. What variants of one model share is below their last op, or below what makes a bundle.
pub(crate) fn split(expr: &Expr) -> Result<Split<'_>> {
    let mut whole = expr;
    while let Expr::Reshape { input, .. } = whole {
        whole = input;
    }
    if let Some(part) = part(whole)? {
        return Ok(part);
    }
    let own = Split { whole: expr, base: expr, stem: None, chain: Vec::new(), turned: None };
    let Expr::Apply { op, inputs } = whole else { return Ok(own) };
    // A sum or a product, which takes other tensors beside its first, is what variants share; an encoder is not.
    let alone = inputs.len() == 1 || op.encodes().is_some();
    // Reshaped rows are as many bytes, but no rows of that shape; packed rows are none of the base's shape in any case.
    let shaped = std::ptr::eq(whole, expr) || matches!(op.locality(0), Locality::Rows(_));
    match below(whole)? {
        Some(base) if alone && shaped => {
            // Picking is done again for every variant, since others pick from the same rows.
            let (base, chain) = match picked(base).then(|| below(base)).transpose()?.flatten() {
                Some(all) => (all, vec![base, whole]),
                None => (base, vec![whole]),
            };
            Ok(Split { whole, base, chain, ..own })
        }
        _ => Ok(own),
    }
}

/// As a part of a bundle, where it is one.
fn part(whole: &Expr) -> Result<Option<Split<'_>>> {
    let (mut at, mut chain, mut turned) = (whole, Vec::new(), None);
    loop {
        match at {
            Expr::Apply { op, .. } if op.makes_bundle() => break,
            Expr::Apply { .. } => {
                let Some(input) = below(at)? else { return Ok(None) };
                chain.push(at);
                at = input;
            }
            // Stacks of matrices are transposed as any other tensor is.
            Expr::Transpose { input } if turned.is_none() && input.form()?.shape.rank() == 2 => {
                chain.reverse();
                turned = Some(std::mem::take(&mut chain));
                at = input;
            }
            _ => return Ok(None),
        }
    }
    chain.reverse();
    // What is made of several tensors' rows is not encoded but repacked: it is what its parts share.
    let base = below(at)?;
    Ok(Some(Split { whole, base: base.unwrap_or(at), stem: base.map(|_| at), chain, turned }))
}

/// Whether an expression only picks from what is below it.
fn picked(expr: &Expr) -> bool {
    matches!(expr, Expr::Apply { op, .. } if picks(&**op))
}

/// Whether an op only picks from its input.
pub(crate) fn picks(op: &dyn Op) -> bool {
    op.any().is_some_and(<dyn std::any::Any>::is::<EveryNth>)
}

/// The first input of an op that takes it by rows, and of the others the whole.
fn below(expr: &Expr) -> Result<Option<&Expr>> {
    let Expr::Apply { op, inputs } = expr else { return Ok(None) };
    let Some((first, others)) = inputs.split_first() else { return Ok(None) };
    let whole = |(i, _): (usize, &Expr)| op.locality(i + 1) == Locality::Whole;
    let Some(ratio) = op.locality(0).ratio().filter(|n| *n > 0) else { return Ok(None) };
    let takes = op.reduction().is_none() && others.iter().enumerate().all(whole);
    let rows = |e: &Expr| Ok::<u64, tensormill_model::Error>(e.form()?.shape.rows());
    Ok((takes && rows(first)?.div_ceil(ratio) == rows(expr)?).then_some(first))
}

/// The op and the inputs of an expression that is one.
pub(crate) fn parts_of(expr: &Expr) -> Option<(&Arc<dyn Op>, &[Expr])> {
    match expr {
        Expr::Apply { op, inputs } => Some((op, inputs)),
        _ => None,
    }
}

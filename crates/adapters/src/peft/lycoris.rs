//! LoHa and LoKr: differences from products of products (`tuners/loha/layer.py`, `tuners/lokr/layer.py`).

use super::{
    Family, Parts, apply,
    config::{Fields, Ranks},
    part,
};
use crate::{
    adapter::Change,
    ops::{Multiply, Product, Tucker, kronecker},
};
use tensormill_model::{Expr, Result};

/// What both have.
#[derive(Debug)]
struct Common(Ranks);

impl Common {
    fn parse(fields: Fields<'_>) -> Result<Self> {
        fields.ranks("r", "alpha").map(Self)
    }
    fn scale(&self, module: &str) -> f64 {
        self.0.alpha(module) / self.0.rank(module) as f64
    }
}

/// A matrix from two factors, or from two and a core.
fn matrix(parts: &Parts<'_>, [a, b, core]: [&str; 3]) -> Result<Expr> {
    let (a, b) = (part(parts, a)?.expr.clone(), part(parts, b)?.expr.clone());
    match parts.get(core) {
        Some(core) => apply(Tucker, vec![core.expr.clone(), a, b]),
        None => apply(Product, vec![a, b]),
    }
}

/// `(w1_a w1_b) * (w2_a w2_b)`, element by element.
#[derive(Debug)]
pub(super) struct LoHa(Common);

impl LoHa {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self> {
        Common::parse(fields).map(Self)
    }
}

impl Family for LoHa {
    fn words(&self) -> &'static [&'static str] {
        &["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"]
    }
    fn change(&self, module: &str, parts: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        let first = matrix(parts, ["hada_w1_a", "hada_w1_b", "hada_t1"])?;
        let second = matrix(parts, ["hada_w2_a", "hada_w2_b", "hada_t2"])?;
        let delta = apply(Multiply, vec![first, second])?;
        Ok(Change::Sum { delta, scale: self.0.scale(module) })
    }
}

/// The Kronecker product of two matrices, each whole or from factors.
#[derive(Debug)]
pub(super) struct LoKr(Common);

impl LoKr {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self> {
        Common::parse(fields).map(Self)
    }
}

impl Family for LoKr {
    fn words(&self) -> &'static [&'static str] {
        &["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"]
    }
    fn change(&self, module: &str, parts: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        let whole = |word: &str| parts.get(word).map(|t| t.expr.clone());
        let first = match whole("lokr_w1") {
            Some(w) => w,
            None => matrix(parts, ["lokr_w1_a", "lokr_w1_b", ""])?,
        };
        let second = match whole("lokr_w2") {
            Some(w) => w,
            None => matrix(parts, ["lokr_w2_a", "lokr_w2_b", "lokr_t2"])?,
        };
        let delta = kronecker(first, second, whole("lokr_t2"), whole("lokr_w2_b"))?;
        Ok(Change::Sum { delta, scale: self.0.scale(module) })
    }
}

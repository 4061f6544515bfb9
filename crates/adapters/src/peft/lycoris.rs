//! LoHa and LoKr: differences from products of products (`tuners/loha/layer.py`, `tuners/lokr/layer.py`).

use super::{
    Family, Parts,
    config::{Fields, Ranks},
};
use crate::{
    adapter::Change,
    lycoris,
    ops::{Product, in_f32},
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

/// The parts, for the formulas that LyCORIS shares.
fn delta(parts: &Parts<'_>, of: lycoris::Formula) -> Result<Expr> {
    let part = |word: &str| parts.get(word).map(|t| t.expr.clone());
    of(&part, |a, b| in_f32(Product, vec![a, b]))
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
        let delta = delta(parts, lycoris::loha)?;
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
        let delta = delta(parts, lycoris::lokr)?;
        Ok(Change::Sum { delta, scale: self.0.scale(module) })
    }
}

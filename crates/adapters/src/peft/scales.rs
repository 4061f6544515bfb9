//! (IA)3 and VeRA: vectors that weigh what the model, or a pair of fixed matrices, has (`tuners/ia3/layer.py`,
//! `tuners/vera/layer.py`).

use super::{
    Family, Parts,
    config::{FILE, Fields},
    part, rows,
};
use crate::{
    adapter::{Change, LowRank, RowsAre, product_type},
    ops::{Along, Scale, in_f32},
};
use regex::Regex;
use tensormill_model::{Error, Result, RowMap, Tensor};

/// (IA)3: outputs of a layer are weighed, or inputs of those that are named feed-forward.
#[derive(Debug)]
pub(super) struct Ia3 {
    feedforward: FeedForward,
    fan_in_fan_out: bool,
}

/// Which modules are feed-forward.
#[derive(Debug)]
enum FeedForward {
    /// All whose whole name matches.
    Pattern(Regex),
    /// All whose name ends so.
    Ends(Vec<String>),
}

impl Ia3 {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self> {
        let feedforward = match fields.text("feedforward_modules") {
            Some(text) => FeedForward::Pattern(Regex::new(&format!("^(?:{text})$")).map_err(|e| {
                Error::malformed(format!("feedforward_modules is not a pattern: {e}")).file(FILE)
            })?),
            None => FeedForward::Ends(fields.names("feedforward_modules")),
        };
        Ok(Self { feedforward, fan_in_fan_out: fields.flag("fan_in_fan_out") })
    }
}

impl Family for Ia3 {
    fn words(&self) -> &'static [&'static str] {
        &["ia3_l"]
    }
    fn change(&self, module: &str, parts: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        let inputs = match &self.feedforward {
            FeedForward::Pattern(p) => p.is_match(module),
            FeedForward::Ends(names) => names.iter().any(|n| module.ends_with(n.as_str())),
        };
        let by = part(parts, "ia3_l")?.expr.clone();
        Ok(Change::Scale { by, outputs: !inputs, transposed: self.fan_in_fan_out })
    }
}

/// VeRA: one pair of random matrices for all modules, of which each takes a corner, with vectors of its own.
#[derive(Debug)]
pub(super) struct Vera {
    rows: RowsAre,
}

impl Vera {
    pub(super) fn parse(fields: Fields<'_>) -> Self {
        Self { rows: rows(fields) }
    }
}

impl Family for Vera {
    fn words(&self) -> &'static [&'static str] {
        &["vera_lambda_b", "vera_lambda_d", "vera_A", "vera_B"]
    }
    /// `(lambda_b * B[:out]) (lambda_d * A[:, :in])`.
    fn change(&self, _: &str, parts: &Parts<'_>, shared: &Parts<'_>) -> Result<Change> {
        let (a, b) = (shared.get("vera_A"), shared.get("vera_B"));
        let (Some(a), Some(b)) = (a, b) else {
            return Err(Error::unsupported("the adapter was saved without its random matrices")
                .hint("save it with save_projection=True, or merge it with PEFT (merge_and_unload)"));
        };
        let (of_b, of_d) = (part(parts, "vera_lambda_b")?, part(parts, "vera_lambda_d")?);
        let rows = of_b.spec.shape.elements();
        let top = b.expr.clone().rows(RowMap::Slice { start: 0, len: rows });
        // In f32 whatever their type; PEFT rounds the product alone.
        let scale = |x, by: &Tensor| in_f32(Scale { along: Along::Rows }, vec![x, by.expr.clone()]);
        let (left, right) = (scale(top, of_b)?, scale(a.expr.clone(), of_d)?);
        Ok(Change::LowRank(Box::new(LowRank {
            rows: self.rows,
            corner: true,
            ..LowRank::new(right, left, product_type(&b.expr)?, 1.0)
        })))
    }
}

//! LoRA and AdaLoRA: products of two factors (`tuners/lora/layer.py`, `tuners/adalora/layer.py`).

use super::{
    Family, Parts,
    config::{Fields, Ranks},
    part, rows,
};
use crate::{
    adapter::{Change, LowRank, RowsAre, product_type},
    ops::{Along, Scale, in_f32},
};
use tensormill_model::{Error, Result, Tensor};

/// LoRA, rank-stabilised or not, with or without magnitudes (DoRA) and biases.
#[derive(Debug)]
pub(super) struct Lora {
    ranks: Ranks,
    rank_stabilised: bool,
    rows: RowsAre,
    dora: bool,
    parameters: Vec<String>,
}

impl Lora {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self> {
        Ok(Self {
            ranks: fields.ranks("r", "lora_alpha")?,
            rank_stabilised: fields.flag("use_rslora"),
            rows: rows(fields),
            dora: fields.flag("use_dora"),
            parameters: fields.names("target_parameters"),
        })
    }

    /// What a module's product is multiplied by: alpha / rank, or alpha / sqrt(rank) where ranks are stabilised.
    fn scale(&self, module: &str) -> f64 {
        let rank = self.ranks.rank(module) as f64;
        let alpha = self.ranks.alpha(module);
        if self.rank_stabilised { alpha / rank.sqrt() } else { alpha / rank }
    }
}

impl Family for Lora {
    fn words(&self) -> &'static [&'static str] {
        &["lora_A", "lora_B", "lora_B.bias", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"]
    }
    fn change(&self, module: &str, parts: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        let embedding = parts.keys().any(|w| w.starts_with("lora_embedding"));
        let words = if embedding { ["lora_embedding_A", "lora_embedding_B"] } else { ["lora_A", "lora_B"] };
        let (a, b) = (part(parts, words[0])?, part(parts, words[1])?);
        let magnitude = parts.get("lora_magnitude_vector");
        if self.dora != magnitude.is_some() {
            return Err(Error::malformed("use_dora and lora_magnitude_vector must come together"));
        }
        // Parameters are named without the wrapper's name; the last component alone says which.
        let plain = module.replace(".base_layer", "");
        let ends = |p: &&String| {
            let owner = p.rsplit_once('.').map_or("", |(owner, _)| owner);
            plain == owner || plain.ends_with(&format!(".{owner}"))
        };
        let parameters: Vec<String> = self
            .parameters
            .iter()
            .filter(ends)
            .filter_map(|p| p.rsplit('.').next().map(str::to_owned))
            .collect();
        let rank = self.ranks.rank(&plain);
        let rows = a.spec.shape.dims().first().copied().unwrap_or(0);
        // Factors of experts stand one above the other.
        if rows != rank && (parameters.is_empty() || !rows.is_multiple_of(rank)) {
            return Err(Error::mismatch(format!(
                "lora_A is {}, but the configuration says rank {rank}",
                a.spec.shape
            ))
            .tensor(a.name()));
        }
        Ok(Change::LowRank(Box::new(LowRank {
            bias: parts.get("lora_B.bias").map(|t| t.expr.clone()),
            magnitude: magnitude.map(|t| t.expr.clone()),
            rows: if embedding { RowsAre::Tokens } else { self.rows },
            cast: embedding || !parameters.is_empty(),
            experts: (!parameters.is_empty()).then_some(rows / rank),
            parameters,
            ..LowRank::new(a.expr.clone(), b.expr.clone(), product_type(&b.expr)?, self.scale(&plain))
        })))
    }
}

/// AdaLoRA: singular values between the factors, of which training keeps some.
#[derive(Debug)]
pub(super) struct AdaLora {
    alpha: f64,
    rows: RowsAre,
}

impl AdaLora {
    pub(super) fn parse(fields: Fields<'_>) -> Self {
        let alpha = fields.number("lora_alpha").unwrap_or(0.0);
        Self { alpha, rows: rows(fields) }
    }
}

impl Family for AdaLora {
    fn words(&self) -> &'static [&'static str] {
        &["lora_A", "lora_B", "lora_E"]
    }
    /// `B (A * E) * alpha / (rank + 1e-5)`; modules that lost every rank do not change.
    fn change(&self, _: &str, parts: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        let (a, b, e): (&Tensor, _, _) =
            (part(parts, "lora_A")?, part(parts, "lora_B")?, part(parts, "lora_E")?);
        let rank = a.spec.shape.dims().first().copied().unwrap_or(0) as f64;
        let inputs = vec![a.expr.clone(), e.expr.clone()];
        let scaled = in_f32(Scale { along: Along::Rows }, inputs)?;
        let scale = if self.alpha > 0.0 { self.alpha } else { rank };
        Ok(Change::LowRank(Box::new(LowRank {
            divide: Some(rank as f32 + 1e-5),
            rows: self.rows,
            ..LowRank::new(scaled, b.expr.clone(), product_type(&b.expr)?, scale)
        })))
    }
}

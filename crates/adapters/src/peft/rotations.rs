//! OFT and BOFT: weights whose rows are rotated (`tuners/oft/layer.py`, `tuners/boft/layer.py`).

use super::{Family, Parts, config::Fields, part};
use crate::{
    adapter::Change,
    ops::{Butterfly, Cayley, CayleyOf, Rotate, in_f32},
};
use tensormill_model::{Error, Expr, Result, RowMap};
use tensormill_tensor::Shape;

/// OFT: one rotation per block of inputs, or one for all.
#[derive(Debug)]
pub(super) struct Oft {
    terms: Option<u32>,
    most: Option<f64>,
}

impl Oft {
    pub(super) fn parse(fields: Fields<'_>) -> Self {
        let neumann = fields.flag("use_cayley_neumann");
        let terms = fields.whole("num_cayley_neumann_terms").unwrap_or(5);
        let coft = fields.flag("coft");
        Self {
            // Powers above some hundred are nothing any more, and would take forever.
            terms: neumann.then_some(terms.min(1 << 10) as u32),
            most: coft.then_some(fields.number("eps").unwrap_or(6e-5)),
        }
    }
}

impl Family for Oft {
    fn words(&self) -> &'static [&'static str] {
        &["oft_R", "oft_embedding_R"]
    }
    fn change(&self, _: &str, parts: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        // An embedding's rows are what comes out of it, and are turned the other way.
        let embedding = parts.contains_key("oft_embedding_R");
        let word = if embedding { "oft_embedding_R" } else { "oft_R" };
        let r = part(parts, word)?;
        // The elements above a diagonal: n (n - 1) / 2.
        let above = r.spec.shape.row_len();
        let size = above.saturating_mul(8).saturating_add(1).isqrt().saturating_add(1) / 2;
        if size < 2 || size * (size - 1) / 2 != above {
            return Err(
                Error::malformed(format!("{above} elements are no triangle of a matrix")).tensor(r.name())
            );
        }
        let blocks = r.spec.shape.rows() as f32;
        let most = self.most.map(|eps| (eps as f32) / blocks.sqrt());
        let cayley = Cayley { of: CayleyOf::Upper { terms: self.terms, most }, size };
        let rotations = in_f32(cayley, vec![r.expr.clone()])?;
        Ok(Change::Rotate {
            steps: vec![(rotations, Rotate { butterfly: None, back: embedding })],
            lengths: None,
        })
    }
}

/// BOFT: several sets of rotations, between which elements change places; and lengths of rows.
#[derive(Debug)]
pub(super) struct Boft;

impl Family for Boft {
    fn words(&self) -> &'static [&'static str] {
        &["boft_R", "boft_s"]
    }
    fn change(&self, _: &str, parts: &Parts<'_>, _: &Parts<'_>) -> Result<Change> {
        let (r, s) = (part(parts, "boft_R")?, part(parts, "boft_s")?);
        let [factors, blocks, size, same] = *r.spec.shape.dims() else {
            return Err(
                Error::malformed(format!("{} are no blocks of rotations", r.spec.shape)).tensor(r.name())
            );
        };
        if size != same || factors == 0 || factors > 64 {
            return Err(Error::malformed(format!("{} are no square blocks", r.spec.shape)).tensor(r.name()));
        }
        let flat = r.expr.clone().reshape(Shape::new(vec![factors * blocks, size * size])?);
        let cayley = Cayley { of: CayleyOf::Square, size };
        let steps = (0..factors).map(|i| -> Result<(Expr, Rotate)> {
            let own = flat.clone().rows(RowMap::Slice { start: i * blocks, len: blocks });
            let rotations = in_f32(cayley, vec![own])?;
            let butterfly = Butterfly { blocks: blocks >> i, together: size / 2 };
            Ok((rotations, Rotate { butterfly: (factors > 1).then_some(butterfly), back: false }))
        });
        Ok(Change::Rotate { steps: steps.collect::<Result<_>>()?, lengths: Some(s.expr.clone()) })
    }
}

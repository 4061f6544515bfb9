//! BitNet b1.58: weights of -1, 0 and 1 under one scale for the matrix.
//!
//! A byte holds the codes of four rows, each a quarter of the matrix from the next; the stored scale is what weights were
//! multiplied by. Layout facts: `pack_weights` and `BitLinear` in `transformers/integrations/bitnet.py`, `dequant_bitnet` in
//! llama.cpp's `conversion/base.py`.

use super::{Quantized, floats, names, values};
use crate::{
    ops::{Field, Inverse, Numbers},
    source::{Found, SourceCx},
};
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType};
use tensormill_model::{Error, Expr, Result};
use tensormill_tensor::{DType, Encoding, Shape};

/// Checkpoints that transformers' BitNet quantizer packed.
pub(crate) struct BitNet;

impl Quantized for BitNet {
    fn name(&self) -> &'static str {
        "BitNet"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        cx.method() == Some("bitnet")
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for (module, scale) in cx.with_suffix(".weight_scale") {
            let packed = cx.need(&module, "weight")?;
            if packed.spec.encoding != Encoding::Plain(DType::U8) || packed.spec.shape.rank() != 2 {
                // Weights that are ternary only once a model runs.
                return Err(Error::unsupported(format!("BitNet weights of {}", packed.spec.encoding))
                    .tensor(packed.name()));
            }
            let (quarter, columns) = (packed.spec.shape.rows(), packed.spec.shape.row_len());
            let rows = quarter
                .checked_mul(4)
                .ok_or_else(|| Error::over_limit("has too many rows").tensor(packed.name()))?;
            let quarters = [0, 2, 4, 6].map(|shift| packed.expr.clone().apply(Field { shift, bits: 2 }));
            let codes = Expr::Concat { inputs: quarters.into(), shape: Shape::new(vec![rows, columns])? };
            let grid = Grid { code: Code::Int(2), group: 0, rows: 0, offset: Offset::Point, outer: false };
            let numbers = Numbers { rows: 0, ..Numbers::plain(grid, ScaleType::F32) };
            found.push(Found {
                name: packed.name().to_owned(),
                used: names([Some(packed), Some(scale)]),
                // The code 1 is zero.
                expr: values(numbers, vec![codes, scale.expr.clone().apply(Inverse), floats(&[1.0])?]),
                what: "ternary".to_owned(),
            });
        }
        Ok(found)
    }
}

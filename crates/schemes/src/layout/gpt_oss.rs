//! gpt-oss: experts as MXFP4, stacked.
//!
//! `X_blocks` `[expert, out, in/32, 16]` holds the codes, the even column in the low half of a byte; `X_scales`
//! `[expert, out, in/32]` the exponents. What they stand for is `X`, `[expert, in, out]`: the model multiplies from the other
//! side. Layout facts: `convert_moe_packed_tensors` in `transformers/integrations/mxfp4.py`, llama.cpp's `conversion/gpt_oss.py`.

use super::{Quantized, names};
use crate::{
    ops::{Numbers, Unpack, Values, View},
    packing::Packing,
    source::{Found, SourceCx},
};
use std::sync::Arc;
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType};
use tensormill_model::{Error, Expr, Result};
use tensormill_tensor::{DType, Encoding, Shape};

/// Checkpoints with the experts of gpt-oss.
pub(crate) struct GptOss;

impl Quantized for GptOss {
    fn name(&self) -> &'static str {
        "MXFP4 experts"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        cx.method() == Some("mxfp4")
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let grid = Grid { code: Code::E2M1, group: 32, rows: 1, offset: Offset::None, outer: false };
        let numbers = Numbers::plain(grid, ScaleType::E8M0);
        let mut found = Vec::new();
        for (name, _) in cx.with_suffix("_blocks") {
            cx.must(&format!("{name}_scales"), "the quantized weight lacks its scales")?;
        }
        // In the order of the scales: where a file ends between the two, the peer's converter goes by them.
        for (name, scales) in cx.with_suffix("_scales") {
            let blocks = cx.must(&format!("{name}_blocks"), "the scales have no blocks")?;
            let bytes = [blocks, scales].iter().all(|t| t.spec.encoding == Encoding::Plain(DType::U8));
            let (&[experts, out, groups, 16], true) = (blocks.spec.shape.dims(), bytes) else {
                return Err(Error::malformed(format!(
                    "MXFP4 blocks of {} {}",
                    blocks.spec.encoding, blocks.spec.shape
                ))
                .tensor(blocks.name()));
            };
            let flat = |e: &Expr, columns: u64| {
                Ok::<_, Error>(e.clone().reshape(Shape::new(vec![experts * out, columns])?))
            };
            let columns = groups * 32;
            let codes =
                flat(&blocks.expr, groups * 16)?.apply(Unpack { packing: Packing::dense(4), columns });
            let scale = flat(&scales.expr, groups)?.apply(View(DType::F8E8M0));
            // Exact: two digits and an exponent that bfloat16 has too.
            let values = Values { numbers, to: DType::BF16 };
            let expr = Expr::Apply { op: Arc::new(values), inputs: vec![codes, scale] };
            found.push(Found {
                name,
                used: names([Some(blocks), Some(scales)]),
                expr: expr.reshape(Shape::new(vec![experts, out, columns])?).transpose(),
                what: "mxfp4".to_owned(),
            });
        }
        Ok(found)
    }
}

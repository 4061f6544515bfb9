//! AWQ: what AutoAWQ writes for its GEMM kernels; codes packed along the rows of the transposed matrix, in an order of their own.
//!
//! Facts: AutoAWQ 0.2.9, `awq/modules/linear/gemm.py` and `awq/utils/packing_utils.py`.

use super::{
    Layout, Quantized, gptq::mixed, group_size, names, packed_points, plain_modules, regular, told,
    transposed, uniform_points, values, whole_groups,
};
use crate::{
    ops::{Numbers, Pack, What},
    packing::{Order, Packing},
    scheme::Scheme,
    source::{Found, SourceCx},
    target::{Coded, Used, dtype_of},
};
use serde_json::{Map, Value as Json, json};
use tensormill_kernels::groups::{Code, Grid, Offset};
use tensormill_model::{Error, Result, Tensor};
use tensormill_tensor::{DType, Shape};

/// AWQ's GEMM layout.
pub static AWQ: &dyn Layout = &Awq;

struct Awq;

const PACKING: Packing = Packing { order: Order::Awq, bits: 4, flip: 0 };

impl Layout for Awq {
    fn id(&self) -> &'static str {
        "awq"
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        whole_groups(scheme, shape)?;
        if !shape.rows().is_multiple_of(8) {
            return Err(Error::unsupported("the outputs do not fill whole words of eight codes"));
        }
        Ok(())
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let part = |what| w.part(what).transpose();
        let pack = Pack { packing: PACKING, to: DType::I32 };
        Ok(vec![
            w.tensor("qweight", part(What::Codes(Packing::dense(8), DType::U8)).apply(pack))?,
            w.tensor("qzeros", part(What::Offsets(DType::U8, 0)).apply(pack))?,
            w.tensor("scales", part(What::Scales(dtype_of(w.scale))))?,
        ])
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        let without = plain_modules(used);
        for u in used {
            let Some(s) = u.scheme else { continue };
            if (s.layout.id(), s.grid) != ("awq", scheme.grid) {
                return Err(mixed("AWQ", scheme, s));
            }
            // Readers look for these texts anywhere in a module's name.
            if let Some(part) = without.iter().find(|w| u.module.contains(**w)) {
                return Err(Error::unsupported(format!(
                    "AWQ's configuration cannot leave out {part} and not {}",
                    u.module
                ))
                .hint("leave both plain, or quantize both"));
            }
        }
        let method = json!({
            "quant_method": "awq",
            "zero_point": scheme.grid.offset == Offset::Point,
            "group_size": group_size(scheme.grid),
            "bits": 4,
            "version": "gemm",
            "modules_to_not_convert": if without.is_empty() { Json::Null } else { json!(without) },
        });
        Ok(told(method))
    }
}

/// Checkpoints of `AutoAWQ`.
pub(crate) struct AwqCheckpoint;

impl Quantized for AwqCheckpoint {
    fn name(&self) -> &'static str {
        "AWQ"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        match cx.method() {
            Some("awq") => true,
            Some("auto-round" | "intel/auto-round") => {
                cx.text("packing_format").is_some_and(|f| f.contains("awq"))
            }
            _ => false,
        }
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let version = cx.text("version").or_else(|| cx.text("format")).unwrap_or("gemm").to_lowercase();
        // What ExLlama's kernels run is stored as for GEMM.
        if !matches!(version.as_str(), "gemm" | "exllama" | "exllamav2" | "ipex") {
            return Err(Error::unsupported(format!("AWQ weights packed for {version:?} kernels"))
                .hint("look for a repository whose quantization_config says version gemm, or start from the original"));
        }
        if let Some(bits) = cx.number("bits").or_else(|| cx.number("w_bit")).filter(|b| *b != 4) {
            return Err(Error::unsupported(format!("AWQ weights of {bits} bits; the layout has 4")));
        }
        cx.with_suffix(".qweight").into_iter().map(|(name, codes)| found(cx, &name, codes)).collect()
    }
}

fn found(cx: &SourceCx<'_>, name: &str, codes: &Tensor) -> Result<Found> {
    let (columns, words) = super::matrix(codes, &[DType::I32])?;
    let (points, scales) = (cx.need(name, "qzeros")?, cx.need(name, "scales")?);
    let (groups, rows) = super::matrix(scales, &[DType::F16, DType::BF16, DType::F32])?;
    let of_points = super::matrix(points, &[DType::I32])?;
    let group = regular(cx, columns, groups);
    let Some(group) = group.filter(|_| rows == words * 8 && of_points == (groups, words)) else {
        return Err(Error::malformed(format!(
            "codes {}, scales {} and zero points {} do not belong together",
            codes.spec.shape, scales.spec.shape, points.spec.shape
        ))
        .tensor(codes.name()));
    };
    let middle = uniform_points(&cx.peek(points)?, PACKING, words, rows) == Some(8);
    let offset = if middle { Offset::Middle } else { Offset::Point };
    let grid = Grid { code: Code::Int(4), group, rows: 1, offset, outer: false };
    let mut inputs = vec![packed_points(codes.expr.clone(), PACKING, rows), transposed(scales)];
    if !middle {
        inputs.push(packed_points(points.expr.clone(), PACKING, rows));
    }
    let numbers = Numbers::plain(grid, super::scale_type(scales)?);
    Ok(Found {
        name: format!("{name}.weight"),
        used: names([codes, points, scales].map(Some)),
        expr: values(numbers, inputs),
        what: "AWQ 4-bit".to_owned(),
    })
}

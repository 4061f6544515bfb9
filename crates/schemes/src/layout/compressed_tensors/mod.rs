//! compressed-tensors: what llm-compressor writes, and vLLM, SGLang and transformers read.
//!
//! Layout facts: `compressors/*/base.py`, `quantization/quant_scheme.py` and `quantization/quant_config.py` of
//! compressed-tensors 0.20. Its formats are told apart by the type of codes and by whether activations are quantized, too;
//! presets without calibrated activations have dynamic ones, or none.

mod config;
mod groups;
mod source;

use super::{Layout, OfMatrix, whole_groups};
use crate::{
    ops::{Inverse, Part, View, What, down},
    packing::{Order, Packing},
    scheme::Scheme,
    target::{Coded, Outer, Used, dtype_of},
};
use serde_json::{Map, Value as Json};
use tensormill_kernels::groups::{Code, Offset, ScaleType};
use tensormill_model::{Cast, Error, Expr, Form, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

pub(crate) use source::CompressedTensors;

/// `pack-quantized`: integers of up to 8 bits, packed along the columns.
pub static PACK_QUANTIZED: &dyn Layout = &PackQuantized;
/// `int-quantized`: 8-bit integers, where activations are quantized.
pub static INT_QUANTIZED: &dyn Layout = &Bytes { id: "int-quantized" };
/// `float-quantized`: 8-bit floats, where activations are quantized.
pub static FLOAT_QUANTIZED: &dyn Layout = &Bytes { id: "float-quantized" };
/// `naive-quantized`: 8-bit floats, where activations are not.
pub static NAIVE_QUANTIZED: &dyn Layout = &Bytes { id: "naive-quantized" };
/// `mxfp8-quantized`: 8-bit floats with powers of two as scales.
pub static MXFP8: &dyn Layout = &Bytes { id: "mxfp8-quantized" };
/// `nvfp4-pack-quantized`: 4-bit floats, two in a byte, with scales of scales.
pub static NVFP4_PACKED: &dyn Layout = &Fp4 { id: "nvfp4-pack-quantized" };
/// `mxfp4-pack-quantized`: 4-bit floats, two in a byte, with powers of two as scales.
pub static MXFP4_PACKED: &dyn Layout = &Fp4 { id: "mxfp4-pack-quantized" };

/// What the library makes of a magnitude for NVFP4's scale of scales: the largest value of scales times that of codes.
const NVFP4_RANGE: f32 = 448.0 * 6.0;

struct PackQuantized;

/// Codes of 8 bits, a byte each.
struct Bytes {
    id: &'static str,
}

struct Fp4 {
    id: &'static str,
}

/// A tensor of a module.
fn named(w: &Coded<'_>, name: &str, expr: Expr) -> Result<Tensor> {
    Tensor::new(format!("{}.{name}", w.module), expr)
}

/// A part of a module's bundles.
fn part(w: &Coded<'_>, what: What) -> Expr {
    w.bundle.clone().apply(Part { grid: w.grid, columns: w.columns, what })
}

/// Scales as they are stored: powers of two are bytes for want of a type when the format was made.
fn scales(w: &Coded<'_>) -> Result<Tensor> {
    let expr = part(w, What::Scales(dtype_of(w.scale)));
    named(w, "weight_scale", if w.scale == ScaleType::E8M0 { expr.apply(View(DType::U8)) } else { expr })
}

/// A number about the whole matrix, which scales are multiplied by, or divided by, as wanted, in a type.
pub(super) fn outer_as(outer: &Outer, divides: bool, to: DType, dims: &[u64]) -> Result<Expr> {
    let mut expr = outer.expr.clone();
    if outer.divides != divides {
        expr = expr.apply(Inverse);
    }
    if expr.form()?.encoding != Encoding::Plain(to) {
        expr = expr.apply(Cast(to));
    }
    Ok(expr.reshape(Shape::new(dims.to_vec())?))
}

impl Layout for PackQuantized {
    fn id(&self) -> &'static str {
        "pack-quantized"
    }

    fn family(&self) -> &'static str {
        config::FAMILY
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        let (together, words) = down(scheme.grid.code.bits());
        if scheme.grid.offset == Offset::Point && words > 1 && !shape.rows().is_multiple_of(together) {
            return Err(Error::unsupported(format!(
                "zero points of this width come for {together} rows at a time"
            )));
        }
        whole_groups(scheme, shape)
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let bits = w.grid.code.bits();
        let dims: Vec<u8> = [w.rows, w.columns].iter().flat_map(|d| (*d as i64).to_le_bytes()).collect();
        let form = Form::new(Shape::new(vec![2])?, Encoding::Plain(DType::I64));
        let mut made = vec![
            named(w, "weight_packed", part(w, What::Codes(Packing::dense(bits), DType::I32)))?,
            scales(w)?,
            named(w, "weight_shape", Expr::Const { form, bytes: dims.into() })?,
        ];
        if w.grid.offset == Offset::Point {
            let mut points = part(w, What::OffsetsDown);
            let (together, words) = down(bits);
            if words > 1 {
                let groups = w.grid.groups(w.columns as usize) as u64;
                points = points.reshape(Shape::new(vec![w.rows / together * words, groups])?);
            }
            made.insert(2, named(w, "weight_zero_point", points)?);
        }
        Ok(made)
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        config::config(scheme, used)
    }
}

impl Layout for Bytes {
    fn id(&self) -> &'static str {
        self.id
    }

    fn family(&self) -> &'static str {
        config::FAMILY
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        // Blocks need not be filled, but the library quantizes activations in whole groups of as many columns.
        let whole = scheme.grid.rows == 1 || scheme.flavour == "blocks";
        if whole { whole_groups(scheme, shape) } else { Ok(()) }
    }

    fn outer(&self, scheme: &Scheme) -> Option<OfMatrix> {
        (scheme.grid.rows == 0).then_some(OfMatrix::Scale)
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let (flip, dtype) = match w.grid.code {
            Code::Int(_) => (0x80, DType::I8),
            Code::E5M2 => (0, DType::F8E5M2),
            _ => (0, DType::F8E4M3),
        };
        let codes = part(w, What::Codes(Packing { order: Order::Dense, bits: 8, flip }, dtype));
        let scale = match &w.outer {
            Some(outer) => named(w, "weight_scale", outer_as(outer, false, dtype_of(w.scale), &[1])?)?,
            None => scales(w)?,
        };
        Ok(vec![named(w, "weight", codes)?, scale])
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        config::config(scheme, used)
    }
}

impl Layout for Fp4 {
    fn id(&self) -> &'static str {
        self.id
    }

    fn family(&self) -> &'static str {
        config::FAMILY
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        whole_groups(scheme, shape)
    }

    fn outer(&self, scheme: &Scheme) -> Option<OfMatrix> {
        scheme.grid.outer.then_some(OfMatrix::Divisor(NVFP4_RANGE))
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        let codes = part(w, What::Codes(Packing::dense(4), DType::U8));
        let mut made = vec![named(w, "weight_packed", codes)?, scales(w)?];
        if let Some(outer) = &w.outer {
            made.push(named(w, "weight_global_scale", outer_as(outer, true, DType::F32, &[1])?)?);
        }
        Ok(made)
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        config::config(scheme, used)
    }
}

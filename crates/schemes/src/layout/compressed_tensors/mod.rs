//! compressed-tensors: what llm-compressor writes, and vLLM, SGLang and transformers read.
//!
//! Layout facts: `compressors/*/base.py`, `quantization/quant_scheme.py` and `quantization/quant_config.py` of
//! compressed-tensors 0.20. Its formats are told apart by the type of codes and by whether activations are quantized, too;
//! presets without calibrated activations have dynamic ones, or none.

mod config;
mod groups;
mod source;

use super::{Layout, OfMatrix, constant, whole_groups};
use crate::{
    ops::{Inverse, View, What, down},
    packing::Packing,
    scheme::{Flavour, Scheme},
    target::{Coded, Outer, Used, dtype_of},
};
use serde_json::{Map, Value as Json};
use tensormill_kernels::groups::{Code, Offset, ScaleType};
use tensormill_model::{Cast, Error, Expr, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

pub(crate) use source::CompressedTensors;

/// `pack-quantized`: integers of up to 8 bits, packed along the columns.
pub static PACK_QUANTIZED: &dyn Layout = &Compressed { id: "pack-quantized", codes: Codes::Packed };
/// `int-quantized`: 8-bit integers, where activations are quantized.
pub static INT_QUANTIZED: &dyn Layout = &Compressed { id: "int-quantized", codes: Codes::Bytes };
/// `float-quantized`: 8-bit floats, where activations are quantized.
pub static FLOAT_QUANTIZED: &dyn Layout = &Compressed { id: "float-quantized", codes: Codes::Bytes };
/// `naive-quantized`: 8-bit floats, where activations are not.
pub static NAIVE_QUANTIZED: &dyn Layout = &Compressed { id: "naive-quantized", codes: Codes::Bytes };
/// `mxfp8-quantized`: 8-bit floats with powers of two as scales.
pub static MXFP8: &dyn Layout = &Compressed { id: "mxfp8-quantized", codes: Codes::Bytes };
/// `nvfp4-pack-quantized`: 4-bit floats, two in a byte, with scales of scales.
pub static NVFP4_PACKED: &dyn Layout = &Compressed { id: "nvfp4-pack-quantized", codes: Codes::Fp4 };
/// `mxfp4-pack-quantized`: 4-bit floats, two in a byte, with powers of two as scales.
pub static MXFP4_PACKED: &dyn Layout = &Compressed { id: "mxfp4-pack-quantized", codes: Codes::Fp4 };

/// What the library makes of a magnitude for NVFP4's scale of scales: the largest value of scales times that of codes.
const NVFP4_RANGE: f32 = 448.0 * 6.0;

/// One of the library's formats.
struct Compressed {
    id: &'static str,
    codes: Codes,
}

/// How files hold codes.
#[derive(Clone, Copy)]
enum Codes {
    /// Integers in 32-bit words.
    Packed,
    /// A byte each.
    Bytes,
    /// 4-bit floats, two in a byte.
    Fp4,
}

/// Scales as they are stored: powers of two are bytes for want of a type when the format was made.
fn scales(w: &Coded<'_>) -> Result<Tensor> {
    let expr = w.part(What::Scales(dtype_of(w.scale)));
    w.tensor("weight_scale", if w.scale == ScaleType::E8M0 { expr.apply(View(DType::U8)) } else { expr })
}

/// A number about the whole matrix, which scales are multiplied by, or divided by, as wanted, in a type.
fn outer_as(outer: &Outer, divides: bool, to: DType) -> Result<Expr> {
    let mut expr = outer.expr.clone();
    if outer.divides != divides {
        expr = expr.apply(Inverse);
    }
    if expr.form()?.encoding != Encoding::Plain(to) {
        expr = expr.apply(Cast(to));
    }
    Ok(expr.reshape(Shape::new(vec![1])?))
}

impl Layout for Compressed {
    fn id(&self) -> &'static str {
        self.id
    }

    fn family(&self) -> &'static str {
        config::FAMILY
    }

    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()> {
        let (together, words) = down(scheme.grid.code.bits());
        match self.codes {
            Codes::Packed
                if scheme.grid.offset == Offset::Point
                    && words > 1
                    && !shape.rows().is_multiple_of(together) =>
            {
                Err(Error::unsupported(format!(
                    "zero points of this width come for {together} rows at a time"
                )))
            }
            // Blocks need not be filled, but the library quantizes activations in whole groups of as many columns.
            Codes::Bytes if scheme.grid.rows != 1 && scheme.flavour != Flavour::BlockActivations => Ok(()),
            _ => whole_groups(scheme, shape),
        }
    }

    fn outer(&self, scheme: &Scheme) -> Option<OfMatrix> {
        match self.codes {
            Codes::Bytes if scheme.grid.rows == 0 => Some(OfMatrix::Scale),
            Codes::Fp4 if scheme.grid.outer => Some(OfMatrix::Divisor(NVFP4_RANGE)),
            _ => None,
        }
    }

    fn siblings(&self, w: &Coded<'_>) -> Result<Vec<Tensor>> {
        match self.codes {
            Codes::Packed => packed(w),
            Codes::Bytes => bytes(w),
            Codes::Fp4 => fp4(w),
        }
    }

    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>> {
        config::config(scheme, used)
    }
}

fn packed(w: &Coded<'_>) -> Result<Vec<Tensor>> {
    let bits = w.grid.code.bits();
    let dims = [w.rows, w.columns].iter().flat_map(|d| (*d as i64).to_le_bytes()).collect();
    let mut made = vec![
        w.tensor("weight_packed", w.part(What::Codes(Packing::dense(bits), DType::I32)))?,
        scales(w)?,
        w.tensor("weight_shape", constant(vec![2], DType::I64, dims)?)?,
    ];
    if w.grid.offset == Offset::Point {
        let mut points = w.part(What::OffsetsDown);
        let (together, words) = down(bits);
        if words > 1 {
            let groups = w.grid.groups(w.columns as usize) as u64;
            points = points.reshape(Shape::new(vec![w.rows / together * words, groups])?);
        }
        made.insert(2, w.tensor("weight_zero_point", points)?);
    }
    Ok(made)
}

fn bytes(w: &Coded<'_>) -> Result<Vec<Tensor>> {
    let (packing, dtype) = match w.grid.code {
        Code::Int(_) => (Packing::SIGNED, DType::I8),
        Code::E5M2 => (Packing::dense(8), DType::F8E5M2),
        _ => (Packing::dense(8), DType::F8E4M3),
    };
    let scale = match &w.outer {
        Some(outer) => w.tensor("weight_scale", outer_as(outer, false, dtype_of(w.scale))?)?,
        None => scales(w)?,
    };
    Ok(vec![w.tensor("weight", w.part(What::Codes(packing, dtype)))?, scale])
}

fn fp4(w: &Coded<'_>) -> Result<Vec<Tensor>> {
    let codes = w.part(What::Codes(Packing::dense(4), DType::U8));
    let mut made = vec![w.tensor("weight_packed", codes)?, scales(w)?];
    if let Some(outer) = &w.outer {
        made.push(w.tensor("weight_global_scale", outer_as(outer, true, DType::F32)?)?);
    }
    Ok(made)
}

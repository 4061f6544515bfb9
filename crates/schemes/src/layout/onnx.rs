//! Weights that operators of an ONNX graph take in codes: the initializers are the graph's, which another rewrites; here is what
//! a scheme asks of it, and the parts of a weight.

use super::Layout;
use crate::{
    ops::{Part, What},
    packing::Packing,
    scheme::Scheme,
    target::{Coded, Place, Used},
};
use serde_json::{Map, Value as Json};
use tensormill_kernels::groups::Grid;
use tensormill_model::{Error, Expr, Result, Tensor};
use tensormill_tensor::{DType, Shape};

/// Operators that take codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operators {
    /// `MatMulNBits`, and `GatherBlockQuantized` for tables.
    Blocks,
    /// `DequantizeLinear` before the operator that there was.
    Dequantize,
    /// `DynamicQuantizeLinear` and `MatMulInteger`.
    Dynamic,
}

/// `MatMulNBits`.
pub static MATMUL_NBITS: &dyn Layout = &OnnxLayout(Operators::Blocks);
/// `DequantizeLinear`.
pub static QDQ: &dyn Layout = &OnnxLayout(Operators::Dequantize);
/// `MatMulInteger`.
pub static MATMUL_INTEGER: &dyn Layout = &OnnxLayout(Operators::Dynamic);

struct OnnxLayout(Operators);

impl Layout for OnnxLayout {
    fn id(&self) -> &'static str {
        match self.0 {
            Operators::Blocks => "MatMulNBits",
            Operators::Dequantize => "DequantizeLinear",
            Operators::Dynamic => "MatMulInteger",
        }
    }

    fn operators(&self) -> Option<Operators> {
        Some(self.0)
    }

    fn takes(&self, _: &Scheme, _: &Shape) -> Result<()> {
        // What is left of a row is filled up with zeros, or is a group of its own.
        Ok(())
    }

    fn quantizes(&self, place: Place) -> bool {
        match self.0 {
            // As ONNX Runtime's tools: every product, and with bytes the tables, too.
            Operators::Blocks | Operators::Dequantize => matches!(place, Place::Linear | Place::OtherLinear),
            Operators::Dynamic => place != Place::Other,
        }
    }

    fn siblings(&self, _: &Coded<'_>) -> Result<Vec<Tensor>> {
        Err(Error::usage(format!("{} is an operator of ONNX graphs", self.id()))
            .hint("end the output's name in .onnx, or give --to onnx"))
    }

    fn config(&self, _: &Scheme, _: &[Used]) -> Result<Map<String, Json>> {
        Ok(Map::new())
    }
}

/// Codes of bundles, packed into bytes lowest first; every row is filled up with zeros to as many codes as `filled`.
pub fn packed_codes(bundle: Expr, grid: Grid, columns: u64, filled: u64) -> Expr {
    let packing = Packing::dense(grid.code.bits());
    bundle.apply(Part { grid, columns, what: What::Filled(packing, packing.bytes(filled)) })
}

/// Codes of bundles, a byte each: as they stand, or with their middle taken off.
pub fn codes(bundle: Expr, grid: Grid, columns: u64, signed: bool) -> Expr {
    if !signed {
        return bundle.apply(Part { grid, columns, what: What::Codes(Packing::dense(8), DType::U8) });
    }
    let flip = 1u8 << (grid.code.bits() - 1);
    // Of narrower codes the bits are what counts: they are packed later.
    let dtype = if grid.code.bits() == 8 { DType::I8 } else { DType::U8 };
    bundle.apply(Part { grid, columns, what: What::Codes(Packing { flip, ..Packing::dense(8) }, dtype) })
}

/// Scales of bundles, as `f32`.
pub fn scales(bundle: Expr, grid: Grid, columns: u64) -> Expr {
    bundle.apply(Part { grid, columns, what: What::Scales(DType::F32) })
}

/// Zero points of bundles, a byte each.
pub fn points(bundle: Expr, grid: Grid, columns: u64, signed: bool) -> Expr {
    let (dtype, add) = if signed { (DType::I8, -(grid.code.middle() as i16)) } else { (DType::U8, 0) };
    bundle.apply(Part { grid, columns, what: What::Offsets(dtype, add) })
}

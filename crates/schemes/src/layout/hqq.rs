//! HQQ: what its package and transformers write; each setting is a tensor beside the codes.
//!
//! Facts: hqq 0.2.8, `core/quantize.py` (`state_dict`, `dequantize`) and `core/bitpack.py`.

use super::{Quantized, values};
use crate::{
    ops::{Field, Numbers},
    source::{Found, SourceCx},
};
use tensormill_kernels::groups::{Code, Grid, Offset};
use tensormill_model::{Error, Expr, Result, RowMap, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// Checkpoints of HQQ.
pub(crate) struct HqqCheckpoint;

/// What an element of `W_q` is, by the package's name of the packing: bits of a code, codes, their order being from the
/// highest bits down.
fn packing(name: &str) -> Option<(u32, u64)> {
    Some(match name {
        "8bit_u8" => (8, 1),
        "4bit_u8" => (4, 2),
        "3bit_32" => (3, 10),
        "2bit_u8" => (2, 4),
        "1bit_u8" => (1, 8),
        _ => return None,
    })
}

impl Quantized for HqqCheckpoint {
    fn name(&self) -> &'static str {
        "HQQ"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        match cx.method() {
            Some(method) => method == "hqq",
            None => !cx.with_suffix(".W_q").is_empty(),
        }
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        cx.with_suffix(".W_q")
            .into_iter()
            .map(|(name, codes)| found(cx, &name, codes).map_err(|e| e.tensor(codes.name())))
            .collect()
    }
}

/// Bytes of a setting.
const SETTING: u64 = 1 << 10;

/// The bytes of a setting.
fn setting(cx: &SourceCx<'_>, module: &str, name: &str) -> Result<Option<(DType, Vec<u8>)>> {
    let Some(t) = cx.of(module, name) else { return Ok(None) };
    let Encoding::Plain(dtype) = t.spec.encoding else {
        return Err(Error::malformed("a setting of blocks").tensor(t.name()));
    };
    if t.spec.bytes()? > SETTING {
        return Err(Error::malformed("is larger than a setting is").tensor(t.name()));
    }
    Ok(Some((dtype, cx.peek(t)?)))
}

/// Whole numbers of a setting.
fn numbers(cx: &SourceCx<'_>, module: &str, name: &str) -> Result<Option<Vec<i64>>> {
    let Some((dtype, bytes)) = setting(cx, module, name)? else { return Ok(None) };
    let size = (dtype.bits() / 8).max(1) as usize;
    if dtype.is_float() || size > 8 {
        return Err(Error::malformed(format!("a number of type {dtype}")).tensor(format!("{module}.{name}")));
    }
    let number = |b: &[u8]| {
        let mut word = [0u8; 8];
        // Settings are small and not negative.
        word[..size].copy_from_slice(b);
        i64::from_le_bytes(word)
    };
    Ok(Some(bytes.chunks_exact(size).map(number).collect()))
}

fn flag(cx: &SourceCx<'_>, module: &str, name: &str) -> Result<bool> {
    Ok(numbers(cx, module, name)?.is_some_and(|n| n.first().is_some_and(|n| *n != 0)))
}

fn found(cx: &SourceCx<'_>, module: &str, packed: &Tensor) -> Result<Found> {
    let damaged = |what: &str| Error::malformed(what.to_owned());
    for switch in ["quant_scale", "quant_zero", "view_as_float"] {
        if flag(cx, module, switch)? {
            return Err(Error::unsupported(format!("HQQ weights with {switch}"))
                .hint("save the model again without quantized meta-data, or start from the original"));
        }
    }
    let shape = numbers(cx, module, "shape")?.ok_or_else(|| damaged("HQQ weights need their shape"))?;
    let dims: Vec<u64> = shape.iter().filter_map(|d| u64::try_from(*d).ok().filter(|d| *d > 0)).collect();
    if dims.len() != 2 || dims.len() != shape.len() {
        return Err(damaged("HQQ weights are matrices"));
    }
    let shape = Shape::new(dims)?;
    let name = match setting(cx, module, "packing")? {
        Some((_, bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        None => return Err(damaged("HQQ weights need the name of their packing")),
    };
    let (bits, codes) =
        packing(&name).ok_or_else(|| Error::unsupported(format!("HQQ codes packed as {name:?}")))?;
    let axis = numbers(cx, module, "axis")?.and_then(|a| a.first().copied()).unwrap_or(1);
    let (scale, zero) = (cx.need(module, "scale")?, cx.need(module, "zero")?);
    // Matrices are cut into groups that stand below each other (axis 1) or beside each other (axis 0).
    let groups = scale.spec.shape.elements();
    let fits = groups > 0 && shape.elements().is_multiple_of(groups) && zero.spec.shape.elements() == groups;
    if !fits || !matches!(axis, 0 | 1) {
        return Err(damaged(&format!("{groups} scales and {} zero points for {shape}", zero.spec.shape)));
    }
    let len = shape.elements() / groups;
    let (high, wide) = if axis == 1 { (groups, len) } else { (len, groups) };
    let rows = high.div_ceil(codes);
    let (have, of) = super::matrix(packed, &[DType::U8, DType::I32])?;
    if (have, of) != (rows, wide) {
        return Err(damaged(&format!(
            "codes {} are not {rows} x {wide} elements of {name}",
            packed.spec.shape
        )));
    }
    let field = |i: u64| packed.expr.clone().apply(Field { shift: bits * (codes - 1 - i) as u32, bits });
    let stacked = Shape::new(vec![rows * codes, wide])?;
    let all = Expr::Concat { inputs: (0..codes).map(field).collect(), shape: stacked };
    let all = if rows * codes == high { all } else { all.rows(RowMap::Slice { start: 0, len: high }) };
    // Groups that are whole rows are groups of the matrix itself; others are seen as one matrix of groups.
    let seen = if axis == 1 && shape.row_len().is_multiple_of(len) {
        shape.clone()
    } else {
        Shape::new(vec![high, wide])?
    };
    let group = if axis == 1 { u32::try_from(len).map_err(|_| damaged("too long a group"))? } else { 1 };
    let grid = Grid { code: Code::Int(bits as u8), group, rows: 1, offset: Offset::Point, outer: false };
    let apart = if axis == 1 { seen.rows() } else { 1 };
    let per_row = Shape::new(vec![apart, groups / apart])?;
    let number = |t: &Tensor| -> Result<Expr> {
        super::typed(t, &[DType::F16, DType::BF16, DType::F32])?;
        Ok(t.expr.clone().reshape(per_row.clone()))
    };
    let numbers = Numbers { rows: u32::from(axis == 1), ..Numbers::plain(grid, super::scale_type(scale)?) };
    let expr = values(numbers, vec![all.reshape(seen.clone()), number(scale)?, number(zero)?]);
    let expr = if seen == shape { expr } else { expr.reshape(shape) };
    Ok(Found {
        name: format!("{module}.weight"),
        used: SETTINGS.iter().map(|s| format!("{module}.{s}")).filter(|n| cx.get(n).is_some()).collect(),
        expr,
        what: format!("HQQ {bits}-bit"),
    })
}

/// Tensors of a module that are nothing but its weight.
const SETTINGS: [&str; 22] = [
    "W_q",
    "axis",
    "channel_wise",
    "compute_dtype",
    "encoded_state_dict",
    "group_size",
    "nbits",
    "offload_meta",
    "optimize",
    "packing",
    "quant_scale",
    "quant_zero",
    "round_zero",
    "scale",
    "shape",
    "stores_quant_config",
    "unpack_view_dtype",
    "view_as_float",
    "zero",
    "meta_scale",
    "meta_zero",
    "scale_quant_params",
];

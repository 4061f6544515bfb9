//! Checkpoints of compressed-tensors as sources.

use super::{
    super::{
        Quantized, names,
        scaled::{self, Sharing, holds, matrix},
    },
    groups::{Group, group_of, groups},
};
use crate::{
    ops::{Gather, Numbers, Unpack, UnpackDown},
    packing::{Order, Packing},
    source::{Found, SourceCx},
};
use std::sync::Arc;
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType};
use tensormill_model::{Error, Expr, Result, Tensor};
use tensormill_tensor::{DType, Shape};

/// Checkpoints of compressed-tensors.
pub(crate) struct CompressedTensors;

/// Formats whose weights have zeros left out.
const SPARSE: &[&str] = &["marlin-24", "sparse-24", "sparse-24-bitmask", "sparse-bitmask"];

impl Quantized for CompressedTensors {
    fn name(&self) -> &'static str {
        "compressed-tensors"
    }

    fn claims(&self, cx: &SourceCx<'_>) -> bool {
        match cx.method() {
            Some(method) => method == "compressed-tensors",
            None => cx.quantization.contains_key("config_groups"),
        }
    }

    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>> {
        let sparse = cx.quantization.get("sparsity_config").or_else(|| cx.config.get("sparsity_config"));
        let formats = [cx.text("format"), sparse.and_then(|s| s.get("format")?.as_str())];
        if let Some(format) = formats.into_iter().flatten().find(|f| SPARSE.contains(f)) {
            return Err(Error::unsupported(format!(
                "weights in the format {format}, which leaves zeros out"
            ))
            .file("config.json")
            .hint("decompress the model with compressed-tensors 0.9, or start from the plain model"));
        }
        let groups = groups(cx)?;
        let mut found = Vec::new();
        for (module, packed) in cx.with_suffix(".weight_packed") {
            found.push(match scaled::dtype(packed)? {
                DType::I32 => integers(cx, &module, packed, &groups)?,
                DType::U8 => floats(cx, &module, packed)?,
                other => {
                    return Err(
                        Error::malformed(format!("packed weights of type {other}")).tensor(packed.name())
                    );
                }
            });
        }
        for (module, scale) in cx.with_suffix(".weight_scale") {
            if cx.of(&module, "weight_packed").is_some() {
                continue;
            }
            let weight = cx.need(&module, "weight")?;
            let float = scaled::dtype(weight)? != DType::I8;
            let group = group_of(&groups, &module, |g| g.float == float)?;
            let zero = cx.of(&module, "weight_zero_point");
            let read = scaled::bytes(weight, scale, zero, sharing(group))?;
            found.push(read.found(weight.name(), names([Some(weight), Some(scale), zero])));
        }
        Ok(found)
    }

    fn is_about_activations(&self, name: &str) -> bool {
        scaled::about_activations(name)
    }
}

fn sharing(group: &Group) -> Sharing {
    match (group.strategy.as_deref(), group.block, group.wide) {
        (Some("block"), Some((high, wide)), _) => Sharing::Blocks(high, wide),
        (Some("group" | "tensor_group"), _, Some(columns)) => Sharing::Group(columns),
        _ => Sharing::RowOrAll,
    }
}

/// NVFP4 and MXFP4.
fn floats(cx: &SourceCx<'_>, module: &str, packed: &Tensor) -> Result<Found> {
    let scale = cx.need(module, "weight_scale")?;
    let outer = match scaled::scale_type(scale)? {
        ScaleType::E4M3 => Some(cx.need(module, "weight_global_scale")?),
        _ => None,
    };
    if let Some(zero) = cx.of(module, "weight_zero_point") {
        return Err(Error::unsupported("zero points of weights that are floats").tensor(zero.name()));
    }
    let read = scaled::fp4(packed, scale, outer.map(|t| (t, true)))?;
    Ok(read.found(format!("{module}.weight"), names([Some(packed), Some(scale), outer])))
}

/// Packed integers.
fn integers(cx: &SourceCx<'_>, module: &str, packed: &Tensor, groups: &[Group]) -> Result<Found> {
    let group = group_of(groups, module, |g| !g.float)?;
    let (rows, words) = matrix(packed)?;
    let scale = cx.need(module, "weight_scale")?;
    let shape = cx.need(module, "weight_shape")?;
    let columns = columns(cx, shape, packed)?;
    let order = order(cx, packed, words, columns, u32::from(group.bits))?;
    let packing = Packing { order, bits: u32::from(group.bits), flip: 0 };
    let zero = cx.of(module, "weight_zero_point");
    let index = cx.of(module, "weight_g_idx");

    let wide = match (group.strategy.as_deref(), group.wide) {
        (Some("group"), None) => {
            return Err(Error::malformed("a strategy of groups without group_size").file("config.json"));
        }
        (Some("channel" | "tensor"), _) | (_, None) => 0,
        (_, Some(wide)) => wide,
    };
    let per_row = if wide == 0 { 1 } else { columns.div_ceil(u64::from(wide)) };
    let one = group.strategy.as_deref() == Some("tensor");
    let numbers_of = |t: &Tensor| holds(t, if one { Some(1) } else { rows.checked_mul(per_row) }, "groups");
    numbers_of(scale)?;
    let kind = scaled::scale_type(scale)?;
    let mut inputs = vec![packed.expr.clone().apply(Unpack { packing, columns }), scale.expr.clone()];
    if let Some(zero) = zero {
        if packed.spec.shape.rank() != 2 {
            return Err(Error::unsupported("zero points of stacked matrices").tensor(zero.name()));
        }
        let points = UnpackDown { packing, rows: if one { 1 } else { rows } };
        let points = zero.expr.clone().apply(points);
        let form = points.form().map_err(|e| e.tensor(zero.name()))?;
        if form.shape.row_len() != per_row {
            return Err(Error::malformed(format!("has shape {}, for {per_row} groups", zero.spec.shape))
                .tensor(zero.name()));
        }
        inputs.push(points);
    }
    let offset = if zero.is_some() { Offset::Point } else { Offset::Middle };
    let mut grid = Grid { code: Code::Int(group.bits), group: wide, rows: 1, offset, outer: false };
    // Where columns of a group do not stand beside each other, each has its own numbers.
    if let Some(index) = index.filter(|_| wide > 0) {
        holds(index, Some(columns), "columns")?;
        grid.group = 1;
        for number in &mut inputs[1..] {
            let spread =
                Expr::Apply { op: Arc::new(Gather), inputs: vec![number.clone(), index.expr.clone()] };
            spread.form().map_err(|e| e.tensor(index.name()))?;
            *number = spread;
        }
    }
    let mut numbers = Numbers::plain(grid, kind);
    if one {
        (numbers.rows, numbers.grid.rows) = (0, 0);
    }
    let expr = scaled::values(packed, numbers, inputs)?;
    let order = if index.is_some() { ", act-order" } else { "" };
    Ok(Found {
        name: format!("{module}.weight"),
        used: names([Some(packed), Some(scale), Some(shape), zero, index]),
        expr,
        what: format!("pack-quantized {}-bit{order}", group.bits),
    })
}

/// The number of columns that `weight_shape` tells, if it agrees with what is packed.
fn columns(cx: &SourceCx<'_>, shape: &Tensor, packed: &Tensor) -> Result<u64> {
    if scaled::dtype(shape)? != DType::I64 {
        return Err(Error::malformed(format!("is {}, not I64", shape.spec.encoding)).tensor(shape.name()));
    }
    let bytes = cx.peek(shape)?;
    let dims: Vec<i64> = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let packed_dims = packed.spec.shape.dims();
    let same = dims.len() == packed_dims.len()
        && std::iter::zip(&dims[..dims.len() - 1], packed_dims).all(|(a, b)| u64::try_from(*a) == Ok(*b));
    match dims.last().map(|n| u64::try_from(*n)) {
        Some(Ok(columns)) if same && columns > 0 && Shape::new(vec![columns]).is_ok() => Ok(columns),
        _ => Err(Error::malformed(format!(
            "says {dims:?}, and packed weights have shape {}",
            packed.spec.shape
        ))
        .tensor(shape.name())),
    }
}

/// How codes stand in words: versions from 0.20 on leave no gaps, those up to 0.9 put whole codes in words. Told by the number
/// of words; where it is the same for both, by whether there are gaps.
fn order(cx: &SourceCx<'_>, packed: &Tensor, words: u64, columns: u64, bits: u32) -> Result<Order> {
    let dense = u128::from(columns) * u128::from(bits);
    let dense = dense.div_ceil(32) == u128::from(words);
    let per_word = 32 / bits;
    let whole = columns.div_ceil(u64::from(per_word)) == words;
    match (dense, whole) {
        (true, false) => Ok(Order::Dense),
        (false, true) => Ok(Order::Words),
        (true, true) if per_word * bits == 32 => Ok(Order::Dense),
        (true, true) => {
            let gap = !0u32 << (per_word * bits);
            let gaps =
                |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().all(|w| u32::from_le_bytes(*w) & gap == 0);
            Ok(if gaps(&cx.peek(packed)?) { Order::Words } else { Order::Dense })
        }
        (false, false) => {
            Err(Error::malformed(format!("{words} words do not hold {columns} columns of {bits} bits"))
                .tensor(packed.name()))
        }
    }
}

//! Weights of a byte each, or of two 4-bit floats in a byte, with scales beside them: what several kinds of checkpoints share
//! but for names.

use super::floats;
use crate::{
    ops::{Numbers, Unpack, View},
    packing::Packing,
    source::Found,
};
use tensormill_kernels::groups::{Code, Grid, Offset, ScaleType};
use tensormill_model::{Error, Expr, Result, Tensor};
use tensormill_tensor::{DType, Encoding};

/// Last parts of names of what only says how activations were quantized.
const ABOUT_ACTIVATIONS: &[&str] = &[
    "activation_scale",
    "input_global_scale",
    "input_scale",
    "input_scale_ub",
    "input_zero_point",
    "output_scale",
    "output_zero_point",
    "prob_output_scale",
    "q_scale",
    "qscale_act",
];

/// Last parts of names of what only says how caches of keys and values are quantized.
const ABOUT_CACHES: &[&str] = &["k_scale", "k_zero_point", "kv_scale", "v_scale", "v_zero_point"];

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Whether a tensor only says how activations or caches were quantized.
pub(super) fn about_activations(name: &str) -> bool {
    let last = last(name);
    ABOUT_ACTIVATIONS.contains(&last) || ABOUT_CACHES.contains(&last) || last.ends_with("_activation_scale")
}

/// Whether a tensor that is left out is about caches of keys and values.
pub fn is_about_caches(name: &str) -> bool {
    ABOUT_CACHES.contains(&last(name)) || subtracted(name)
}

/// What an affine cache of ModelOpt subtracts; elsewhere such a name is a bias.
pub(super) fn subtracted(name: &str) -> bool {
    name.ends_with(".k_proj.k_bias") || name.ends_with(".v_proj.v_bias")
}

/// How weights share scales, as far as a configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Blocks of rows and columns.
    Blocks(u32, u32),
    /// So many columns of a row.
    Group(u32),
    /// A row, or all of them: the number of scales tells.
    RowOrAll,
}

/// What a weight stands for, and what it is held as.
pub(super) struct Read {
    pub expr: Expr,
    pub what: String,
}

impl Read {
    /// The weight of a name, of the tensors that are nothing else.
    pub(super) fn found(self, name: impl Into<String>, used: Vec<String>) -> Found {
        Found { name: name.into(), used, expr: self.expr, what: self.what }
    }
}

/// The type of a tensor that must be plain.
pub(super) fn dtype(t: &Tensor) -> Result<DType> {
    match t.spec.encoding {
        Encoding::Plain(d) => Ok(d),
        Encoding::Block(b) => Err(Error::malformed(format!("is {b} blocks")).tensor(t.name())),
    }
}

/// The type of scales.
pub(super) fn scale_type(t: &Tensor) -> Result<ScaleType> {
    Ok(match dtype(t)? {
        DType::F32 => ScaleType::F32,
        DType::F16 => ScaleType::F16,
        DType::BF16 => ScaleType::BF16,
        DType::F8E4M3 => ScaleType::E4M3,
        DType::F8E8M0 | DType::U8 => ScaleType::E8M0,
        other => return Err(Error::malformed(format!("scales of type {other}")).tensor(t.name())),
    })
}

/// Scales with the type that they stand for: powers of two are bytes in many files.
pub(super) fn scales(t: &Tensor) -> Expr {
    if t.spec.encoding == Encoding::Plain(DType::U8) {
        t.expr.clone().apply(View(DType::F8E8M0))
    } else {
        t.expr.clone()
    }
}

/// That a tensor has a number for each of so many.
pub(super) fn holds(t: &Tensor, wanted: Option<u64>, of: &str) -> Result<()> {
    if wanted == Some(t.spec.shape.elements()) {
        return Ok(());
    }
    let wanted = wanted.map_or_else(|| "too many".to_owned(), |w| w.to_string());
    Err(Error::malformed(format!("has shape {}, for {wanted} {of}", t.spec.shape)).tensor(t.name()))
}

/// Rows and columns of a matrix, or of a stack of them; neither is zero.
pub(super) fn matrix(t: &Tensor) -> Result<(u64, u64)> {
    let (rows, columns) = (t.spec.shape.rows(), t.spec.shape.row_len());
    if t.spec.shape.rank() < 2 || rows == 0 || columns == 0 {
        return Err(
            Error::malformed(format!("has shape {}, which is no matrix", t.spec.shape)).tensor(t.name())
        );
    }
    Ok((rows, columns))
}

/// Codes and numbers as values.
pub(super) fn values(t: &Tensor, numbers: Numbers, inputs: Vec<Expr>) -> Result<Expr> {
    let expr = super::values(numbers, inputs);
    expr.form().map_err(|e| e.tensor(t.name()))?;
    Ok(expr)
}

/// A weight of 8-bit floats or integers with scales that multiply.
pub(super) fn bytes(
    weight: &Tensor,
    scale: &Tensor,
    zero: Option<&Tensor>,
    sharing: Sharing,
) -> Result<Read> {
    let (rows, columns) = matrix(weight)?;
    let (code, codes) = match dtype(weight)? {
        DType::F8E4M3 => (Code::E4M3, weight.expr.clone()),
        DType::F8E5M2 => (Code::E5M2, weight.expr.clone()),
        d @ (DType::I8 | DType::U8) => {
            let packing = if d == DType::I8 { Packing::SIGNED } else { Packing::dense(8) };
            (Code::Int(8), weight.expr.clone().apply(Unpack { packing, columns }))
        }
        other => {
            return Err(Error::malformed(format!("quantized weights of type {other}")).tensor(weight.name()));
        }
    };
    let offset = match (code, zero) {
        (Code::Int(_), Some(_)) => Offset::Point,
        (Code::Int(_), None) => Offset::Middle,
        (_, Some(zero)) => {
            return Err(Error::unsupported("zero points of weights that are floats").tensor(zero.name()));
        }
        _ => Offset::None,
    };
    let grid = Grid { code, group: 0, rows: 1, offset, outer: false };
    let float = offset == Offset::None;
    let kind = scale_type(scale)?;
    let numbers = |grid, rows| Numbers { rows, add: 128, ..Numbers::plain(grid, kind) };
    let elements = scale.spec.shape.elements();
    let (numbers, what) = match sharing {
        Sharing::Blocks(high, wide) => {
            let stack = rows / weight.spec.shape.dims().iter().rev().nth(1).copied().unwrap_or(rows).max(1);
            let (high64, wide64) = (u64::from(high.max(1)), u64::from(wide.max(1)));
            let blocks = (rows / stack.max(1)).div_ceil(high64).saturating_mul(stack);
            holds(scale, blocks.checked_mul(columns.div_ceil(wide64)), "blocks")?;
            (numbers(Grid { group: wide, rows: high, ..grid }, high), "a scale per block")
        }
        Sharing::Group(group) => {
            let groups = if group == 0 { 1 } else { columns.div_ceil(u64::from(group)) };
            holds(scale, rows.checked_mul(groups), "groups")?;
            (numbers(Grid { group, ..grid }, 1), "a scale per group")
        }
        Sharing::RowOrAll if elements == 1 && float => {
            let numbers = Numbers { rows: 0, ..numbers(Grid { rows: 0, outer: true, ..grid }, 0) };
            let expr = values(weight, numbers, vec![codes, floats(&[1.0])?, scale.expr.clone()])?;
            return Ok(Read { expr, what: "8-bit floats, a scale per matrix".to_owned() });
        }
        Sharing::RowOrAll if elements == 1 => (numbers(Grid { rows: 0, ..grid }, 0), "a scale per matrix"),
        Sharing::RowOrAll => {
            holds(scale, Some(rows), "rows")?;
            (numbers(grid, 1), "a scale per row")
        }
    };
    let mut inputs = vec![codes, scales(scale)];
    if let Some(zero) = zero {
        if dtype(zero)? != DType::I8 {
            return Err(Error::malformed(format!("zero points are {}, not I8", zero.spec.encoding))
                .tensor(zero.name()));
        }
        holds(zero, Some(elements), "zero points")?;
        inputs.push(zero.expr.clone());
    }
    let codes = if float { "8-bit floats" } else { "8-bit integers" };
    Ok(Read { expr: values(weight, numbers, inputs)?, what: format!("{codes}, {what}") })
}

/// A weight of 4-bit floats, two in a byte, the first one in the low half; `outer` multiplies scales or divides them.
pub(super) fn fp4(packed: &Tensor, scale: &Tensor, outer: Option<(&Tensor, bool)>) -> Result<Read> {
    let (rows, bytes) = matrix(packed)?;
    if dtype(packed)? != DType::U8 {
        return Err(Error::malformed(format!("4-bit floats are {}, not U8", packed.spec.encoding))
            .tensor(packed.name()));
    }
    let columns =
        bytes.checked_mul(2).ok_or_else(|| Error::malformed("has too many columns").tensor(packed.name()))?;
    let kind = scale_type(scale)?;
    let group = match kind {
        ScaleType::E4M3 => 16,
        ScaleType::E8M0 => 32,
        _ => {
            return Err(Error::malformed(format!("scales of 4-bit floats are {}", scale.spec.encoding))
                .tensor(scale.name()));
        }
    };
    holds(scale, rows.checked_mul(columns.div_ceil(u64::from(group))), "groups")?;
    let grid = Grid { code: Code::E2M1, group, rows: 1, offset: Offset::None, outer: outer.is_some() };
    let divides = outer.is_some_and(|(_, divides)| divides);
    let numbers = Numbers { divides, ..Numbers::plain(grid, kind) };
    let codes = packed.expr.clone().apply(Unpack { packing: Packing::dense(4), columns });
    let mut inputs = vec![codes, scales(scale)];
    if let Some((outer, _)) = outer {
        // One for each matrix of a stack is nothing that others have.
        holds(outer, Some(1), "matrix")?;
        scale_type(outer)?;
        inputs.push(outer.expr.clone());
    }
    let what = if kind == ScaleType::E4M3 { "NVFP4" } else { "MXFP4" };
    Ok(Read { expr: values(packed, numbers, inputs)?, what: what.to_owned() })
}

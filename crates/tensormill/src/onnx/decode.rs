//! The values of weights that a read graph holds in codes.

use std::sync::Arc;
use tensormill_graph::{Code as GraphCode, Coding, Elem, EncodedWeight, Group, Order, Zero};
use tensormill_kernels::groups::{Code, Grid, Offset};
use tensormill_model::{Error, Expr, Result};
use tensormill_schemes::{
    layout::blocks_of,
    ops::{Numbers, Unpack, Values, scale_type},
    packing::{Order as Packed, Packing},
};
use tensormill_tensor::{DType, Encoding, Shape};

/// A weight as floats, `[rows, columns]`, in the type of its scales; `parts` are codes, scales and, where there are any, zero
/// points, as they are read.
///
/// # Errors
/// `Unsupported` for codes that have no meaning here; `Mismatch` where parts have other sizes than the coding says.
pub(crate) fn decode(weight: &EncodedWeight, parts: &[Expr]) -> Result<Expr> {
    let c = &weight.coding;
    let [codes, scales, ..] = parts else {
        return Err(Error::mismatch("a quantized weight without scales"));
    };
    let scale_dtype = plain(scales)?;
    let layout = Layout::of(c)?;
    let numbers = Numbers {
        grid: layout.grid,
        add: layout.add,
        divides: false,
        rows: u32::from(c.group != Group::Tensor),
        scale: scale_type(Encoding::Plain(scale_dtype)),
    };
    let mut inputs = vec![layout.codes(codes, c)?, layout.numbers(scales, c)?];
    if layout.grid.offset == Offset::Point {
        let points =
            parts.get(2).ok_or_else(|| Error::mismatch("a quantized weight without its zero points"))?;
        inputs.push(layout.points(points, c)?);
    }
    let to = if matches!(scale_dtype, DType::F16 | DType::BF16) { scale_dtype } else { DType::F32 };
    let values = Expr::Apply { op: Arc::new(Values { numbers, to }), inputs };
    Ok(values.reshape(Shape::new(vec![c.rows, c.columns])?))
}

fn plain(e: &Expr) -> Result<DType> {
    match e.form()?.encoding {
        Encoding::Plain(d) => Ok(d),
        Encoding::Block(b) => Err(Error::mismatch(format!("a part of a quantized weight as {b} blocks"))),
    }
}

/// How codes and numbers are seen: rows and columns are those of the weight, but where groups run on from row to row.
struct Layout {
    grid: Grid,
    rows: u64,
    columns: u64,
    bits: u32,
    /// Whether files have signed codes.
    signed: bool,
    /// What is added to zero points.
    add: i16,
}

impl Layout {
    fn of(c: &Coding) -> Result<Self> {
        let bits = c.code.bits() as u32;
        let (code, signed) = match c.code {
            GraphCode::Nf4 => (Code::Nf4, false),
            GraphCode::Fp4 => (Code::Fp4, false),
            GraphCode::Elem(Elem::I8 | Elem::I4 | Elem::I2) => (Code::Int(bits as u8), true),
            GraphCode::Elem(Elem::U8 | Elem::U4 | Elem::U2) => (Code::Int(bits as u8), false),
            GraphCode::Elem(Elem::F8E4M3) => (Code::E4M3, false),
            GraphCode::Elem(Elem::F8E5M2) => (Code::E5M2, false),
            GraphCode::Elem(Elem::F4) => (Code::E2M1, false),
            GraphCode::Elem(other) => {
                return Err(Error::unsupported(format!("weights in codes of type {other}")));
            }
        };
        let (mut rows, mut columns) = (c.rows, c.columns);
        let group = match c.group {
            Group::Tensor | Group::Row => 0,
            Group::Block(n) => {
                u32::try_from(n).map_err(|_| Error::unsupported("groups of so many weights"))?
            }
        };
        if let (Group::Block(n), Order::Running) = (c.group, c.order) {
            let seen = blocks_of(&Shape::new(vec![rows, columns])?, n.max(1))?;
            (rows, columns) = (seen.rows(), seen.row_len());
        }
        let offset = match c.zero {
            Zero::None if signed => Offset::Middle,
            Zero::None => Offset::None,
            Zero::Middle => Offset::Middle,
            Zero::Point => Offset::Point,
        };
        let add = if signed && offset == Offset::Point && bits == 8 { 128 } else { 0 };
        Ok(Self {
            grid: Grid { code, group, rows: 1, offset, outer: false },
            rows,
            columns,
            bits,
            signed,
            add,
        })
    }

    fn packing(&self, order: Order) -> Packing {
        let flip = if self.signed { 1 << (self.bits - 1) } else { 0 };
        let order = if order == Order::Running { Packed::HighFirst } else { Packed::Dense };
        Packing { order, bits: self.bits, flip }
    }

    /// Rows of packed numbers, of which some have no whole bytes.
    fn unpacked(&self, e: &Expr, order: Order, rows: u64, columns: u64) -> Result<Expr> {
        let packing = self.packing(order);
        let bytes = e.form()?.shape.elements();
        // Rows that begin on bytes, whatever they are filled up with.
        let apart = order == Order::Packed || (columns * u64::from(self.bits)).is_multiple_of(8);
        let (lines, codes) = if apart { (rows, columns) } else { (1, rows * columns) };
        if lines == 0 || !bytes.is_multiple_of(lines) {
            return Err(Error::mismatch(format!("{bytes} bytes for {rows} x {columns} codes")));
        }
        let unpacked = e
            .clone()
            .reshape(Shape::new(vec![lines, bytes / lines])?)
            .apply(Unpack { packing, columns: codes });
        Ok(unpacked.reshape(Shape::new(vec![rows, columns])?))
    }

    /// A byte per weight, `[rows, columns]`.
    fn codes(&self, e: &Expr, c: &Coding) -> Result<Expr> {
        match c.order {
            Order::Columns => Ok(self.unpacked(e, c.order, self.columns, self.rows)?.transpose()),
            order => self.unpacked(e, order, self.rows, self.columns),
        }
    }

    /// A number per group, `[rows, groups]`.
    fn numbers(&self, e: &Expr, c: &Coding) -> Result<Expr> {
        let groups = self.grid.groups(self.columns as usize) as u64;
        if c.group == Group::Tensor {
            return Ok(e.clone().reshape(Shape::new(vec![1, 1])?));
        }
        let turned = c.order == Order::Columns && groups > 1;
        let (a, b) = if turned { (groups, self.rows) } else { (self.rows, groups) };
        let seen = e.clone().reshape(Shape::new(vec![a, b])?);
        Ok(if turned { seen.transpose() } else { seen })
    }

    fn points(&self, e: &Expr, c: &Coding) -> Result<Expr> {
        let groups = self.grid.groups(self.columns as usize) as u64;
        let rows = if c.group == Group::Tensor { 1 } else { self.rows };
        let whole = self.bits == 8 || plain(e)?.is_float();
        match c.order {
            _ if whole => self.numbers(e, c),
            Order::Columns if groups > 1 => Ok(self.unpacked(e, c.order, groups, rows)?.transpose()),
            order => self.unpacked(e, order, rows, groups),
        }
    }
}

//! The change of one tensor, row by row: what is tuned less what it was.
//!
//! Rows are read as often as they are asked for. Where the budget has room, differences are kept from the first pass on:
//! a cold disk is then read once. What is kept changes no number.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tensormill_engine::{Event, Progress, Times};
use tensormill_lowrank::Matrix;
use tensormill_model::{Error, Reader, Result};
use tensormill_tensor::{DType, Encoding, decode_plain};

/// What all changes share.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) base: &'a dyn Reader,
    pub(super) tuned: &'a dyn Reader,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a AtomicBool,
    /// Bytes that were read.
    pub(super) read: &'a AtomicU64,
}

impl Context<'_> {
    pub(super) fn check(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }
}

/// One side of a change.
struct Side<'a> {
    reader: &'a dyn Reader,
    tensor: usize,
    dtype: DType,
    /// Bytes of a row of the matrix.
    row: usize,
}

impl Side<'_> {
    fn read(&self, rows: Range<u64>, bytes: &mut Vec<u8>, out: &mut [f32]) -> Result<()> {
        bytes.resize(out.len() * self.dtype.bits() as usize / 8, 0);
        self.reader.read(self.tensor, rows, bytes)?;
        if decode_plain(self.dtype, bytes, out) {
            return Ok(());
        }
        let name = &self.reader.index().tensors[self.tensor].name;
        Err(Error::unsupported(format!("{} values are not read as numbers", self.dtype)).tensor(name))
    }
}

/// Buffers of one read.
#[derive(Default)]
struct Buffers {
    bytes: Vec<u8>,
    base: Vec<f32>,
}

/// The change of one tensor, as a matrix: kernels of convolutions are matrices with longer rows.
pub(super) struct Change<'a> {
    context: Context<'a>,
    name: &'a str,
    sides: [Side<'a>; 2],
    rows: usize,
    columns: usize,
    /// Rows of the tensor in a row of the matrix.
    per: u64,
    buffers: Mutex<Vec<Buffers>>,
    kept: Option<Mutex<HashMap<usize, Arc<[f32]>>>>,
}

impl<'a> Change<'a> {
    /// The tensor that has these numbers in the two readers.
    pub(super) fn new(
        context: Context<'a>,
        name: &'a str,
        base: usize,
        tuned: usize,
        keep: bool,
    ) -> Result<Self> {
        let spec = &context.tuned.index().tensors[tuned];
        let elements = spec.shape.elements();
        // A vector is one row.
        let rows = if spec.shape.rank() < 2 { 1 } else { spec.shape.dims()[0] };
        let columns = elements.checked_div(rows).unwrap_or(0);
        let size = |n: u64| {
            usize::try_from(n).map_err(|_| Error::over_limit("too large for this machine").tensor(name))
        };
        let side = |reader: &'a dyn Reader, tensor: usize| {
            let Encoding::Plain(dtype) = reader.index().tensors[tensor].encoding else {
                return Err(Error::unsupported("its numbers are quantized").tensor(name));
            };
            Ok(Side { reader, tensor, dtype, row: size(columns)? * dtype.bits() as usize / 8 })
        };
        Ok(Self {
            sides: [side(context.base, base)?, side(context.tuned, tuned)?],
            context,
            name,
            rows: size(rows)?,
            columns: size(columns)?,
            per: columns.checked_div(spec.shape.row_len()).unwrap_or(0),
            buffers: Mutex::default(),
            kept: keep.then(Mutex::default),
        })
    }

    /// Bytes of both sides.
    pub(super) fn bytes(&self) -> u64 {
        (self.sides[0].row + self.sides[1].row) as u64 * self.rows as u64
    }

    /// Bytes that one read of so many rows holds beside its result.
    pub(super) fn buffer_bytes(&self, rows: usize) -> u64 {
        (rows * (self.columns * 4 + self.sides[0].row.max(self.sides[1].row))) as u64
    }

    fn difference(&self, rows: &Range<usize>, out: &mut [f32]) -> Result<()> {
        let lock = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = lock().pop().unwrap_or_default();
        buffers.base.resize(out.len(), 0.0);
        let of_tensor = rows.start as u64 * self.per..rows.end as u64 * self.per;
        let Buffers { bytes, base } = &mut buffers;
        self.sides[0].read(of_tensor.clone(), bytes, base)?;
        self.sides[1].read(of_tensor, bytes, out)?;
        for (x, b) in out.iter_mut().zip(base.iter()) {
            *x -= b;
        }
        lock().push(buffers);
        if let Some(at) = out.iter().position(|x| !x.is_finite()) {
            let (row, column) = (rows.start + at / self.columns, at % self.columns);
            return Err(Error::malformed(format!(
                "the difference is not finite in row {row}, column {column}: one of the two holds NaN or infinity there"
            ))
            .tensor(self.name));
        }
        self.context
            .read
            .fetch_add((self.sides[0].row + self.sides[1].row) as u64 * rows.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Matrix for Change<'_> {
    type Error = Error;
    fn rows(&self) -> usize {
        self.rows
    }
    fn columns(&self) -> usize {
        self.columns
    }
    fn read(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.context.check()?;
        let lock = |kept: &'_ Mutex<HashMap<usize, Arc<[f32]>>>| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).get(&rows.start).cloned()
        };
        if let Some(kept) = self.kept.as_ref().and_then(lock).filter(|k| k.len() == out.len()) {
            out.copy_from_slice(&kept);
        } else {
            self.difference(&rows, out)?;
            if let Some(kept) = &self.kept {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.insert(rows.start, Arc::from(&*out));
            }
        }
        let read = (self.sides[0].row + self.sides[1].row) as u64 * rows.len() as u64;
        self.context.progress.event(Event::Advanced { read, written: 0, times: Times::default() });
        Ok(())
    }
}

/// Squared norm of the change of a tensor that is not decomposed.
pub(super) fn norm(change: &Change<'_>) -> Result<f64> {
    /// Elements looked at together.
    const PORTION: usize = 1 << 18;
    let step = (PORTION / change.columns.max(1)).max(1);
    let mut sum = 0.0;
    let mut out = Vec::new();
    for first in (0..change.rows).step_by(step) {
        let rows = first..change.rows.min(first + step);
        out.resize(rows.len() * change.columns, 0.0);
        change.read(rows, &mut out)?;
        sum += out.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    }
    Ok(sum)
}

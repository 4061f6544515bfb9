//! Weights to bundles.

use super::{Feedback, dims, matrix, not_finite};
use std::borrow::Cow;
use tensormill_kernels::groups::{FEEDBACK_ROWS, GroupRows, Quantizer, ScaleType, Whole};
use tensormill_kernels::{KernelError, Operand};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding};
use tensormill_transforms::{TensorImportance, check_readable, widen};

/// Weights widened at a time.
const BATCH: u64 = 1 << 15;

/// Encodes rows of weights; gives their bundles. A second input is the number that the quantizer wants to know of the whole
/// matrix (`f32`, one element): what scales are multiplied by, or divided by.
#[derive(Clone, Debug)]
pub struct Encode {
    /// How.
    pub quantizer: Quantizer,
    /// A weight per column for errors; where rows are several rows of the weights, one after the other, the same for each of these.
    pub importance: Option<TensorImportance>,
    /// Whether the number about the whole matrix divides scales: see [`Quantizer::encode_rows_over`].
    pub divides: bool,
    /// What makes up for errors of earlier columns. Importance does not count then.
    pub feedback: Option<Feedback>,
}

impl Encode {
    /// Rows that are widened and encoded together.
    fn portion(&self, form: &Form, rows: u64) -> u64 {
        let least = (BATCH / form.shape.row_len().max(1)).max(1);
        let portion = if self.feedback.is_some() { self.batch() } else { least };
        portion.next_multiple_of(self.unit()).min(rows.max(1))
    }
}

impl Op for Encode {
    fn describe(&self) -> String {
        let over = if self.divides { " over" } else { "" };
        match (&self.feedback, &self.importance) {
            (Some(f), _) => format!("encode[{:?}{over} {f:?}]", self.quantizer),
            (None, None) => format!("encode[{:?}{over}]", self.quantizer),
            (None, Some(i)) => format!("encode[{:?}{over} importance {i:?}]", self.quantizer),
        }
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let ([input] | [input, _]) = inputs else {
            return Err(Error::usage("encoding takes weights, and perhaps a number about all of them"));
        };
        check_readable(input.encoding, "quantize")?;
        let (rows, columns) = dims(input);
        if let Some(i) = &self.importance
            && (i.values().is_empty() || !columns.is_multiple_of(i.values().len() as u64))
        {
            return Err(Error::mismatch(format!(
                "{} importance values for a matrix of {columns} columns",
                i.values().len()
            )));
        }
        if let Some(f) = &self.feedback
            && f.hessian.columns != columns
        {
            return Err(Error::mismatch(format!(
                "{} is of {} columns, the matrix of {columns}",
                f.hessian.name, f.hessian.columns
            ))
            .hint("calibrate this very model"));
        }
        matrix(rows, self.quantizer.grid.bundle_bytes(columns as usize) as u64, DType::U8)
    }

    fn locality(&self, input: usize) -> Locality {
        if input == 0 { Locality::Row } else { Locality::Whole }
    }

    fn unit(&self) -> u64 {
        // One scale for all rows is found before.
        u64::from(self.quantizer.grid.rows.max(1))
    }

    fn batch(&self) -> u64 {
        // A product of matrices for all of them.
        if self.feedback.is_some() { FEEDBACK_ROWS as u64 } else { 1 }
    }

    fn makes_bundle(&self) -> bool {
        true
    }

    fn scratch(&self, inputs: &[Form], rows: u64) -> u64 {
        inputs.first().map_or(0, |f| {
            let (batch, columns) = (self.portion(f, rows), f.shape.row_len());
            let feedback = self
                .feedback
                .as_ref()
                .map_or(0, |f| f.scratch().saturating_add(Quantizer::feedback_scratch(columns, batch)));
            (batch.saturating_mul(columns).saturating_mul(4) + columns.saturating_mul(20))
                .saturating_add(feedback)
        })
    }

    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let form = &forms[0];
        let columns = form.shape.row_len() as usize;
        let (in_row, out_row) = (form.row_bytes()? as usize, self.quantizer.grid.bundle_bytes(columns));
        if in_row == 0 || out_row == 0 {
            return Ok(());
        }
        let outer = match inputs.get(1) {
            Some([a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            _ => 1.0,
        };
        let batch = self.portion(form, rows.end - rows.start) as usize;
        let mut x = vec![0f32; batch * columns];
        let factor = self.feedback.as_ref().map(Feedback::factor).transpose()?;
        let importance = self.importance.as_ref().map(|i| over(i.values(), columns));
        let mut row = rows.start;
        for (input, out) in inputs[0].chunks(batch * in_row).zip(out.chunks_mut(batch * out_row)) {
            let n = input.len() / in_row;
            let x = &mut x[..n * columns];
            for (i, x) in input.chunks_exact(in_row).zip(x.chunks_exact_mut(columns)) {
                widen(form.encoding, i, x)?;
            }
            let rows = GroupRows { x, len: columns, importance: importance.as_deref(), outer };
            let made = if let Some(factor) = &factor {
                let whole = if self.divides { Whole::Over(outer) } else { Whole::Times };
                self.quantizer.encode_rows_with_feedback(rows, whole, factor, out)
            } else if self.divides {
                let weights = scale_type(form.encoding);
                self.quantizer.encode_rows_over_of(weights, rows, outer, out)
            } else {
                self.quantizer.encode_rows(rows, out)
            };
            made.map_err(|e| match e.error {
                KernelError::NonFinite { operand: Operand::Row, column } => {
                    not_finite(row + e.row as u64, column)
                }
                other => Error::mismatch(other.to_string()),
            })?;
            row += n as u64;
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Option<Result<()>> {
        // Rows of a bundle know their columns only by what is asked for: one row at a time.
        self.quantizer.grid.decode_row(bytes, out);
        Some(Ok(()))
    }
}

/// Values of columns, again and again, for so many.
fn over(values: &[f32], columns: usize) -> Cow<'_, [f32]> {
    match columns / values.len().max(1) {
        1 => Cow::Borrowed(values),
        rows => Cow::Owned(values.repeat(rows)),
    }
}

/// The type of scales of weights of a type, where nothing else says it.
pub fn scale_type(weights: Encoding) -> ScaleType {
    match weights {
        Encoding::Plain(DType::BF16) => ScaleType::BF16,
        Encoding::Plain(DType::F16) => ScaleType::F16,
        _ => ScaleType::F32,
    }
}

//! The range of all weights of a matrix: what scales of whole matrices, and scales of scales, are made of.

use super::{floats, not_finite, rounded};
use tensormill_model::{Error, Form, Locality, Op, Reduction, Result, Rows, Tally};
use tensormill_tensor::{DType, Encoding, Shape};
use tensormill_transforms::{check_readable, widen};

/// The largest magnitude of all inputs, in `f32`, as something that depends on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxAbs {
    /// What comes out.
    pub give: Give,
}

/// What is made of a largest magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Give {
    /// Itself.
    Magnitude,
    /// `by / magnitude`, rounded to a type; 1 where that is not finite.
    Divided(f32, DType),
}

/// The largest of some magnitudes, one element each, as something that depends on it: matrices that are to share a number need
/// not have as many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaxOf {
    /// What comes out.
    pub give: Give,
}

impl Give {
    fn of(self, largest: f32) -> f32 {
        match self {
            Self::Magnitude => largest,
            Self::Divided(by, dtype) => {
                // As generate_gparam of compressed-tensors does it: no magnitude is below the smallest normal one, and torch
                // divides a number by a tensor through the tensor's inverse.
                let value = rounded(dtype, rounded(dtype, 1.0 / largest.max(f32::MIN_POSITIVE)) * by);
                if value.is_finite() { value } else { 1.0 }
            }
        }
    }
}

impl Op for MaxAbs {
    fn describe(&self) -> String {
        format!("max-abs[{:?}]", self.give)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        if inputs.is_empty() {
            return Err(Error::usage("the range of nothing"));
        }
        for input in inputs {
            check_readable(input.encoding, "find the range of")?;
        }
        Ok(Form::new(Shape::new(vec![1])?, Encoding::Plain(DType::F32)))
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.iter().map(|f| f.shape.row_len().saturating_mul(4)).max().unwrap_or(0)
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::mismatch("a reduction is not run on rows"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}

impl Op for MaxOf {
    fn describe(&self) -> String {
        format!("max-of[{:?}]", self.give)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let one = |f: &Form| f.encoding == Encoding::F32 && f.shape.elements() == 1;
        if inputs.is_empty() || !inputs.iter().all(one) {
            return Err(Error::usage("the largest of what are not single numbers"));
        }
        Ok(inputs[0].clone())
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, rows: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let numbers = inputs.iter().flat_map(|i| floats(i));
        out.copy_from_slice(&self.give.of(numbers.fold(0.0, f32::max)).to_le_bytes());
        Ok(())
    }
}

impl Reduction for MaxAbs {
    fn passes(&self) -> usize {
        1
    }
    fn add(
        &self,
        _: &[Tally],
        rows: Rows,
        forms: &[Form],
        inputs: &[&[u8]],
        tally: &mut Tally,
    ) -> Result<()> {
        let mut largest = 0f32;
        let mut x = Vec::new();
        for (form, bytes) in forms.iter().zip(inputs) {
            x.resize(form.shape.row_len() as usize, 0.0);
            for (i, row) in bytes.chunks_exact(form.row_bytes()?.max(1) as usize).enumerate() {
                widen(form.encoding, row, &mut x)?;
                // A sum keeps what is no number; a maximum does not.
                let (max, sum) = x.iter().fold((0f32, 0f32), |(m, s), v| (m.max(v.abs()), s + v * 0.0));
                if sum.is_nan() {
                    let column = x.iter().position(|v| !v.is_finite()).unwrap_or(0);
                    return Err(not_finite(rows.start + i as u64, column));
                }
                largest = largest.max(max);
            }
        }
        tally.join_maxima(&[f64::from(largest)]);
        Ok(())
    }
    fn value(&self, tallies: &[Tally], _: &[Form], out: &mut [u8]) -> bool {
        let Some(tally) = tallies.first() else { return false };
        let largest = tally.maxima.first().copied().unwrap_or(0.0) as f32;
        out.copy_from_slice(&self.give.of(largest).to_le_bytes());
        true
    }
}

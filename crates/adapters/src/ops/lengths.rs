//! Lengths of a matrix' columns, and what they are multiplied by to get others (DoRA of weights whose rows are inputs).

use super::floats::{Compute, decode, float};
use tensormill_model::{Error, Form, Locality, Op, Reduction, Result, Rows, Tally};
use tensormill_tensor::{Encoding, Shape};

/// The lengths of a matrix' columns, `[columns]`, found by a pass over its rows: of an embedding they are too many to be
/// in memory. Input: the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnLengths;

impl Op for ColumnLengths {
    fn describe(&self) -> String {
        "column-lengths".into()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [matrix] = inputs else { return Err(Error::usage("lengths of one matrix")) };
        float(matrix, "the weight")?;
        Ok(Form::new(Shape::new(vec![matrix.shape.row_len()])?, Encoding::F32))
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, _: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        Err(Error::usage("lengths are found by a pass over all rows"))
    }
    fn reduction(&self) -> Option<&dyn Reduction> {
        Some(self)
    }
}

impl Reduction for ColumnLengths {
    fn passes(&self) -> usize {
        1
    }
    fn add(&self, _: &[Tally], _: Rows, forms: &[Form], inputs: &[&[u8]], tally: &mut Tally) -> Result<()> {
        let n = forms[0].shape.row_len() as usize;
        let width = float(&forms[0], "the weight")?.bits() as usize / 8;
        tally.sums.resize(n, 0.0);
        for row in inputs[0].chunks((n * width).max(1)) {
            for (sum, x) in tally.sums.iter_mut().zip(decode(&forms[0], row, "the weight")?) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        Ok(())
    }
    fn value(&self, tallies: &[Tally], _: &[Form], out: &mut [u8]) -> bool {
        let Some(tally) = tallies.first() else { return false };
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *out = (tally.sums.get(i).copied().unwrap_or(0.0).sqrt() as f32).to_le_bytes();
        }
        true
    }
}

/// One vector's elements over another's. Inputs: both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio;

impl Compute for Ratio {
    fn describe(&self) -> String {
        "ratio".into()
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the magnitude", "the lengths"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        if inputs[0].elements() == inputs[1].elements() {
            return Ok(inputs[1].clone());
        }
        Err(Error::mismatch(format!("magnitudes {} for {} lengths", inputs[0], inputs[1]))
            .hint("the adapter belongs to another base model"))
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, _: Rows, _: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        for ((o, x), y) in out.iter_mut().zip(&inputs[0]).zip(&inputs[1]) {
            *o = x / y;
        }
    }
}

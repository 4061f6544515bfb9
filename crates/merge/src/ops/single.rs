//! `passthrough`: one model's tensor, scaled or as it is; and tensors that all models must agree on.

use crate::round::{CHUNK, alike, float, load, not_finite, round, store, width};
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::DType;

/// `x * by`, in `f32`, rounded once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The factor.
    pub by: f32,
    /// Type of the input's values, and of the result.
    pub dtype: DType,
}

impl Op for Scale {
    fn describe(&self) -> String {
        format!("scale[{:?} {}]", self.by, self.dtype)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        if inputs.len() != 1 {
            return Err(Error::usage("one tensor is scaled"));
        }
        alike(inputs, self.dtype)
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let from = float(&forms[0])?;
        let mut x = [0f32; CHUNK];
        let count = out.len() / width(self.dtype);
        for at in (0..count).step_by(CHUNK) {
            let x = &mut x[..CHUNK.min(count - at)];
            load(from, inputs[0], at, self.dtype, x);
            for v in x.iter_mut() {
                *v *= self.by;
            }
            round(self.dtype, x);
            if !store(self.dtype, x, at, out) {
                return Err(not_finite(self.dtype, x, rows.start, at, forms[0].shape.row_len() as usize));
            }
        }
        Ok(())
    }
}

/// What is no float cannot be merged: all inputs must be the same, and that is the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Same;

impl Op for Same {
    fn describe(&self) -> String {
        "same[]".into()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let first = inputs.first().ok_or_else(|| Error::usage("nothing to merge"))?;
        match inputs.iter().find(|f| *f != first) {
            None => Ok(first.clone()),
            Some(f) => Err(Error::mismatch(format!(
                "{} {} and {} {} cannot be merged",
                first.encoding, first.shape, f.encoding, f.shape
            ))),
        }
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        if inputs.iter().any(|i| *i != inputs[0]) {
            return Err(Error::mismatch(format!(
                "the models hold different {} values here, which cannot be merged",
                forms[0].encoding
            ))
            .hint("give the models the same buffer, or leave the tensor out of all of them"));
        }
        out.copy_from_slice(inputs[0]);
        Ok(())
    }
}

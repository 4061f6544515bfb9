//! `linear`: a weighted sum, or average.
//!
//! mergekit's `linear.py` sums in `f32` with `addcmul`, which torch's kernels for x86-64 compile to fused multiply-adds,
//! divides by the sum of weights, and rounds once to the type. So does this.

use crate::round::{CHUNK, alike, float, load, not_finite, round, store, width};
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::DType;

/// `sum of weight[i] * x[i]`, with `normalize` over the sum of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// One for each input.
    pub weights: Vec<f32>,
    /// Divide by their sum.
    pub normalize: bool,
    /// Type of the inputs' values, and of the result.
    pub dtype: DType,
}

impl Op for Linear {
    fn describe(&self) -> String {
        format!("linear[{:?} normalize={} {}]", self.weights, self.normalize, self.dtype)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        if inputs.len() != self.weights.len() {
            return Err(Error::usage("a linear merge has one weight for each input"));
        }
        alike(inputs, self.dtype)
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let types = forms.iter().map(float).collect::<Result<Vec<_>>>()?;
        let divisor = self.normalize.then(|| self.weights.iter().sum::<f32>());
        let (mut sum, mut x) = ([0f32; CHUNK], [0f32; CHUNK]);
        let count = out.len() / width(self.dtype);
        for at in (0..count).step_by(CHUNK) {
            let n = CHUNK.min(count - at);
            let sum = &mut sum[..n];
            sum.fill(0.0);
            for ((bytes, from), weight) in inputs.iter().zip(&types).zip(&self.weights) {
                load(*from, bytes, at, self.dtype, &mut x[..n]);
                add(sum, &x[..n], *weight);
            }
            if let Some(by) = divisor {
                for s in sum.iter_mut() {
                    *s /= by;
                }
            }
            round(self.dtype, sum);
            if !store(self.dtype, sum, at, out) {
                let row_len = forms[0].shape.row_len() as usize;
                return Err(not_finite(self.dtype, sum, rows.start, at, row_len));
            }
        }
        Ok(())
    }
}

#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn add(sum: &mut [f32], x: &[f32], weight: f32) {
    for (s, x) in sum.iter_mut().zip(x) {
        *s = x.mul_add(weight, *s);
    }
}

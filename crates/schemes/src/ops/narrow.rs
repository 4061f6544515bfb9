//! Weights as 8-bit floats without scales.

use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, encode_plain};
use tensormill_transforms::{check_readable, widen};

/// Casts to an 8-bit float, nearest to even. Weights that are too large for it are errors: a cast would make them NaN or
/// infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrow(pub DType);

impl Narrow {
    /// From here on magnitudes are nearer to a number that the type has not.
    fn bound(self) -> f32 {
        if self.0 == DType::F8E5M2 { 61440.0 } else { 464.0 }
    }
}

impl Op for Narrow {
    fn describe(&self) -> String {
        format!("narrow[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("a cast takes one input")) };
        check_readable(input.encoding, "cast")?;
        if !matches!(self.0, DType::F8E4M3 | DType::F8E5M2) {
            return Err(Error::unsupported(format!("cannot cast to {}", self.0)));
        }
        Ok(Form::new(input.shape.clone(), Encoding::Plain(self.0)))
    }
    fn is_encoding(&self) -> bool {
        true
    }
    fn scratch(&self, inputs: &[Form], _: u64) -> u64 {
        inputs.first().map_or(0, |f| f.shape.row_len().saturating_mul(4))
    }
    fn run(&self, rows: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let columns = forms[0].shape.row_len() as usize;
        let in_row = (forms[0].row_bytes()? as usize).max(1);
        let mut x = vec![0f32; columns];
        for ((row, input), out) in
            rows.zip(inputs[0].chunks_exact(in_row)).zip(out.chunks_exact_mut(columns.max(1)))
        {
            widen(forms[0].encoding, input, &mut x)?;
            if !encode_plain(self.0, &x, out) {
                return Err(Error::unsupported(format!("cannot cast to {}", self.0)));
            }
            let fits = |v: &f32| v.abs() < self.bound();
            if let Some(column) = x.iter().position(|v| !fits(v)) {
                return Err(Error::unsupported(format!(
                    "the weight in row {row}, column {column} is {}, which {} has not",
                    x[column], self.0
                ))
                .hint("choose a scheme with scales, for example --quant fp8"));
            }
        }
        Ok(())
    }
}

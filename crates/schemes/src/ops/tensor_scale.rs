//! The scale of a whole matrix, of the largest magnitude in it.

use super::{floats, plain, store_floats};
use tensormill_kernels::groups::Quantizer;
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// The scale that a quantizer gives to all rows of a matrix, of the largest magnitude in it (`f32`, one element).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorScale {
    /// The quantizer.
    pub quantizer: Quantizer,
    /// How the scale is stored.
    pub to: DType,
}

impl Op for TensorScale {
    fn describe(&self) -> String {
        format!("tensor-scale[{:?} {}]", self.quantizer, self.to)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        match inputs {
            [f] if plain(f, "a magnitude")? == DType::F32 && f.shape.elements() == 1 => {
                Ok(Form::new(Shape::new(vec![1])?, Encoding::Plain(self.to)))
            }
            _ => Err(Error::usage("a scale is that of one magnitude")),
        }
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, rows: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let Some(magnitude) = inputs.first().and_then(|i| floats(i).next()) else {
            return Err(Error::mismatch("no magnitude"));
        };
        let scale = self.quantizer.matrix_scale(magnitude);
        if encode_plain(self.to, &[scale], out) {
            return Ok(());
        }
        Err(Error::unsupported(format!("scales cannot be stored as {}", self.to)))
    }
}

/// `1 / x` of numbers in `f32`: between libraries that multiply by a number and such that divide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inverse;

impl Op for Inverse {
    fn describe(&self) -> String {
        "inverse".to_owned()
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        match inputs {
            [f] => {
                plain(f, "numbers")?;
                Ok(Form::new(f.shape.clone(), Encoding::F32))
            }
            _ => Err(Error::usage("an inverse is one of one tensor")),
        }
    }
    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let mut x = vec![0f32; out.len() / 4];
        let dtype = plain(&forms[0], "numbers")?;
        if !decode_plain(dtype, inputs[0], &mut x) {
            return Err(Error::unsupported(format!("numbers of type {dtype}")));
        }
        store_floats(x.into_iter().map(|x| 1.0 / x), out);
        Ok(())
    }
}

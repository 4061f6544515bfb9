//! The scale of a whole matrix, of the largest magnitude in it.

use super::plain;
use tensormill_kernels::groups::Quantizer;
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape, encode_plain};

/// The scale that a quantizer gives to all rows of a matrix, of the largest magnitude in it (`f32`, one element).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorScale {
    /// The quantizer.
    pub quantizer: Quantizer,
    /// How the scale is stored.
    pub to: DType,
    /// Dimensions: none or one.
    pub rank: u8,
}

impl Op for TensorScale {
    fn describe(&self) -> String {
        format!("tensor-scale[{:?} {} {}]", self.quantizer, self.to, self.rank)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        match inputs {
            [f] if plain(f, "a magnitude")? == DType::F32 && f.shape.elements() == 1 => {
                Ok(Form::new(Shape::new(vec![1; usize::from(self.rank)])?, Encoding::Plain(self.to)))
            }
            _ => Err(Error::usage("a scale is that of one magnitude")),
        }
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Whole
    }
    fn run(&self, _: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let Some([a, b, c, d]) = inputs.first().and_then(|i| i.first_chunk()) else {
            return Err(Error::mismatch("no magnitude"));
        };
        let scale = self.quantizer.matrix_scale(f32::from_le_bytes([*a, *b, *c, *d]));
        if encode_plain(self.to, &[scale], out) {
            return Ok(());
        }
        Err(Error::unsupported(format!("scales cannot be stored as {}", self.to)))
    }
}

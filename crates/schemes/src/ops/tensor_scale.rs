//! The scale of a whole matrix, of the largest magnitude in it.

use super::plain;
use tensormill_kernels::groups::{GroupRows, Quantizer};
use tensormill_model::{Error, Form, Locality, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding, Shape, encode_plain};

/// What a quantizer whose rows all share one scale makes of the number it is given (`f32`, one element); as bundles have it,
/// without making them.
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
        let outer = f32::from_le_bytes([*a, *b, *c, *d]);
        let grid = self.quantizer.grid;
        let mut bundle = vec![0; grid.bundle_bytes(1)];
        let rows = GroupRows { x: &[outer], len: 1, importance: None, outer };
        self.quantizer
            .encode_rows(rows, &mut bundle)
            .map_err(|e| Error::mismatch(e.error.to_string()))?;
        let scale = f32::from_le_bytes(grid.parts(&bundle, 1).scales[0]);
        if encode_plain(self.to, &[scale], out) {
            return Ok(());
        }
        Err(Error::unsupported(format!("scales cannot be stored as {}", self.to)))
    }
}

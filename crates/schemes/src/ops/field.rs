//! Codes of which each element of a file holds some of different rows.

use super::plain;
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding};

/// Some bits of every element, as a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The lowest of them.
    pub shift: u32,
    /// How many, 1 to 8.
    pub bits: u32,
}

impl Op for Field {
    fn describe(&self) -> String {
        format!("field[{}+{}]", self.shift, self.bits)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("a field is one of one input")) };
        let width = u64::from(self.shift) + u64::from(self.bits);
        let dtype = plain(input, "packed codes")?;
        if !matches!(dtype, DType::U8 | DType::I32) || width > dtype.bits() || !(1..=8).contains(&self.bits) {
            return Err(Error::malformed(format!("{}-bit codes in elements of {dtype}", self.bits)));
        }
        Ok(Form::new(input.shape.clone(), Encoding::Plain(DType::U8)))
    }

    fn run(&self, _: Rows, forms: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        let mask = (1u32 << self.bits) - 1;
        if plain(&forms[0], "packed codes")? == DType::U8 {
            for (o, b) in out.iter_mut().zip(inputs[0]) {
                *o = ((u32::from(*b) >> self.shift) & mask) as u8;
            }
        } else {
            for (o, b) in out.iter_mut().zip(inputs[0].as_chunks::<4>().0) {
                *o = ((u32::from_le_bytes(*b) >> self.shift) & mask) as u8;
            }
        }
        Ok(())
    }
}

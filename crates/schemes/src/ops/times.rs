//! Values times a number that is the same everywhere, where a library multiplies last.

use super::{floats, plain, store_floats};
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::DType;

/// `f32` values times a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times(pub f32);

impl Op for Times {
    fn describe(&self) -> String {
        format!("times[{:08x}]", self.0.to_bits())
    }

    fn any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }

    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("a multiple is one of one input")) };
        if plain(input, "values")? != DType::F32 {
            return Err(Error::mismatch(format!("values of {}", input.encoding)));
        }
        Ok(input.clone())
    }

    fn run(&self, _: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        store_floats(floats(inputs[0]).map(|x| x * self.0), out);
        Ok(())
    }
}

//! The same bytes as another type of the same width: what files store as integers for want of the type.

use super::plain;
use tensormill_model::{Error, Form, Op, Result, Rows};
use tensormill_tensor::{DType, Encoding};

/// Elements taken as those of another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View(pub DType);

impl Op for View {
    fn describe(&self) -> String {
        format!("view[{}]", self.0)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        let [input] = inputs else { return Err(Error::usage("a view is one of one tensor")) };
        let from = plain(input, "elements")?;
        if from.bits() != self.0.bits() {
            return Err(Error::malformed(format!("{from} elements cannot be taken as {}", self.0)));
        }
        Ok(Form::new(input.shape.clone(), Encoding::Plain(self.0)))
    }
    fn run(&self, _: Rows, _: &[Form], inputs: &[&[u8]], out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(inputs[0]);
        Ok(())
    }
}

//! A weight and what is added to it.

use super::floats::Compute;
use tensormill_model::{Error, Locality, Result, Rows};
use tensormill_tensor::Shape;

/// `base + scale * other`, both of one shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddScaled {
    /// What the other one is multiplied by.
    pub scale: f32,
}

impl Compute for AddScaled {
    fn describe(&self) -> String {
        format!("add-scaled[{:?}]", self.scale)
    }
    fn inputs(&self) -> Vec<&'static str> {
        vec!["the base", "the adapter"]
    }
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape> {
        if inputs[0] == inputs[1] {
            return Ok(inputs[0].clone());
        }
        Err(Error::mismatch(format!("a change {} for {}", inputs[1], inputs[0]))
            .hint("the adapter belongs to another base model"))
    }
    fn locality(&self, _: usize) -> Locality {
        Locality::Row
    }
    fn run(&self, _: Rows, _: &[&Shape], inputs: &[Vec<f32>], out: &mut [f32]) {
        for ((o, x), y) in out.iter_mut().zip(&inputs[0]).zip(&inputs[1]) {
            *o = x + y * self.scale;
        }
    }
}

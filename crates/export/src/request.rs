//! What a graph is built from.

use crate::Config;
use tensormill_graph::{Elem, Pair, Weight};
use tensormill_model::{Assets, Error, Result};
use tensormill_tensor::Shape;

/// Which operators a graph is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// ONNX's own: any runtime runs it.
    #[default]
    Standard,
    /// Those that ONNX Runtime adds, too: `GroupQueryAttention` and what ONNX Runtime GenAI expects.
    Contrib,
}

/// What a graph is built from.
pub struct Request<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Files beside it: the modules of sentence-transformers folders are configured by their own.
    pub assets: &'a dyn Assets,
    /// Shape of the checkpoint's tensor of a name.
    pub tensors: &'a dyn Fn(&str) -> Option<Shape>,
    /// Version of ONNX's operators.
    pub opset: i64,
    /// Type of the graph's floats.
    pub float: Elem,
    /// Whether float inputs and outputs are `f32` all the same.
    pub keep_io_types: bool,
    /// Which operators to use.
    pub form: Form,
    /// Where the model comes from, for the file's `metadata_props`.
    pub metadata: Vec<Pair>,
}

impl Request<'_> {
    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        (self.tensors)(name).is_some()
    }

    /// A weight as it stands, once its shape is what it must be.
    ///
    /// # Errors
    /// `Malformed` where it is missing, `Mismatch` where its shape is another.
    pub fn plain(&self, name: &str, dims: &[u64]) -> Result<Weight> {
        let shape = (self.tensors)(name).ok_or_else(|| {
            Error::malformed("the graph needs this tensor, and the checkpoint has none of its name")
                .tensor(name)
        })?;
        if shape.dims() != dims {
            return Err(
                Error::mismatch(format!("its shape is {shape}; config.json asks for {dims:?}")).tensor(name)
            );
        }
        Ok(Weight::plain(name))
    }

    /// The weight of a linear layer, `[out, in]`, as the second operand of a product.
    ///
    /// # Errors
    /// As [`Self::plain`].
    pub fn linear(&self, name: &str, (out, input): (u64, u64)) -> Result<Weight> {
        self.plain(name, &[out, input])?;
        Ok(Weight::transposed(name))
    }
}

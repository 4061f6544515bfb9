//! Layouts: which tensors hold a weight's codes and numbers, and how `config.json` tells.

mod compressed_tensors;
mod fp8;
mod modelopt;
pub mod onnx;
mod scaled;

use crate::{
    scheme::Scheme,
    source::{Found, SourceCx},
    target::{Coded, Place, Used},
};
use serde_json::{Map, Value as Json};
use tensormill_model::{Error, Model, Result, Tensor};
use tensormill_tensor::{DType, Shape};

/// A number about a whole matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OfMatrix {
    /// The scale of all its weights.
    Scale,
    /// What scales are divided by: this number over the largest magnitude. Matrices that run as one share it.
    Divisor(f32),
}

/// One layout.
pub trait Layout: Sync {
    /// Its name, as `quantization_config` has it where it does.
    fn id(&self) -> &'static str;

    /// Whether a weight of this shape can be held.
    ///
    /// # Errors
    /// Why not.
    fn takes(&self, scheme: &Scheme, shape: &Shape) -> Result<()>;

    /// The operators of a graph that take codes, where weights are no tensors of their own.
    fn operators(&self) -> Option<onnx::Operators> {
        None
    }

    /// Layouts of one family are told of in one configuration, and so may be mixed.
    fn family(&self) -> &'static str {
        self.id()
    }

    /// Whether tensors of a kind are quantized where no rule says otherwise.
    fn quantizes(&self, place: Place) -> bool {
        place == Place::Linear
    }

    /// The number about a whole matrix that encoding wants.
    fn outer(&self, scheme: &Scheme) -> Option<OfMatrix> {
        let _ = scheme;
        None
    }

    /// The type of weights that are cast and not encoded: they stay one tensor, under its name.
    fn cast(&self, scheme: &Scheme) -> Option<DType> {
        let _ = scheme;
        None
    }

    /// The tensors of a weight.
    ///
    /// # Errors
    /// When parts do not fit together.
    fn siblings(&self, weight: &Coded<'_>) -> Result<Vec<Tensor>>;

    /// Entries of `config.json`.
    ///
    /// # Errors
    /// Mixtures that the layout cannot tell.
    fn config(&self, scheme: &Scheme, used: &[Used]) -> Result<Map<String, Json>>;

    /// Last changes of the model: metadata, other tensors that must go along.
    ///
    /// # Errors
    /// As the layout's world demands.
    fn finish(&self, model: &mut Model) -> Result<()> {
        let _ = model;
        Ok(())
    }
}

/// A kind of quantized checkpoints that can be read.
pub trait Quantized: Sync {
    /// What people call it.
    fn name(&self) -> &'static str;
    /// Whether a checkpoint is one, by its configuration and names.
    fn claims(&self, cx: &SourceCx<'_>) -> bool;
    /// The weights that its tensors stand for.
    ///
    /// # Errors
    /// Names the tensor that is missing or has the wrong shape or type.
    fn find(&self, cx: &SourceCx<'_>) -> Result<Vec<Found>>;
    /// Whether a tensor only says how activations were quantized, and means nothing to plain weights.
    fn is_about_activations(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

pub use compressed_tensors::{
    FLOAT_QUANTIZED, INT_QUANTIZED, MXFP4_PACKED, MXFP8, NAIVE_QUANTIZED, NVFP4_PACKED, PACK_QUANTIZED,
};
pub use fp8::{CAST, FINE_GRAINED};

/// Kinds of quantized checkpoints, in the order in which they are asked.
pub(crate) static QUANTIZED: &[&dyn Quantized] =
    &[&compressed_tensors::CompressedTensors, &modelopt::ModelOpt, &fp8::Fp8];

/// That columns fill whole groups.
pub(crate) fn whole_groups(scheme: &Scheme, shape: &Shape) -> Result<()> {
    let (group, columns) = (u64::from(scheme.grid.group), shape.row_len());
    if group > 0 && !columns.is_multiple_of(group) {
        return Err(Error::unsupported(format!("rows do not fill groups of {group}")));
    }
    Ok(())
}

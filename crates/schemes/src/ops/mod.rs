//! The operations between weights, bundles of codes and the tensors that files hold.
//!
//! `Encode` makes bundles of weights, `Part` takes one tensor of a file out of a bundle; the way back is `Unpack` for codes
//! that files pack, and `Values` for the weights that codes and numbers stand for. `Join` makes a bundle of a source's
//! codes, so that what holds the same codes is repacked without arithmetic. See `tensormill_kernels::groups` for what a
//! bundle is.

mod blocks;
mod encode;
mod feedback;
mod field;
mod gather;
mod join;
mod narrow;
mod nest;
mod pack;
mod part;
mod points;
mod range;
mod scaled;
mod scaling;
mod tensor_scale;
mod times;
mod unpack;
mod view;

pub use blocks::{Blocks, ToBlocks, grid_of};
pub use encode::{Encode, scale_type};
pub use feedback::{Factors, Feedback, Hessian};
pub use field::Field;
pub use gather::{Gather, GroupIndex};
pub use join::{Join, Numbers, Values};
pub use narrow::Narrow;
pub use nest::{AllScales, Nest, Unnest};
pub use pack::Pack;
pub use part::{Part, What, down};
pub use points::Shifted;
pub use range::{Give, MaxAbs, MaxOf};
pub use scaled::Scaled;
pub use scaling::{Activity, Norm, PickScales, ScaleLoss, ScaleWeights, Unscale};
pub use tensor_scale::{Inverse, TensorScale};
pub use times::Times;
pub use unpack::{Unpack, UnpackDown};
pub use view::View;

use tensormill_kernels::groups::Grid;
use tensormill_model::{Error, Form, Result};
use tensormill_tensor::{DType, Encoding, Shape, decode_plain, encode_plain};

/// Rows and columns of a matrix, or of a stack of them.
fn dims(form: &Form) -> (u64, u64) {
    (form.shape.rows(), form.shape.row_len())
}

/// A matrix of plain elements.
fn matrix(rows: u64, columns: u64, dtype: DType) -> Result<Form> {
    Ok(Form::new(Shape::new(vec![rows, columns])?, Encoding::Plain(dtype)))
}

/// Numbers of `f32`.
pub(crate) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
}

/// The way back, for as many as there is room for.
fn store_floats(numbers: impl IntoIterator<Item = f32>, out: &mut [u8]) {
    out.as_chunks_mut::<4>().0.iter_mut().zip(numbers).for_each(|(o, x)| *o = x.to_le_bytes());
}

/// The nearest number of a type; the number itself where the type is none of numbers like it.
fn rounded(dtype: DType, x: f32) -> f32 {
    let (mut bytes, mut out) = ([0; 8], [x]);
    let bytes = &mut bytes[..(dtype.bits() / 8) as usize];
    if encode_plain(dtype, &[x], bytes) && decode_plain(dtype, bytes, &mut out) { out[0] } else { x }
}

/// That rows are bundles of so many columns.
fn check_bundles(form: &Form, grid: &Grid, columns: u64) -> Result<()> {
    let expected = grid.bundle_bytes(columns as usize) as u64;
    if plain(form, "bundles")? != DType::U8 || form.shape.row_len() != expected {
        return Err(Error::mismatch(format!("{} are no bundles of {columns} columns", form.shape)));
    }
    Ok(())
}

/// That a weight cannot be quantized.
fn not_finite(row: u64, column: usize) -> Error {
    Error::malformed(format!("the weight in row {row}, column {column} is NaN or infinite"))
        .hint("the source is damaged: `tensormill inspect` and `compare` can tell how far")
}

fn plain(form: &Form, what: &str) -> Result<DType> {
    match form.encoding {
        Encoding::Plain(d) => Ok(d),
        Encoding::Block(b) => Err(Error::mismatch(format!("{what} are {b} blocks"))),
    }
}

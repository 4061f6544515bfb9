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
pub use encode::Encode;
pub(crate) use encode::scale_type;
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

use tensormill_model::{Error, Form, Result};
use tensormill_tensor::{DType, Encoding, Shape};

/// Rows and columns of a matrix, or of a stack of them.
fn dims(form: &Form) -> (u64, u64) {
    (form.shape.rows(), form.shape.row_len())
}

/// A matrix of plain elements.
fn matrix(rows: u64, columns: u64, dtype: DType) -> Result<Form> {
    Ok(Form::new(Shape::new(vec![rows, columns])?, Encoding::Plain(dtype)))
}

fn plain(form: &Form, what: &str) -> Result<DType> {
    match form.encoding {
        Encoding::Plain(d) => Ok(d),
        Encoding::Block(b) => Err(Error::mismatch(format!("{what} are {b} blocks"))),
    }
}

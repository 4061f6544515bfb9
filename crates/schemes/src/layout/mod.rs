//! Layouts: which tensors hold a weight's codes and numbers, and how `config.json` tells.

mod awq;
mod bitnet;
mod bitsandbytes;
mod compressed_tensors;
mod fp8;
mod gpt_oss;
mod gptq;
mod hqq;
mod mlx;
mod modelopt;
pub mod onnx;
mod scaled;

use crate::{
    ops::{self, Numbers, Unpack, Values},
    packing::Packing,
    scheme::Scheme,
    source::{Found, SourceCx},
    target::{Coded, Place, Used},
};
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use tensormill_kernels::groups::{Grid, ScaleType};
use tensormill_model::{Error, Expr, Form, Model, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// A file beside `config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A number about a whole matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OfMatrix {
    /// What scales are multiplied by: this number, for all matrices.
    Constant(f32),
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

    /// The matrix as which a weight is encoded, of as many elements: groups may run through rows.
    ///
    /// # Errors
    /// Sizes that cannot be represented.
    fn view(&self, scheme: &Scheme, shape: &Shape) -> Result<Shape> {
        let _ = scheme;
        Ok(shape.clone())
    }

    /// The type that weights are rounded to before anything else, where the library does.
    fn rounded(&self) -> Option<DType> {
        None
    }

    /// The number about a whole matrix that encoding wants.
    fn outer(&self, scheme: &Scheme) -> Option<OfMatrix> {
        let _ = scheme;
        None
    }

    /// Whether scales are quantized, too: then a source's codes are kept, and its scales are not.
    fn rounds_scales(&self, scheme: &Scheme) -> bool {
        let _ = scheme;
        false
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

    /// Files that say the same as the entries of `config.json`, for readers that look there first.
    fn files(&self, config: &Map<String, Json>) -> Vec<File> {
        let _ = config;
        Vec::new()
    }

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

pub use awq::AWQ;
pub use bitsandbytes::{BNB_4BIT, BNB_8BIT, blocks_of};
pub use compressed_tensors::{
    FLOAT_QUANTIZED, INT_QUANTIZED, MXFP4_PACKED, MXFP8, NAIVE_QUANTIZED, NVFP4_PACKED, PACK_QUANTIZED,
};
pub use fp8::{CAST, FINE_GRAINED};
pub use gptq::GPTQ;
pub use mlx::MLX;
pub use scaled::is_about_caches;

/// Kinds of quantized checkpoints, in the order in which they are asked.
pub(crate) static QUANTIZED: &[&dyn Quantized] = &[
    &compressed_tensors::CompressedTensors,
    &modelopt::ModelOpt,
    &gptq::GptqCheckpoint,
    &awq::AwqCheckpoint,
    &bitsandbytes::BnbCheckpoint,
    &hqq::HqqCheckpoint,
    &fp8::Fp8,
    &mlx::MlxCheckpoint,
    &bitnet::BitNet,
    &gpt_oss::GptOss,
];

/// That columns fill whole groups.
pub(crate) fn whole_groups(scheme: &Scheme, shape: &Shape) -> Result<()> {
    let (group, columns) = (u64::from(scheme.grid.group), shape.row_len());
    if group > 0 && !columns.is_multiple_of(group) {
        return Err(Error::unsupported(format!("rows do not fill groups of {group}")));
    }
    Ok(())
}

/// That a source's tensor is of one of these types.
pub(crate) fn typed(t: &Tensor, types: &[DType]) -> Result<DType> {
    if let Encoding::Plain(d) = t.spec.encoding
        && types.contains(&d)
    {
        return Ok(d);
    }
    let names: Vec<&str> = types.iter().map(|d| d.name()).collect();
    Err(Error::malformed(format!("is {}, where {} is known", t.spec.encoding, names.join(" or ")))
        .tensor(t.name()))
}

/// Rows and columns of a source's tensor, which must be a matrix of one of these types, and not empty.
pub(crate) fn matrix(t: &Tensor, types: &[DType]) -> Result<(u64, u64)> {
    typed(t, types)?;
    match *t.spec.shape.dims() {
        [rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns)),
        _ => {
            Err(Error::malformed(format!("has shape {}, and should be a matrix", t.spec.shape))
                .tensor(t.name()))
        }
    }
}

/// The type of a source's scales.
pub(crate) fn scale_type(t: &Tensor) -> Result<ScaleType> {
    typed(t, &[DType::F32, DType::F16, DType::BF16])?;
    Ok(ops::scale_type(t.spec.encoding))
}

/// Codes and numbers as values, in `f32`.
pub(crate) fn values(numbers: Numbers, inputs: Vec<Expr>) -> Expr {
    Expr::Apply { op: Arc::new(Values { numbers, to: DType::F32 }), inputs }
}

/// A tensor that is known.
pub(crate) fn constant(dims: Vec<u64>, dtype: DType, bytes: Vec<u8>) -> Result<Expr> {
    Ok(Expr::Const { form: Form::new(Shape::new(dims)?, Encoding::Plain(dtype)), bytes: bytes.into() })
}

/// Numbers that are known, `f32`.
pub(crate) fn floats(values: &[f32]) -> Result<Expr> {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    constant(vec![values.len() as u64], DType::F32, bytes)
}

/// Names of those tensors that are there.
fn names<const N: usize>(tensors: [Option<&Tensor>; N]) -> Vec<String> {
    tensors.into_iter().flatten().map(|t| t.name().to_owned()).collect()
}

/// Columns of a group where nothing but their number is known; 0: one group.
fn regular(cx: &SourceCx<'_>, columns: u64, groups: u64) -> Option<u32> {
    if groups == 1 {
        return Some(0);
    }
    let told = cx.number("group_size").and_then(|g| u64::try_from(g).ok()).filter(|g| *g > 0);
    let group = told.filter(|g| columns.div_ceil(*g) == groups);
    let group = group.or_else(|| columns.is_multiple_of(groups).then(|| columns / groups))?;
    u32::try_from(group).ok()
}

/// Modules whose weights stay plain.
fn plain_modules(used: &[Used]) -> Vec<&str> {
    used.iter().filter(|u| u.scheme.is_none()).map(|u| u.module.as_str()).collect()
}

/// The size of groups as configurations have it.
fn group_size(grid: Grid) -> Json {
    if grid.group == 0 { json!(-1) } else { json!(grid.group) }
}

/// What `config.json` says of the quantization, under the key that all but MLX have.
fn told(method: Json) -> Map<String, Json> {
    Map::from_iter([("quantization_config".to_owned(), method)])
}

/// A tensor with rows for columns.
pub(crate) fn transposed(t: &Tensor) -> Expr {
    t.expr.clone().transpose()
}

/// Codes that are packed along rows, a byte each, with rows for columns.
pub(crate) fn packed_points(packed: Expr, packing: Packing, columns: u64) -> Expr {
    packed.apply(Unpack { packing, columns }).transpose()
}

/// The code that all packed codes of rows of so many words are, where there is only one.
pub(crate) fn uniform_points(bytes: &[u8], packing: Packing, words: u64, columns: u64) -> Option<u8> {
    let row = usize::try_from(words.checked_mul(4)?).ok()?;
    let mut codes = vec![0; usize::try_from(columns).ok()?];
    let mut same = None;
    for row in bytes.chunks_exact(row) {
        packing.unpack(row, &mut codes);
        let first = *same.get_or_insert(*codes.first()?);
        if codes.iter().any(|c| *c != first) {
            return None;
        }
    }
    same
}

//! A program and a model's tensors become one: what an ONNX file is written from.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tensormill_graph::{Elem, Part, Program, QuantizedWeight, Weight};
use tensormill_model::{Cast, Error, Expr, Metadata, Model, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};
use tensormill_transforms::Dequantize;

/// Makes a part of a quantized weight from the matrix that is quantized: a row for every number that a layer gives.
/// Codes and zero points come as the coding orders them: elements of the house's type where it has one, else `U8` for the
/// bytes that they are packed into. Scales come in their order as floats of any type.
pub(crate) type Parts<'a> = &'a dyn Fn(&Tensor, &QuantizedWeight) -> Result<Expr>;

/// For programs without quantized weights.
pub(crate) fn no_parts(_: &Tensor, _: &QuantizedWeight) -> Result<Expr> {
    Err(Error::unsupported("the graph wants this tensor quantized, and nothing says how"))
}

/// What an initializer declares of itself.
#[derive(Clone, Default)]
struct Declared {
    name: String,
    elem: Elem,
    dims: Vec<i64>,
}

/// The model as the program's initializers have it; `extra` has tensors for those that the model has none for. Floats
/// become `float` where that is given. `parts` makes what is quantized.
///
/// # Errors
/// `Mismatch` where the program needs a tensor that the model does not have.
pub(crate) fn bind(
    model: &Model,
    extra: &[Tensor],
    mut program: Program,
    float: Option<DType>,
    parts: Parts<'_>,
) -> Result<Model> {
    let by_name: HashMap<&str, &Tensor> = extra.iter().chain(&model.tensors).map(|t| (t.name(), t)).collect();
    let declared = initializers(&program);
    let mut tensors = Vec::with_capacity(declared.len());
    let mut weights = Vec::with_capacity(declared.len());
    for (weight, declared) in program.weights.iter().zip(declared) {
        let found = by_name.get(weight.tensor.as_str()).ok_or_else(|| {
            Error::mismatch("the graph needs this tensor, and the model has none of its name")
                .tensor(&weight.tensor)
        })?;
        let expr = match &weight.part {
            None => plain(found, weight, float),
            Some(part) => quantized(found, weight, part, &declared, float, parts),
        };
        let fail = |e: Error| e.tensor(&weight.tensor);
        tensors.push(expr.and_then(|expr| Tensor::new(&declared.name, expr)).map_err(fail)?);
        weights.push(Weight { keep_type: weight.keep_type, ..Weight::plain(declared.name) });
    }
    program.weights = weights;
    declare(&mut program, &tensors)?;
    let metadata = program.metadata.iter().fold(Metadata::new(), |mut all, pair| {
        all.set(pair.key.clone(), pair.value.as_str());
        all
    });
    Ok(Model { tensors, metadata, assets: Arc::clone(&model.assets), program: Some(Arc::new(program)) })
}

/// What the initializer of every weight declares, under its name, made unique where graphs within graphs have the same.
fn initializers(program: &Program) -> Vec<Declared> {
    let mut all = vec![Declared::default(); program.weights.len()];
    let mut seen = HashSet::new();
    program.tensors(|path, _, t| {
        let Some(declared) = t.slot.and_then(|slot| all.get_mut(slot)) else { return };
        let mut unique = path.to_owned();
        for n in 2.. {
            if seen.insert(unique.clone()) {
                break;
            }
            unique = format!("{path}.{n}");
        }
        *declared = Declared { name: unique, elem: t.elem, dims: t.dims.clone() };
    });
    all
}

/// The matrix or vector that a weight is about, as the graph has it, and its type.
fn turned(found: &Tensor, weight: &Weight) -> Result<(Expr, Encoding)> {
    let mut expr = found.expr.clone();
    let mut encoding = found.spec.encoding;
    if encoding.is_block() {
        (expr, encoding) = (expr.apply(Dequantize), Encoding::F32);
    }
    if let Some(dims) = &weight.dims {
        expr = expr.reshape(Shape::new(dims.clone())?);
    }
    if weight.transposed {
        expr = expr.transpose();
    }
    Ok((expr, encoding))
}

fn plain(found: &Tensor, weight: &Weight, float: Option<DType>) -> Result<Expr> {
    let (expr, encoding) = turned(found, weight)?;
    Ok(match (float, encoding) {
        (Some(to), Encoding::Plain(from)) if from != to && !weight.keep_type && is_real(from) => {
            expr.apply(Cast(to))
        }
        _ => expr,
    })
}

/// A part of a quantized weight, in the type and with the dimensions that its operator wants.
fn quantized(
    found: &Tensor,
    weight: &Weight,
    part: &QuantizedWeight,
    declared: &Declared,
    float: Option<DType>,
    parts: Parts<'_>,
) -> Result<Expr> {
    let (matrix, encoding) = turned(found, weight)?;
    let mut expr = parts(&Tensor::new(found.name(), matrix)?, part)?;
    let form = expr.form()?;
    let made = match form.encoding {
        Encoding::Plain(made) => made,
        Encoding::Block(_) => {
            return Err(Error::unsupported("a part of a quantized weight in blocks of bytes"));
        }
    };
    let dims: Option<Vec<u64>> = declared.dims.iter().map(|d| u64::try_from(*d).ok()).collect();
    let dims = dims.ok_or_else(|| Error::malformed("an initializer of unknown dimensions"))?;
    let elements: u64 = dims.iter().product();
    let (want, dims) = match (part.part, declared.elem.dtype()) {
        // Scales have the type of what they are multiplied with: that which the weight would have.
        (Part::Scales, own) => {
            let other = || match encoding {
                Encoding::Plain(d) if is_real(d) => d,
                _ => DType::F32,
            };
            let own = own.filter(|_| weight.keep_type);
            (own.or(float).unwrap_or_else(other), dims)
        }
        (_, Some(own)) if own.bytes(elements).is_some() => (own, dims),
        // Elements below a byte are bytes here.
        (..) => {
            let bytes = declared.elem.bytes(elements);
            (DType::U8, vec![bytes.ok_or_else(|| Error::malformed("codes without a size"))?])
        }
    };
    if made != want {
        if !is_real(made) || !is_real(want) {
            return Err(Error::mismatch(format!("{:?} as {made}, where the graph has {want}", part.part)));
        }
        expr = expr.apply(Cast(want));
    }
    let shape = Shape::new(dims)?;
    if form.shape.elements() != shape.elements() {
        return Err(Error::mismatch(format!(
            "{:?} of {}, where the graph has {shape}",
            part.part, form.shape
        )));
    }
    Ok(if form.shape == shape { expr } else { expr.reshape(shape) })
}

fn is_real(d: DType) -> bool {
    matches!(d, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// Tells initializers their shapes and types; known elements that are not the model's any more are forgotten.
fn declare(program: &mut Program, tensors: &[Tensor]) -> Result<()> {
    let mut wrong = None;
    program.tensors_mut(|_, _, t| {
        let Some(tensor) = t.slot.and_then(|slot| tensors.get(slot)) else { return };
        let Encoding::Plain(dtype) = tensor.spec.encoding else { return };
        // Elements that are no type of the house are bytes there.
        if t.elem != Elem::UNDEFINED && t.dtype().is_none() {
            return;
        }
        match Elem::of(dtype) {
            Some(elem) => t.elem = elem,
            None => wrong = Some(tensor.name().to_owned()),
        }
        t.dims = tensor.spec.shape.dims().iter().map(|d| *d as i64).collect();
    });
    match wrong {
        Some(name) => Err(Error::unsupported("ONNX has no such elements").tensor(name)),
        None => Ok(()),
    }
}

//! A program and a model's tensors become one: what an ONNX file is written from.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tensormill_graph::{Elem, Program, Weight};
use tensormill_model::{Cast, Error, Metadata, Model, Result, Tensor};
use tensormill_tensor::{DType, Encoding};
use tensormill_transforms::Dequantize;

/// The model as the program's initializers have it; `extra` has tensors for those that the model has none for. Floats
/// become `float` where that is given.
///
/// # Errors
/// `Mismatch` where the program needs a tensor that the model does not have.
pub(crate) fn bind(
    model: &Model,
    extra: &[Tensor],
    mut program: Program,
    float: Option<DType>,
) -> Result<Model> {
    let by_name: HashMap<&str, &Tensor> = extra.iter().chain(&model.tensors).map(|t| (t.name(), t)).collect();
    let names = initializers(&program);
    let mut tensors = Vec::with_capacity(names.len());
    let mut weights = Vec::with_capacity(names.len());
    for (weight, name) in program.weights.iter().zip(names) {
        let found = by_name.get(weight.tensor.as_str()).ok_or_else(|| {
            Error::mismatch("the graph needs this tensor, and the model has none of its name")
                .tensor(&weight.tensor)
        })?;
        tensors.push(written(found, weight, &name, float)?);
        weights.push(Weight { tensor: name, transposed: false, dims: None, keep_type: weight.keep_type });
    }
    program.weights = weights;
    declare(&mut program, &tensors)?;
    let metadata = program.metadata.iter().fold(Metadata::new(), |mut all, pair| {
        all.set(pair.key.clone(), pair.value.as_str());
        all
    });
    Ok(Model { tensors, metadata, assets: Arc::clone(&model.assets), program: Some(Arc::new(program)) })
}

/// A name for every weight: its initializer's, made unique where graphs within graphs have the same.
fn initializers(program: &Program) -> Vec<String> {
    let mut names = vec![String::new(); program.weights.len()];
    let mut seen = HashSet::new();
    program.tensors(|path, _, t| {
        let Some(name) = t.slot.and_then(|slot| names.get_mut(slot)) else { return };
        let mut unique = path.to_owned();
        for n in 2.. {
            if seen.insert(unique.clone()) {
                break;
            }
            unique = format!("{path}.{n}");
        }
        *name = unique;
    });
    names
}

fn written(found: &Tensor, weight: &Weight, name: &str, float: Option<DType>) -> Result<Tensor> {
    let fail = |e: Error| e.tensor(&weight.tensor);
    let mut expr = found.expr.clone();
    let mut encoding = found.spec.encoding;
    if encoding.is_block() {
        (expr, encoding) = (expr.apply(Dequantize), Encoding::F32);
    }
    if let Some(dims) = &weight.dims {
        let shape = tensormill_tensor::Shape::new(dims.clone()).map_err(|e| fail(e.into()))?;
        expr = expr.reshape(shape);
    }
    if weight.transposed {
        expr = expr.transpose();
    }
    match (float, encoding) {
        (Some(to), Encoding::Plain(from)) if from != to && !weight.keep_type && is_real(from) => {
            expr = expr.apply(Cast(to));
        }
        _ => {}
    }
    Tensor::new(name, expr).map_err(fail)
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

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

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_graph::{Builder, Group, Scheme};
    use tensormill_model::{Form, MemoryAssets};

    fn constant(dims: &[u64], dtype: DType) -> Expr {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let bytes = vec![0; dtype.bytes(shape.elements()).unwrap() as usize];
        Expr::Const { form: Form::new(shape, Encoding::Plain(dtype)), bytes: bytes.into() }
    }

    /// A layer and a table, in `f16`.
    fn model() -> (Model, Program) {
        let tensor = |name: &str, dims: &[u64]| Tensor::new(name, constant(dims, DType::F16)).unwrap();
        let tensors = vec![tensor("embed.weight", &[10, 32]), tensor("fc.weight", &[24, 32])];
        let mut b = Builder::new("g", 21, Elem::F32);
        let ids = b.input("ids", Elem::I64, &["n".into()]);
        let (table, fc) =
            (b.weight(Weight::plain("embed.weight")), b.weight(Weight::transposed("fc.weight")));
        let x = b.node("Gather", &[&table, &ids], vec![]);
        let y = b.node("MatMul", &[&x, &fc], vec![]);
        b.output("y", &y, Elem::F32, &["n".into(), 24i64.into()]);
        let assets = Arc::new(MemoryAssets::default());
        (Model { tensors, metadata: Metadata::new(), assets, program: None }, b.finish(10, Vec::new()))
    }

    fn quantized(scheme: Scheme) -> (Model, Program) {
        let (model, mut program) = model();
        let shapes = |slot: usize| Some((Elem::F32, [vec![10, 32], vec![32, 24]][slot].clone()));
        program.quantize(&shapes, &|_| Some(scheme)).unwrap();
        (model, program)
    }

    /// Parts of the right size, and a note of what they were made of.
    fn plain_part(t: &Tensor, part: &QuantizedWeight) -> Expr {
        // Whatever stands in the graph, what is quantized has a row for every number that a layer gives.
        assert_eq!(t.spec.shape.dims(), [part.coding.rows, part.coding.columns]);
        let (elem, dims) = part.coding.form(part.part, Elem::F32);
        let dims: Vec<u64> = dims.iter().map(|d| d.unsigned_abs()).collect();
        let elements = dims.iter().product();
        match elem.dtype() {
            Some(d) => constant(&dims, d),
            None => constant(&[elem.bytes(elements).unwrap()], DType::U8),
        }
    }

    fn forms(model: &Model) -> Vec<(String, String)> {
        let mut all: Vec<_> = model
            .tensors
            .iter()
            .map(|t| (t.name().to_owned(), format!("{} {}", t.spec.encoding, t.spec.shape)))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn parts_become_what_operators_want() {
        let scheme = Scheme::Blocks { bits: 4, block: 16, zero_points: true, accuracy: None };
        let (model, program) = quantized(scheme);
        let bound = bind(&model, &[], program, Some(DType::F16), &|t, part| Ok(plain_part(t, part))).unwrap();
        let wanted = [
            ("embed.weight_Q4", "u8 [10, 16]"),
            ("embed.weight_scales", "f16 [10, 2]"),
            ("embed.weight_zero_points", "u8 [10, 1]"),
            ("fc.MatMul.weight_Q4", "u8 [24, 2, 8]"),
            ("fc.MatMul.weight_scales", "f16 [24, 2]"),
            ("fc.MatMul.weight_zero_points", "u8 [24, 1]"),
        ];
        let wanted: Vec<_> = wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(forms(&bound), wanted);
        let mut elems = Vec::new();
        bound.program.unwrap().tensors(|_, _, t| elems.push(t.elem));
        assert_eq!(elems.iter().filter(|e| **e == Elem::F16).count(), 2);
    }

    #[test]
    fn elements_below_a_byte_keep_what_the_graph_declares() {
        let scheme = Scheme::Dequantize { elem: Elem::I4, group: Group::Block(16), zero_points: false };
        let (model, program) = quantized(scheme);
        let bound = bind(&model, &[], program, None, &|t, part| Ok(plain_part(t, part))).unwrap();
        let all = forms(&bound);
        assert!(all.contains(&("fc.MatMul.weight_DQ_Q4".to_owned(), "u8 [384]".to_owned())), "{all:?}");
        // Nothing else being said, scales have the weights' type.
        assert!(
            all.contains(&("fc.MatMul.weight_DQ_scales".to_owned(), "f16 [2, 24]".to_owned())),
            "{all:?}"
        );
        let mut codes = Vec::new();
        bound.program.unwrap().tensors(|_, _, t| {
            if t.elem == Elem::I4 {
                codes.push(t.dims.clone());
            }
        });
        assert_eq!(codes, [vec![10, 32], vec![32, 24]]);
    }

    #[test]
    fn parts_of_another_size_or_type_are_refused() {
        let scheme = Scheme::Dynamic { elem: Elem::I8, group: Group::Row, zero_points: false };
        for wrong in [constant(&[32, 24], DType::U8), constant(&[32, 25], DType::I8)] {
            let part = |t: &Tensor, part: &QuantizedWeight| match part.part {
                Part::Codes if t.name() == "fc.weight" => Ok(wrong.clone()),
                _ => Ok(plain_part(t, part)),
            };
            let (model, program) = quantized(scheme);
            let e = bind(&model, &[], program, None, &part).err().expect("does not fit");
            assert!(e.to_string().contains("fc.weight"), "{e}");
        }
        let (model, program) = quantized(scheme);
        let e = bind(&model, &[], program, None, &no_parts).err().expect("nothing says how");
        assert!(e.to_string().contains("nothing says how"), "{e}");
    }
}

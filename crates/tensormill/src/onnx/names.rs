//! A read model under the names and in the layout that training code gives its parameters.

use std::sync::Arc;
use tensormill_graph::{Dequantized, EncodedWeight, How, Origin, Program};
use tensormill_model::{Assets, Error, Expr, Form, Model, Reader, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// Names in a note.
const SHOWN: usize = 4;

/// Parts of a quantized weight as they are read: elements of the house's type where it has one, else bytes.
pub(crate) struct Parts {
    pub(crate) codes: Expr,
    pub(crate) scales: Expr,
    pub(crate) zero_points: Option<Expr>,
}

/// Makes floats of the parts of a quantized weight: `[rows, columns]` of its coding.
pub(crate) type Decode<'a> = &'a dyn Fn(&EncodedWeight, Parts) -> Result<Expr>;

/// The model of reader number `source`, with parameters as modules have them, and notes about what was found. Constants of
/// the graph stay in its program. Where it is said how to decode them, quantized weights are floats, and the graph is one of floats.
pub(crate) fn recovered(
    reader: &Arc<dyn Reader>,
    source: usize,
    assets: Arc<dyn Assets>,
    decode: Option<Decode<'_>>,
) -> Result<(Model, Vec<String>)> {
    let mut model = Model::from_index(reader.index(), source, assets);
    let Some(program) = reader.program() else { return Ok((model, Vec::new())) };
    if program.weights.is_empty() {
        // Nothing is to be named: a program may be large.
        model.program = Some(Arc::clone(program));
        return Ok((model, Vec::new()));
    }
    let mut raw = std::mem::take(&mut model.tensors);
    let mut notes = Vec::new();
    let mut program = match decode.and_then(|decode| Some((decode, program.dequantized()?))) {
        Some((decode, plain)) => {
            raw = decoded(&plain, &raw, decode)?;
            notes.extend(plain.notes);
            plain.program
        }
        None => (**program).clone(),
    };
    let found = program.recover();
    let mut further = Vec::new();
    let mut parameter = vec![false; raw.len()];
    let mut tensors: Vec<Tensor> = raw.clone();
    for r in &found.parameters {
        let expr = raw[r.weight].expr.clone();
        let tensor = Tensor::new(&r.name, if r.transposed { expr.transpose() } else { expr })?;
        if r.how == How::Identity {
            further.push(tensor);
            continue;
        }
        tensors[r.weight] = tensor;
        parameter[r.weight] = true;
        program.weights[r.weight].tensor.clone_from(&r.name);
        program.weights[r.weight].transposed = r.transposed;
    }
    // What the graph knows and no module has is a constant of the graph.
    let unnamed = unnamed_note(&raw, &found.unnamed, &program);
    program.retain_weights(|i| parameter[i]);
    let kept: std::collections::HashSet<&str> = program.weights.iter().map(|w| w.tensor.as_str()).collect();
    model.tensors = tensors.into_iter().filter(|t| kept.contains(t.name())).chain(further).collect();
    let hidden = found.parameters.iter().filter(|r| !matches!(r.how, How::Initializer)).count();
    if hidden > 0 {
        notes.push(format!(
            "{hidden} of {} parameters have their names from the graph's nodes (see `tensormill inspect`)",
            found.parameters.len()
        ));
    }
    notes.extend(unnamed);
    model.program = Some(Arc::new(program));
    Ok((model, notes))
}

/// Tensors of a program of floats, of those of the one that was read.
fn decoded(plain: &Dequantized, raw: &[Tensor], decode: Decode<'_>) -> Result<Vec<Tensor>> {
    let mut declared = vec![(String::new(), Vec::new()); plain.origins.len()];
    plain.program.tensors(|path, _, t| {
        if let Some(d) = t.slot.and_then(|slot| declared.get_mut(slot)) {
            *d = (path.to_owned(), t.dims.clone());
        }
    });
    let one = |(origin, (name, dims)): (&Origin, (String, Vec<i64>))| match origin {
        Origin::Weight(slot) => Ok(raw[*slot].clone()),
        Origin::Encoded(e) => {
            let fail = |e: Error| e.tensor(&name);
            let part = |t: &tensormill_graph::Tensor| part(t, raw).map_err(fail);
            let zero_points = e.zero_points.as_ref().map(part).transpose()?;
            let parts = Parts { codes: part(&e.codes)?, scales: part(&e.scales)?, zero_points };
            let mut expr = decode(e, parts).map_err(fail)?;
            if e.turned {
                expr = expr.transpose();
            }
            let dims = dims.iter().map(|d| d.unsigned_abs()).collect();
            let shape = Shape::new(dims).map_err(|e| fail(e.into()))?;
            if expr.form()?.shape != shape {
                expr = expr.reshape(shape);
            }
            Tensor::new(&name, expr).map_err(fail)
        }
    };
    plain.origins.iter().zip(declared).map(one).collect()
}

/// A tensor of a program that was read.
fn part(t: &tensormill_graph::Tensor, raw: &[Tensor]) -> Result<Expr> {
    if let Some(tensor) = t.slot.and_then(|slot| raw.get(slot)) {
        return Ok(tensor.expr.clone());
    }
    let bytes = t.bytes().ok_or_else(|| Error::malformed("a part of a quantized weight without elements"))?;
    let (dtype, dims) = match t.dtype() {
        Some(d) => (d, t.dims.iter().map(|d| d.unsigned_abs()).collect()),
        None => (DType::U8, vec![bytes.len() as u64]),
    };
    Ok(Expr::Const { form: Form::new(Shape::new(dims)?, Encoding::Plain(dtype)), bytes: bytes.into() })
}

/// What is said of tensors that no module is known to have, constants aside.
fn unnamed_note(raw: &[Tensor], unnamed: &[usize], program: &Program) -> Option<String> {
    let mut known = vec![false; raw.len()];
    program.tensors(|_, _, t| {
        if let Some(k) = t.slot.and_then(|slot| known.get_mut(slot)) {
            *k = t.bytes().is_some();
        }
    });
    let names: Vec<&str> = unnamed.iter().filter(|i| !known[**i]).map(|i| raw[*i].name()).collect();
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        n if n > SHOWN => Some(format!("{n} tensors keep the graph's names: {shown} and {} more", n - SHOWN)),
        n => Some(format!("{n} tensors keep the graph's names: {shown}")),
    }
}

//! A graph that somebody has already, with the weights of another checkpoint of the same model.

use crate::{
    location::{Location, Opening},
    source::Source,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tensormill_graph::Program;
use tensormill_model::{Error, Model, Result, Tensor};
use tensormill_tensor::Encoding;

/// Values that modules keep beside their parameters: checkpoints often leave them out.
const BUFFERS: [&str; 8] = [
    "cos_cache",
    "cos_cached",
    "inv_freq",
    "masked_bias",
    "position_ids",
    "sin_cache",
    "sin_cached",
    "token_type_ids",
];

/// Names in an error.
const SHOWN: usize = 4;

/// A read graph.
#[derive(Clone)]
pub(crate) struct Template {
    program: Arc<Program>,
    /// Its own weights, as tensors of the source that it was opened for.
    tensors: Vec<Tensor>,
}

/// Opens the graph at a place; its files become files of `source`.
///
/// # Errors
/// As opening any model; `Usage` where it is no ONNX file.
pub(crate) fn open(source: &mut Source, at: &Location, how: &Opening) -> Result<Template> {
    let other = Source::open_at(at, how)?;
    let Some(program) = other.model.program.clone() else {
        return Err(Error::usage("a graph is taken from an ONNX file, and this is none").file(at));
    };
    let by = source.readers.len();
    let tensors =
        other.model.tensors.into_iter().map(|t| Tensor::new(t.spec.name.clone(), t.expr.shifted(by)));
    let tensors = tensors.collect::<Result<_>>()?;
    source.readers.extend(other.readers);
    Ok(Template { program, tensors })
}

impl Template {
    /// The program, its weights named as `model` names them, and tensors for those that only the graph has.
    ///
    /// # Errors
    /// `Mismatch` where the graph has a parameter that the model lacks, or has in another shape.
    pub(crate) fn fit(&self, model: &Model) -> Result<(Program, Vec<Tensor>)> {
        let names: HashSet<&str> = model.tensors.iter().map(Tensor::name).collect();
        let prefixes: HashSet<&str> = names.iter().filter_map(|n| Some(n.split_once('.')?.0)).collect();
        let named: HashSet<String> = self.program.recover().parameters.into_iter().map(|r| r.name).collect();
        let graphs: HashMap<&str, &Tensor> = self.tensors.iter().map(|t| (t.name(), t)).collect();
        let mut program = (*self.program).clone();
        let (mut own, mut missing) = (Vec::new(), Vec::new());
        for weight in &mut program.weights {
            let Some(t) = graphs.get(weight.tensor.as_str()).copied() else { continue };
            match find(&weight.tensor, &names, &prefixes) {
                Some(found) => {
                    let shape = model.tensor(&found).map(|t| &t.spec.shape);
                    if shape != Some(&t.spec.shape) {
                        return Err(Error::mismatch(format!(
                            "the graph's parameter {} is {}",
                            weight.tensor, t.spec.shape
                        ))
                        .tensor(found)
                        .hint("the graph must be one of the same model"));
                    }
                    weight.tensor = found;
                }
                // Matrices without a module's name (fused query, key and value) would stay the graph's own, unnoticed.
                None if is_parameter(t) && (named.contains(&weight.tensor) || t.spec.shape.rank() > 1) => {
                    missing.push(weight.tensor.clone());
                }
                None => own.push(t.clone()),
            }
        }
        if missing.is_empty() {
            return Ok((program, own));
        }
        let more = missing.len().saturating_sub(SHOWN);
        missing.truncate(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::mismatch(format!(
            "the graph has parameters that the checkpoint lacks: {}{more}",
            missing.join(", ")
        ))
        .hint("the graph must be one of the same model"))
    }
}

/// The model's name for a parameter: heads put a prefix before the names of the model in them.
fn find(name: &str, names: &HashSet<&str>, prefixes: &HashSet<&str>) -> Option<String> {
    if names.contains(name) {
        return Some(name.to_owned());
    }
    let without = name.split_once('.').map(|(_, rest)| rest).filter(|rest| names.contains(rest));
    let mut with = prefixes.iter().map(|p| format!("{p}.{name}")).filter(|n| names.contains(n.as_str()));
    match (without, with.next(), with.next()) {
        (Some(rest), None, _) => Some(rest.to_owned()),
        (None, Some(one), None) => Some(one),
        _ => None,
    }
}

fn is_parameter(t: &Tensor) -> bool {
    let float = matches!(t.spec.encoding, Encoding::Plain(d) if d.is_float());
    let last = t.name().rsplit('.').next().unwrap_or_default();
    float && !BUFFERS.contains(&last)
}

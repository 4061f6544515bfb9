//! A read model under the names and in the layout that training code gives its parameters.

use std::sync::Arc;
use tensormill_graph::How;
use tensormill_model::{Assets, Model, Reader, Result, Tensor};

/// Names in a note.
const SHOWN: usize = 4;

/// The model of reader number `source`, with parameters as modules have them, and notes about what was found. Constants of
/// the graph stay in its program.
pub(crate) fn recovered(
    reader: &Arc<dyn Reader>,
    source: usize,
    assets: Arc<dyn Assets>,
) -> Result<(Model, Vec<String>)> {
    let mut model = Model::from_index(reader.index(), source, assets);
    let Some(program) = reader.program() else { return Ok((model, Vec::new())) };
    if program.weights.is_empty() {
        // Nothing is to be named: a program may be large.
        model.program = Some(Arc::clone(program));
        return Ok((model, Vec::new()));
    }
    let mut program = (**program).clone();
    let found = program.recover();
    let raw = std::mem::take(&mut model.tensors);
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
    let mut notes = Vec::new();
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

/// What is said of tensors that no module is known to have, constants aside.
fn unnamed_note(raw: &[Tensor], unnamed: &[usize], program: &tensormill_graph::Program) -> Option<String> {
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

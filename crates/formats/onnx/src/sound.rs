//! Refuses programs that no loader would take for a model, before anything is made of them.

use std::collections::HashSet;
use tensormill_graph::{Attribute, Elem, Graph, Program, Sparse, Stand};
use tensormill_model::{Error, Result};

/// Versions of the format that can be: newer ones than this crate knows are read as far as they are understood.
const VERSIONS: i64 = 99;

pub(crate) fn check(program: &mut Program) -> Result<()> {
    if program.graph == Graph::default() {
        return Err(Error::malformed("no ONNX model: it holds no graph"));
    }
    match program.ir_version {
        n if n < 0 => return Err(Error::malformed(format!("version {n} of the format"))),
        n if n > VERSIONS => return Err(Error::unsupported(format!("version {n} of the format"))),
        _ => {}
    }
    let mut wrong = None;
    program.nodes_mut(|node| {
        if node.is("Constant") {
            let named = matches!(node.outputs.as_slice(), [o] if !o.is_empty());
            if !named || !matches!(node.attributes.as_slice(), [a] if is_value(a)) {
                wrong.get_or_insert_with(|| format!("the Constant {:?}", node.name));
            }
        }
    });
    program.tensors(|path, stand, t| {
        if stand == Stand::Initializer && t.name.is_empty() {
            wrong.get_or_insert_with(|| format!("an initializer without a name ({path:?})"));
        }
    });
    if !program.graph.sparse.iter().all(fits) {
        wrong.get_or_insert_with(|| "a sparse tensor whose values and indices do not fit".to_owned());
    }
    let mut names: HashSet<&str> = program.graph.initializers.iter().map(|t| t.name.as_str()).collect();
    for o in program.graph.nodes.iter().flat_map(|n| &n.outputs).filter(|o| !o.is_empty()) {
        if !names.insert(o) {
            wrong.get_or_insert_with(|| format!("the value {o:?}, which two give"));
        }
    }
    wrong.map_or(Ok(()), |what| Err(Error::malformed(format!("no ONNX model that can be run: {what}"))))
}

/// Whether an attribute gives a constant its value, and is of the kind that its name says.
fn is_value(a: &Attribute) -> bool {
    if !a.reference.is_empty() {
        return true;
    }
    match a.name.as_str() {
        "value" => a.t.is_some(),
        "sparse_value" => a.sparse.is_some(),
        "value_float" => a.f.is_some(),
        "value_int" => a.i.is_some(),
        "value_string" => a.s.is_some(),
        "value_floats" | "value_ints" | "value_strings" => a.f.is_none() && a.i.is_none() && a.t.is_none(),
        _ => false,
    }
}

/// Whether a sparse tensor has an index for every value, within dimensions that can be.
fn fits(s: &Sparse) -> bool {
    let (Some(values), Some(indices)) = (&s.values, &s.indices) else { return false };
    let n = values.elements();
    let elements = s.dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?));
    let shape = match indices.dims.as_slice() {
        [k] => u64::try_from(*k).ok() == n,
        [k, r] => u64::try_from(*k).ok() == n && *r == s.dims.len() as i64,
        _ => false,
    };
    shape && indices.elem == Elem::I64 && elements.is_some()
}

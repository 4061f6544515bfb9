//! Goes through all nodes of a program, wherever they stand (graphs nest through attributes of nodes), and changes which weights it
//! has and what they are called.

use crate::{Content, Node, Program, Tensor};
use std::collections::{HashMap, HashSet};
use tensormill_tensor::DType;

impl Program {
    /// Leaves out weights whose elements the program knows itself: they become constants of the graph again.
    ///
    /// Weights for which `keep` says no must be known; others stay whatever it says.
    pub fn retain_weights(&mut self, keep: impl Fn(usize) -> bool) {
        let mut numbers = vec![None; self.weights.len()];
        let mut next = 0;
        self.tensors_mut(|_, _, t| {
            let Some(old) = t.slot else { return };
            t.slot = (keep(old) || t.bytes().is_none()).then(|| {
                next += 1;
                next - 1
            });
            if let Some(n) = numbers.get_mut(old) {
                *n = t.slot;
            }
        });
        let mut kept: Vec<_> = std::mem::take(&mut self.weights)
            .into_iter()
            .zip(numbers)
            .filter_map(|(w, n)| Some((n?, w)))
            .collect();
        kept.sort_by_key(|(n, _)| *n);
        self.weights = kept.into_iter().map(|(_, w)| w).collect();
    }

    /// Gives initializers of the main graph the names of the parameters that they hold; `query.MatMul.weight` where it is
    /// transposed, as graphs that are built here have it. Those whose name is taken keep theirs.
    pub fn name_initializers(&mut self) {
        let mut taken: HashSet<String> = self.graph.initializers.iter().map(|t| t.name.clone()).collect();
        self.nodes_mut(|n| taken.extend(n.outputs.iter().cloned()));
        taken.extend(self.graph.inputs.iter().map(|v| v.name.clone()));
        let mut names: HashMap<String, String> = HashMap::new();
        let outputs: HashSet<&str> = self.graph.outputs.iter().map(|o| o.name.as_str()).collect();
        for t in self.graph.initializers.iter_mut().filter(|t| !outputs.contains(t.name.as_str())) {
            let Some(weight) = t.slot.and_then(|slot| self.weights.get(slot)) else { continue };
            let name = weight.initializer();
            if name != t.name && taken.insert(name.clone()) {
                names.insert(std::mem::replace(&mut t.name, name.clone()), name);
            }
        }
        let rename = |v: &mut String| {
            if let Some(name) = names.get(v) {
                name.clone_into(v);
            }
        };
        for info in self.graph.values.iter_mut().chain(&mut self.graph.inputs) {
            rename(&mut info.name);
        }
        for a in &mut self.graph.annotations {
            rename(&mut a.tensor);
            a.parameters.iter_mut().for_each(|p| rename(&mut p.value));
        }
        nodes_of(&mut self.graph.nodes, &mut |n| n.inputs.iter_mut().for_each(rename));
    }

    /// Calls `each` for every node of every graph and function.
    pub fn nodes_mut(&mut self, mut each: impl FnMut(&mut Node)) {
        let each: &mut dyn FnMut(&mut Node) = &mut each;
        nodes_of(&mut self.graph.nodes, each);
        for f in &mut self.functions {
            nodes_of(&mut f.nodes, each);
        }
    }
}

fn nodes_of(all: &mut [Node], each: &mut dyn FnMut(&mut Node)) {
    for node in all {
        each(node);
        for g in node.graphs_mut() {
            nodes_of(&mut g.nodes, each);
        }
    }
}

/// A name like this one that nothing has yet, and now has been given.
pub(crate) fn fresh(taken: &mut HashSet<String>, base: &str) -> String {
    let mut name = base.to_owned();
    for n in 1.. {
        if taken.insert(name.clone()) {
            break;
        }
        name = format!("{base}_{n}");
    }
    name
}

impl Tensor {
    /// Number of elements; `None` where dimensions are negative or too many.
    pub fn elements(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?))
    }
    /// Its elements' type elsewhere in the house; `None` where they are bytes there, since there is no such type, or since
    /// they do not end on a byte.
    pub fn dtype(&self) -> Option<DType> {
        let n = self.elements()?;
        self.elem.dtype().filter(|d| d.bytes(n).is_some())
    }
    /// Its bytes, where they are known here.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Raw(bytes) => Some(bytes),
            _ => None,
        }
    }
}

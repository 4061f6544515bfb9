//! Goes through all tensors and nodes of a program, wherever they stand: graphs nest through attributes of nodes.

use crate::{Attribute, Content, Graph, Node, Program, Sparse, Tensor};
use std::collections::{HashMap, HashSet};
use tensormill_tensor::DType;

/// Where a tensor stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stand {
    /// It is an initializer: a value of its name.
    Initializer,
    /// It is the attribute of a node.
    Attribute,
    /// It is a part of a sparse tensor.
    Sparse,
}

/// Called with a path, where the tensor stands, and the tensor.
type Each<'a> = &'a mut dyn FnMut(&str, Stand, &mut Tensor);

impl Program {
    /// Calls `each` for every tensor, with a text that says where it is: the value's name in the main graph, behind the
    /// names of what is around it elsewhere. Texts need not be unique.
    pub fn tensors_mut(&mut self, mut each: impl FnMut(&str, Stand, &mut Tensor)) {
        let each: Each<'_> = &mut each;
        graph(&mut self.graph, "", each);
        for f in &mut self.functions {
            let domain = if f.domain.is_empty() { String::new() } else { format!("{}.", f.domain) };
            nodes(&mut f.nodes, &format!("{domain}{}/", f.name), each);
        }
        for (i, t) in self.training.iter_mut().enumerate() {
            for (name, g) in
                [("initialization", t.initialization.as_mut()), ("algorithm", t.algorithm.as_mut())]
            {
                if let Some(g) = g {
                    graph(g, &format!("training.{i}.{name}/"), each);
                }
            }
        }
    }

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
            let name = match weight.tensor.rsplit_once('.') {
                Some((module, kind)) if weight.transposed => format!("{module}.MatMul.{kind}"),
                _ => weight.tensor.clone(),
            };
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
        for a in &mut node.attributes {
            for g in a.g.iter_mut().map(|g| &mut **g).chain(&mut a.graphs) {
                nodes_of(&mut g.nodes, each);
            }
        }
    }
}

fn graph(g: &mut Graph, path: &str, each: Each<'_>) {
    for t in &mut g.initializers {
        let name = format!("{path}{}", t.name);
        each(&name, Stand::Initializer, t);
    }
    for s in &mut g.sparse {
        sparse(s, path, each);
    }
    nodes(&mut g.nodes, path, each);
}

fn sparse(s: &mut Sparse, path: &str, each: Each<'_>) {
    let name = s.values.as_ref().map_or(String::new(), |v| format!("{path}{}", v.name));
    if let Some(t) = &mut s.values {
        each(&format!("{name}.values"), Stand::Sparse, t);
    }
    if let Some(t) = &mut s.indices {
        each(&format!("{name}.indices"), Stand::Sparse, t);
    }
}

fn nodes(all: &mut [Node], path: &str, each: Each<'_>) {
    for (i, node) in all.iter_mut().enumerate() {
        let constant = node.is("Constant");
        let Node { name, op, outputs, attributes, .. } = node;
        let own = match (constant, outputs.first(), name.is_empty()) {
            (true, Some(value), _) => value.clone(),
            (_, _, false) => name.clone(),
            _ => format!("{op}.{i}"),
        };
        for a in attributes {
            let Attribute { name, t, g, tensors, graphs, sparse: one, sparses, .. } = a;
            let at = format!("{path}{own}");
            if let Some(t) = t {
                let value = if constant { at.clone() } else { format!("{at}/{name}") };
                each(&value, Stand::Attribute, t);
            }
            for (i, t) in tensors.iter_mut().enumerate() {
                each(&format!("{at}/{name}.{i}"), Stand::Attribute, t);
            }
            for s in one.iter_mut().map(|s| &mut **s).chain(sparses) {
                sparse(s, &format!("{at}/{name}/"), each);
            }
            for g in g.iter_mut().map(|g| &mut **g) {
                graph(g, &format!("{at}/{name}/"), each);
            }
            for (i, g) in graphs.iter_mut().enumerate() {
                graph(g, &format!("{at}/{name}.{i}/"), each);
            }
        }
    }
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

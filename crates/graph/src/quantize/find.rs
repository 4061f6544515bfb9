//! Which weights a graph's nodes use, and how: also those that arrive through `Transpose`, `Identity` and `Cast`, and those of
//! graphs around.

use crate::{Elem, Graph, Node, Weights, ir};
use std::collections::HashMap;

/// What a weight is to a node that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Second operand of `MatMul`.
    MatMul,
    /// Second operand of `Gemm`.
    Gemm,
    /// What `Gather` takes rows of.
    Embedding,
    /// Kernels of `Conv`.
    Conv,
}

/// A weight, as some value has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    /// Number of the weight.
    pub(super) slot: usize,
    /// What the value that it comes from is called.
    pub(super) name: String,
    /// How many graphs are around the one that it comes from.
    pub(super) depth: usize,
    /// Whether the value has the weight's two dimensions the other way round.
    pub(super) turned: bool,
    /// Type and dimensions of the value.
    pub(super) elem: Elem,
    pub(super) dims: Vec<i64>,
}

/// Weights by value, in a graph and those around it.
pub(super) struct Scope<'o> {
    outer: Option<&'o Scope<'o>>,
    depth: usize,
    /// `None` for values that hide one of a graph around.
    held: HashMap<String, Option<Held>>,
}

impl<'o> Scope<'o> {
    pub(super) fn new(g: &Graph, outer: Option<&'o Scope<'o>>, weights: Weights<'_>) -> Self {
        let depth = outer.map_or(0, |o| o.depth + 1);
        let mut scope = Self { outer, depth, held: HashMap::new() };
        for input in &g.inputs {
            scope.hide(&input.name);
        }
        for t in &g.initializers {
            let held = scope.weight(t, &t.name, weights);
            scope.held.insert(t.name.clone(), held);
        }
        for node in &g.nodes {
            let held = scope.passed(node, weights);
            match (held, node.outputs.first()) {
                (Some(held), Some(out)) => {
                    scope.held.insert(out.clone(), Some(held));
                }
                _ => node.outputs.iter().for_each(|out| scope.hide(out)),
            }
        }
        scope
    }

    /// How many graphs are around.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    fn hide(&mut self, value: &str) {
        if self.get(value).is_some() {
            self.held.insert(value.to_owned(), None);
        }
    }

    /// The weight that a value is.
    pub(super) fn get(&self, value: &str) -> Option<&Held> {
        match self.held.get(value) {
            Some(held) => held.as_ref(),
            None => self.outer?.get(value),
        }
    }

    fn weight(&self, t: &ir::Tensor, name: &str, weights: Weights<'_>) -> Option<Held> {
        let slot = t.slot?;
        let declared = || (t.elem != Elem::UNDEFINED).then(|| (t.elem, t.dims.clone()));
        let (elem, dims) = weights(slot).or_else(declared)?;
        let float = matches!(elem, Elem::F32 | Elem::F16 | Elem::BF16);
        (float && dims.len() >= 2 && dims.iter().all(|d| *d > 0)).then(|| Held {
            slot,
            name: name.to_owned(),
            depth: self.depth,
            turned: false,
            elem,
            dims,
        })
    }

    /// The weight that a node holds or passes on.
    fn passed(&self, node: &Node, weights: Weights<'_>) -> Option<Held> {
        if node.is("Constant") {
            let t = node.attribute("value")?.t.as_ref()?;
            return self.weight(t, node.outputs.first()?, weights);
        }
        let held = self.get(node.inputs.first()?)?;
        match node.op.as_str() {
            "Identity" if node.is("Identity") => Some(held.clone()),
            "Cast" if node.is("Cast") => {
                let elem = Elem(node.int("to")? as i32);
                let float = matches!(elem, Elem::F32 | Elem::F16 | Elem::BF16);
                float.then(|| Held { elem, ..held.clone() })
            }
            "Transpose" if node.is("Transpose") && held.dims.len() == 2 => {
                let turns = node.attribute("perm").is_none_or(|p| p.ints == [1, 0]);
                let dims = if turns { vec![held.dims[1], held.dims[0]] } else { held.dims.clone() };
                Some(Held { turned: held.turned != turns, dims, ..held.clone() })
            }
            _ => None,
        }
    }
}

/// How a node uses a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) kind: Kind,
    /// Which input it is.
    pub(super) input: usize,
    /// Whether the value is `[columns, rows]`.
    pub(super) turned: bool,
    pub(super) rows: u64,
    pub(super) columns: u64,
}

/// How a node uses a weight as one of its inputs; else what it is to the node, for people.
pub(super) fn use_of(node: &Node, input: usize, held: &Held) -> Result<Use, String> {
    let dims: Vec<u64> = held.dims.iter().map(|d| d.unsigned_abs()).collect();
    let found = |kind, turned| {
        let (first, rest) = (dims[0], dims[1..].iter().fold(1u64, |n, d| n.saturating_mul(*d)));
        let (rows, columns) = if turned { (rest, first) } else { (first, rest) };
        Ok(Use { kind, input, turned, rows, columns })
    };
    let is = |name: &str, usual: i64| node.int(name).unwrap_or(usual);
    let one = |name: &str| node.attribute(name).and_then(|a| a.f).is_none_or(|x| x == 1.0);
    match (node.op.as_str(), input, dims.len()) {
        ("MatMul", 1, 2) if node.is("MatMul") => found(Kind::MatMul, true),
        ("MatMul", 1, n) if node.is("MatMul") => Err(format!("a product with a weight of {n} dimensions")),
        ("Gemm", 1, 2) if node.is("Gemm") => {
            let bias = node.inputs.get(2).is_some_and(|c| !c.is_empty());
            if is("transA", 0) != 0 || !one("alpha") || bias && !one("beta") {
                return Err("a Gemm that is scaled or takes its first operand transposed".to_owned());
            }
            found(Kind::Gemm, is("transB", 0) == 0)
        }
        ("Gather", 0, 2) if node.is("Gather") && is("axis", 0) == 0 => found(Kind::Embedding, false),
        ("Conv", 1, _) if node.is("Conv") && !held.turned => found(Kind::Conv, false),
        (op, ..) => Err(format!("input {input} of {op}")),
    }
}

/// Called with the node that uses a weight and the place of the input; without one for being an output of a graph.
pub(super) type Each<'a> = &'a mut dyn FnMut(Option<(&Node, usize)>, &Held);

/// Calls `each` for every node that uses a weight and does not just pass it on.
pub(super) fn visit(g: &Graph, outer: Option<&Scope<'_>>, weights: Weights<'_>, each: Each<'_>) {
    let scope = Scope::new(g, outer, weights);
    for node in &g.nodes {
        let passes = node.outputs.first().is_some_and(|o| scope.get(o).is_some());
        for (i, value) in node.inputs.iter().enumerate().filter(|_| !passes) {
            if let Some(held) = scope.get(value) {
                each(Some((node, i)), held);
            }
        }
        for inner in node.graphs() {
            visit(inner, Some(&scope), weights, each);
        }
    }
    for out in &g.outputs {
        if let Some(held) = scope.get(&out.name) {
            each(None, held);
        }
    }
}

//! Which values are known when a graph is read: initializers, constants, and what only shows them otherwise.

use crate::{Graph, Node, Tensor};
use std::collections::HashMap;

/// A known value.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) tensor: Tensor,
    /// How many graphs are around the one that it is in.
    pub(super) depth: usize,
    /// Whether the value has its two dimensions the other way round.
    pub(super) turned: bool,
    /// Values on the way, which are not needed where this one is not.
    pub(super) through: Vec<String>,
}

/// Rows of codes that a node gathers.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    pub(super) codes: String,
    pub(super) indices: String,
}

/// Known values of a graph, and of those around.
pub(super) struct Constants<'o> {
    outer: Option<&'o Constants<'o>>,
    depth: usize,
    known: HashMap<String, Known>,
    gathered: HashMap<String, Gathered>,
}

impl<'o> Constants<'o> {
    pub(super) fn new(g: &Graph, outer: Option<&'o Constants<'o>>) -> Self {
        let depth = outer.map_or(0, |o| o.depth + 1);
        let mut all = Self { outer, depth, known: HashMap::new(), gathered: HashMap::new() };
        for t in &g.initializers {
            let known = Known { tensor: t.clone(), depth, turned: false, through: Vec::new() };
            all.known.insert(t.name.clone(), known);
        }
        for node in &g.nodes {
            let Some(out) = node.outputs.first() else { continue };
            if let Some(known) = all.passed(node, out) {
                all.known.insert(out.clone(), known);
            } else if let ("Gather", [codes, indices], true) =
                (node.op.as_str(), node.inputs.as_slice(), node.int("axis").unwrap_or(0) == 0)
                && node.is("Gather")
                && all.get(codes).is_some_and(|k| k.tensor.dims.len() == 2 && !k.turned)
            {
                let gathered = Gathered { codes: codes.clone(), indices: indices.clone() };
                all.gathered.insert(out.clone(), gathered);
            }
        }
        all
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn get(&self, value: &str) -> Option<&Known> {
        self.known.get(value).or_else(|| self.outer?.get(value))
    }

    /// What a node takes in this place, where it is known.
    pub(super) fn input(&self, node: &Node, i: usize) -> Option<Known> {
        node.inputs.get(i).and_then(|v| self.get(v)).cloned()
    }

    /// A node's zero points, where it takes some in this place.
    pub(super) fn zero_points(&self, node: &Node, i: usize) -> Result<Option<Known>, &'static str> {
        match node.inputs.get(i).filter(|v| !v.is_empty()) {
            Some(v) => self.get(v).cloned().map(Some).ok_or("its zero points are not known"),
            None => Ok(None),
        }
    }

    pub(super) fn gathered(&self, value: &str) -> Option<&Gathered> {
        self.gathered.get(value).or_else(|| self.outer?.gathered(value))
    }

    /// Codes that rows are gathered of: initializers' names.
    pub(super) fn tables(&self, g: &Graph) -> Vec<String> {
        let blocks = g.nodes.iter().filter(|n| n.op == "GatherBlockQuantized");
        let codes = blocks.filter_map(|n| n.inputs.first()).chain(self.gathered.values().map(|g| &g.codes));
        codes.filter_map(|v| Some(self.get(v)?.tensor.name.clone())).collect()
    }

    fn passed(&self, node: &Node, out: &str) -> Option<Known> {
        if node.is("Constant") {
            let tensor = (**node.attribute("value")?.t.as_ref()?).clone();
            let tensor = Tensor { name: out.to_owned(), ..tensor };
            return Some(Known { tensor, depth: self.depth, turned: false, through: vec![out.to_owned()] });
        }
        let from = self.get(node.inputs.first()?)?;
        let mut known = from.clone();
        known.through.push(out.to_owned());
        match node.op.as_str() {
            "Identity" if node.is("Identity") => Some(known),
            // Bytes in blocks are the same bytes as a table.
            "Reshape" if node.is("Reshape") && !known.turned => Some(known),
            "Transpose" if node.is("Transpose") && from.tensor.dims.len() == 2 => {
                known.turned ^= node.attribute("perm").is_none_or(|p| p.ints == [1, 0]);
                Some(known)
            }
            _ => None,
        }
    }
}

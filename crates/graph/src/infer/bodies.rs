//! Nodes with graphs in them, and calls of functions.

use super::{Fact, Infer, MOST_CALLS, MOST_DEPTH, Scope, Trouble};
use crate::{Attribute, Dim, Elem, Function, Graph, Node, Opset, check::function_name};
use std::collections::HashMap;

/// Whether there are graphs in a node.
pub(super) fn has(node: &Node) -> bool {
    node.attributes.iter().any(|a| a.g.is_some() || !a.graphs.is_empty())
}

impl Infer<'_> {
    /// Outputs of a node with graphs in it.
    pub(super) fn bodies(
        &self,
        node: &Node,
        inputs: &[Option<&Fact>],
        scope: &Scope<'_>,
        opsets: &[Opset],
    ) -> Result<Vec<Fact>, Trouble> {
        // From one run to the next the element type stays, dimensions may change.
        let elem = |f: Option<&Fact>| Fact { elem: f.map_or(Elem::UNDEFINED, |f| f.elem), ..Fact::default() };
        let given: Vec<Fact> = match node.op.as_str() {
            "Loop" => [Fact::of(Elem::I64, &[]), Fact { elem: Elem::BOOL, ..Fact::default() }]
                .into_iter()
                .chain(inputs.iter().copied().skip(2).map(elem))
                .collect(),
            // An input for lengths is there in the first version only.
            "Scan" if crate::schema::version(opsets, "").is_some_and(|v| v > 8) => {
                inputs.iter().copied().map(elem).collect()
            }
            _ => Vec::new(),
        };
        let mut outputs: Vec<Vec<Fact>> = Vec::new();
        for a in &node.attributes {
            for g in a.held() {
                let inner = self.graph(g, &given, Some(scope), opsets).map_err(|e| e.within(&a.name))?;
                outputs.push(of_outputs(g, &inner));
            }
        }
        Ok(match (node.op.as_str(), &outputs[..]) {
            ("If", [a, b]) => a.iter().zip(b).map(|(a, b)| a.or(b)).collect(),
            ("Loop", [body]) => {
                let carried = inputs.len().saturating_sub(2);
                states(&inputs[inputs.len().min(2)..], body.get(1..).unwrap_or_default(), carried, true)
            }
            ("Scan", [body]) => {
                let scanned = node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                let first = node.attribute("scan_output_axes").is_none();
                states(inputs, body, inputs.len().saturating_sub(scanned), first)
            }
            _ => Vec::new(),
        })
    }

    /// Outputs of a function for what is known of its inputs.
    pub(super) fn function(
        &self,
        f: &Function,
        node: &Node,
        inputs: &[Option<&Fact>],
    ) -> Result<Vec<Fact>, Trouble> {
        let (calls, depth) = (self.calls.get() + f.nodes.len(), self.depth.get() + 1);
        if calls > MOST_CALLS || depth > MOST_DEPTH {
            return Ok(Vec::new());
        }
        self.calls.set(calls);
        self.depth.set(depth);
        let mut scope = Scope::default();
        for (name, fact) in f.inputs.iter().zip(inputs) {
            scope.set(name, fact.cloned().unwrap_or_default());
        }
        let nodes: Vec<Node> = f.nodes.iter().map(|n| bound(n, f, node)).collect();
        let declared = f.values.iter().map(|v| (v.name.as_str(), Fact::declared(v))).collect();
        let done = self.nodes(&nodes, &mut scope, &declared, &f.opsets);
        self.depth.set(depth - 1);
        done.map_err(|e| e.within(&function_name(f)))?;
        Ok(f.outputs.iter().map(|o| scope.get(o).cloned().unwrap_or_default()).collect())
    }
}

fn of_outputs(g: &Graph, inner: &Scope<'_>) -> Vec<Fact> {
    let declared: HashMap<&str, Fact> =
        g.outputs.iter().map(|o| (o.name.as_str(), Fact::declared(o))).collect();
    g.outputs
        .iter()
        .map(|o| inner.get(&o.name).and_then(|f| declared.get(o.name.as_str())?.and(f)).unwrap_or_default())
        .collect()
}

/// What goes from run to run, and what is put together of all runs: along the first dimension, if `first`.
fn states(inputs: &[Option<&Fact>], body: &[Fact], carried: usize, first: bool) -> Vec<Fact> {
    let all = body.iter().enumerate();
    all.map(|(i, made)| {
        if i < carried {
            return inputs.get(i).copied().flatten().map_or_else(Fact::default, |start| start.or(made));
        }
        let dims = made.dims.as_ref().map(|d| {
            if first { [&[Dim::Unknown], &d[..]].concat() } else { vec![Dim::Unknown; d.len() + 1] }
        });
        Fact { elem: made.elem, dims, data: None }
    })
    .collect()
}

/// A node of a function with the attributes of the call.
fn bound(node: &Node, f: &Function, call: &Node) -> Node {
    let mut node = node.clone();
    node.attributes = node.attributes.into_iter().filter_map(|a| value(a, f, call)).collect();
    for g in node.graphs_mut() {
        g.nodes = g.nodes.iter().map(|n| bound(n, f, call)).collect();
    }
    node
}

/// An attribute with its value; `None` where nobody says it.
fn value(a: Attribute, f: &Function, call: &Node) -> Option<Attribute> {
    if a.reference.is_empty() {
        return Some(a);
    }
    let usual = || f.defaults.iter().find(|d| d.name == a.reference);
    let found = call.attribute(&a.reference).or_else(usual)?;
    Some(Attribute { name: a.name, ..found.clone() })
}

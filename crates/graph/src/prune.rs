//! Which values graphs have and use, and what is left without use.

use crate::{Graph, Node, Program};
use std::collections::HashSet;

/// Names of all values, and of nodes' outputs, of a graph and those within.
pub(crate) fn names(g: &Graph) -> HashSet<String> {
    let mut all = HashSet::new();
    gather(g, &mut all);
    all
}

fn gather(g: &Graph, all: &mut HashSet<String>) {
    all.extend(g.inputs.iter().chain(&g.outputs).map(|v| v.name.clone()));
    all.extend(g.initializers.iter().map(|t| t.name.clone()));
    all.extend(g.sparse.iter().filter_map(|s| Some(s.values.as_ref()?.name.clone())));
    for node in &g.nodes {
        all.extend(node.outputs.iter().cloned());
        node.graphs().for_each(|g| gather(g, all));
    }
}

/// Values that something uses.
pub(crate) fn used(g: &Graph, all: &mut HashSet<String>) {
    all.extend(g.outputs.iter().map(|o| o.name.clone()));
    for node in &g.nodes {
        all.extend(node.inputs.iter().cloned());
        node.graphs().for_each(|g| used(g, all));
    }
}

/// Values that are outputs of a graph, or used by graphs within its nodes.
pub(crate) fn used_within(g: &Graph, all: &mut HashSet<String>) {
    all.extend(g.outputs.iter().map(|o| o.name.clone()));
    g.nodes.iter().flat_map(Node::graphs).for_each(|g| used(g, all));
}

/// Takes away weights of these numbers that nothing uses any more, and the nodes that passed them on. `numbers` is told which
/// weights are left, by the numbers that they had; these change.
pub(crate) fn unused(
    program: &mut Program,
    slots: &HashSet<usize>,
    passing: &HashSet<String>,
    numbers: &mut dyn FnMut(&[usize]),
) {
    let training = !program.training.is_empty();
    loop {
        let mut kept = HashSet::new();
        used(&program.graph, &mut kept);
        let gone = |value: &String| passing.contains(value) && !kept.contains(value);
        let mut changed = false;
        graphs(&mut program.graph, &mut |g| {
            let before = g.nodes.len();
            g.nodes.retain(|n| !n.outputs.iter().all(gone) || n.outputs.is_empty());
            changed |= g.nodes.len() != before;
        });
        if changed {
            continue;
        }
        let mut names = HashSet::new();
        graphs(&mut program.graph, &mut |g| {
            let dead = |t: &crate::Tensor| {
                t.slot.is_some_and(|s| slots.contains(&s)) && !kept.contains(&t.name) && !training
            };
            let own: HashSet<String> =
                g.initializers.iter().filter(|t| dead(t)).map(|t| t.name.clone()).collect();
            g.initializers.retain(|t| !own.contains(&t.name));
            // What could be given in their place would go nowhere.
            g.inputs.retain(|i| !own.contains(&i.name));
            names.extend(own);
        });
        graphs(&mut program.graph, &mut |g| {
            let is_gone = |v: &String| names.contains(v) || gone(v);
            g.values.retain(|v| !is_gone(&v.name));
            g.annotations.retain(|a| !is_gone(&a.tensor));
        });
        break;
    }
    let mut left = Vec::new();
    program.tensors(|_, _, t| left.extend(t.slot));
    numbers(&left);
    program.retain_weights(|_| true);
}

/// Calls `each` for a graph and those within.
fn graphs(g: &mut Graph, each: &mut dyn FnMut(&mut Graph)) {
    each(g);
    for node in &mut g.nodes {
        node.graphs_mut().for_each(|inner| graphs(inner, each));
    }
}

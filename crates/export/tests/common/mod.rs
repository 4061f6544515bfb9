//! What every graph must be, whatever it computes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashSet;
use tensormill_graph::{Dim, Elem, Program};

/// Fails unless the graph is one that can be run, and everything in it is used: values, weights, each of them once.
pub fn well_formed(program: &Program, opset: i64) {
    assert_eq!(program.opset(""), Some(opset));
    crate::typed::typed(program);
    let graph = &program.graph;
    assert!(!graph.name.is_empty());
    let given = graph.inputs.iter().map(|v| &v.name).chain(graph.initializers.iter().map(|t| &t.name));
    let given: HashSet<&str> = given.map(String::as_str).collect();
    let made = graph.nodes.iter().flat_map(|n| &n.outputs).map(String::as_str).filter(|v| !v.is_empty());
    let read = graph.nodes.iter().flat_map(|n| &n.inputs).chain(graph.outputs.iter().map(|o| &o.name));
    let read: HashSet<&str> = read.map(String::as_str).collect();
    let idle: Vec<&str> = made.chain(given.iter().copied()).filter(|v| !read.contains(v)).collect();
    assert!(idle.is_empty(), "nothing uses {idle:?}");
    for output in &graph.outputs {
        assert!(!given.contains(output.name.as_str()), "{} is not computed", output.name);
    }
    let names: HashSet<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(names.len(), graph.nodes.len(), "each node has a name of its own");
    for tensor in &graph.initializers {
        assert!(tensor.slot.is_some() || tensor.bytes().is_some(), "{} has no elements", tensor.name);
    }
    let mut slots: Vec<usize> = graph.initializers.iter().filter_map(|t| t.slot).collect();
    slots.sort_unstable();
    assert!(slots.into_iter().eq(0..program.weights.len()), "every weight is one initializer");
    let tensors: HashSet<&str> = program.weights.iter().map(|w| w.tensor.as_str()).collect();
    assert_eq!(tensors.len(), program.weights.len(), "every tensor is one weight");
}

/// Names, types and dimensions of inputs, then of outputs.
pub fn signature(program: &Program) -> Vec<String> {
    let graph = &program.graph;
    let text = |v: &tensormill_graph::ValueInfo| {
        let dims: Vec<String> = v.dims().expect("has dimensions").iter().map(dim).collect();
        format!("{} {} [{}]", v.name, v.elem().unwrap_or(Elem::UNDEFINED), dims.join(", "))
    };
    graph.inputs.iter().chain(&graph.outputs).map(text).collect()
}

fn dim(d: &Dim) -> String {
    match d {
        Dim::Known(n) => n.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Unknown => "?".to_owned(),
    }
}

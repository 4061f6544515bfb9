//! What every graph must be, whatever it computes.

use std::collections::{HashMap, HashSet};
use tensormill_graph::{Dim, Elem, Program};

/// Operators that graphs of encoders may have, and the version with which they came.
const OPERATORS: &[(&str, i64)] = &[
    ("Add", 7),
    ("ArgMax", 13),
    ("Cast", 13),
    ("Clip", 13),
    ("Concat", 13),
    ("Conv", 11),
    ("CumSum", 14),
    ("Div", 14),
    ("Equal", 13),
    ("Erf", 13),
    ("Expand", 13),
    ("Gather", 13),
    ("GatherND", 13),
    ("Gelu", 20),
    ("HardSwish", 14),
    ("LayerNormalization", 17),
    ("LeakyRelu", 6),
    ("MatMul", 13),
    ("Max", 13),
    ("Mish", 18),
    ("Mul", 14),
    ("Not", 1),
    ("Pow", 13),
    ("Range", 11),
    ("ReduceMax", 13),
    ("ReduceMean", 13),
    ("ReduceSum", 13),
    ("Relu", 14),
    ("Reshape", 14),
    ("Shape", 13),
    ("Sigmoid", 13),
    ("Slice", 13),
    ("Softmax", 13),
    ("Softplus", 1),
    ("Sqrt", 13),
    ("Sub", 14),
    ("Tanh", 13),
    ("Transpose", 13),
    ("Unsqueeze", 13),
    ("Where", 9),
];

/// Fails unless every value is made once, before it is used, and is used; and all weights are initializers.
pub fn well_formed(program: &Program, opset: i64) {
    crate::typed::typed(program);
    let graph = &program.graph;
    assert_eq!(program.opset(""), Some(opset));
    assert!(!graph.name.is_empty());
    let mut made: HashSet<&str> = HashSet::new();
    let mut slots = vec![0; program.weights.len()];
    for input in &graph.inputs {
        assert!(made.insert(&input.name), "{} is made twice", input.name);
    }
    for tensor in &graph.initializers {
        assert!(made.insert(&tensor.name), "{} is made twice", tensor.name);
        match tensor.slot {
            Some(slot) => slots[slot] += 1,
            None => assert!(tensor.bytes().is_some(), "{} has no elements", tensor.name),
        }
    }
    assert!(slots.iter().all(|n| *n == 1), "each weight is one initializer");
    let names: HashSet<&str> = program.weights.iter().map(|w| w.tensor.as_str()).collect();
    assert_eq!(names.len(), program.weights.len(), "each tensor is one weight");
    let given = made.clone();
    let known: HashMap<&str, i64> = OPERATORS.iter().copied().collect();
    let mut used: HashSet<&str> = HashSet::new();
    let mut nodes = HashSet::new();
    for node in &graph.nodes {
        assert!(node.domain.is_empty(), "{} is of another domain", node.name);
        let since = known.get(node.op.as_str()).unwrap_or_else(|| panic!("{} is not expected", node.op));
        assert!(*since <= opset, "{} came with opset {since}, and this is {opset}", node.op);
        if node.op == "ReduceMean" || node.op == "ReduceMax" {
            assert_eq!(node.inputs.len(), if opset >= 18 { 2 } else { 1 }, "axes of {}", node.name);
            assert_eq!(node.attribute("axes").is_none(), opset >= 18, "axes of {}", node.name);
        }
        assert!(nodes.insert(&node.name), "{} is the name of two nodes", node.name);
        for value in &node.inputs {
            assert!(made.contains(value.as_str()), "{} uses {value} before it is made", node.name);
            used.insert(value);
        }
        for value in &node.outputs {
            assert!(made.insert(value), "{value} is made twice");
        }
    }
    for output in &graph.outputs {
        assert!(made.contains(output.name.as_str()), "nothing makes {}", output.name);
        assert!(!given.contains(output.name.as_str()), "{} is not computed", output.name);
        used.insert(&output.name);
    }
    let idle: Vec<_> = made.difference(&used).collect();
    assert!(idle.is_empty(), "nothing uses {idle:?}");
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

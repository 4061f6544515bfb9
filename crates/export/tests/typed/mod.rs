//! Whether all values of a graph have types and dimensions.

use std::collections::HashSet;
use tensormill_graph::{Dim, Elem, Program};

/// Values whose dimensions depend on what the graph is given, or on all of it: what `GroupQueryAttention` keeps, and
/// positions of all texts one behind the other.
const OPEN: [&str; 3] = ["GroupQueryAttention_output_", "lm_head/Reshape_output_", "lm_head/Gemm_output_"];

/// Fails unless the graph is a program and says the element type and the dimensions of every value.
pub fn typed(program: &Program) {
    program.check().unwrap_or_else(|e| panic!("{e}"));
    let graph = &program.graph;
    let values = graph.nodes.iter().flat_map(|n| &n.outputs).filter(|v| !v.is_empty());
    let mut declared = HashSet::new();
    for v in graph.values.iter().chain(&graph.outputs) {
        assert!(declared.insert(v.name.as_str()), "{} is declared twice", v.name);
        assert!(v.elem().is_some_and(|e| e != Elem::UNDEFINED), "{} has no type", v.name);
        let dims = v.dims().unwrap_or_else(|| panic!("{} has no rank", v.name));
        let open = OPEN.iter().any(|o| v.name.contains(o));
        assert!(open || !dims.contains(&Dim::Unknown), "{} is {dims:?}", v.name);
    }
    for value in values {
        assert!(declared.remove(value.as_str()), "{value} is not declared");
    }
    assert!(declared.is_empty(), "{declared:?} are declared and not there");
}

//! Element types of values, found from what goes in: enough to tell real numbers from integers and truth values.

use crate::{Attribute, Content, Elem, Graph, Node};
use std::collections::HashMap;

/// Element types by the value's name.
pub(crate) type Types = HashMap<String, Elem>;

/// Types of all values of a graph, its own and those of `outer` that it may use. Values whose type cannot be told are absent.
pub(crate) fn of_graph(graph: &Graph, outer: &Types) -> Types {
    let mut types = outer.clone();
    for info in graph.values.iter().chain(&graph.outputs).chain(&graph.inputs) {
        if let Some(elem) = info.elem().filter(|e| *e != Elem::UNDEFINED) {
            types.insert(info.name.clone(), elem);
        }
    }
    for t in &graph.initializers {
        types.insert(t.name.clone(), t.elem);
    }
    for t in graph.sparse.iter().filter_map(|s| s.values.as_ref()) {
        types.insert(t.name.clone(), t.elem);
    }
    for node in &graph.nodes {
        of_node(node, &mut types);
    }
    types
}

/// Adds the types of a node's outputs.
fn of_node(node: &Node, types: &mut Types) {
    let input = |i: usize| node.inputs.get(i).and_then(|v| types.get(v)).copied();
    let code = |name: &str| node.int(name).map(|n| Elem(n as i32));
    let mut all = Vec::new();
    match node.op.as_str() {
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "StringSplit" => all.push(Some(Elem::I64)),
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not"
        | "IsNaN" | "IsInf" | "StringNormalizer" => all.push(Some(Elem::BOOL)),
        "Cast" => all.push(code("to")),
        "CastLike" | "DequantizeLinear" => all.push(input(1)),
        "Where" => all.push(input(1).or_else(|| input(2))),
        "Constant" => all.push(constant(node)),
        "ConstantOfShape" => {
            all.push(Some(node.attribute("value").and_then(|a| a.t.as_ref()).map_or(Elem::F32, |t| t.elem)));
        }
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" => {
            all.push(code("dtype").or_else(|| input(0)));
        }
        "RandomNormal" | "RandomUniform" | "HannWindow" | "HammingWindow" | "BlackmanWindow" => {
            all.push(code("dtype").or(Some(Elem::F32)));
        }
        "Multinomial" => all.push(code("dtype").or(Some(Elem::I32))),
        "QuantizeLinear" => all.push(input(2).or(Some(Elem::U8))),
        "DynamicQuantizeLinear" => all.extend([Some(Elem::U8), Some(Elem::F32), Some(Elem::U8)]),
        "MatMulInteger" | "ConvInteger" => all.push(Some(Elem::I32)),
        "OneHot" => all.push(input(2)),
        "TopK" => all.extend([input(0), Some(Elem::I64)]),
        "Unique" => all.extend([input(0), Some(Elem::I64), Some(Elem::I64), Some(Elem::I64)]),
        "If" | "Loop" | "Scan" => all.extend(of_bodies(node, types)),
        // What a body has is the first's type: elements of one sequence, results of one operation.
        _ => {
            let first = input(0).or_else(|| input(1));
            all.extend(std::iter::repeat_n(first, node.outputs.len()));
        }
    }
    for (name, elem) in node.outputs.iter().zip(all) {
        if let Some(elem) = elem
            && !name.is_empty()
        {
            types.entry(name.clone()).or_insert(elem);
        }
    }
}

fn constant(node: &Node) -> Option<Elem> {
    let a: &Attribute = node.attributes.first()?;
    Some(match a.name.as_str() {
        "value" => a.t.as_ref()?.elem,
        "sparse_value" => a.sparse.as_ref()?.values.as_ref()?.elem,
        "value_float" | "value_floats" => Elem::F32,
        "value_int" | "value_ints" => Elem::I64,
        "value_string" | "value_strings" => Elem::STRING,
        _ => return None,
    })
}

/// Outputs of a node with graphs in it.
fn of_bodies(node: &Node, types: &Types) -> Vec<Option<Elem>> {
    let Some(body) = node.attributes.iter().find_map(|a| a.g.as_ref()) else { return Vec::new() };
    let inner = of_graph(body, types);
    // The first output of a loop's body says whether to go on.
    let skip = usize::from(node.op == "Loop");
    body.outputs.iter().skip(skip).map(|o| inner.get(&o.name).copied()).collect()
}

/// Numbers of a float tensor that is known.
pub(crate) fn floats(elem: Elem, content: &Content) -> Option<Vec<f32>> {
    let (Content::Raw(bytes), Some(dtype)) = (content, elem.dtype()) else { return None };
    let mut out = vec![0f32; bytes.len() / (dtype.bits() / 8) as usize];
    (elem.is_float() && tensormill_tensor::decode_plain(dtype, bytes, &mut out)).then_some(out)
}

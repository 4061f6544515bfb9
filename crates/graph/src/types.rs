//! Element types of values, found from what goes in: by the operator's schema, and by what a node says itself.

use crate::{
    Attribute, Content, Elem, Graph, Node, Opset,
    fault::Fault,
    schema::{self, Formal, Many, Operator, formal},
};
use std::collections::HashMap;

/// Element types by the value's name.
pub(crate) type Types = HashMap<String, Elem>;

/// Types of all values of a graph, its own and those of `outer` that it may use. Values whose type cannot be told are absent;
/// nothing is an error.
pub(crate) fn of_graph(graph: &Graph, outer: &Types, opsets: &[Opset]) -> Types {
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
        let input = |i: usize| types.get(node.inputs.get(i)?).copied();
        let elems: Vec<_> = match node.op.as_str() {
            "If" | "Loop" | "Scan" => of_bodies(node, &types, opsets),
            _ => {
                // Operators that are not known mostly give what they take.
                let first = input(0).or_else(|| input(1));
                let found = outputs(node, schema::of_node(node, opsets), &input);
                found.into_iter().map(|e| e.or(first)).collect()
            }
        };
        for (name, elem) in node.outputs.iter().zip(elems) {
            if let Some(elem) = elem
                && !name.is_empty()
            {
                types.entry(name.clone()).or_insert(elem);
            }
        }
    }
    types
}

/// Outputs of a node with graphs in it.
fn of_bodies(node: &Node, types: &Types, opsets: &[Opset]) -> Vec<Option<Elem>> {
    let Some(body) = node.attributes.iter().find_map(|a| a.g.as_ref()) else { return Vec::new() };
    let inner = of_graph(body, types, opsets);
    // The first output of a loop's body says whether to go on.
    let skip = usize::from(node.op == "Loop");
    body.outputs.iter().skip(skip).map(|o| inner.get(&o.name).copied()).collect()
}

/// Types of a node's outputs, `None` for those that cannot be told.
pub(crate) fn outputs(
    node: &Node,
    operator: Option<&Operator>,
    input: &dyn Fn(usize) -> Option<Elem>,
) -> Vec<Option<Elem>> {
    let said = said(node, input);
    let by_schema = |i: usize| {
        let formal = formal(&operator?.outputs, i)?;
        formal.only().or_else(|| {
            let of = |f: &Formal| !formal.variable.is_empty() && f.variable == formal.variable;
            let alike = |f: &Formal| !matches!(f.many, Many::Rest { alike: false, .. });
            let inputs = &operator?.inputs;
            let mut places = (0..node.inputs.len()).filter(|n| self::formal(inputs, *n).is_some_and(of));
            if alike(formal) { places.find_map(input) } else { None }
        })
    };
    (0..node.outputs.len()).map(|i| said.filter(|_| i == 0).or_else(|| by_schema(i))).collect()
}

/// The type of the first output, where the node says it itself.
fn said(node: &Node, input: &dyn Fn(usize) -> Option<Elem>) -> Option<Elem> {
    let code = |name: &str| node.int(name).map(|n| Elem(n as i32)).filter(|e| *e != Elem::UNDEFINED);
    match node.op.as_str() {
        "Cast" | "BitCast" => code("to"),
        "Constant" => constant(node),
        "ConstantOfShape" => {
            Some(node.attribute("value").and_then(|a| a.t.as_ref()).map_or(Elem::F32, |t| t.elem))
        }
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" => {
            code("dtype").or_else(|| input(0))
        }
        "RandomNormal" | "RandomUniform" => code("dtype").or(Some(Elem::F32)),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => code("output_datatype").or(Some(Elem::F32)),
        "Multinomial" => code("dtype").or(Some(Elem::I32)),
        "QuantizeLinear" => input(2).or_else(|| code("output_dtype")).or(Some(Elem::U8)),
        "DequantizeLinear" => code("output_dtype").or_else(|| input(1)),
        _ => None,
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

/// Refuses types that the operator does not take or give.
pub(crate) fn fits(
    node: &Node,
    operator: &Operator,
    input: &dyn Fn(usize) -> Option<Elem>,
) -> Result<(), Fault> {
    let takes =
        |formals: &[Formal], i: usize, value: &str, elem: Option<Elem>| match (formal(formals, i), elem) {
            (Some(f), Some(elem)) if !f.takes(elem) => {
                Err(Fault::ElementType { value: value.to_owned(), elem })
            }
            _ => Ok(()),
        };
    let mut bound: HashMap<&str, (usize, Elem)> = HashMap::new();
    for (i, name) in node.inputs.iter().enumerate() {
        takes(&operator.inputs, i, name, input(i))?;
        let Some((f, elem)) = formal(&operator.inputs, i).zip(input(i)) else { continue };
        if f.variable.is_empty() || matches!(f.many, Many::Rest { alike: false, .. }) {
            continue;
        }
        let (first, other) = *bound.entry(f.variable).or_insert((i, elem));
        if other != elem {
            return Err(Fault::Contradiction(format!(
                "{:?} is {other} and {name:?} is {elem}; the operator takes them of one type",
                node.inputs[first]
            )));
        }
    }
    let found = outputs(node, Some(operator), input);
    node.outputs.iter().enumerate().try_for_each(|(i, name)| takes(&operator.outputs, i, name, found[i]))
}

/// Numbers of a float tensor that is known.
pub(crate) fn floats(elem: Elem, content: &Content) -> Option<Vec<f32>> {
    let (Content::Raw(bytes), Some(dtype)) = (content, elem.dtype()) else { return None };
    let mut out = vec![0f32; bytes.len() / (dtype.bits() / 8) as usize];
    (elem.is_float() && tensormill_tensor::decode_plain(dtype, bytes, &mut out)).then_some(out)
}

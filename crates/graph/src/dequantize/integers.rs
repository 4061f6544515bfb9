//! The nodes around `MatMulInteger`: what is multiplied was quantized when the graph ran, or is rows of a quantized table.

use super::{
    Found, Work,
    constants::Constants,
    operators::{columns, gather, rows},
};
use crate::{Elem, Graph, Node, builder::MICROSOFT, prune};
use std::collections::{HashMap, HashSet};

/// What a product's first operand was before it was quantized.
#[derive(Clone, Debug)]
enum Operand {
    /// A value of the graph.
    Value(String),
    /// Rows of a table, which this value has as codes.
    Rows { table: Box<Found>, indices: String, value: String },
}

/// A product that is found.
#[derive(Clone, Debug)]
pub(super) struct Product {
    operand: Operand,
    weight: Found,
    bias: Option<String>,
    /// The product's node, for its name and what is said of it.
    node: Node,
    /// Values that it took: whatever gave them goes where nothing else wants them.
    took: Vec<String>,
}

/// Products by the number of the node that gives the result.
#[derive(Default)]
pub(super) struct Patterns {
    pub(super) products: HashMap<usize, Product>,
    /// Nodes that are part of one.
    pub(super) gone: HashSet<usize>,
}

/// Looks for products in a graph.
pub(super) fn find(g: &Graph, constants: &Constants<'_>) -> Patterns {
    let mut patterns = Patterns::default();
    let mut makers: HashMap<&str, usize> = HashMap::new();
    let mut users: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, node) in g.nodes.iter().enumerate() {
        makers.extend(node.outputs.iter().filter(|o| !o.is_empty()).map(|o| (o.as_str(), i)));
        for v in &node.inputs {
            users.entry(v).or_default().push(i);
        }
    }
    let mut elsewhere = HashSet::new();
    prune::used_within(g, &mut elsewhere);
    let maker = |v: &str| makers.get(v).map(|i| &g.nodes[*i]);
    // The only node that uses a value.
    let user = |v: &str| match users.get(v).map(Vec::as_slice) {
        Some([one]) if !elsewhere.contains(v) => Some(*one),
        _ => None,
    };
    for (i, node) in g.nodes.iter().enumerate() {
        let input = |n: usize| node.inputs.get(n).filter(|v| !v.is_empty());
        let known = |n| constants.input(node, n);
        let before = |x: &str, scale: &str, zero: Option<&String>| match maker(x) {
            Some(d) if d.is("DynamicQuantizeLinear") => {
                let fits = d.outputs.first().is_some_and(|o| o == x)
                    && d.outputs.get(1).is_some_and(|o| o == scale)
                    && d.outputs.get(2) == zero;
                fits.then(|| Operand::Value(d.inputs.first().cloned().unwrap_or_default()))
            }
            _ => {
                let gathered = constants.gathered(x)?;
                let zero = match zero {
                    Some(z) => Some(constants.get(z)?.clone()),
                    None => None,
                };
                let table =
                    rows(constants.get(&gathered.codes)?.clone(), constants.get(scale)?.clone(), zero)?;
                Some(Operand::Rows {
                    table: Box::new(table),
                    indices: gathered.indices.clone(),
                    value: x.to_owned(),
                })
            }
        };
        if node.domain == MICROSOFT && node.op == "MatMulIntegerToFloat" {
            let found = || {
                let operand = before(input(0)?, input(2)?, input(4))?;
                let zero = constants.zero_points(node, 5).ok()?;
                let weight = columns(known(1)?, known(3)?, zero, Elem::F32)?;
                let (bias, took) = (input(6).cloned(), node.inputs.clone());
                Some(Product { operand, weight, bias, node: node.clone(), took })
            };
            patterns.products.extend(found().map(|p| (i, p)));
        }
        if !node.is("MatMulInteger") {
            continue;
        }
        let found = || {
            let cast = user(node.outputs.first()?)?;
            let to = g.nodes[cast].is("Cast").then(|| g.nodes[cast].int("to"))??;
            let result = user(g.nodes[cast].outputs.first()?)?;
            let factors = &g.nodes[result];
            if !factors.is("Mul") || to != i64::from(Elem::F32.0) {
                return None;
            }
            let both = factors.inputs.iter().find(|v| **v != g.nodes[cast].outputs[0])?;
            let both = maker(both).filter(|m| m.is("Mul"))?;
            let [a, b] = both.inputs.as_slice() else { return None };
            let weight = |scale: &str| constants.get(scale).cloned();
            let (operand, scales) = before(input(0)?, a, input(2))
                .zip(weight(b))
                .or_else(|| before(input(0)?, b, input(2)).zip(weight(a)))?;
            let zero = constants.zero_points(node, 3).ok()?;
            let weight = columns(known(1)?, scales, zero, Elem::F32)?;
            let took = [&node.inputs, &both.inputs, &both.outputs].into_iter().flatten().cloned().collect();
            Some((cast, result, Product { operand, weight, bias: None, node: node.clone(), took }))
        };
        if let Some((cast, result, product)) = found() {
            patterns.gone.extend([i, cast]);
            patterns.products.insert(result, product);
        }
    }
    patterns
}

impl Work {
    /// The product in floats, in place of `node`, which gave it.
    pub(super) fn integers(&mut self, p: &Product, node: &Node, depth: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        let x = match &p.operand {
            Operand::Value(x) => x.clone(),
            Operand::Rows { table, indices, value } => {
                let key = (value.clone(), depth.to_string(), false);
                if let Some(x) = self.made.get(&key) {
                    x.clone()
                } else {
                    let x = self.fresh(value.strip_suffix("_quantized").unwrap_or(value));
                    let table = self.value((**table).clone());
                    nodes.push(gather(table, indices, &x));
                    self.made.insert(key, x.clone());
                    x
                }
            }
        };
        let weight = self.value(p.weight.clone());
        self.passing.extend(p.took.iter().cloned());
        if p.node.name.contains("Gemm") {
            self.notes.push(format!(
                "{weight} is laid out as the graph has it: quantize_dynamic turns what Gemm took transposed and keeps the name"
            ));
        }
        let old = Node { outputs: node.outputs.clone(), ..p.node.clone() };
        nodes.extend(self.product(&old, &x, weight, p.bias.as_ref()));
        nodes
    }
}

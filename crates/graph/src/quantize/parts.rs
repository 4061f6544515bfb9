//! New initializers, nodes and names.

use super::{
    Kind, Rewrite,
    find::{Held, Use},
};
use crate::{
    Attribute, Coding, Elem, Node, Order, Part, QuantizedWeight, Tensor, Weight, Zero, ir, walk::fresh,
};
use std::collections::HashMap;

/// Names of the initializers that hold a quantized weight.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) codes: String,
    pub(super) scales: String,
    pub(super) zero_points: Option<String>,
}

impl Parts {
    /// All, as operators take them.
    pub(super) fn inputs(&self) -> impl Iterator<Item = String> {
        [self.codes.clone(), self.scales.clone()].into_iter().chain(self.zero_points.clone())
    }
}

/// What was made: by the weight's number, whether the model's tensor has to be turned, how it is coded, and the type of its
/// scales.
pub(super) type Made = HashMap<(usize, bool, Coding, Elem), Parts>;

/// What parts are called.
#[derive(Clone, Copy)]
pub(super) enum Naming {
    /// `_Q4`, `_scales`, `_zero_points`.
    Blocks,
    /// `_DQ_Q4` and so on.
    Linear,
    /// `_quantized`, `_scale`, `_zero_point`.
    Dynamic,
}

impl Rewrite<'_> {
    /// The initializers of a quantized weight. `codes` are the dimensions of its codes, where they are others than usual.
    pub(super) fn parts(
        &mut self,
        held: &Held,
        u: Use,
        coding: Coding,
        naming: Naming,
        codes: Option<&[i64]>,
    ) -> Parts {
        let whole = &self.list[held.slot];
        let transposed = (whole.transposed != held.turned) != u.turned;
        let key = (held.slot, transposed, coding, held.elem);
        if let Some(parts) = self.made.get(&key) {
            return parts.clone();
        }
        let matrix = held.dims.len() == 2;
        let dims = if matrix { whole.dims.clone() } else { Some(vec![coding.rows, coding.columns]) };
        let weight = Weight { transposed, dims, ..Weight::plain(whole.tensor.clone()) };
        // What becomes an operand must not read as the parameter that it was before it was turned.
        let turns = u.turned == held.turned && !self.is(held, &[Kind::Embedding, Kind::Conv]);
        let operand = !matches!(naming, Naming::Linear) || coding.order == Order::Columns;
        let base = if held.name.contains('.') && turns && operand {
            ir::operand(&held.name)
        } else {
            held.name.clone()
        };
        let mut one = |part: Part| {
            let quantized = QuantizedWeight { part, coding };
            let suffix = match (naming, part) {
                (Naming::Blocks, _) => quantized.suffix(),
                (Naming::Linear, _) => format!("_DQ{}", quantized.suffix()),
                (Naming::Dynamic, Part::Codes) => "_quantized".to_owned(),
                (Naming::Dynamic, Part::Scales) => "_scale".to_owned(),
                (Naming::Dynamic, Part::ZeroPoints) => "_zero_point".to_owned(),
            };
            let name = self.fresh(&format!("{base}{suffix}"));
            let (elem, dims) = coding.form(part, held.elem);
            let dims = codes.filter(|_| part == Part::Codes).map_or(dims, <[_]>::to_vec);
            let slot = Some(self.list.len());
            // Codes and zero points are what operators want; scales are floats like others.
            let keep_type = part != Part::Scales;
            self.list.push(Weight { keep_type, part: Some(quantized), ..weight.clone() });
            self.initializers
                .push((held.depth, Tensor { name: name.clone(), elem, dims, slot, ..Tensor::default() }));
            name
        };
        let parts = Parts {
            codes: one(Part::Codes),
            scales: one(Part::Scales),
            zero_points: (coding.zero == Zero::Point).then(|| one(Part::ZeroPoints)),
        };
        self.made.insert(key, parts.clone());
        parts
    }

    /// A name that nothing has, and now this value.
    pub(super) fn fresh(&mut self, base: &str) -> String {
        fresh(&mut self.taken, base)
    }

    /// The value that a node of one output gives, which depends on initializers of `held`'s graph alone. Asked for again, it
    /// is the same.
    pub(super) fn helper(&mut self, held: &Held, node: Node, value: &str) -> String {
        let key = format!("{}({}){value}", node.op, node.inputs.join(","));
        if let Some(value) = self.values.get(&key) {
            return value.clone();
        }
        let value = self.fresh(value);
        self.helpers.push((held.depth, Node { outputs: vec![value.clone()], ..node }));
        self.values.insert(key, value.clone());
        value
    }

    /// The transpose of a value that depends on initializers alone.
    pub(super) fn turned(&mut self, held: &Held, value: &str) -> String {
        let mut node = Node::new("Transpose", &format!("{value}_Transpose"), [value.to_owned()], []);
        node.attributes.push(Attribute::ints("perm", &[1, 0]));
        self.helper(held, node, &format!("{value}_transposed"))
    }

    /// A list of integers that nodes of `held`'s graph can take.
    pub(super) fn ints(&mut self, held: &Held, name: &str, values: &[i64]) -> String {
        let name = self.fresh(name);
        let tensor = Tensor::ints(name.clone(), &[values.len() as i64], values);
        self.initializers.push((held.depth, tensor));
        name
    }

    /// The product of a `Gemm`, under a name of its own where a bias comes after it, and the node that adds the bias.
    pub(super) fn bias(&mut self, gemm: &Node) -> (String, String, Option<Node>) {
        let out = gemm.outputs.first().cloned().unwrap_or_default();
        let bias = gemm.inputs.get(2).filter(|c| gemm.is("Gemm") && !c.is_empty());
        let Some(bias) = bias else { return (gemm.name.clone(), out, None) };
        let product = self.fresh(&format!("{out}_MatMul"));
        let add = Node::new("Add", &behind(&gemm.name, "_Add"), [product.clone(), bias.clone()], [out]);
        (behind(&gemm.name, "_MatMul"), product, Some(add))
    }
}

/// A node's name with something behind it, where it has one.
pub(super) fn behind(name: &str, suffix: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}{suffix}") }
}

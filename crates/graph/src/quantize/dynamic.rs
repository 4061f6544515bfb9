//! Products of integers: what is multiplied is quantized when the graph runs.

use super::{
    Activations, Kind, Rewrite,
    find::{Held, Use},
    linear::Linear,
    parts::{Naming, behind},
};
use crate::{Attribute, Elem, Group, Node, Order};

impl Rewrite<'_> {
    pub(super) fn dynamic(
        &mut self,
        old: &Node,
        u: Use,
        held: &Held,
        how: &Linear,
        activations: &mut Activations,
    ) -> Result<Vec<Node>, String> {
        if u.kind == Kind::Conv {
            return Err("convolutions are not quantized dynamically".to_owned());
        }
        if held.elem != Elem::F32 {
            return Err(format!("DynamicQuantizeLinear takes f32, and the graph computes in {}", held.elem));
        }
        let table = self.is(held, &[Kind::Embedding]);
        // Gathered rows have one scale; so has the operand that the same codes are.
        let group = if table { Group::Tensor } else { how.group };
        let order = if table { Order::Rows } else { Order::Columns };
        let coding = how.coding(u, group, order);
        let parts = self.parts(held, u, coding, Naming::Dynamic, None);
        if u.kind == Kind::Embedding {
            return Ok(self.gathered(old, &parts, coding));
        }
        let mut nodes = Vec::new();
        let [x, x_scale, x_zero] = self.activation(&old.inputs[0], activations, &mut nodes);
        // MatMulInteger wants columns, whatever the old node was.
        let codes = if order == Order::Rows { self.turned(held, &parts.codes) } else { parts.codes.clone() };
        let (name, out, add) = self.bias(old);
        let [product, cast, scales] = ["_output_quantized", "_output_quantized_cast_output", "_scales_mul"]
            .map(|suffix| self.fresh(&format!("{out}{suffix}")));
        let mut inputs = vec![x, codes, x_zero];
        inputs.extend(parts.zero_points.clone());
        let mut multiply = Node::new("MatMulInteger", &behind(&name, "_quant"), inputs, [product.clone()]);
        (multiply.doc, multiply.metadata) = (old.doc.clone(), old.metadata.clone());
        nodes.push(multiply);
        let mut float = Node::new("Cast", &format!("{product}_cast"), [product], [cast.clone()]);
        float.attributes.push(Attribute::int("to", Elem::F32.0.into()));
        nodes.push(float);
        let both = [x_scale, parts.scales.clone()];
        nodes.push(Node::new("Mul", &behind(&name, "_quant_scales_mul"), both, [scales.clone()]));
        nodes.push(Node::new("Mul", &behind(&name, "_quant_output_scale_mul"), [cast, scales], [out]));
        nodes.extend(add);
        Ok(nodes)
    }

    /// A value as integers, their scale and zero point: made once in a graph, by a node before the first that wants them.
    fn activation(&mut self, value: &str, known: &mut Activations, nodes: &mut Vec<Node>) -> [String; 3] {
        if let Some(made) = known.get(value) {
            return made.clone();
        }
        let made = ["_quantized", "_scale", "_zero_point"].map(|s| self.fresh(&format!("{value}{s}")));
        let name = format!("{value}_QuantizeLinear");
        nodes.push(Node::new("DynamicQuantizeLinear", &name, [value.to_owned()], made.clone()));
        known.insert(value.to_owned(), made.clone());
        made
    }
}

//! `DequantizeLinear` before operators that stay as they are.

use super::{
    Kind, Rewrite,
    find::{Held, Use},
    parts::{Naming, Parts, behind},
};
use crate::{Attribute, Code, Coding, Elem, Group, Node, Order, Zero};

/// How.
pub(super) struct Linear {
    pub(super) elem: Elem,
    pub(super) group: Group,
    pub(super) zero_points: bool,
}

impl Linear {
    pub(super) fn coding(&self, u: Use, group: Group, order: Order) -> Coding {
        Coding {
            rows: u.rows,
            columns: u.columns,
            code: Code::Elem(self.elem),
            group,
            zero: if self.zero_points { Zero::Point } else { Zero::None },
            order,
        }
    }
    /// Whether codes can be gathered: `Gather` takes no elements below a byte. With zero points for every row, ONNX Runtime
    /// takes what is dequantized after it for an activation, whose zero point must be one, and refuses to run.
    fn gathers(&self, opset: i64) -> bool {
        let blocked = opset >= BLOCKED && !self.zero_points;
        matches!(self.elem, Elem::I8 | Elem::U8) && (self.group == Group::Tensor || blocked)
    }
}

/// Version of `DequantizeLinear` since which scales may be as many as blocks.
const BLOCKED: i64 = 21;

impl Rewrite<'_> {
    pub(super) fn linear(
        &mut self,
        old: &Node,
        u: Use,
        held: &Held,
        how: &Linear,
    ) -> Result<Vec<Node>, String> {
        if u.kind == Kind::Conv && matches!(how.group, Group::Block(_)) {
            return Err("blocks of a convolution's kernels are no blocks along a dimension".to_owned());
        }
        let table = self.is(held, &[Kind::Embedding]);
        let mut group = how.group;
        if table && group == Group::Row && how.gathers(self.opset) {
            // As many scales for a row as blocks, which is one: so they can be gathered like the rows.
            group = Group::Block(u.columns);
        }
        // Where any node wants rows, codes are there in rows alone.
        let rows = !u.turned || table || self.is(held, &[Kind::Conv]);
        let order = if rows { Order::Rows } else { Order::Columns };
        let coding = how.coding(u, group, order);
        let codes = (held.dims.len() > 2).then_some(held.dims.as_slice());
        let parts = self.parts(held, u, coding, Naming::Linear, codes);
        if u.kind == Kind::Embedding && how.gathers(self.opset) {
            return Ok(self.gathered(old, &parts, coding));
        }
        let mut dequantize =
            Node::new("DequantizeLinear", &format!("{}_DequantizeLinear", parts.codes), parts.inputs(), []);
        let along = |rows: i64| if order == Order::Rows { rows } else { 1 - rows };
        dequantize.attributes = match group {
            Group::Tensor => Vec::new(),
            Group::Row => vec![Attribute::int("axis", along(0))],
            Group::Block(n) => {
                vec![Attribute::int("axis", along(1)), Attribute::int("block_size", n as i64)]
            }
        };
        let mut value = self.helper(held, dequantize, &format!("{}_output", parts.codes));
        if u.turned && rows {
            value = self.turned(held, &value);
        }
        let mut new = old.clone();
        new.inputs[u.input] = value;
        Ok(vec![new])
    }

    /// Rows of codes, dequantized after they are gathered: the whole table is never there as floats.
    pub(super) fn gathered(&mut self, old: &Node, parts: &Parts, coding: Coding) -> Vec<Node> {
        let out = old.outputs.first().cloned().unwrap_or_default();
        let codes = self.fresh(&format!("{out}_quantized"));
        let mut nodes = vec![Node { outputs: vec![codes.clone()], ..old.clone() }];
        nodes[0].inputs[0].clone_from(&parts.codes);
        let mut inputs = vec![codes];
        if coding.group == Group::Tensor {
            inputs.extend(parts.inputs().skip(1));
        } else {
            for (part, suffix) in parts.inputs().skip(1).zip(["_scales", "_zero_points"]) {
                let gathered = self.fresh(&format!("{out}{suffix}"));
                let name = behind(&old.name, suffix);
                let mut gather =
                    Node { name, outputs: vec![gathered.clone()], metadata: Vec::new(), ..old.clone() };
                gather.inputs[0] = part;
                nodes.push(gather);
                inputs.push(gathered);
            }
        }
        let mut dequantize =
            Node::new("DequantizeLinear", &behind(&old.name, "_DequantizeLinear"), inputs, [out]);
        if let Group::Block(n) = coding.group {
            dequantize.attributes = vec![Attribute::int("axis", -1), Attribute::int("block_size", n as i64)];
        }
        nodes.push(dequantize);
        nodes
    }
}

//! ONNX Runtime's operators for weights in blocks: `MatMulNBits`, `GatherBlockQuantized`.

use super::{
    Kind, Rewrite,
    find::{Held, Use},
    parts::{Naming, behind},
};
use crate::{Attribute, Code, Coding, Elem, Group, Node, Order, Zero, builder::MICROSOFT};

/// How.
pub(super) struct Blocks {
    pub(super) bits: u64,
    pub(super) block: u64,
    pub(super) zero_points: bool,
    pub(super) accuracy: Option<i64>,
}

impl Rewrite<'_> {
    pub(super) fn blocks(
        &mut self,
        old: &Node,
        u: Use,
        held: &Held,
        how: &Blocks,
    ) -> Result<Vec<Node>, String> {
        let coding = Coding {
            rows: u.rows,
            columns: u.columns,
            code: Code::Elem(Elem::unsigned(how.bits).unwrap_or(Elem::U8)),
            group: Group::Block(how.block),
            zero: if how.zero_points { Zero::Point } else { Zero::Middle },
            order: Order::Packed,
        };
        let made = match u.kind {
            Kind::Conv => return Err("ONNX Runtime has no convolution of weights in blocks".to_owned()),
            Kind::Embedding => self.table(old, u, held, how, coding)?,
            Kind::MatMul | Kind::Gemm => self.product(old, u, held, how, coding),
        };
        self.microsoft = true;
        Ok(made)
    }

    fn product(&mut self, old: &Node, u: Use, held: &Held, how: &Blocks, coding: Coding) -> Vec<Node> {
        let parts = self.parts(held, u, coding, Naming::Blocks, None);
        let (name, out, add) = self.bias(old);
        let mut inputs = vec![old.inputs[0].clone()];
        inputs.extend(parts.inputs());
        let mut new = Node::new("MatMulNBits", &behind(&name, &format!("_Q{}", how.bits)), inputs, [out]);
        new.attributes = [("K", u.columns), ("N", u.rows), ("bits", how.bits), ("block_size", how.block)]
            .map(|(name, n)| Attribute::int(name, n as i64))
            .to_vec();
        new.attributes.extend(how.accuracy.map(|n| Attribute::int("accuracy_level", n)));
        [Some(with(new, old)), add].into_iter().flatten().collect()
    }

    /// Rows of a table. Codes of a table that is an operand, too, are there once.
    fn table(
        &mut self,
        old: &Node,
        u: Use,
        held: &Held,
        how: &Blocks,
        coding: Coding,
    ) -> Result<Vec<Node>, String> {
        if !u.columns.is_multiple_of(how.block) {
            return Err(format!("its rows of {} are no whole blocks of {}", u.columns, how.block));
        }
        let flat = [u.rows, u.columns * how.bits / 8].map(|n| n as i64);
        let shared = self.is(held, &[Kind::MatMul, Kind::Gemm]);
        let mut parts = self.parts(held, u, coding, Naming::Blocks, (!shared).then_some(&flat));
        if shared {
            let shape = match self.values.get(&format!("shape of {}", parts.codes)) {
                Some(shape) => shape.clone(),
                None => self.ints(held, &format!("{}_shape", parts.codes), &flat),
            };
            self.values.insert(format!("shape of {}", parts.codes), shape.clone());
            let reshape =
                Node::new("Reshape", &format!("{}_Reshape", parts.codes), [parts.codes.clone(), shape], []);
            parts.codes = self.helper(held, reshape, &format!("{}_table", parts.codes));
        }
        let mut inputs: Vec<String> = parts.inputs().collect();
        inputs.insert(1, old.inputs[1].clone());
        let name = behind(&old.name, &format!("_Q{}", how.bits));
        let mut new = Node::new("GatherBlockQuantized", &name, inputs, old.outputs.clone());
        let attributes =
            [("bits", how.bits), ("block_size", how.block), ("gather_axis", 0), ("quantize_axis", 1)];
        new.attributes = attributes.map(|(name, n)| Attribute::int(name, n as i64)).to_vec();
        Ok(vec![with(new, old)])
    }
}

/// The node as one of ONNX Runtime's, with what is said about the old one.
fn with(new: Node, old: &Node) -> Node {
    Node { domain: MICROSOFT.to_owned(), doc: old.doc.clone(), metadata: old.metadata.clone(), ..new }
}

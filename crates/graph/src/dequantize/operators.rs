//! Operators that hold a quantized weight alone, one by one.

use super::{
    Found, Work,
    constants::{Constants, Known},
};
use crate::{Attribute, Code, Coding, Elem, Group, Node, Order, Zero, builder::MICROSOFT, schema};

/// What stands in a node's place.
pub(super) enum Made {
    /// The node.
    Same,
    Nodes(Vec<Node>),
    /// A weight: everything that used the node's output uses this value.
    Value(String),
}

impl Work {
    pub(super) fn operator(&mut self, node: &Node, constants: &Constants<'_>) -> Made {
        let microsoft = node.domain == MICROSOFT;
        let made = match (node.op.as_str(), microsoft) {
            ("MatMulNBits", true) => self.blocks(node, constants),
            ("GatherBlockQuantized", true) => self.table(node, constants),
            ("MatMulBnb4", true) => self.bnb4(node, constants),
            ("DynamicQuantizeMatMul", true) => self.fused(node, constants),
            ("DequantizeLinear", _) => return self.linear(node, constants),
            _ => return Made::Same,
        };
        made.map_or_else(
            |why| {
                self.notes.push(format!("{} {:?} stays as it is: {why}", node.op, node.name));
                Made::Same
            },
            Made::Nodes,
        )
    }

    /// `MatMulNBits`.
    fn blocks(&mut self, node: &Node, constants: &Constants<'_>) -> Result<Vec<Node>, &'static str> {
        let part = |i| constants.input(node, i);
        if node.inputs.get(4).is_some_and(|v| !v.is_empty()) {
            return Err("its groups are not in order (g_idx)");
        }
        if node.int("weight_prepacked").is_some_and(|n| n != 0) {
            return Err("its weights are packed for one device");
        }
        let (codes, scales) = part(1).zip(part(2)).ok_or("its weight is not known")?;
        let zero_points = constants.zero_points(node, 3)?;
        let code = unsigned(node.count("bits").unwrap_or(4))?;
        let (rows, columns) = node.count("N").zip(node.count("K")).ok_or("K and N are missing")?;
        let block = node.count("block_size").ok_or("its block size is missing")?;
        let zero = if zero_points.is_some() { Zero::Point } else { Zero::Middle };
        let elem = scales.tensor.elem;
        let coding = Coding {
            rows,
            columns,
            code: Code::Elem(code),
            group: Group::Block(block),
            zero,
            order: Order::Packed,
        };
        let found = Found { coding, codes, scales, zero_points, turned: true, elem, dims: None };
        let value = self.value(found);
        Ok(self.product(node, &node.inputs[0], value, node.inputs.get(5)))
    }

    /// `MatMul`, and `Add` where there is a bias.
    pub(super) fn product(
        &mut self,
        old: &Node,
        x: &str,
        weight: String,
        bias: Option<&String>,
    ) -> Vec<Node> {
        let out = old.outputs.first().cloned().unwrap_or_default();
        let name = plain_node(&old.name).to_owned();
        let new = Node::new("MatMul", &name, [x.to_owned(), weight], [out.clone()]);
        let mut new = Node { doc: old.doc.clone(), metadata: old.metadata.clone(), ..new };
        let Some(bias) = bias.filter(|b| !b.is_empty()) else { return vec![new] };
        let product = self.fresh(&format!("{out}_MatMul"));
        new.outputs = vec![product.clone()];
        let name = if name.is_empty() { name } else { format!("{name}_Add") };
        vec![new, Node::new("Add", &name, [product, bias.clone()], [out])]
    }

    /// `GatherBlockQuantized`.
    fn table(&mut self, node: &Node, constants: &Constants<'_>) -> Result<Vec<Node>, &'static str> {
        let part = |i| constants.input(node, i);
        let (codes, scales) = part(0).zip(part(2)).ok_or("its weight is not known")?;
        let zero_points = constants.zero_points(node, 3)?;
        let block = node.int("block_size").unwrap_or(128);
        let bits = u64::try_from(node.int("bits").unwrap_or(4)).unwrap_or_default();
        let last = |name: &str, usual: i64, wanted: &[i64]| wanted.contains(&node.int(name).unwrap_or(usual));
        let [rows, groups] = *whole(&scales.tensor.dims).as_slice() else { return Err("it is no table") };
        if codes.turned || !last("gather_axis", 0, &[0, -2]) || !last("quantize_axis", 1, &[1, -1]) {
            return Err("it is no table whose rows are in blocks");
        }
        let packed = codes.tensor.elem == Elem::U8;
        let numbers = if packed { 8 / bits.max(1) } else { 1 };
        let codes_of_all = codes.tensor.elements().and_then(|n| n.checked_mul(numbers)).unwrap_or_default();
        let columns = codes_of_all / rows.max(1);
        let block = u64::try_from(block).ok().filter(|b| *b > 0).unwrap_or(columns);
        if columns == 0 || rows * columns != codes_of_all || columns.div_ceil(block) != groups {
            return Err("scales do not fit its codes");
        }
        let elem = if packed { unsigned(bits)? } else { codes.tensor.elem };
        let zero = match (&zero_points, packed) {
            (Some(_), _) => Zero::Point,
            (None, true) => Zero::Middle,
            (None, false) => Zero::None,
        };
        let order = if packed { Order::Packed } else { Order::Rows };
        let coding =
            Coding { rows, columns, code: Code::Elem(elem), group: Group::Block(block), zero, order };
        let float = scales.tensor.elem;
        let found = Found { coding, codes, scales, zero_points, turned: false, elem: float, dims: None };
        let value = self.value(found);
        Ok(vec![Node {
            op: "Gather".to_owned(),
            domain: String::new(),
            name: plain_node(&node.name).to_owned(),
            inputs: vec![value, node.inputs[1].clone()],
            attributes: Vec::new(),
            ..node.clone()
        }])
    }

    /// `MatMulBnb4`.
    fn bnb4(&mut self, node: &Node, constants: &Constants<'_>) -> Result<Vec<Node>, &'static str> {
        let part = |i| constants.input(node, i);
        let (codes, scales) = part(1).zip(part(2)).ok_or("its weight is not known")?;
        let (rows, columns) = node.count("N").zip(node.count("K")).ok_or("K and N are missing")?;
        let block = node.count("block_size").ok_or("its block size is missing")?;
        let code = match node.int("quant_type") {
            Some(0) => Code::Fp4,
            Some(1) => Code::Nf4,
            _ => return Err("its quant_type is unknown"),
        };
        let group = Group::Block(block);
        let coding = Coding { rows, columns, code, group, zero: Zero::None, order: Order::Running };
        let turned = node.int("transB").unwrap_or(1) != 0;
        let elem = scales.tensor.elem;
        let value = self.value(Found { coding, codes, scales, zero_points: None, turned, elem, dims: None });
        Ok(self.product(node, &node.inputs[0], value, None))
    }

    /// `DynamicQuantizeMatMul`.
    fn fused(&mut self, node: &Node, constants: &Constants<'_>) -> Result<Vec<Node>, &'static str> {
        let part = |i| constants.input(node, i);
        let (codes, scales) = part(1).zip(part(2)).ok_or("its weight is not known")?;
        let zero_points = constants.zero_points(node, 3)?;
        let found =
            columns(codes, scales, zero_points, Elem::F32).ok_or("its scales do not fit its codes")?;
        let value = self.value(found);
        Ok(self.product(node, &node.inputs[0], value, node.inputs.get(4)))
    }

    /// `DequantizeLinear` of what is known, or of rows that are gathered of what is known. Of other values it is none of ours.
    fn linear(&mut self, node: &Node, constants: &Constants<'_>) -> Made {
        let gathered: Vec<_> =
            node.inputs.iter().filter(|v| !v.is_empty()).map(|v| constants.gathered(v)).collect();
        if let Some(Some(rows)) = gathered.first() {
            let all = gathered.iter().all(|g| g.is_some_and(|g| g.indices == rows.indices));
            let part = |i: usize| {
                let v = node.inputs.get(i).filter(|v| !v.is_empty())?;
                constants.get(constants.gathered(v).map_or(v, |g| &g.codes)).cloned()
            };
            let Some((codes, scales)) = part(0).zip(part(1)) else { return Made::Same };
            let one = scales.tensor.elements() == Some(1);
            let last = all && node.int("axis") == Some(-1);
            let Some(block) = node.int("block_size").or(one.then_some(0)).filter(|b| last || *b == 0) else {
                return Made::Same;
            };
            let Some(found) = linear(codes, scales, part(2), 1, block, None) else { return Made::Same };
            self.passing.extend(node.inputs.iter().cloned());
            let indices = rows.indices.clone();
            let value = self.value(found);
            let name = plain_node(&node.name);
            return Made::Nodes(vec![Node::new("Gather", name, [value, indices], node.outputs.clone())]);
        }
        let part = |i| constants.input(node, i);
        let Some((codes, scales)) = part(0).zip(part(1)) else { return Made::Same };
        let Ok(zero_points) = constants.zero_points(node, 2) else { return Made::Same };
        let standard = schema::standard(&node.domain).is_empty();
        let axis = node.int("axis").unwrap_or(i64::from(standard));
        let said = node.int("output_dtype").filter(|n| *n != 0).map(|n| Elem(n as i32));
        let block = node.int("block_size").unwrap_or(0);
        let Some(found) = linear(codes, scales, zero_points, axis, block, said) else {
            let text = format!("{} {:?} stays as it is: its blocks are not along rows", node.op, node.name);
            self.notes.push(text);
            return Made::Same;
        };
        Made::Value(self.value(found))
    }
}

/// What `DequantizeLinear` makes of codes.
fn linear(
    codes: Known,
    scales: Known,
    zero_points: Option<Known>,
    axis: i64,
    block: i64,
    elem: Option<Elem>,
) -> Option<Found> {
    if codes.turned || scales.turned {
        return None;
    }
    let dims = whole(&codes.tensor.dims);
    let (&first, rest) = dims.split_first()?;
    let others: u64 = rest.iter().product();
    let rank = dims.len() as i64;
    let axis = if axis < 0 { axis + rank } else { axis };
    let one = scales.tensor.elements() == Some(1);
    let block = u64::try_from(block).ok()?;
    // Rows are what the first dimension counts, unless columns are.
    let (group, order) = match (block, axis, rank) {
        (0, ..) if one => (Group::Tensor, Order::Rows),
        (0, 0, _) => (Group::Row, Order::Rows),
        (0, 1, 2) => (Group::Row, Order::Columns),
        (b, 1, 2) if b > 0 => (Group::Block(b), Order::Rows),
        (b, 0, 2) if b > 0 => (Group::Block(b), Order::Columns),
        _ => return None,
    };
    let (rows, columns) = if order == Order::Rows { (first, others) } else { (others, first) };
    let zero = if zero_points.is_some() { Zero::Point } else { Zero::None };
    let elem = elem.unwrap_or(scales.tensor.elem);
    let coding = Coding { rows, columns, code: Code::Elem(codes.tensor.elem), group, zero, order };
    let groups = if group == Group::Tensor { 1 } else { coding.groups().checked_mul(rows)? };
    if scales.tensor.elements() != Some(groups) || columns == 0 {
        return None;
    }
    let dims = (rank != 2).then(|| codes.tensor.dims.clone());
    Some(Found { coding, codes, scales, zero_points, turned: order == Order::Columns, elem, dims })
}

/// An operand of integers, `[columns, rows]` where it is not turned before.
pub(super) fn columns(codes: Known, scales: Known, zero_points: Option<Known>, elem: Elem) -> Option<Found> {
    let [first, second] = *whole(&codes.tensor.dims).as_slice() else { return None };
    let (rows, columns, order) =
        if codes.turned { (first, second, Order::Rows) } else { (second, first, Order::Columns) };
    let scaled = scales.tensor.elements()?;
    let group = match scaled {
        1 => Group::Tensor,
        n if n == rows => Group::Row,
        _ => return None,
    };
    if zero_points.as_ref().is_some_and(|z| z.tensor.elements() != Some(scaled)) {
        return None;
    }
    let zero = if zero_points.is_some() { Zero::Point } else { Zero::None };
    let coding = Coding { rows, columns, code: Code::Elem(codes.tensor.elem), group, zero, order };
    Some(Found { coding, codes, scales, zero_points, turned: true, elem, dims: None })
}

/// What `DequantizeLinear` makes of codes with one scale.
pub(super) fn rows(codes: Known, scales: Known, zero_points: Option<Known>) -> Option<Found> {
    linear(codes, scales, zero_points, 1, 0, None)
}

fn whole(dims: &[i64]) -> Vec<u64> {
    dims.iter().map(|d| u64::try_from(*d).unwrap_or_default()).collect()
}

fn unsigned(bits: u64) -> Result<Elem, &'static str> {
    Elem::unsigned(bits).ok_or("codes of another length than 2, 4 or 8 bits")
}

/// What quantizers put behind the names of nodes.
pub(super) fn plain_node(name: &str) -> &str {
    let ends = ["_Q2", "_Q4", "_Q8", "_Bnb4", "_quant", "_DequantizeLinear"];
    ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// A node that takes rows of a table.
pub(super) fn gather(table: String, indices: &str, out: &str) -> Node {
    let gather = Node::new("Gather", "", [table, indices.to_owned()], [out.to_owned()]);
    Node { attributes: vec![Attribute::int("axis", 0)], ..gather }
}

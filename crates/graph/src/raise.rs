//! A program under a later version of ONNX's operators.
//!
//! Most operators only take more types in a later version. Where one wants otherwise what it had, its nodes are rewritten as
//! `onnx.version_converter` of onnx 1.23 does it; where it computes something else, the program cannot be raised.

use crate::{Attribute, Kind, Node, Opset, Program, Tensor, prune, schema, walk::fresh};
use std::collections::HashSet;

impl Program {
    /// Raises ONNX's own operators to a version, those of functions as well.
    ///
    /// # Errors
    /// What stands against it, for people; the program is then as it was.
    pub fn raise(&mut self, to: i64) -> Result<(), String> {
        let from = self.opset("").unwrap_or_default();
        if to < from || to > schema::newest() {
            return Err(format!("only opsets up to {} come after it", schema::newest()));
        }
        let mut raised = self.clone();
        let mut taken = prune::names(&raised.graph);
        let trained = raised.training.iter_mut().flat_map(|t| [&mut t.initialization, &mut t.algorithm]);
        for g in trained.flatten() {
            taken.extend(prune::names(g));
            nodes(&mut g.nodes, (from, to), &mut taken)?;
        }
        nodes(&mut raised.graph.nodes, (from, to), &mut taken)?;
        set(&mut raised.opsets, to);
        for f in &mut raised.functions {
            let Some(from) = schema::version(&f.opsets, "").filter(|from| *from < to) else { continue };
            let outputs = f.nodes.iter().flat_map(|n| &n.outputs);
            let mut taken = f.inputs.iter().chain(outputs).cloned().collect();
            nodes(&mut f.nodes, (from, to), &mut taken)?;
            set(&mut f.opsets, to);
        }
        // Files may hold operators and faults of their own; what was one stays one.
        match raised.check() {
            Err(e) if self.check().is_ok() => Err(e.to_string()),
            _ => {
                *self = raised;
                Ok(())
            }
        }
    }
}

fn set(opsets: &mut Vec<Opset>, version: i64) {
    match opsets.iter_mut().find(|o| schema::standard(&o.domain).is_empty()) {
        Some(o) => o.version = version,
        None => opsets.push(Opset { version, ..Opset::default() }),
    }
}

/// The version before a change and that after it.
type Step = (i64, i64);

fn nodes(all: &mut Vec<Node>, step: Step, taken: &mut HashSet<String>) -> Result<(), String> {
    let mut raised = Vec::with_capacity(all.len());
    for mut node in std::mem::take(all) {
        for g in node.graphs_mut() {
            nodes(&mut g.nodes, step, taken)?;
        }
        if schema::standard(&node.domain).is_empty() {
            if computes_otherwise(&node, step) {
                return Err(format!("{} {:?} would mean something else", node.op, node.name));
            }
            raised.extend(moved(&mut node, step, taken)?);
            spelled_out(&mut node, step);
        }
        raised.push(node);
    }
    *all = raised;
    Ok(())
}

const fn crosses((from, to): Step, since: i64) -> bool {
    from < since && since <= to
}

/// Whether a node computes something else in a later version, and nothing of it shows that.
fn computes_otherwise(node: &Node, step: Step) -> bool {
    let crosses = |since| crosses(step, since);
    match node.op.as_str() {
        // Dimensions from the axis on were one; the last one is that alone.
        "Softmax" | "LogSoftmax" | "Hardmax" => crosses(13) && node.int("axis") != Some(-1),
        "BatchNormalization" | "Dropout" => crosses(7),
        "Resize" => crosses(11),
        "Scan" => crosses(9),
        "DFT" => crosses(20),
        "GroupNormalization" => crosses(21),
        _ => false,
    }
}

/// The attribute of an operator that became its second input, and since when.
fn became_input(op: &str) -> Option<(&'static str, i64)> {
    match op {
        "ReduceSum" | "Squeeze" | "Unsqueeze" => Some(("axes", 13)),
        "Split" => Some(("split", 13)),
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSumSquare" => Some(("axes", 18)),
        _ => None,
    }
}

/// Moves an attribute to the inputs; gives the node that makes its value.
fn moved(node: &mut Node, step: Step, taken: &mut HashSet<String>) -> Result<Option<Node>, String> {
    let Some((name, _)) = became_input(&node.op).filter(|(_, since)| crosses(step, *since)) else {
        return Ok(None);
    };
    let Some(at) = node.attributes.iter().position(|a| a.name == name) else { return Ok(None) };
    // Files of the first version do not say the kind.
    let known = |a: &Attribute| a.reference.is_empty() && (a.kind == Kind::INTS || a.kind == Kind::default());
    if node.inputs.len() != 1 || !known(&node.attributes[at]) {
        return Err(format!("{} {:?} has no {name} that could become an input", node.op, node.name));
    }
    let ints = node.attributes.remove(at).ints;
    if ints.is_empty() {
        return Ok(None);
    }
    let of = node.outputs.first().map_or(node.op.as_str(), String::as_str);
    let value = fresh(taken, &format!("{of}_{name}"));
    node.inputs.push(value.clone());
    let tensor = Tensor::ints("", &[i64::try_from(ints.len()).unwrap_or(i64::MAX)], &ints);
    let mut constant = Node::new("Constant", &value, [], [value.clone()]);
    constant.attributes.push(Attribute::tensor("value", tensor));
    Ok(Some(constant))
}

/// Says what was understood before, or was said in other words.
fn spelled_out(node: &mut Node, step: Step) {
    let absent = |name: &str| node.attribute(name).is_none();
    match node.op.as_str() {
        "RoiAlign" if crosses(step, 16) && absent("coordinate_transformation_mode") => {
            node.attributes.push(Attribute::string("coordinate_transformation_mode", "output_half_pixel"));
        }
        // Equal parts are counted by an attribute since.
        "Split" if crosses(step, 18) && node.inputs.get(1).is_none_or(String::is_empty) => {
            let parts = i64::try_from(node.outputs.len()).unwrap_or(i64::MAX);
            node.attributes.push(Attribute::int("num_outputs", parts));
        }
        "GridSample" if crosses(step, 20) => {
            let mode = node.attributes.iter_mut().filter(|a| a.name == "mode");
            for said in mode.filter_map(|a| a.s.as_mut()) {
                let name: &[u8] = match said.as_slice() {
                    b"bilinear" => b"linear",
                    b"bicubic" => b"cubic",
                    _ => continue,
                };
                *said = name.to_vec();
            }
        }
        _ => {}
    }
}

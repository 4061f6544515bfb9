//! A program whose weights are floats again: operators on codes and scales become the plain ones that they stand for.
//!
//! The new weights are described, not computed ([`EncodedWeight`]): what codes mean is known, their bytes are elsewhere.
//! Operators of ONNX Runtime (`MatMulNBits`, `GatherBlockQuantized`, `MatMulBnb4`, `DynamicQuantizeMatMul`,
//! `MatMulIntegerToFloat`), `DequantizeLinear`, and the nodes around `MatMulInteger` that `quantize_dynamic` writes.

mod constants;
mod integers;
mod operators;

use crate::{Attribute, Coding, Elem, Graph, Node, Program, Tensor, Weight, prune, walk::fresh};
use constants::Constants;
use std::collections::{HashMap, HashSet};

/// Operators that may hold weights in codes, by name alone.
const ON_CODES: [&str; 7] = [
    "MatMulNBits",
    "GatherBlockQuantized",
    "MatMulBnb4",
    "DynamicQuantizeMatMul",
    "DequantizeLinear",
    "MatMulInteger",
    "MatMulIntegerToFloat",
];

fn on_codes(g: &Graph) -> bool {
    g.nodes.iter().any(|n| ON_CODES.contains(&n.op.as_str()) || n.graphs().any(on_codes))
}

/// A weight as the initializers of a read program hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedWeight {
    /// How.
    pub coding: Coding,
    /// Codes. Slots number the weights of the program that was read; tensors without one know their elements.
    pub codes: Tensor,
    /// Scales, as many as groups, in the coding's order whatever their dimensions.
    pub scales: Tensor,
    /// Zero points: in the coding's order; floats, too, one for each group.
    pub zero_points: Option<Tensor>,
    /// Whether the new initializer has columns first. Its dimensions and type are what it declares.
    pub turned: bool,
}

/// Where a weight's numbers come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// The weight of this number of the program that was read.
    Weight(usize),
    /// Codes.
    Encoded(Box<EncodedWeight>),
}

/// A program without quantized weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dequantized {
    /// The program.
    pub program: Program,
    /// Where its weights come from: one for each.
    pub origins: Vec<Origin>,
    /// What stays quantized, and what is doubtful.
    pub notes: Vec<String>,
}

impl Program {
    /// The same program on plain weights; `None` where no weight is quantized.
    pub fn dequantized(&self) -> Option<Dequantized> {
        // Most programs have none, and may be large: these are not copied.
        if !on_codes(&self.graph) {
            return None;
        }
        let mut work = Work {
            origins: (0..self.weights.len()).map(Origin::Weight).collect(),
            weights: self.weights.clone(),
            taken: prune::names(&self.graph),
            made: HashMap::new(),
            tables: HashSet::new(),
            initializers: Vec::new(),
            helpers: Vec::new(),
            used: HashSet::new(),
            passing: HashSet::new(),
            notes: Vec::new(),
            any: false,
        };
        let mut program = self.clone();
        work.graph(&mut program.graph, None, &HashMap::new());
        if !work.any {
            let notes = work.notes;
            return (!notes.is_empty()).then(|| Dequantized {
                program: self.clone(),
                origins: (0..self.weights.len()).map(Origin::Weight).collect(),
                notes,
            });
        }
        program.weights = work.weights;
        prune::unused(&mut program, &work.used, &work.passing, &mut |slots| {
            work.origins = slots.iter().filter_map(|s| work.origins.get(*s).cloned()).collect();
        });
        Some(Dequantized { program, origins: work.origins, notes: work.notes })
    }
}

/// A rewrite under way.
struct Work {
    origins: Vec<Origin>,
    weights: Vec<Weight>,
    taken: HashSet<String>,
    /// Values of weights by their codes, scales, and whether columns come first.
    made: HashMap<(String, String, bool), String>,
    /// Codes that rows are gathered of: they stay rows.
    tables: HashSet<String>,
    /// With the number of graphs around the one that they belong to.
    initializers: Vec<(usize, Tensor)>,
    helpers: Vec<(usize, Node)>,
    /// Weights that are codes, scales or zero points of others.
    used: HashSet<usize>,
    /// Values that go where nothing uses them.
    passing: HashSet<String>,
    notes: Vec<String>,
    any: bool,
}

/// Parts of a weight that some node takes.
#[derive(Clone, Debug)]
struct Found {
    coding: Coding,
    codes: constants::Known,
    scales: constants::Known,
    zero_points: Option<constants::Known>,
    /// Whether the plain operator takes columns first.
    turned: bool,
    elem: Elem,
    /// Dimensions, where it is no matrix.
    dims: Option<Vec<i64>>,
}

impl Work {
    fn graph(&mut self, g: &mut Graph, outer: Option<&Constants<'_>>, renamed: &HashMap<String, String>) {
        let mut renamed = renamed.clone();
        let constants = Constants::new(g, outer);
        self.tables.extend(constants.tables(g));
        let mut nodes: Vec<Node> = Vec::with_capacity(g.nodes.len());
        let patterns = integers::find(g, &constants);
        for (i, mut node) in std::mem::take(&mut g.nodes).into_iter().enumerate() {
            for v in &mut node.inputs {
                if let Some(name) = renamed.get(v) {
                    name.clone_into(v);
                }
            }
            for inner in node.graphs_mut() {
                self.graph(inner, Some(&constants), &renamed);
            }
            if patterns.gone.contains(&i) {
                continue;
            }
            if let Some(product) = patterns.products.get(&i) {
                nodes.extend(self.integers(product, &node, constants.depth()));
                continue;
            }
            // What a weight was called before may be what its value is called now, which goes.
            let own = node.outputs.first().filter(|o| !g.outputs.iter().any(|out| out.name == **o));
            let freed = own.filter(|o| node.op == "DequantizeLinear" && self.taken.remove(*o)).cloned();
            let made = self.operator(&node, &constants);
            if !matches!(made, operators::Made::Value(_)) {
                self.taken.extend(freed);
            }
            match made {
                operators::Made::Same => nodes.push(node),
                operators::Made::Nodes(made) => nodes.extend(made),
                operators::Made::Value(value) => {
                    let out = node.outputs.first().cloned().unwrap_or_default();
                    if g.outputs.iter().any(|o| o.name == out) {
                        nodes.push(Node::new("Identity", "", [value.clone()], [out.clone()]));
                    }
                    renamed.insert(out, value);
                }
            }
        }
        for out in &mut g.outputs {
            // Graphs within give values of those around.
            let given = nodes.iter().any(|n| n.outputs.contains(&out.name));
            if let Some(name) = renamed.get(&out.name).filter(|_| outer.is_some() && !given) {
                name.clone_into(&mut out.name);
            }
        }
        g.values.retain(|v| !renamed.contains_key(&v.name));
        let depth = constants.depth();
        g.nodes = self.helpers.extract_if(.., |(d, _)| *d == depth).map(|(_, n)| n).collect();
        g.nodes.extend(nodes);
        g.initializers.extend(self.initializers.extract_if(.., |(d, _)| *d == depth).map(|(_, t)| t));
    }

    /// The value of a weight in floats, with columns first where that is wanted.
    fn value(&mut self, found: Found) -> String {
        self.any = true;
        let Found { coding, codes, scales, zero_points, turned, elem, dims } = found;
        let table = self.tables.contains(&codes.tensor.name);
        if turned && table {
            let rows = self.value(Found {
                coding,
                codes: codes.clone(),
                scales,
                zero_points,
                turned: false,
                elem,
                dims,
            });
            return self.transposed(&rows, codes.depth);
        }
        let key = (codes.tensor.name.clone(), scales.tensor.name.clone(), turned);
        if let Some(value) = self.made.get(&key) {
            return value.clone();
        }
        for known in [Some(&codes), Some(&scales), zero_points.as_ref()].into_iter().flatten() {
            self.used.extend(known.tensor.slot);
            self.passing.extend(known.through.iter().cloned());
        }
        let name = self.fresh(plain_name(&codes.tensor.name));
        let (rows, columns) = (coding.rows as i64, coding.columns as i64);
        let dims = dims.unwrap_or_else(|| if turned { vec![columns, rows] } else { vec![rows, columns] });
        let slot = Some(self.weights.len());
        self.weights.push(Weight::plain(name.clone()));
        self.initializers
            .push((codes.depth, Tensor { name: name.clone(), elem, dims, slot, ..Tensor::default() }));
        self.origins.push(Origin::Encoded(Box::new(EncodedWeight {
            coding,
            codes: codes.tensor,
            scales: scales.tensor,
            zero_points: zero_points.map(|z| z.tensor),
            turned,
        })));
        self.made.insert(key, name.clone());
        name
    }

    fn transposed(&mut self, value: &str, depth: usize) -> String {
        let key = (value.to_owned(), String::new(), true);
        if let Some(value) = self.made.get(&key) {
            return value.clone();
        }
        let out = self.fresh(&format!("{value}_transposed"));
        let name = format!("{value}_Transpose");
        let mut node = Node::new("Transpose", &name, [value.to_owned()], [out.clone()]);
        node.attributes.push(Attribute::ints("perm", &[1, 0]));
        self.helpers.push((depth, node));
        self.made.insert(key, out.clone());
        out
    }

    fn fresh(&mut self, base: &str) -> String {
        fresh(&mut self.taken, base)
    }
}

/// What quantizers put behind the names of weights.
fn plain_name(codes: &str) -> &str {
    let number = |name: &str, mark: &str| {
        let (base, bits) = name.rsplit_once(mark)?;
        (!base.is_empty() && !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()))
            .then_some(base.len())
    };
    for mark in ["_DQ_Q", "_Q"] {
        if let Some(len) = number(codes, mark) {
            return &codes[..len];
        }
    }
    let ends = ["_Bnb4", "_quantized"];
    ends.iter().find_map(|end| codes.strip_suffix(end)).filter(|n| !n.is_empty()).unwrap_or(codes)
}

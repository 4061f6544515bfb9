//! A program whose weights are quantized: the operators that use them take codes and scales in their place.
//!
//! The graph is rewritten and nothing else: which numbers codes and scales are is another's to say. Every new initializer is
//! a part of a weight ([`Weight::part`]). Names are those that ONNX Runtime's own quantizers give
//! (`matmul_nbits_quantizer.py`, `quantize_dynamic`).

mod blocks;
mod dynamic;
mod find;
mod linear;
mod opset;
mod parts;

pub use find::Kind;
pub use opset::QuantizeError;

use crate::{Elem, Graph, Group, Node, Program, Weight, Weights, prune};
use find::{Held, Scope, Use, use_of};
use parts::Made;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A weight that can be quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Number in [`Program::weights`].
    pub weight: usize,
    /// Name of the model's tensor.
    pub tensor: String,
    /// What it is to the nodes that use it; each once.
    pub kinds: Vec<Kind>,
    /// Numbers that a layer gives, or rows of a table.
    pub rows: u64,
    /// Numbers that a layer takes, or a row has.
    pub columns: u64,
    /// Type of its elements in the graph.
    pub elem: Elem,
    /// What else uses it, for people: there it stays as it is.
    pub others: Vec<String>,
}

/// How a weight is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `MatMulNBits` for products and `GatherBlockQuantized` for tables, ONNX Runtime's operators: unsigned codes, lowest first
    /// in bytes.
    Blocks {
        /// Bits of a code: 2, 4 or 8.
        bits: u64,
        /// Weights in a row that share a scale: a power of two, 16 or more.
        block: u64,
        /// Whether groups have their own zero points.
        zero_points: bool,
        /// How precise the runtime must at least compute: 1 for `f32`, 2 for `f16`, 3 for `bf16`, 4 for `int8`.
        accuracy: Option<i64>,
    },
    /// `DequantizeLinear` before the operator, which stays: ONNX's own.
    Dequantize {
        /// What codes are.
        elem: Elem,
        /// Which weights share a scale.
        group: Group,
        /// Whether groups have their own zero points.
        zero_points: bool,
    },
    /// `DynamicQuantizeLinear` and `MatMulInteger` for products; tables are gathered as bytes, then dequantized.
    Dynamic {
        /// What codes are: `I8` or `U8`.
        elem: Elem,
        /// All weights, or those of a row. Tables, and what is a table, too, have one scale.
        group: Group,
        /// Whether groups have their own zero points.
        zero_points: bool,
    },
}

/// What became of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantized {
    /// Names of the model's tensors that are quantized now.
    pub tensors: Vec<String>,
    /// What stays as it is, and why.
    pub notes: Vec<String>,
}

impl Program {
    /// Weights that can be quantized. `weights` are asked for what initializers hold, as in [`Program::infer`]: of graphs that
    /// are built, the type is that of the graph's floats.
    pub fn quantizable(&self, weights: Weights<'_>) -> Vec<Candidate> {
        let mut all: BTreeMap<usize, (Option<Candidate>, Vec<String>)> = BTreeMap::new();
        find::visit(&self.graph, None, weights, &mut |user, held| {
            let (candidate, others) = all.entry(held.slot).or_default();
            let found = match user {
                Some((node, input)) => use_of(node, input, held),
                None => Err("an output of the graph".to_owned()),
            };
            match (found, &mut *candidate) {
                (Ok(u), Some(c)) if !c.kinds.contains(&u.kind) => c.kinds.push(u.kind),
                (Ok(u), None) => {
                    let tensor = self.weights.get(held.slot).map_or_else(String::new, |w| w.tensor.clone());
                    *candidate = Some(Candidate {
                        weight: held.slot,
                        tensor,
                        kinds: vec![u.kind],
                        rows: u.rows,
                        columns: u.columns,
                        elem: held.elem,
                        others: Vec::new(),
                    });
                }
                (Err(other), _) if !others.contains(&other) => others.push(other),
                (Ok(_), Some(_)) | (Err(_), _) => {}
            }
        });
        all.into_values().filter_map(|(c, others)| Some(Candidate { others, ..c? })).collect()
    }

    /// Quantizes the weights for which `choose` gives a scheme. Versions of operators are raised where it takes that. Weights
    /// get other numbers.
    ///
    /// # Errors
    /// Schemes that there are not, and versions that the rest of the graph cannot have; the program is then as it was.
    pub fn quantize(
        &mut self,
        weights: Weights<'_>,
        choose: &dyn Fn(&Candidate) -> Option<Scheme>,
    ) -> Result<Quantized, QuantizeError> {
        let mut schemes = HashMap::new();
        let mut kinds = HashMap::new();
        for c in self.quantizable(weights) {
            if let Some(scheme) = choose(&c) {
                opset::sound(&scheme, &c)?;
                kinds.insert(c.weight, c.kinds.clone());
                schemes.insert(c.weight, (scheme, c));
            }
        }
        let raised = opset::raise(self, schemes.values())?;
        let mut rewrite = Rewrite {
            schemes: schemes.iter().map(|(slot, (scheme, _))| (*slot, *scheme)).collect(),
            kinds,
            weights,
            opset: self.opset("").unwrap_or_default(),
            list: std::mem::take(&mut self.weights),
            taken: prune::names(&self.graph),
            made: HashMap::new(),
            values: HashMap::new(),
            initializers: Vec::new(),
            helpers: Vec::new(),
            done: HashSet::new(),
            passing: HashSet::new(),
            microsoft: false,
            result: Quantized { notes: raised.into_iter().collect(), ..Quantized::default() },
        };
        rewrite.graph(&mut self.graph, None);
        let Rewrite { list, done, passing, microsoft, mut result, .. } = rewrite;
        result.tensors = list
            .iter()
            .enumerate()
            .filter(|(i, _)| done.contains(i))
            .map(|(_, w)| w.tensor.clone())
            .collect();
        self.weights = list;
        opset::import(self, microsoft);
        prune::unused(self, &done, &passing, &mut |_| {});
        Ok(result)
    }
}

/// A rewrite under way.
struct Rewrite<'a> {
    schemes: HashMap<usize, Scheme>,
    /// What weights are to the nodes that use them.
    kinds: HashMap<usize, Vec<Kind>>,
    weights: Weights<'a>,
    /// Version of ONNX's own operators.
    opset: i64,
    /// The program's weights, parts among them.
    list: Vec<Weight>,
    /// Names that values have.
    taken: HashSet<String>,
    made: Made,
    /// Values that helpers give, by what they are made of.
    values: HashMap<String, String>,
    /// Initializers and nodes that stand before all others, with the number of graphs around the one that they belong to.
    initializers: Vec<(usize, crate::Tensor)>,
    helpers: Vec<(usize, Node)>,
    /// Weights that were quantized somewhere.
    done: HashSet<usize>,
    /// Values that only pass weights on.
    passing: HashSet<String>,
    microsoft: bool,
    result: Quantized,
}

/// Values that `DynamicQuantizeLinear` gives for one.
type Activations = HashMap<String, [String; 3]>;

impl Rewrite<'_> {
    fn graph(&mut self, g: &mut Graph, outer: Option<&Scope<'_>>) {
        let scope = Scope::new(g, outer, self.weights);
        let mut activations = Activations::new();
        let mut nodes = Vec::with_capacity(g.nodes.len());
        for mut node in std::mem::take(&mut g.nodes) {
            for inner in node.graphs_mut() {
                self.graph(inner, Some(&scope));
            }
            if let Some(out) = node.outputs.first().filter(|o| scope.get(o).is_some()) {
                self.passing.insert(out.clone());
                nodes.push(node);
                continue;
            }
            let held = node.inputs.iter().enumerate().find_map(|(i, v)| {
                let held = scope.get(v)?;
                Some((i, held, *self.schemes.get(&held.slot)?))
            });
            let Some((input, held, scheme)) = held else {
                nodes.push(node);
                continue;
            };
            let name =
                if node.name.is_empty() { node.outputs.first().cloned() } else { Some(node.name.clone()) };
            let made =
                use_of(&node, input, held).and_then(|u| self.node(&node, u, held, scheme, &mut activations));
            match made {
                Ok(made) => {
                    self.done.insert(held.slot);
                    nodes.extend(made);
                }
                Err(why) => {
                    let tensor = &self.list[held.slot].tensor;
                    let name = name.unwrap_or_default();
                    self.result.notes.push(format!("{tensor} stays as it is in {name}: {why}"));
                    nodes.push(node);
                }
            }
        }
        for out in &g.outputs {
            if let Some(held) = scope.get(&out.name).filter(|h| self.schemes.contains_key(&h.slot)) {
                let tensor = &self.list[held.slot].tensor;
                self.result.notes.push(format!("{tensor} stays as it is as an output of the graph"));
            }
        }
        let depth = scope.depth();
        g.nodes = self.helpers.extract_if(.., |(d, _)| *d == depth).map(|(_, n)| n).collect();
        g.nodes.append(&mut nodes);
        g.initializers.extend(self.initializers.extract_if(.., |(d, _)| *d == depth).map(|(_, t)| t));
    }

    /// What stands in a node's place; else why it stays.
    fn node(
        &mut self,
        node: &Node,
        u: Use,
        held: &Held,
        scheme: Scheme,
        activations: &mut Activations,
    ) -> Result<Vec<Node>, String> {
        match scheme {
            Scheme::Blocks { bits, block, zero_points, accuracy } => {
                self.blocks(node, u, held, &blocks::Blocks { bits, block, zero_points, accuracy })
            }
            Scheme::Dequantize { elem, group, zero_points } => {
                self.linear(node, u, held, &linear::Linear { elem, group, zero_points })
            }
            Scheme::Dynamic { elem, group, zero_points } => {
                self.dynamic(node, u, held, &linear::Linear { elem, group, zero_points }, activations)
            }
        }
    }

    /// Whether a weight is something to some node.
    fn is(&self, held: &Held, kinds: &[Kind]) -> bool {
        self.kinds.get(&held.slot).is_some_and(|all| all.iter().any(|k| kinds.contains(k)))
    }
}

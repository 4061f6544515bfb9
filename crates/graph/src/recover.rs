//! Names of parameters that exporters hide: folded transposes become `onnx::MatMul_123` or `val_45`, equal parameters one.
//!
//! What tells them: names of nodes (`/encoder/layer.0/attention/self/query/MatMul`, TorchScript exporter and optimum), scopes in
//! nodes' metadata (`pkg.torch.onnx.name_scopes`, torch.export), and the builder's own `query.MatMul.weight`, which ONNX
//! Runtime GenAI has as well. Nothing is guessed from values.

use crate::{Dim, Graph, Node, Program, Tensor};
use std::collections::{HashMap, HashSet};

/// How a parameter's name was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The initializer has it.
    Initializer,
    /// The initializer has it, with `MatMul` in it.
    Operand,
    /// The name of the node that uses it.
    Node,
    /// The scope that the node which uses it is in.
    Scope,
    /// An `Identity` node gives the same value under it.
    Identity,
}

impl How {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Initializer => "initializer's name",
            Self::Operand => "operand's name",
            Self::Node => "node's name",
            Self::Scope => "node's scope",
            Self::Identity => "identity",
        }
    }
}

/// A parameter that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The initializer.
    pub initializer: String,
    /// Number in [`Program::weights`].
    pub weight: usize,
    /// The parameter's name.
    pub name: String,
    /// Whether the initializer is the parameter with its last two dimensions the other way round.
    pub transposed: bool,
    /// How that is known.
    pub how: How,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// One for each initializer that is a parameter, then one for each further name of one.
    pub parameters: Vec<Recovered>,
    /// Numbers in [`Program::weights`] of those that keep the names they have in the graph.
    pub unnamed: Vec<usize>,
}

impl Program {
    /// Finds parameters among the weights of the main graph.
    pub fn recover(&self) -> Recovery {
        let mut search = Search::new(self);
        search.by_own_name();
        search.by_products();
        search.by_vectors();
        search.further_names();
        let mut found = search.found;
        found.sort_by_key(|r| (r.how == How::Identity, r.weight));
        let named: HashSet<usize> = found.iter().map(|r| r.weight).collect();
        Recovery {
            unnamed: (0..self.weights.len()).filter(|i| !named.contains(i)).collect(),
            parameters: found,
        }
    }
}

struct Search<'a> {
    graph: &'a Graph,
    /// Whether ONNX Runtime GenAI's builder made it, which has names of its own.
    genai: bool,
    initializers: HashMap<&'a str, &'a Tensor>,
    /// Parameters by initializer.
    known: HashMap<&'a str, String>,
    /// Shapes of parameters by name, as PyTorch has them.
    shapes: HashMap<String, Vec<i64>>,
    found: Vec<Recovered>,
}

/// Buffers that modules compute from the configuration: exporters name them like parameters, and no checkpoint has them.
const COMPUTED: &[&str] = &["rotary_emb.inv_freq", "rotary_emb.original_inv_freq"];

/// Whether a name is one that modules give their parameters.
fn is_parameter(name: &str) -> bool {
    name.contains('.')
        && !COMPUTED.iter().any(|c| name.strip_suffix(c).is_some_and(|m| m.is_empty() || m.ends_with('.')))
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && name.split('.').all(|part| !part.is_empty())
}

/// The module that a node belongs to, and how that is known.
fn module(node: &Node) -> Option<(String, How)> {
    let scopes = node.metadata.iter().find(|p| p.key == "pkg.torch.onnx.name_scopes");
    if let Some(scopes) = scopes {
        // The last is the node's own.
        let list: Vec<&str> = scopes.value.split('\'').skip(1).step_by(2).collect();
        let module = list.len().checked_sub(2).and_then(|i| list.get(i))?;
        return (!module.is_empty()).then(|| (in_transformers(module).to_owned(), How::Scope));
    }
    let path = node.name.strip_prefix('/')?;
    let (module, _) = path.rsplit_once('/')?;
    Some((in_transformers(&module.replace('/', ".")).to_owned(), How::Node))
}

/// sentence-transformers runs a model as its first module's `auto_model`, and saves it without that.
fn in_transformers(name: &str) -> &str {
    name.strip_prefix("0.auto_model.").unwrap_or(name)
}

/// Who wrote a file.
const GENAI: &str = "onnxruntime-genai";

/// The name that transformers gives a parameter of ONNX Runtime GenAI's: one scheme for all models, with the final norm
/// numbered as a layer.
fn of_genai(name: &str) -> String {
    let Some((layer, rest)) = name.strip_prefix("model.layers.").and_then(|n| n.split_once('.')) else {
        return name.to_owned();
    };
    if let Some(kind) = rest.strip_prefix("final_norm_layernorm.") {
        return format!("model.norm.{kind}");
    }
    match rest.strip_prefix("attn.") {
        Some(rest) => {
            format!("model.layers.{layer}.self_attn.{}", rest.replace("_norm.layernorm.", "_norm."))
        }
        None => name.to_owned(),
    }
}

impl<'a> Search<'a> {
    fn new(program: &'a Program) -> Self {
        let graph = &program.graph;
        Self {
            graph,
            genai: program.producer == GENAI,
            initializers: graph
                .initializers
                .iter()
                .filter(|t| t.slot.is_some())
                .map(|t| (t.name.as_str(), t))
                .collect(),
            known: HashMap::new(),
            shapes: HashMap::new(),
            found: Vec::new(),
        }
    }

    fn add(&mut self, t: &'a Tensor, name: String, transposed: bool, how: How) {
        let Some(weight) = t.slot else { return };
        let name = if self.genai { of_genai(&name) } else { name };
        if self.shapes.contains_key(&name) {
            return;
        }
        let mut dims = t.dims.clone();
        if transposed {
            let n = dims.len();
            if n < 2 {
                return;
            }
            dims.swap(n - 2, n - 1);
        }
        self.shapes.insert(name.clone(), dims);
        self.known.entry(&t.name).or_insert_with(|| name.clone());
        self.found.push(Recovered { initializer: t.name.clone(), weight, name, transposed, how });
    }

    fn by_own_name(&mut self) {
        for t in &self.graph.initializers {
            let name = in_transformers(&t.name);
            if !is_parameter(name) {
                continue;
            }
            let operand = [".MatMul.", ".Add."].iter().find_map(|op| name.rsplit_once(op));
            match operand {
                // Codes that are packed have no rows and columns.
                Some((module, kind)) if !kind.contains('.') && t.dtype().is_some() => {
                    self.add(t, format!("{module}.{kind}"), t.dims.len() >= 2, How::Operand);
                }
                _ => self.add(t, name.to_owned(), false, How::Initializer),
            }
        }
    }

    /// Second operands of products: weights of linear layers, transposed.
    fn by_products(&mut self) {
        for node in &self.graph.nodes {
            let transposed = match node.op.as_str() {
                "MatMul" => true,
                "Gemm" => node.int("transB").unwrap_or(0) == 0,
                _ => continue,
            };
            let Some(t) = node.inputs.get(1).and_then(|v| self.initializers.get(v.as_str())).copied() else {
                continue;
            };
            if t.dims.len() != 2 || self.known.contains_key(t.name.as_str()) {
                continue;
            }
            if let Some((module, how)) = module(node) {
                self.add(t, format!("{module}.weight"), transposed, how);
            }
        }
    }

    /// Biases of linear layers and weights of norms; known ones get their further names.
    fn by_vectors(&mut self) {
        for node in &self.graph.nodes {
            let Some((module, how)) = module(node) else { continue };
            let roles: &[(usize, &str)] = match node.op.as_str() {
                "Add" => &[(0, "bias"), (1, "bias")],
                "Gemm" => &[(2, "bias")],
                "LayerNormalization"
                | "BatchNormalization"
                | "InstanceNormalization"
                | "GroupNormalization"
                | "Conv"
                | "ConvTranspose" => &[(1, "weight"), (2, "bias")],
                "Mul" | "RMSNormalization" | "SimplifiedLayerNormalization"
                    if last(&module).contains("norm") =>
                {
                    &[(0, "weight"), (1, "weight")]
                }
                _ => continue,
            };
            for (input, kind) in roles {
                let Some(t) =
                    node.inputs.get(*input).and_then(|v| self.initializers.get(v.as_str())).copied()
                else {
                    continue;
                };
                let name = format!("{module}.{kind}");
                let fits = match *kind {
                    // Only what has as many elements as the layer has outputs is its bias.
                    "bias" => {
                        let outputs = self.shapes.get(&format!("{module}.weight")).and_then(|d| d.first());
                        t.dims.len() == 1 && outputs.is_none_or(|n| *n == t.dims[0]) && node.op != "Add"
                            || t.dims.len() == 1 && outputs == t.dims.first()
                    }
                    _ => !t.dims.is_empty(),
                };
                if !fits {
                    continue;
                }
                match self.known.contains_key(t.name.as_str()) {
                    false => self.add(t, name, false, how),
                    // Exporters hold equal parameters once.
                    true if how == How::Scope => self.add(t, name, false, How::Identity),
                    true => {}
                }
            }
        }
    }

    fn further_names(&mut self) {
        for node in self.graph.nodes.iter().filter(|n| n.is("Identity")) {
            let ([from], [to]) = (node.inputs.as_slice(), node.outputs.as_slice()) else { continue };
            let Some(t) = self.initializers.get(from.as_str()).copied() else { continue };
            let to = in_transformers(to);
            if is_parameter(to) {
                self.add(t, to.to_owned(), false, How::Identity);
            }
        }
    }
}

fn last(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

impl Program {
    /// A short text about the graph: its operators and what goes in and out.
    pub fn summary(&self) -> String {
        let dims = |info: &crate::ValueInfo| {
            let each = info.dims().unwrap_or_default().into_iter().map(|d| match d {
                Dim::Known(n) => n.to_string(),
                Dim::Named(n) => n,
                Dim::Unknown => "?".to_owned(),
            });
            format!("{}[{}]", info.name, each.collect::<Vec<_>>().join(", "))
        };
        let list = |all: &[crate::ValueInfo]| all.iter().map(dims).collect::<Vec<_>>().join(", ");
        format!(
            "{} nodes, opset {}; inputs {}; outputs {}",
            self.graph.nodes.len(),
            self.opset("").unwrap_or_default(),
            list(&self.graph.inputs),
            list(&self.graph.outputs)
        )
    }
}

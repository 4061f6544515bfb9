//! Builds graphs node by node: values get readable names from the module they belong to, constants are made once.

use crate::{Attribute, Dim, Elem, Graph, Node, Opset, Pair, Program, Tensor, ValueInfo, Weight};
use std::collections::HashMap;
use tensormill_tensor::{DType, encode_plain};

/// A value in a graph: the name of what some node gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value(String);

impl Value {
    /// The value that is called `name`.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }
    /// An optional input that is left out.
    pub fn none() -> Self {
        Self(String::new())
    }
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Domain of the operators that ONNX Runtime adds.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// A graph that is being built. Nodes stand in the order in which they are added, which must be one in which they can be
/// computed.
pub struct Builder {
    graph: Graph,
    weights: Vec<Weight>,
    /// Initializers of weights by their tensor and layout.
    known: HashMap<(String, bool), Value>,
    /// Names given so far, and how often.
    names: HashMap<String, u32>,
    opset: i64,
    /// Type of the graph's floats.
    float: Elem,
    microsoft: bool,
    /// Where nodes belong: `/encoder/layer.0/attention`.
    scope: Vec<String>,
}

impl Builder {
    /// An empty graph for operators of version `opset`, whose floats are of type `float`.
    pub fn new(name: &str, opset: i64, float: Elem) -> Self {
        Self {
            graph: Graph { name: name.to_owned(), ..Graph::default() },
            weights: Vec::new(),
            known: HashMap::new(),
            names: HashMap::new(),
            opset,
            float,
            microsoft: false,
            scope: Vec::new(),
        }
    }

    /// Version of the operators.
    pub fn opset(&self) -> i64 {
        self.opset
    }
    /// Type of the graph's floats.
    pub fn float(&self) -> Elem {
        self.float
    }

    /// Builds a module of this name: names of what is in it begin with it.
    pub fn scoped<T>(&mut self, module: impl Into<String>, build: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(module.into());
        let built = build(self);
        self.scope.pop();
        built
    }

    /// A name within the current module that nothing else has.
    fn fresh(&mut self, name: &str) -> String {
        let mut full = String::new();
        for module in &self.scope {
            full.push('/');
            full.push_str(module);
        }
        full.push('/');
        full.push_str(name);
        let n = self.names.entry(full.clone()).or_default();
        *n += 1;
        if *n > 1 {
            full = format!("{full}_{}", *n - 1);
        }
        full
    }

    /// Something that is given when the graph runs.
    pub fn input(&mut self, name: &str, elem: Elem, dims: &[Dim]) -> Value {
        self.graph.inputs.push(ValueInfo::tensor(name, elem, dims));
        Value::named(name)
    }

    /// Says of a value what is known when the graph is built and no rule finds: where a slice ends before what it is taken
    /// from, say.
    pub fn declare(&mut self, value: &Value, elem: Elem, dims: &[Dim]) {
        self.graph.values.push(ValueInfo::tensor(value.name(), elem, dims));
    }

    /// Gives `value` under a name of its own.
    pub fn output(&mut self, name: &str, value: &Value, elem: Elem, dims: &[Dim]) {
        let made = self.graph.nodes.iter().any(|n| n.outputs.iter().any(|o| o == value.name()));
        let taken = self.graph.outputs.iter().any(|o| o.name == value.name());
        if made && !taken {
            // The value itself gets the name, wherever it stands.
            for node in &mut self.graph.nodes {
                for v in node.inputs.iter_mut().chain(&mut node.outputs).filter(|v| *v == value.name()) {
                    name.clone_into(v);
                }
            }
            self.graph.values.retain(|v| v.name != value.name());
        } else {
            self.push("", "Identity", &[value], vec![name.to_owned()], Vec::new());
        }
        self.graph.outputs.push(ValueInfo::tensor(name, elem, dims));
    }

    fn push(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&Value],
        outputs: Vec<String>,
        attributes: Vec<Attribute>,
    ) {
        let name = self.fresh(op);
        // Left out at the end means not there.
        let mut inputs: Vec<String> = inputs.iter().map(|v| v.name().to_owned()).collect();
        while inputs.last().is_some_and(String::is_empty) {
            inputs.pop();
        }
        self.graph.nodes.push(Node {
            inputs,
            outputs,
            name,
            op: op.to_owned(),
            attributes,
            domain: domain.to_owned(),
            ..Node::default()
        });
    }

    /// The only output of a node of ONNX's own operators.
    pub fn node(&mut self, op: &str, inputs: &[&Value], attributes: Vec<Attribute>) -> Value {
        let [out] = self.nodes(op, inputs, attributes);
        out
    }

    /// The first `N` outputs of a node.
    pub fn nodes<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
    ) -> [Value; N] {
        self.any("", op, inputs, attributes)
    }

    /// The first `N` outputs of a node of the operators that ONNX Runtime adds.
    pub fn microsoft<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
    ) -> [Value; N] {
        self.microsoft = true;
        self.any(MICROSOFT, op, inputs, attributes)
    }

    fn any<const N: usize>(
        &mut self,
        domain: &str,
        op: &str,
        inputs: &[&Value],
        attributes: Vec<Attribute>,
    ) -> [Value; N] {
        let outputs: [Value; N] = std::array::from_fn(|i| Value(self.fresh(&format!("{op}_output_{i}"))));
        self.push(domain, op, inputs, outputs.iter().map(|v| v.0.clone()).collect(), attributes);
        outputs
    }

    /// A weight of the model. Asked for again, it is the same value.
    pub fn weight(&mut self, weight: Weight) -> Value {
        let key = (weight.tensor.clone(), weight.transposed);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let name = weight.initializer();
        self.graph.initializers.push(Tensor {
            name: name.clone(),
            slot: Some(self.weights.len()),
            ..Tensor::default()
        });
        self.weights.push(weight);
        let value = Value(name);
        self.known.insert(key, value.clone());
        value
    }

    /// Integers; one alone, without dimensions, where `dims` has none. Equal ones are one value.
    pub fn ints(&mut self, dims: &[i64], values: &[i64]) -> Value {
        let list: Vec<String> = values.iter().map(ToString::to_string).collect();
        let shape = if dims.is_empty() { "" } else { "_1d" };
        let name = format!("/constants/int{shape}_{}", list.join("_"));
        self.constant(Tensor::ints(name, dims, values))
    }

    /// One number of the graph's float type, without dimensions. Equal ones are one value.
    pub fn scalar(&mut self, x: f32) -> Value {
        self.scalar_of(self.float, x)
    }

    /// One number of a float type, without dimensions.
    pub fn scalar_of(&mut self, elem: Elem, x: f32) -> Value {
        let dtype = elem.dtype().filter(|_| elem.is_float()).unwrap_or(DType::F32);
        let mut bytes = vec![0; (dtype.bits() / 8) as usize];
        let encoded = encode_plain(dtype, &[x], &mut bytes);
        debug_assert!(encoded, "floats are encoded");
        self.constant(Tensor::raw(format!("/constants/{elem}_{x:?}"), elem, &[], bytes))
    }

    /// A tensor that the graph itself knows; the first of a name stays.
    pub fn constant(&mut self, tensor: Tensor) -> Value {
        let value = Value(tensor.name.clone());
        if !self.graph.initializers.iter().any(|t| t.name == tensor.name) {
            self.graph.initializers.push(tensor);
        }
        value
    }

    /// The program. `metadata` says where it comes from.
    pub fn finish(self, ir_version: i64, metadata: Vec<Pair>) -> Program {
        let mut opsets = vec![Opset { version: self.opset, ..Opset::default() }];
        if self.microsoft {
            opsets.push(Opset { domain: MICROSOFT.to_owned(), version: 1, ..Opset::default() });
        }
        Program {
            ir_version,
            graph: self.graph,
            opsets,
            metadata,
            weights: self.weights,
            ..Program::default()
        }
    }
}

//! The structures of `onnx.proto`, without its encoding.

use crate::{Elem, QuantizedWeight};
use std::sync::Arc;

/// A key and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

impl Pair {
    /// A pair.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), unknown: Vec::new() }
    }
}

/// A set of operators and its version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opset {
    /// Domain; the standard one is empty.
    pub domain: String,
    /// Version.
    pub version: i64,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// All that an ONNX file says (`ModelProto`), weights aside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// Version of the file's structures.
    pub ir_version: i64,
    /// Who wrote it.
    pub producer: String,
    /// In which version.
    pub producer_version: String,
    /// Domain of the model, a name in reverse order of DNS.
    pub domain: String,
    /// Version of the model.
    pub model_version: i64,
    /// Text for people.
    pub doc: String,
    /// What is computed.
    pub graph: Graph,
    /// Versions of the sets of operators that it uses.
    pub opsets: Vec<Opset>,
    /// Anything, by keys.
    pub metadata: Vec<Pair>,
    /// How it is trained.
    pub training: Vec<Training>,
    /// Operators that the file defines itself.
    pub functions: Vec<Function>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
    /// The weights that [`Tensor::slot`] counts. No part of the file.
    pub weights: Vec<Weight>,
}

impl Program {
    /// Version of a domain's operators; `None` where the program does not use it.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let standard = |d: &str| d.is_empty() || d == "ai.onnx";
        let same = |o: &&Opset| o.domain == domain || standard(&o.domain) && standard(domain);
        self.opsets.iter().find(same).map(|o| o.version)
    }
}

/// What an initializer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Name of the model's tensor.
    pub tensor: String,
    /// Whether the initializer has the tensor's last two dimensions the other way round: operands of `MatMul` are
    /// `[in, out]`, weights of PyTorch's linear layers `[out, in]`.
    pub transposed: bool,
    /// Dimensions of the initializer, where they are others than the tensor's: as many elements.
    pub dims: Option<Vec<u64>>,
    /// Whether its type is part of the operator's contract, whatever type the user wants for floats.
    pub keep_type: bool,
    /// Which part of the tensor's quantized form it is, where it is one. What is said above is then about the matrix that is
    /// quantized; the initializer's own type and dimensions are those that it declares.
    pub part: Option<QuantizedWeight>,
}

impl Weight {
    /// A tensor as it stands.
    pub fn plain(tensor: impl Into<String>) -> Self {
        Self { tensor: tensor.into(), transposed: false, dims: None, keep_type: false, part: None }
    }
    /// A tensor whose last two dimensions change places.
    pub fn transposed(tensor: impl Into<String>) -> Self {
        Self { transposed: true, ..Self::plain(tensor) }
    }
    /// What an initializer that holds it is called: `attention.query.weight` is `[out, in]`; the operand of its product,
    /// `attention.query.MatMul.weight`, is not.
    pub fn initializer(&self) -> String {
        if let Some(part) = &self.part {
            return format!("{}{}", self.tensor, part.suffix());
        }
        if self.transposed { operand(&self.tensor) } else { self.tensor.clone() }
    }
}

/// What a parameter is called that is transposed to be the operand of a product.
pub(crate) fn operand(parameter: &str) -> String {
    match parameter.rsplit_once('.') {
        Some((module, kind)) => format!("{module}.MatMul.{kind}"),
        None => format!("{parameter}.MatMul"),
    }
}

/// How a program is trained (`TrainingInfoProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    /// What makes the first values.
    pub initialization: Option<Box<Graph>>,
    /// One step.
    pub algorithm: Option<Box<Graph>>,
    /// Which initializers get which outputs of the first.
    pub initialization_binding: Vec<Pair>,
    /// Which initializers get which outputs of a step.
    pub update_binding: Vec<Pair>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// A graph (`GraphProto`): nodes in an order in which they can be computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Name.
    pub name: String,
    /// Values that are known.
    pub initializers: Vec<Tensor>,
    /// Text for people.
    pub doc: String,
    /// What it is given.
    pub inputs: Vec<ValueInfo>,
    /// What it gives.
    pub outputs: Vec<ValueInfo>,
    /// Types of values between.
    pub values: Vec<ValueInfo>,
    /// Parameters of quantized values.
    pub annotations: Vec<Annotation>,
    /// Known values of which most are zero.
    pub sparse: Vec<Sparse>,
    /// Anything, by keys.
    pub metadata: Vec<Pair>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// Names of a value's quantization parameters (`TensorAnnotation`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotation {
    /// The value.
    pub tensor: String,
    /// Names of its parameters by what they are.
    pub parameters: Vec<Pair>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// One application of an operator (`NodeProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Names of its inputs; those left out are empty.
    pub inputs: Vec<String>,
    /// Names of its outputs; those not wanted are empty.
    pub outputs: Vec<String>,
    /// Its own name, for people.
    pub name: String,
    /// The operator.
    pub op: String,
    /// Constants of the operator.
    pub attributes: Vec<Attribute>,
    /// Text for people.
    pub doc: String,
    /// Domain of the operator; the standard one is empty.
    pub domain: String,
    /// Which of several functions of one name.
    pub overload: String,
    /// Anything, by keys.
    pub metadata: Vec<Pair>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

impl Node {
    /// A node of ONNX's own.
    pub(crate) fn new(
        op: &str,
        name: &str,
        inputs: impl IntoIterator<Item = String>,
        outputs: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            op: op.to_owned(),
            name: name.to_owned(),
            inputs: inputs.into_iter().collect(),
            outputs: outputs.into_iter().collect(),
            ..Self::default()
        }
    }
    /// The attribute of this name.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.name == name)
    }
    /// The integer under this name.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }
    /// The integer under this name, where it can be a number of something: above zero.
    pub fn count(&self, name: &str) -> Option<u64> {
        u64::try_from(self.int(name)?).ok().filter(|n| *n > 0)
    }
    /// Graphs within it, such as a loop's body.
    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.iter().flat_map(Attribute::held)
    }
    /// The same, to be changed.
    pub fn graphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        let held = |a| {
            let Attribute { g, graphs, .. }: &mut Attribute = a;
            g.iter_mut().map(|g| &mut **g).chain(graphs)
        };
        self.attributes.iter_mut().flat_map(held)
    }
    /// Whether it is this operator of ONNX's own.
    pub fn is(&self, op: &str) -> bool {
        self.op == op && (self.domain.is_empty() || self.domain == "ai.onnx")
    }
}

/// What an attribute holds, as numbered by `AttributeProto.AttributeType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind(pub i32);

#[allow(missing_docs, reason = "named as in onnx.proto")]
impl Kind {
    pub const FLOAT: Self = Self(1);
    pub const INT: Self = Self(2);
    pub const STRING: Self = Self(3);
    pub const TENSOR: Self = Self(4);
    pub const GRAPH: Self = Self(5);
    pub const FLOATS: Self = Self(6);
    pub const INTS: Self = Self(7);
    pub const STRINGS: Self = Self(8);
    pub const TENSORS: Self = Self(9);
    pub const GRAPHS: Self = Self(10);
    pub const SPARSE: Self = Self(11);
}

/// A constant of a node (`AttributeProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attribute {
    /// Name.
    pub name: String,
    /// A number.
    pub f: Option<f32>,
    /// An integer.
    pub i: Option<i64>,
    /// A text.
    pub s: Option<Vec<u8>>,
    /// A tensor.
    pub t: Option<Box<Tensor>>,
    /// A graph.
    pub g: Option<Box<Graph>>,
    /// Numbers.
    pub floats: Vec<f32>,
    /// Integers.
    pub ints: Vec<i64>,
    /// Texts.
    pub strings: Vec<Vec<u8>>,
    /// Tensors.
    pub tensors: Vec<Tensor>,
    /// Graphs.
    pub graphs: Vec<Graph>,
    /// Text for people.
    pub doc: String,
    /// Which of these counts.
    pub kind: Kind,
    /// The attribute of the function around that has the value.
    pub reference: String,
    /// A sparse tensor.
    pub sparse: Option<Box<Sparse>>,
    /// Sparse tensors.
    pub sparses: Vec<Sparse>,
    /// Fields that this version does not know (types among them), encoded.
    pub unknown: Vec<u8>,
}

impl Attribute {
    fn of(name: &str, kind: Kind) -> Self {
        Self { name: name.to_owned(), kind, ..Self::default() }
    }
    /// A number.
    pub fn float(name: &str, f: f32) -> Self {
        Self { f: Some(f), ..Self::of(name, Kind::FLOAT) }
    }
    /// An integer.
    pub fn int(name: &str, i: i64) -> Self {
        Self { i: Some(i), ..Self::of(name, Kind::INT) }
    }
    /// Integers.
    pub fn ints(name: &str, ints: &[i64]) -> Self {
        Self { ints: ints.to_vec(), ..Self::of(name, Kind::INTS) }
    }
    /// A text.
    pub fn string(name: &str, s: &str) -> Self {
        Self { s: Some(s.as_bytes().to_vec()), ..Self::of(name, Kind::STRING) }
    }
    /// A tensor.
    pub fn tensor(name: &str, t: Tensor) -> Self {
        Self { t: Some(Box::new(t)), ..Self::of(name, Kind::TENSOR) }
    }
    /// The graphs that it holds: one, or several.
    pub fn held(&self) -> impl Iterator<Item = &Graph> {
        self.g.iter().map(|g| &**g).chain(&self.graphs)
    }
}

/// Elements of a tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Content {
    /// They are not here: see [`Tensor::slot`].
    #[default]
    Elsewhere,
    /// Little-endian, as in `raw_data`, whichever field the file has them in.
    Raw(Arc<[u8]>),
    /// Texts.
    Texts(Vec<Vec<u8>>),
}

/// A tensor (`TensorProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub dims: Vec<i64>,
    /// Element type.
    pub elem: Elem,
    /// Name of the value.
    pub name: String,
    /// Text for people.
    pub doc: String,
    /// Anything, by keys.
    pub metadata: Vec<Pair>,
    /// Elements that are known here.
    pub content: Content,
    /// Number in [`Program::weights`]: its elements are the model's, also where small ones are known here.
    pub slot: Option<usize>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

impl Tensor {
    /// A tensor of known elements.
    pub fn raw(name: impl Into<String>, elem: Elem, dims: &[i64], bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            name: name.into(),
            elem,
            dims: dims.to_vec(),
            content: Content::Raw(bytes.into()),
            ..Self::default()
        }
    }
    /// Integers; one alone without dimensions where `dims` has none.
    pub fn ints(name: impl Into<String>, dims: &[i64], values: &[i64]) -> Self {
        Self::raw(name, Elem::I64, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }
    /// Its elements as integers, where they are known and are 64-bit or 32-bit integers.
    pub fn as_ints(&self) -> Option<Vec<i64>> {
        let Content::Raw(bytes) = &self.content else { return None };
        match self.elem {
            Elem::I64 => Some(bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
            Elem::I32 => {
                Some(bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect())
            }
            _ => None,
        }
    }
}

/// A tensor by its elements that are not zero (`SparseTensorProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sparse {
    /// These elements.
    pub values: Option<Tensor>,
    /// Where they stand.
    pub indices: Option<Tensor>,
    /// Dimensions of the whole.
    pub dims: Vec<i64>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// A value and its type (`ValueInfoProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueInfo {
    /// Name of the value.
    pub name: String,
    /// Type.
    pub kind: Option<Type>,
    /// Text for people.
    pub doc: String,
    /// Anything, by keys.
    pub metadata: Vec<Pair>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

impl ValueInfo {
    /// A tensor.
    pub fn tensor(name: impl Into<String>, elem: Elem, dims: &[Dim]) -> Self {
        let dims = dims.iter().cloned().map(Dimension::from).collect();
        let tensor =
            TensorType { elem, shape: Some(Dims { dims, unknown: Vec::new() }), unknown: Vec::new() };
        Self {
            name: name.into(),
            kind: Some(Type { tensor: Some(tensor), ..Type::default() }),
            ..Self::default()
        }
    }
    /// Element type, where it is a tensor.
    pub fn elem(&self) -> Option<Elem> {
        self.kind.as_ref()?.tensor.as_ref().map(|t| t.elem)
    }
    /// The same, to be changed.
    pub fn elem_mut(&mut self) -> Option<&mut Elem> {
        self.kind.as_mut()?.tensor.as_mut().map(|t| &mut t.elem)
    }
    /// Dimensions, where it is a tensor whose rank is known.
    pub fn dims(&self) -> Option<Vec<Dim>> {
        let shape = self.kind.as_ref()?.tensor.as_ref()?.shape.as_ref()?;
        Some(shape.dims.iter().map(Dimension::dim).collect())
    }
}

/// A type (`TypeProto`); what is no tensor is kept encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Type {
    /// A dense tensor.
    pub tensor: Option<TensorType>,
    /// What the value stands for.
    pub denotation: String,
    /// Other types and fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// The type of a dense tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TensorType {
    /// Element type.
    pub elem: Elem,
    /// Dimensions; `None` where not even their number is known.
    pub shape: Option<Dims>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// Dimensions (`TensorShapeProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dims {
    /// Outermost first.
    pub dims: Vec<Dimension>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

/// A dimension as files have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dimension {
    /// Its length, where it is known.
    pub value: Option<i64>,
    /// Its name, where it is not.
    pub name: Option<String>,
    /// What it stands for.
    pub denotation: String,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

impl Dimension {
    /// What is known of it.
    pub fn dim(&self) -> Dim {
        match (&self.value, &self.name) {
            (Some(n), _) => Dim::Known(*n),
            (None, Some(name)) => Dim::Named(name.clone()),
            (None, None) => Dim::Unknown,
        }
    }
}

impl From<Dim> for Dimension {
    fn from(d: Dim) -> Self {
        match d {
            Dim::Known(n) => Self { value: Some(n), ..Self::default() },
            Dim::Named(name) => Self { name: Some(name), ..Self::default() },
            Dim::Unknown => Self::default(),
        }
    }
}

/// What is known of a dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Its length.
    Known(i64),
    /// A name: dimensions of one name have one length.
    Named(String),
    /// Nothing.
    Unknown,
}

impl From<i64> for Dim {
    fn from(n: i64) -> Self {
        Self::Known(n)
    }
}

impl From<&str> for Dim {
    fn from(name: &str) -> Self {
        Self::Named(name.to_owned())
    }
}

/// An operator that a file defines itself (`FunctionProto`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// Name.
    pub name: String,
    /// Names of its inputs.
    pub inputs: Vec<String>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
    /// Names of attributes without a usual value.
    pub attributes: Vec<String>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Text for people.
    pub doc: String,
    /// Versions of the sets of operators that it uses.
    pub opsets: Vec<Opset>,
    /// Domain.
    pub domain: String,
    /// Attributes with their usual values.
    pub defaults: Vec<Attribute>,
    /// Types of values between.
    pub values: Vec<ValueInfo>,
    /// Which of several functions of one name.
    pub overload: String,
    /// Anything, by keys.
    pub metadata: Vec<Pair>,
    /// Fields that this version does not know, encoded.
    pub unknown: Vec<u8>,
}

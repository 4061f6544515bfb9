//! A graph that computes in another float type.
//!
//! Values of every real type become one, with three exceptions: operators that are not defined for it compute in `f32`, with
//! casts around them; so do angles of rotary embeddings, since positions above 2048 are no numbers of `f16`; and inputs that
//! an operator wants in `f32` whatever it computes in stay so. Constants beyond the type's range become its largest
//! number, and none becomes zero, as in ONNX Runtime's `float16.py`: masks of `-3.4e38` must not become infinite.

use crate::{
    Attribute, Content, Elem, Graph, Kind, Node, Opset, Program, Tensor, prune, schema,
    types::{self, Types},
    walk::fresh,
};
use std::collections::{HashMap, HashSet};
use tensormill_tensor::encode_plain;

/// Operators that compute in `f32` whatever the graph does: undefined for 16-bit floats, or absent from runtimes.
const WIDE: &[&str] = &[
    "ArrayFeatureExtractor",
    "Binarizer",
    "CastMap",
    "CategoryMapper",
    "CumSum",
    "DictVectorizer",
    "DynamicQuantizeLinear",
    "FeatureVectorizer",
    "Imputer",
    "LabelEncoder",
    "LinearClassifier",
    "LinearRegressor",
    "Max",
    "Min",
    "NonMaxSuppression",
    "Normalizer",
    "OneHotEncoder",
    "QuantizeLinear",
    "RandomUniformLike",
    "Range",
    "RoiAlign",
    "SVMClassifier",
    "SVMRegressor",
    "Scaler",
    "TopK",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    "Upsample",
    "ZipMap",
];

/// Operators that pass angles on: what is before `Cos` and `Sin`.
const PASSING: &[&str] = &[
    "Add",
    "Cast",
    "Concat",
    "Constant",
    "Div",
    "Einsum",
    "Expand",
    "Identity",
    "MatMul",
    "Mul",
    "Neg",
    "Reshape",
    "Slice",
    "Squeeze",
    "Sub",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Whether an operator wants this input in `f32` in any case.
fn stays(node: &Node, input: usize, opsets: &[Opset]) -> bool {
    let only = || schema::formal(&schema::of_node(node, opsets)?.inputs, input)?.only();
    node.op == "Resize" && input > 0 || only() == Some(Elem::F32)
}

/// Whether an operator is there for real numbers, in the version that is imported, but not for those of type `to`.
fn refuses(node: &Node, to: Elem, opsets: &[Opset], real: impl Fn(&String) -> bool) -> bool {
    let Some(operator) = schema::of_node(node, opsets) else { return false };
    let one =
        |i: usize| schema::formal(&operator.inputs, i).is_some_and(|f| f.only().is_none() && !f.takes(to));
    node.inputs.iter().enumerate().any(|(i, v)| real(v) && one(i))
}

/// What is known while one graph is cast.
struct Cast<'a> {
    /// Types before.
    before: &'a Types,
    /// Types now, where they are others.
    now: HashMap<String, Elem>,
    /// Values that were cast by a node of our own, by type.
    made: HashMap<(String, Elem), String>,
    nodes: Vec<Node>,
    taken: HashSet<String>,
}

impl Program {
    /// Lets the graph compute with `to` in place of every real type. With `keep_io`, inputs and outputs keep their types.
    /// Weights are told their types when they are bound.
    pub fn cast(&mut self, to: Elem, keep_io: bool) {
        let mut keep = HashSet::new();
        let weights = &mut self.weights;
        graph(&mut self.graph, to, &self.opsets, &Around::default(), Some(keep_io), &mut keep);
        for slot in keep {
            if let Some(w) = weights.get_mut(slot) {
                w.keep_type = true;
            }
        }
        for f in &mut self.functions {
            for node in &mut f.nodes {
                own_type(node, to);
            }
            f.values.clear();
        }
    }
}

/// What a graph sees of those around it.
#[derive(Default)]
struct Around {
    before: Types,
    now: HashMap<String, Elem>,
    made: HashMap<(String, Elem), String>,
    taken: HashSet<String>,
}

/// Casts one graph, and gives the names that are taken afterwards. `io` says for the main graph whether inputs and outputs keep their types; graphs within follow it.
/// `keep` gets the weights that keep their types.
fn graph(
    g: &mut Graph,
    to: Elem,
    opsets: &[Opset],
    around: &Around,
    io: Option<bool>,
    keep: &mut HashSet<usize>,
) -> HashSet<String> {
    let before = types::of_graph(g, &around.before, opsets);
    let wide = wide_nodes(g, &before, to, opsets);
    let mut cast = Cast {
        before: &before,
        now: around.now.clone(),
        made: around.made.clone(),
        nodes: Vec::with_capacity(g.nodes.len()),
        taken: around.taken.clone(),
    };
    cast.taken.extend(before.keys().cloned());
    cast.taken.extend(g.nodes.iter().flat_map(|n| n.outputs.iter().cloned()));
    let real = |name: &str| before.get(name).copied().filter(|e| e.is_float() && *e != Elem::F64);
    let only_wide = used_only_by(g, &wide, opsets);
    let keep_io = io == Some(true);
    for info in &mut g.inputs {
        let Some(elem) = real(&info.name) else { continue };
        let new = if keep_io { elem } else { to };
        cast.now.insert(info.name.clone(), new);
        if let Some(e) = info.elem_mut() {
            *e = new;
        }
    }
    for t in &mut g.initializers {
        let Some(elem) = real(&t.name) else { continue };
        if only_wide.contains(&t.name) {
            keep.extend(t.slot);
            cast.now.insert(t.name.clone(), elem);
        } else {
            constant(t, to);
            cast.now.insert(t.name.clone(), to);
        }
    }
    for (i, mut node) in std::mem::take(&mut g.nodes).into_iter().enumerate() {
        let is_wide = wide.contains(&i);
        let source = node.outputs.iter().all(|o| only_wide.contains(o)) && node.is("Constant");
        let target = |v: &str| if is_wide || source { Elem::F32 } else { real(v).map_or(to, |_| to) };
        let fixed: Vec<bool> = (0..node.inputs.len()).map(|n| stays(&node, n, opsets)).collect();
        for (input, fixed) in node.inputs.iter_mut().zip(fixed) {
            if real(input).is_none() {
                continue;
            }
            let want = if fixed { Elem::F32 } else { target(input) };
            *input = cast.value(input, want);
        }
        for inner in node.graphs_mut() {
            let Cast { now, made, taken, .. } = &cast;
            let (now, made, taken) = (now.clone(), made.clone(), taken.clone());
            let around = Around { before: before.clone(), now, made, taken };
            cast.taken = graph(inner, to, opsets, &around, None, keep);
        }
        if !is_wide && !source {
            own_type(&mut node, to);
        } else if is_wide && node.is("Cast") && node.int("to").is_some_and(|n| Elem(n as i32).is_float()) {
            set_int(&mut node, "to", Elem::F32);
        }
        for output in &node.outputs {
            if real(output).is_some() {
                cast.now.insert(output.clone(), target(output));
            }
        }
        cast.nodes.push(node);
    }
    for info in &mut g.outputs {
        let Some(elem) = real(&info.name) else { continue };
        let now = cast.now.get(&info.name).copied().unwrap_or(elem);
        let want = if keep_io { elem } else { to };
        if now != want
            && let Some(inner) = cast.output(&info.name, now, want)
        {
            // ONNX Runtime takes the cache that goes in and the one that comes out for equally long where nobody says
            // otherwise, and gives them the same memory.
            let mut said = info.clone();
            said.name = inner;
            if let Some(e) = said.elem_mut() {
                *e = now;
            }
            g.values.push(said);
        }
        if let Some(e) = info.elem_mut() {
            *e = want;
        }
    }
    for info in &mut g.values {
        if let (Some(now), Some(e)) = (cast.now.get(&info.name).copied(), info.elem_mut())
            && e.is_float()
        {
            *e = now;
        }
    }
    g.nodes = cast.nodes;
    cast.taken
}

impl Cast<'_> {
    /// The value in this type: itself, or what a node of our own makes of it.
    fn value(&mut self, name: &str, want: Elem) -> String {
        let now = self.now.get(name).or_else(|| self.before.get(name)).copied();
        if now.is_none_or(|now| now == want) {
            return name.to_owned();
        }
        let key = (name.to_owned(), want);
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let made = self.fresh(&format!("{name}/{want}"));
        self.push(name, &made, want);
        self.made.insert(key, made.clone());
        made
    }

    fn fresh(&mut self, base: &str) -> String {
        fresh(&mut self.taken, base)
    }

    fn push(&mut self, from: &str, into: &str, to: Elem) {
        let mut cast = Node::new("Cast", &format!("{into}/Cast"), [from.to_owned()], [into.to_owned()]);
        cast.attributes.push(Attribute::int("to", to.0.into()));
        self.nodes.push(cast);
    }

    /// Gives an output of the graph in another type than its value has: the value gets another name, which is returned.
    fn output(&mut self, name: &str, now: Elem, want: Elem) -> Option<String> {
        let inner = self.fresh(&format!("{name}/{now}"));
        let mut made = false;
        for node in &mut self.nodes {
            for v in node.outputs.iter_mut().filter(|v| *v == name) {
                made = true;
                inner.clone_into(v);
            }
        }
        if !made {
            return None;
        }
        for node in &mut self.nodes {
            for v in node.inputs.iter_mut().filter(|v| *v == name) {
                inner.clone_into(v);
            }
            rename_within(node, name, &inner);
        }
        self.push(&inner, name, want);
        Some(inner)
    }
}

/// Graphs within a node see values of the graphs around them.
fn rename_within(node: &mut Node, from: &str, into: &str) {
    for g in node.graphs_mut() {
        for o in g.outputs.iter_mut().filter(|o| o.name == from) {
            into.clone_into(&mut o.name);
        }
        for node in &mut g.nodes {
            for v in node.inputs.iter_mut().filter(|v| *v == from) {
                into.clone_into(v);
            }
            rename_within(node, from, into);
        }
    }
}

/// Numbers of the nodes that compute in `f32`.
fn wide_nodes(g: &Graph, types: &Types, to: Elem, opsets: &[Opset]) -> HashSet<usize> {
    let mut wide = HashSet::new();
    let makers: HashMap<&str, usize> = g
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(i, n)| n.outputs.iter().map(move |o| (o.as_str(), i)))
        .collect();
    let real = |v: &String| types.get(v).is_some_and(|e| e.is_float());
    let mut angles = Vec::new();
    for (i, node) in g.nodes.iter().enumerate() {
        let computes = node.inputs.iter().chain(&node.outputs).any(real);
        if WIDE.contains(&node.op.as_str()) && computes
            || refuses(node, to, opsets, real)
            || dequantizes(node, to, opsets)
            || of_integers(g, &makers, node)
        {
            wide.insert(i);
        }
        if (node.is("Cos") || node.is("Sin")) && from_integers(g, &makers, i, types) {
            angles.push(i);
        }
    }
    // What leads to angles is as precise as they are.
    while let Some(i) = angles.pop() {
        if !wide.insert(i) {
            continue;
        }
        let inputs = g.nodes[i].inputs.iter().filter(|v| real(v));
        angles.extend(inputs.filter_map(|v| makers.get(v.as_str())).filter(|m| !g.nodes[**m].is("Constant")));
    }
    wide
}

/// Whether a node makes floats of codes in a version that knows `f32` alone.
fn dequantizes(node: &Node, to: Elem, opsets: &[Opset]) -> bool {
    let takes = || Some(schema::formal(&schema::of_node(node, opsets)?.inputs, 1)?.takes(to));
    node.op == "DequantizeLinear" && takes() != Some(true)
}

/// Whether a node scales the result of a product of integers: sums of products are no numbers of `f16` before.
fn of_integers(g: &Graph, makers: &HashMap<&str, usize>, node: &Node) -> bool {
    let from = |node: &Node, ops: &[&str]| {
        let made =
            |v: &String| makers.get(v.as_str()).is_some_and(|m| ops.contains(&g.nodes[*m].op.as_str()));
        node.inputs.iter().any(made)
    };
    let cast = |n: &Node| n.is("Cast") && from(n, &["MatMulInteger", "ConvInteger"]);
    // The scale of what is multiplied, times the weight's.
    let scales = node.is("Mul") && from(node, &["DynamicQuantizeLinear"]);
    let maker = |v: &String| makers.get(v.as_str()).map(|m| &g.nodes[*m]);
    cast(node) || scales || node.is("Mul") && node.inputs.iter().filter_map(maker).any(cast)
}

/// Whether a node's real values come from integers and constants alone.
fn from_integers(g: &Graph, makers: &HashMap<&str, usize>, node: usize, types: &Types) -> bool {
    let known: HashSet<&str> = g.initializers.iter().map(|t| t.name.as_str()).collect();
    let mut seen = HashSet::new();
    let mut rest = vec![node];
    while let Some(i) = rest.pop() {
        if !seen.insert(i) {
            continue;
        }
        let n = &g.nodes[i];
        if i != node && !PASSING.contains(&n.op.as_str()) {
            return false;
        }
        for v in n.inputs.iter().filter(|v| types.get(*v).is_some_and(|e| e.is_float())) {
            match makers.get(v.as_str()) {
                Some(m) => rest.push(*m),
                None if known.contains(v.as_str()) => {}
                None => return false,
            }
        }
    }
    true
}

/// Values that only nodes of these numbers use.
fn used_only_by(g: &Graph, wide: &HashSet<usize>, opsets: &[Opset]) -> HashSet<String> {
    let (mut by_wide, mut by_others) = (HashSet::new(), HashSet::new());
    for (i, node) in g.nodes.iter().enumerate() {
        for (n, v) in node.inputs.iter().enumerate() {
            if wide.contains(&i) || stays(node, n, opsets) {
                by_wide.insert(v.clone());
            } else {
                by_others.insert(v.clone());
            }
        }
        node.graphs().for_each(|g| prune::used(g, &mut by_others));
    }
    by_others.extend(g.outputs.iter().map(|o| o.name.clone()));
    by_wide.difference(&by_others).cloned().collect()
}

/// Changes the types that a node names itself.
fn own_type(node: &mut Node, to: Elem) {
    let is_real = |n: i64| Elem(n as i32).is_float() && n != i64::from(Elem::F64.0);
    match node.op.as_str() {
        "Cast" if node.int("to").is_some_and(is_real) => set_int(node, "to", to),
        "EyeLike" | "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "Bernoulli" | "HannWindow"
        | "HammingWindow" | "BlackmanWindow"
            if node.int("dtype").is_some_and(is_real) =>
        {
            set_int(node, "dtype", to);
        }
        "RandomNormal" | "RandomUniform" => node.attributes.push(Attribute::int("dtype", to.0.into())),
        "ConstantOfShape" if node.attribute("value").is_none() => {
            let mut zero = Tensor::raw("", Elem::F32, &[1], 0f32.to_le_bytes().to_vec());
            constant(&mut zero, to);
            node.attributes.push(Attribute::tensor("value", zero));
        }
        "Constant" | "ConstantOfShape" => {
            for a in &mut node.attributes {
                if let Some(t) = &mut a.t {
                    constant(t, to);
                }
                let numbers = match (a.f, a.floats.is_empty()) {
                    (Some(x), _) => Tensor::raw("", Elem::F32, &[], x.to_le_bytes().to_vec()),
                    (None, false) => {
                        let bytes: Vec<u8> = a.floats.iter().flat_map(|x| x.to_le_bytes()).collect();
                        Tensor::raw("", Elem::F32, &[a.floats.len() as i64], bytes)
                    }
                    _ => continue,
                };
                if a.kind == Kind::FLOAT || a.kind == Kind::FLOATS {
                    let mut t = numbers;
                    constant(&mut t, to);
                    *a = Attribute::tensor("value", t);
                }
            }
        }
        _ => {}
    }
}

fn set_int(node: &mut Node, name: &str, elem: Elem) {
    for a in node.attributes.iter_mut().filter(|a| a.name == name) {
        a.i = Some(elem.0.into());
    }
}

/// Converts elements that are known. Those that are the model's are told their type when they are bound.
fn constant(t: &mut Tensor, to: Elem) {
    if !t.elem.is_float() || t.elem == Elem::F64 || t.elem == to {
        return;
    }
    if let (Some(mut x), Some(dtype)) = (types::floats(t.elem, &t.content), to.dtype()) {
        let (least, most) = match to {
            Elem::F16 => (5.960_464_5e-8, 65504.0),
            _ => (f32::MIN_POSITIVE, f32::MAX),
        };
        // Largest number of a bfloat16.
        let most: f32 = if to == Elem::BF16 { f32::from_bits(0x7f7f_0000) } else { most };
        for v in &mut x {
            if v.is_finite() && v.abs() > most {
                *v = most.copysign(*v);
            } else if *v != 0.0 && v.abs() < least {
                *v = f32::copysign(least, *v);
            }
        }
        let mut bytes = vec![0; x.len() * (dtype.bits() / 8) as usize];
        let encoded = encode_plain(dtype, &x, &mut bytes);
        debug_assert!(encoded, "the target is a float type");
        t.content = Content::Raw(bytes.into());
    }
    t.elem = to;
}

//! Graphs before and after their weights are quantized: which weights are found, what becomes of the nodes that use them.

use std::collections::BTreeMap;
use tensormill_graph::{
    Attribute, Builder, Candidate, Coding, Content, Dim, Elem, Graph, Group, Node, Order, Origin, Part,
    Program, Scheme, Tensor, ValueInfo, Weight, WeightKind, Zero,
};

const INT4: Scheme = Scheme::Blocks { bits: 4, block: 32, zero_points: false, accuracy: Some(4) };
const DYNAMIC: Scheme = Scheme::Dynamic { elem: Elem::I8, group: Group::Row, zero_points: false };

fn linear(elem: Elem, group: Group) -> Scheme {
    Scheme::Dequantize { elem, group, zero_points: false }
}

/// A model of a table, two layers and a head that is the table; built, so that initializers say nothing of themselves.
fn built(opset: i64) -> Program {
    let mut b = Builder::new("g", opset, Elem::F32);
    let ids = b.input("ids", Elem::I64, &["batch".into(), "length".into()]);
    let table = b.weight(Weight::plain("embed.weight"));
    let x = b.node("Gather", &[&table, &ids], vec![]);
    let up = b.weight(Weight::transposed("up.weight"));
    let down = b.weight(Weight::transposed("down.weight"));
    let x = b.scoped("up", |b| b.node("MatMul", &[&x, &up], vec![]));
    let x = b.scoped("down", |b| b.node("MatMul", &[&x, &down], vec![]));
    let turned = b.node("Transpose", &[&table], vec![Attribute::ints("perm", &[1, 0])]);
    let y = b.node("MatMul", &[&x, &turned], vec![]);
    b.output("y", &y, Elem::F32, &["batch".into(), "length".into(), Dim::Known(96)]);
    b.finish(8, Vec::new())
}

fn shapes(program: &Program) -> impl Fn(usize) -> Option<(Elem, Vec<i64>)> + use<> {
    let names: Vec<String> = program.weights.iter().map(|w| w.tensor.clone()).collect();
    move |slot| match names[slot].as_str() {
        "embed.weight" => Some((Elem::F32, vec![96, 64])),
        "up.weight" => Some((Elem::F32, vec![64, 160])),
        "down.weight" => Some((Elem::F32, vec![160, 64])),
        _ => None,
    }
}

fn quantize(program: &mut Program, scheme: Scheme) -> Vec<String> {
    let shapes = shapes(program);
    let notes = program.quantize(&shapes, &|_| Some(scheme)).expect("is sound").notes;
    program.check().unwrap_or_else(|e| panic!("{e}"));
    program.infer(&|_| None).unwrap_or_else(|e| panic!("{e}"));
    notes
}

fn ops(g: &Graph) -> Vec<&str> {
    g.nodes.iter().map(|n| n.op.as_str()).collect()
}

/// Initializers by name: type and dimensions, and for parts the model's tensor and whether it is turned.
fn initializers(program: &Program) -> BTreeMap<String, String> {
    let one = |t: &Tensor| {
        let held = t.slot.map(|s| &program.weights[s]).filter(|w| w.part.is_some());
        let of = held
            .map_or(String::new(), |w| format!(" {}{}", w.tensor, if w.transposed { " turned" } else { "" }));
        (t.name.clone(), format!("{}{:?}{of}", t.elem, t.dims))
    };
    program.graph.initializers.iter().filter(|t| !t.name.ends_with("_shape")).map(one).collect()
}

fn map(all: &[(&str, &str)]) -> BTreeMap<String, String> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn candidates_are_listed_with_what_they_are() {
    let program = built(17);
    let found = program.quantizable(&shapes(&program));
    let all: Vec<(&str, &[WeightKind], u64, u64)> =
        found.iter().map(|c| (c.tensor.as_str(), c.kinds.as_slice(), c.rows, c.columns)).collect();
    assert_eq!(
        all,
        [
            ("embed.weight", &[WeightKind::Embedding, WeightKind::MatMul][..], 96, 64),
            ("up.weight", &[WeightKind::MatMul], 160, 64),
            ("down.weight", &[WeightKind::MatMul], 64, 160),
        ]
    );
    assert!(found.iter().all(|c| c.others.is_empty() && c.elem == Elem::F32));
    // Nothing is known of what nobody tells.
    assert_eq!(program.quantizable(&|_| None), []);
}

#[test]
fn blocks_are_rows_of_the_models_tensors() {
    let mut program = built(17);
    assert_eq!(quantize(&mut program, INT4), Vec::<String>::new());
    assert_eq!(
        ops(&program.graph),
        ["Reshape", "GatherBlockQuantized", "MatMulNBits", "MatMulNBits", "MatMulNBits"]
    );
    assert_eq!(program.opset("com.microsoft"), Some(1));
    let wanted = [
        ("embed.weight_Q4", "uint8[96, 2, 16] embed.weight"),
        ("embed.weight_scales", "float[96, 2] embed.weight"),
        ("up.MatMul.weight_Q4", "uint8[160, 2, 16] up.weight"),
        ("up.MatMul.weight_scales", "float[160, 2] up.weight"),
        ("down.MatMul.weight_Q4", "uint8[64, 5, 16] down.weight"),
        ("down.MatMul.weight_scales", "float[64, 5] down.weight"),
    ];
    assert_eq!(initializers(&program), map(&wanted));
    let codes = program.weights.iter().find_map(|w| w.part.filter(|p| p.part == Part::Codes)).expect("codes");
    let coding =
        Coding { rows: 96, columns: 64, group: Group::Block(32), zero: Zero::Middle, ..codes.coding };
    assert_eq!((codes.coding, codes.coding.order), (coding, Order::Packed));
    // Codes and zero points are what operators want; scales become what floats become.
    assert!(program.weights.iter().all(|w| w.keep_type == (w.part.unwrap().part != Part::Scales)));
    let int = |name: &str| program.graph.nodes[4].int(name);
    assert_eq!(
        [int("K"), int("N"), int("bits"), int("block_size"), int("accuracy_level")],
        [64, 96, 4, 32, 4].map(Some)
    );
}

#[test]
fn dequantized_before_products_or_behind_tables() {
    let mut program = built(21);
    quantize(&mut program, linear(Elem::I8, Group::Row));
    let wanted = [
        ("embed.weight_DQ_Q8", "int8[96, 64] embed.weight"),
        ("embed.weight_DQ_scales", "float[96, 1] embed.weight"),
        ("up.MatMul.weight_DQ_Q8", "int8[64, 160] up.weight"),
        ("up.MatMul.weight_DQ_scales", "float[160] up.weight"),
        ("down.MatMul.weight_DQ_Q8", "int8[160, 64] down.weight"),
        ("down.MatMul.weight_DQ_scales", "float[64] down.weight"),
    ];
    assert_eq!(initializers(&program), map(&wanted));
    // Rows of a table are gathered as codes; the head, which has them as columns, takes the same codes.
    let gathers = program.graph.nodes.iter().filter(|n| n.op == "Gather");
    let from: Vec<&str> = gathers.map(|n| n.inputs[0].as_str()).collect();
    assert_eq!(from, ["embed.weight_DQ_Q8", "embed.weight_DQ_scales"]);
    // Before opset 21 the whole table is dequantized.
    let mut program = built(17);
    quantize(&mut program, linear(Elem::I8, Group::Row));
    assert_eq!(program.opset(""), Some(17));
    let gather = program.graph.nodes.iter().find(|n| n.op == "Gather").expect("a table");
    assert_eq!(gather.inputs[0], "embed.weight_DQ_Q8_output");
}

#[test]
fn one_activation_serves_all_products() {
    let mut program = built(17);
    let again = Node { outputs: vec!["again".into()], ..program.graph.nodes[1].clone() };
    program.graph.nodes.insert(2, again);
    program.graph.outputs.push(ValueInfo::tensor("again", Elem::F32, &[]));
    if let Some(t) = program.graph.outputs[1].kind.as_mut().and_then(|k| k.tensor.as_mut()) {
        t.shape = None;
    }
    quantize(&mut program, DYNAMIC);
    let of = |op: &str| program.graph.nodes.iter().filter(|n| n.op == op).count();
    assert_eq!((of("DynamicQuantizeLinear"), of("MatMulInteger"), of("MatMul")), (3, 4, 0));
    // Codes that are a table, too, have one scale.
    assert_eq!(initializers(&program)["embed.weight_scale"], "float[] embed.weight");
    assert_eq!(initializers(&program)["up.MatMul.weight_scale"], "float[160] up.weight");
}

/// A graph as files have it: weights declare themselves.
fn read(nodes: Vec<Node>, weights: &[(&str, &[i64])], outputs: &[&str]) -> Program {
    let mut program = Program { ir_version: 8, ..Program::default() };
    program.opsets.push(tensormill_graph::Opset { version: 17, ..Default::default() });
    let tensor = |(i, (name, dims)): (usize, &(&str, &[i64]))| Tensor {
        name: (*name).to_owned(),
        elem: Elem::F32,
        dims: dims.to_vec(),
        content: Content::Elsewhere,
        slot: Some(i),
        ..Tensor::default()
    };
    program.graph = Graph {
        nodes,
        initializers: weights.iter().enumerate().map(tensor).collect(),
        inputs: vec![ValueInfo::tensor("x", Elem::F32, &["n".into(), Dim::Known(64)])],
        outputs: outputs
            .iter()
            .map(|o| ValueInfo::tensor(*o, Elem::F32, &["n".into(), Dim::Known(32)]))
            .collect(),
        ..Graph::default()
    };
    program.weights = weights.iter().map(|(name, _)| Weight::plain(*name)).collect();
    program.check().unwrap_or_else(|e| panic!("{e}"));
    program
}

fn node(op: &str, inputs: &[&str], output: &str) -> Node {
    let inputs = inputs.iter().map(|i| (*i).to_owned()).collect();
    Node {
        op: op.to_owned(),
        name: format!("/{output}/{op}"),
        inputs,
        outputs: vec![output.to_owned()],
        ..Node::default()
    }
}

fn with(mut node: Node, attribute: Attribute) -> Node {
    node.attributes.push(attribute);
    node
}

#[test]
fn weights_arrive_through_other_nodes() {
    let nodes = vec![
        node("Identity", &["w"], "same"),
        with(node("Transpose", &["same"], "turned"), Attribute::ints("perm", &[1, 0])),
        with(node("Cast", &["turned"], "cast"), Attribute::int("to", 1)),
        node("MatMul", &["x", "cast"], "y"),
    ];
    let mut program = read(nodes, &[("w", &[32, 64])], &["y"]);
    let notes = quantize(&mut program, INT4);
    assert_eq!((notes, ops(&program.graph)), (vec![], vec!["MatMulNBits"]));
    assert_eq!(initializers(&program)["w_Q4"], "uint8[32, 2, 16] w");
}

#[test]
fn what_has_no_quantized_form_keeps_the_weight() {
    let mut scaled = with(node("Gemm", &["x", "w"], "y"), Attribute::float("alpha", 2.0));
    scaled.name = "/scaled/Gemm".to_owned();
    let nodes = vec![node("MatMul", &["x", "w"], "z"), scaled];
    let mut program = read(nodes, &[("w", &[64, 32])], &["y", "z"]);
    let candidates = program.quantizable(&|_| None);
    assert_eq!(candidates[0].others, ["a Gemm that is scaled or takes its first operand transposed"]);
    let notes = quantize(&mut program, INT4);
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("w stays as it is in /scaled/Gemm"), "{notes:?}");
    assert_eq!(ops(&program.graph), ["MatMulNBits", "Gemm"]);
    let all = initializers(&program);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["w", "w_Q4", "w_scales"]);
    assert_eq!(program.weights.len(), 3);
}

#[test]
fn biases_are_added_behind() {
    let nodes = vec![with(node("Gemm", &["x", "fc.weight", "fc.bias"], "y"), Attribute::int("transB", 1))];
    let mut program = read(nodes, &[("fc.weight", &[32, 64]), ("fc.bias", &[32])], &["y"]);
    quantize(&mut program, INT4);
    assert_eq!(ops(&program.graph), ["MatMulNBits", "Add"]);
    assert_eq!(program.graph.nodes[1].inputs[1], "fc.bias");
    assert_eq!(initializers(&program)["fc.MatMul.weight_Q4"], "uint8[32, 2, 16] fc.weight");
    // Read back, it is the parameter again, turned.
    program.tensors_mut(|_, _, t| {
        if t.elem == Elem::UNDEFINED {
            t.elem = Elem::F32;
        }
    });
    let back = program.dequantized().expect("is quantized");
    let found = back.program.recover();
    let fc = found.parameters.iter().find(|p| p.name == "fc.weight").expect("its name");
    assert!(fc.transposed);
    let Origin::Encoded(e) = &back.origins[fc.weight] else { panic!("codes") };
    assert_eq!((e.coding.rows, e.coding.columns, e.turned), (32, 64, true));
}

#[test]
fn initializers_may_be_inputs_too() {
    let mut program = read(vec![node("MatMul", &["x", "w"], "y")], &[("w", &[64, 32])], &["y"]);
    program.ir_version = 3;
    program.graph.inputs.push(ValueInfo::tensor("w", Elem::F32, &[Dim::Known(64), Dim::Known(32)]));
    program.check().unwrap();
    quantize(&mut program, INT4);
    assert_eq!((program.ir_version, program.graph.inputs.len()), (4, 1));
}

#[test]
fn weights_of_graphs_within_stay_within() {
    let branch = |name: &str| Graph {
        name: name.to_owned(),
        nodes: vec![
            node("MatMul", &["x", name], &format!("{name}.0")),
            node("MatMul", &["x", "w"], &format!("{name}.1")),
            node("Add", &[&format!("{name}.0"), &format!("{name}.1")], &format!("{name}.2")),
        ],
        initializers: vec![Tensor {
            name: name.to_owned(),
            elem: Elem::F32,
            dims: vec![64, 32],
            slot: Some(if name == "a" { 1 } else { 2 }),
            ..Tensor::default()
        }],
        outputs: vec![ValueInfo::tensor(format!("{name}.2"), Elem::F32, &["n".into(), Dim::Known(32)])],
        ..Graph::default()
    };
    let graph = |name: &str, g: Graph| Attribute {
        g: Some(Box::new(g)),
        kind: tensormill_graph::Kind::GRAPH,
        ..Attribute::int(name, 0)
    };
    let mut choice = node("If", &["flag"], "y");
    choice.attributes = vec![graph("then_branch", branch("a")), graph("else_branch", branch("b"))];
    for a in &mut choice.attributes {
        a.i = None;
    }
    let mut program = read(vec![node("MatMul", &["x", "w"], "z")], &[("w", &[64, 32])], &["z"]);
    program.graph.inputs.push(ValueInfo::tensor("flag", Elem::BOOL, &[]));
    program.graph.nodes.push(choice);
    program.graph.outputs.push(ValueInfo::tensor("y", Elem::F32, &["n".into(), Dim::Known(32)]));
    program.weights.extend([Weight::plain("a"), Weight::plain("b")]);
    for scheme in [INT4, linear(Elem::I8, Group::Row), DYNAMIC] {
        let mut program = program.clone();
        assert_eq!(quantize(&mut program, scheme), Vec::<String>::new());
        let inner = |i: usize| program.graph.nodes.last().unwrap().attributes[i].g.as_deref().unwrap();
        assert_eq!((inner(0).initializers.len(), inner(1).initializers.len()), (2, 2), "{scheme:?}");
        assert_eq!((program.graph.initializers.len(), program.weights.len()), (2, 6));
        let all = program.dequantized().expect("is quantized");
        assert!(all.notes.is_empty(), "{:?}", all.notes);
        all.program.check().unwrap_or_else(|e| panic!("{scheme:?}: {e}"));
        assert_eq!(all.origins.iter().filter(|o| matches!(o, Origin::Encoded(_))).count(), 3);
    }
}

#[test]
fn parts_that_do_not_fit_are_contradictions() {
    let mut program = built(17);
    quantize(&mut program, INT4);
    for attribute in ["K", "N", "block_size"] {
        let mut wrong = program.clone();
        let node = wrong.graph.nodes.iter_mut().find(|n| n.op == "MatMulNBits").expect("a product");
        node.attributes.iter_mut().find(|a| a.name == attribute).expect("there").i = Some(256);
        let e = wrong.infer(&|_| None).expect_err(attribute);
        assert!(e.to_string().contains("elements, where K, N"), "{e}");
    }
    let mut program = built(21);
    quantize(&mut program, linear(Elem::I4, Group::Block(32)));
    let node = program.graph.nodes.iter_mut().find(|n| n.op == "DequantizeLinear").expect("codes");
    node.attributes.iter_mut().find(|a| a.name == "block_size").expect("there").i = Some(16);
    let e = program.infer(&|_| None).expect_err("too few scales");
    assert!(e.to_string().contains("do not fit"), "{e}");
}

#[test]
fn nothing_quantized_is_nothing_to_dequantize() {
    assert_eq!(built(17).dequantized(), None);
    let mut program = built(17);
    let none = |_: &Candidate| None;
    let before = program.clone();
    program.quantize(&|_| None, &none).unwrap();
    assert_eq!(program, before);
}

#[test]
fn zero_points_that_nothing_tells_keep_the_node() {
    let mut fused = node("DynamicQuantizeMatMul", &["x", "w", "s", "z"], "y");
    fused.domain = "com.microsoft".to_owned();
    let mut program = read(vec![node("MatMul", &["x", "w"], "y")], &[("w", &[64, 32]), ("s", &[])], &["y"]);
    program.graph.initializers[0].elem = Elem::U8;
    program.graph.nodes = vec![fused];
    assert!(program.dequantized().is_none_or(|d| d.origins.iter().all(|o| matches!(o, Origin::Weight(_)))));
    program.graph.nodes[0].inputs.pop();
    let plain = program.dequantized().expect("without zero points all is known");
    assert!(plain.origins.iter().any(|o| matches!(o, Origin::Encoded(_))));
}

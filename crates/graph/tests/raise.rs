//! Graphs under a later version of ONNX's operators: what is rewritten, and what stands against it.

use tensormill_graph::{
    Attribute, Builder, Candidate, Content, Dim, Elem, Function, Group, Node, Opset, Program, Scheme, Tensor,
    Weight,
};

/// A layer with what later versions want otherwise around it.
fn built(opset: i64, build: impl FnOnce(&mut Builder)) -> Program {
    let mut b = Builder::new("g", opset, Elem::F32);
    build(&mut b);
    let program = b.finish(8, Vec::new());
    program.check().unwrap_or_else(|e| panic!("{e}"));
    program
}

fn dims<const N: usize>(all: [i64; N]) -> [Dim; N] {
    all.map(Dim::Known)
}

fn ints(t: &Tensor) -> Option<Vec<i64>> {
    matches!(t.content, Content::Raw(_)).then(|| t.as_ints()).flatten()
}

/// What a node's second input is.
fn second(program: &Program, op: &str) -> Option<Vec<i64>> {
    let node = program.graph.nodes.iter().find(|n| n.op == op).expect("is there");
    let name = node.inputs.get(1)?;
    let made = program.graph.nodes.iter().find(|n| n.outputs.contains(name)).expect("a constant");
    assert_eq!(made.op, "Constant");
    ints(made.attribute("value")?.t.as_ref()?)
}

#[test]
fn attributes_become_the_inputs_that_they_are_later() {
    let mut program = built(12, |b| {
        let x = b.input("x", Elem::F32, &dims([4, 64]));
        let mean = b.node("ReduceMean", &[&x], vec![Attribute::ints("axes", &[-1])]);
        let all = b.node("ReduceMax", &[&x], vec![Attribute::int("keepdims", 0)]);
        let sum = b.node("ReduceSum", &[&x], vec![Attribute::ints("axes", &[0, 1])]);
        let wide = b.node("Unsqueeze", &[&mean], vec![Attribute::ints("axes", &[0])]);
        let [left, right] = b.nodes("Split", &[&x], vec![Attribute::ints("split", &[1, 3])]);
        let soft = b.node("Softmax", &[&left], vec![Attribute::int("axis", -1)]);
        for (name, value) in [("a", all), ("b", sum), ("c", wide), ("d", right), ("e", soft)] {
            b.output(name, &value, Elem::F32, &[]);
        }
    });
    for o in &mut program.graph.outputs {
        o.kind.as_mut().and_then(|k| k.tensor.as_mut()).expect("a tensor").shape = None;
    }
    program.raise(21).unwrap();
    assert_eq!(program.opset(""), Some(21));
    program.check().unwrap_or_else(|e| panic!("{e}"));
    program.infer(&|_| None).unwrap_or_else(|e| panic!("{e}"));
    for (op, wanted) in [
        ("ReduceMean", Some(vec![-1])),
        ("ReduceMax", None),
        ("ReduceSum", Some(vec![0, 1])),
        ("Unsqueeze", Some(vec![0])),
        ("Split", Some(vec![1, 3])),
    ] {
        assert_eq!(second(&program, op), wanted, "{op}");
    }
    // Once more is nothing more.
    let before = program.clone();
    program.raise(21).unwrap();
    assert_eq!(program, before);
}

#[test]
fn what_was_understood_is_said() {
    let mut program = built(14, |b| {
        let x = b.input("x", Elem::F32, &dims([1, 6, 8, 8]));
        let [left, right] = b.nodes("Split", &[&x], vec![Attribute::int("axis", 1)]);
        b.output("left", &left, Elem::F32, &dims([1, 3, 8, 8]));
        let rois = b.input("rois", Elem::F32, &dims([2, 4]));
        let which = b.input("which", Elem::I64, &dims([2]));
        let aligned = b.node("RoiAlign", &[&right, &rois, &which], vec![]);
        b.output("aligned", &aligned, Elem::F32, &dims([2, 3, 1, 1]));
    });
    program.raise(19).unwrap();
    let node = |op: &str| program.graph.nodes.iter().find(|n| n.op == op).expect("is there");
    assert_eq!(node("Split").int("num_outputs"), Some(2));
    let mode = node("RoiAlign").attribute("coordinate_transformation_mode").expect("is said");
    assert_eq!(mode.s.as_deref(), Some(&b"output_half_pixel"[..]));
    program.check().unwrap_or_else(|e| panic!("{e}"));

    let mut sampled = built(16, |b| {
        let x = b.input("x", Elem::F32, &dims([1, 3, 8, 8]));
        let grid = b.input("grid", Elem::F32, &dims([1, 4, 4, 2]));
        let y = b.node("GridSample", &[&x, &grid], vec![Attribute::string("mode", "bicubic")]);
        b.output("y", &y, Elem::F32, &dims([1, 3, 4, 4]));
    });
    sampled.raise(20).unwrap();
    assert_eq!(sampled.graph.nodes[0].attribute("mode").and_then(|a| a.s.as_deref()), Some(&b"cubic"[..]));
}

#[test]
fn what_would_compute_something_else_is_left_as_it_was() {
    let softmax = built(12, |b| {
        let x = b.input("x", Elem::F32, &dims([2, 3, 4]));
        let mean = b.node("ReduceMean", &[&x], vec![Attribute::ints("axes", &[-1])]);
        // The last two dimensions as one.
        let y = b.node("Softmax", &[&mean], vec![Attribute::int("axis", 1)]);
        b.output("y", &y, Elem::F32, &dims([2, 3, 1]));
    });
    let fourier = built(17, |b| {
        let x = b.input("x", Elem::F32, &dims([2, 8, 1]));
        let y = b.node("DFT", &[&x], vec![]);
        b.output("y", &y, Elem::F32, &dims([2, 8, 2]));
    });
    for (mut program, to, what) in [
        (softmax.clone(), 13, "Softmax"),
        (fourier, 20, "DFT"),
        (softmax.clone(), 11, "only opsets up to"),
        (softmax, 1000, "only opsets up to"),
    ] {
        let before = program.clone();
        let why = program.raise(to).expect_err(what);
        assert!(why.contains(what), "{why}");
        assert_eq!(program, before, "{what}");
    }
}

#[test]
fn functions_are_raised_with_the_graph() {
    let mut program = built(17, |b| {
        let x = b.input("x", Elem::F32, &dims([4, 64]));
        let y = b.node("Identity", &[&x], vec![]);
        b.output("y", &y, Elem::F32, &dims([4, 64]));
    });
    let node = |axes: Attribute| Node {
        op: "ReduceMean".to_owned(),
        inputs: vec!["a".to_owned()],
        outputs: vec!["b".to_owned()],
        attributes: vec![axes],
        ..Node::default()
    };
    program.functions.push(Function {
        name: "Mean".to_owned(),
        domain: "own".to_owned(),
        inputs: vec!["a".to_owned()],
        outputs: vec!["b".to_owned()],
        nodes: vec![node(Attribute::ints("axes", &[-1]))],
        opsets: vec![Opset { version: 17, ..Opset::default() }],
        ..Function::default()
    });
    program.check().unwrap_or_else(|e| panic!("{e}"));
    let mut asked = program.clone();
    program.raise(18).unwrap();
    let f = &program.functions[0];
    assert_eq!((f.opsets[0].version, f.nodes.len(), f.nodes[1].inputs.len()), (18, 2, 2));
    program.check().unwrap_or_else(|e| panic!("{e}"));
    // The caller's attribute is no value that could be an input.
    let reference =
        Attribute { reference: "axes".to_owned(), ints: Vec::new(), ..Attribute::ints("axes", &[]) };
    asked.functions[0].attributes.push("axes".to_owned());
    asked.functions[0].nodes = vec![node(reference)];
    assert!(asked.raise(18).unwrap_err().contains("ReduceMean"));
}

#[test]
fn schemes_raise_what_they_need() {
    let mut program = built(17, |b| {
        let x = b.input("x", Elem::F32, &dims([4, 64]));
        let mean = b.node("ReduceMean", &[&x], vec![Attribute::ints("axes", &[-1])]);
        let x = b.node("Sub", &[&x, &mean], vec![]);
        let w = b.weight(Weight::transposed("up.weight"));
        let y = b.node("MatMul", &[&x, &w], vec![]);
        b.output("y", &y, Elem::F32, &dims([4, 96]));
    });
    let known = |_: usize| Some((Elem::F32, vec![64, 96]));
    let int4 = |_: &Candidate| {
        Some(Scheme::Dequantize { elem: Elem::I4, group: Group::Block(32), zero_points: false })
    };
    let done = program.quantize(&known, &int4).unwrap();
    assert_eq!((program.opset(""), program.ir_version), (Some(21), 10));
    assert!(done.notes[0].contains("from opset 17 to 21"), "{:?}", done.notes);
    assert_eq!(second(&program, "ReduceMean"), Some(vec![-1]));
    program.check().unwrap_or_else(|e| panic!("{e}"));
}

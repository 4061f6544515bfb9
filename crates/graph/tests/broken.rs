//! Programs that are none, each with one fault: the error names it and where it is.

use tensormill_graph::{
    Attribute, Builder, Dim, Elem, Fault, Function, Graph, Node, Opset, Program, Tensor, Value, ValueInfo,
};

/// `y = relu(a * b) + c`, with `a` `[rows, 4]`, `b` `[4, 6]`, `c` `[6]`.
fn sound() -> Program {
    let mut b = Builder::new("g", 17, Elem::F32);
    let dims = |dims: [i64; 2]| dims.map(Dim::Known);
    let x = b.input("a", Elem::F32, &["rows".into(), Dim::Known(4)]);
    let w = b.input("b", Elem::F32, &dims([4, 6]));
    let c = b.input("c", Elem::F32, &[Dim::Known(6)]);
    let y = b.node("MatMul", &[&x, &w], vec![]);
    let y = b.node("Relu", &[&y], vec![]);
    let y = b.node("Add", &[&y, &c], vec![]);
    b.output("y", &y, Elem::F32, &["rows".into(), Dim::Known(6)]);
    b.finish(8, Vec::new())
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    Node { op: op.to_owned(), inputs: names(inputs), outputs: names(outputs), ..Node::default() }
}

fn with(mut node: Node, attribute: Attribute) -> Node {
    node.attributes.push(attribute);
    node
}

/// The sound program, changed.
fn changed(change: impl FnOnce(&mut Program)) -> Program {
    let mut program = sound();
    program.check().expect("is sound");
    program.infer(&|_| None).expect("is sound");
    change(&mut program);
    program
}

#[expect(clippy::needless_pass_by_value, reason = "faults are made for this")]
fn refused(place: &str, fault: Fault, change: impl FnOnce(&mut Program)) {
    let e = changed(change).check().expect_err("is refused");
    assert_eq!(e.fault, fault, "{e}");
    assert_eq!(e.place, place, "{e}");
}

/// What inference says of the sound program with `node` at its end. What is checked passes.
fn contradicts(place: &str, text: &str, change: impl FnOnce(&mut Program)) {
    let program = changed(change);
    program.check().unwrap_or_else(|e| panic!("{e}"));
    let e = program.infer(&|_| None).expect_err("contradicts itself");
    assert_eq!(e.place, place, "{e}");
    assert!(e.fault.to_string().contains(text), "{e}");
}

fn value(name: &str) -> String {
    name.to_owned()
}

#[test]
fn values_are_defined_once() {
    refused("node 2 (Add \"/Add\")", Fault::Twice { value: value("a") }, |p| {
        p.graph.nodes[2].outputs = vec![value("a")];
    });
    refused("node 3 (Relu)", Fault::Twice { value: value("y") }, |p| {
        p.graph.nodes.push(node("Relu", &["a"], &["y"]));
    });
    refused("the graph", Fault::Twice { value: value("a") }, |p| {
        let again = p.graph.inputs[0].clone();
        p.graph.inputs.push(again);
    });
    refused("the graph", Fault::Twice { value: value("k") }, |p| {
        p.graph.initializers = vec![Tensor::ints("k", &[], &[1]), Tensor::ints("k", &[], &[2])];
    });
    // What an input is where nothing is given.
    let usual = Tensor::raw("c", Elem::F32, &[6], vec![0; 24]);
    changed(|p| p.graph.initializers.push(usual)).check().expect("may be both");
}

#[test]
fn values_are_defined_before_they_are_used() {
    refused("node 0 (Relu \"/Relu\")", Fault::Undefined { value: value("/MatMul_output_0") }, |p| {
        p.graph.nodes.swap(0, 1);
    });
    refused("node 2 (Add \"/Add\")", Fault::Undefined { value: value("nothing") }, |p| {
        p.graph.nodes[2].inputs[1] = value("nothing");
    });
    refused("the graph", Fault::NoOutput { value: value("z") }, |p| {
        p.graph.outputs[0].name = value("z");
    });
    refused("the graph", Fault::NoName { what: "inputs" }, |p| p.graph.inputs[0].name.clear());
}

#[test]
fn operators_are_there_in_the_version_that_is_imported() {
    let at = "node 1 (Relu \"/Relu\")";
    refused("node 0 (MatMul \"/MatMul\")", Fault::NoOpset { domain: value("") }, |p| p.opsets.clear());
    refused("node 1 (elsewhere.Relu \"/Relu\")", Fault::NoOpset { domain: value("elsewhere") }, |p| {
        p.graph.nodes[1].domain = value("elsewhere");
    });
    refused("the model", Fault::TwoOpsets { domain: value("ai.onnx") }, |p| {
        p.opsets.push(Opset { domain: value("ai.onnx"), version: 18, ..Opset::default() });
    });
    refused("node 1 ( \"/Relu\")", Fault::NoOperator, |p| p.graph.nodes[1].op.clear());
    refused("node 1 (Relux \"/Relu\")", Fault::Unknown { domain: value("ai.onnx") }, |p| {
        p.graph.nodes[1].op = value("Relux");
    });
    refused("node 1 (Gelu \"/Relu\")", Fault::TooNew { since: 20, version: 17 }, |p| {
        p.graph.nodes[1].op = value("Gelu");
    });
    refused("node 1 (Upsample \"/Relu\")", Fault::Gone { until: 10, version: 17 }, |p| {
        p.graph.nodes[1].op = value("Upsample");
    });
    refused(at, Fault::OtherAttribute { name: value("alpha") }, |p| {
        p.graph.nodes[1].attributes.push(Attribute::float("alpha", 1.0));
    });
    // Another's operators are theirs, once the domain is imported.
    let theirs = changed(|p| {
        p.graph.nodes[1].domain = value("elsewhere");
        p.opsets.push(Opset { domain: value("elsewhere"), version: 1, ..Opset::default() });
    });
    theirs.check().expect("is not known, and may be anything");
    theirs.infer(&|_| None).expect("is not known, and may be anything");
}

#[test]
fn inputs_outputs_and_attributes_are_the_operators() {
    let at = "node 0 (MatMul \"/MatMul\")";
    refused(at, Fault::Count { what: "inputs", found: 1, least: 2, most: Some(2) }, |p| {
        p.graph.nodes[0].inputs.pop();
    });
    refused(at, Fault::Count { what: "outputs", found: 2, least: 1, most: Some(1) }, |p| {
        p.graph.nodes[0].outputs.push(value("more"));
    });
    refused(at, Fault::LeftOut { what: "input", index: 1 }, |p| p.graph.nodes[0].inputs[1].clear());
    refused("node 3 (Concat)", Fault::Count { what: "inputs", found: 0, least: 1, most: None }, |p| {
        p.graph.nodes.push(with(node("Concat", &[], &["z"]), Attribute::int("axis", 0)));
    });
    refused("node 3 (Concat)", Fault::NoAttribute { name: value("axis") }, |p| {
        p.graph.nodes.push(node("Concat", &["c", "c"], &["z"]));
    });
    refused("node 3 (Cast)", Fault::AttributeKind { name: value("to") }, |p| {
        p.graph.nodes.push(with(node("Cast", &["c"], &["z"]), Attribute::float("to", 1.0)));
    });
    refused("node 3 (Cast)", Fault::AttributeTwice { name: value("to") }, |p| {
        let cast = with(node("Cast", &["c"], &["z"]), Attribute::int("to", 1));
        p.graph.nodes.push(with(cast, Attribute::int("to", 10)));
    });
    // What is left out in the middle, and outputs that nobody wants.
    changed(|p| p.graph.nodes.push(node("Clip", &["c", "", "c"], &["z"]))).check().expect("is optional");
    // Axes became an input.
    let reduce = || with(node("ReduceMean", &["a"], &["z"]), Attribute::ints("axes", &[1]));
    changed(|p| p.graph.nodes.push(reduce())).check().expect("is an attribute in 17");
    refused("node 3 (ReduceMean)", Fault::OtherAttribute { name: value("axes") }, |p| {
        p.graph.nodes.push(reduce());
        p.opsets[0].version = 18;
    });
}

/// `If` with one branch that gives `inner` and one that gives a constant.
fn branches(inner: Vec<Node>, given: &str) -> Node {
    let graph = |nodes: Vec<Node>, output: &str| {
        let outputs = vec![ValueInfo { name: output.to_owned(), ..ValueInfo::default() }];
        Some(Box::new(Graph { nodes, outputs, ..Graph::default() }))
    };
    let branch = |name: &str, g| Attribute {
        name: name.to_owned(),
        g,
        kind: tensormill_graph::Kind::GRAPH,
        ..Attribute::default()
    };
    let other = with(node("Constant", &[], &["five"]), Attribute::float("value_float", 5.0));
    let all = node("If", &["cond"], &["z"]);
    let all = with(all, branch("then_branch", graph(inner, given)));
    with(all, branch("else_branch", graph(vec![other], "five")))
}

fn condition(p: &mut Program) {
    p.graph.inputs.push(ValueInfo::tensor("cond", Elem::BOOL, &[]));
}

#[test]
fn graphs_within_see_what_is_around_and_do_not_hide_it() {
    let within = "then_branch of node 3 (If)";
    let good = changed(|p| {
        condition(p);
        p.graph.nodes.push(branches(vec![node("Relu", &["a"], &["inner"])], "inner"));
        p.graph.nodes.push(node("Relu", &["z"], &["last"]));
    });
    good.check().expect("sees the input");
    let inferred = good.infer(&|_| None).expect("fits");
    let z = inferred.get("last").expect("is there");
    assert_eq!((z.elem, z.dims.as_ref()), (Elem::F32, None), "one branch has two dimensions, one has none");
    refused(&format!("node 0 (Relu) in {within}"), Fault::Twice { value: value("c") }, |p| {
        condition(p);
        p.graph.nodes.push(branches(vec![node("Relu", &["a"], &["c"])], "c"));
    });
    refused(&format!("node 0 (Relu) in {within}"), Fault::Undefined { value: value("later") }, |p| {
        condition(p);
        p.graph.nodes.push(branches(vec![node("Relu", &["later"], &["inner"])], "inner"));
        p.graph.nodes.push(node("Relu", &["a"], &["later"]));
    });
    refused(within, Fault::NoOutput { value: value("inner") }, |p| {
        condition(p);
        p.graph.nodes.push(branches(Vec::new(), "inner"));
    });
    // Values within are not seen from around.
    refused("node 4 (Relu)", Fault::Undefined { value: value("inner") }, |p| {
        condition(p);
        p.graph.nodes.push(branches(vec![node("Relu", &["a"], &["inner"])], "inner"));
        p.graph.nodes.push(node("Relu", &["inner"], &["last"]));
    });
    contradicts("node 0 (MatMul) in then_branch in node 3 (If)", "inner dimensions", |p| {
        condition(p);
        p.graph.nodes.push(branches(vec![node("MatMul", &["b", "b"], &["inner"])], "inner"));
    });
}

#[test]
fn graphs_within_are_cast_without_hiding_what_is_around() {
    for before in [true, false] {
        let mut program = changed(|p| {
            condition(p);
            let within = branches(vec![node("Relu", &["a"], &["inner"])], "inner");
            let at = if before { 0 } else { p.graph.nodes.len() };
            p.graph.nodes.insert(at, within);
        });
        program.cast(Elem::F16, true);
        program.check().unwrap_or_else(|e| panic!("{e}"));
        program.infer(&|_| None).unwrap_or_else(|e| panic!("{e}"));
    }
}

fn function(name: &str, nodes: Vec<Node>) -> Function {
    let opsets = ["", "own"].map(|d| Opset { domain: value(d), version: 17, ..Opset::default() });
    Function {
        name: name.to_owned(),
        domain: value("own"),
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        nodes,
        opsets: opsets.into(),
        ..Function::default()
    }
}

fn call(name: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    Node { domain: value("own"), ..node(name, inputs, outputs) }
}

#[test]
fn functions_are_programs_too() {
    let calling = |functions: Vec<Function>, calls: Node| {
        move |p: &mut Program| {
            p.opsets.push(Opset { domain: value("own"), version: 17, ..Opset::default() });
            p.functions = functions;
            p.graph.nodes.push(calls);
        }
    };
    let turn = || {
        with(
            node("Transpose", &["x"], &["y"]),
            Attribute { reference: value("order"), ..Attribute::ints("perm", &[]) },
        )
    };
    let one = || with(call("F", &["a"], &["z"]), Attribute::ints("order", &[1, 0]));
    let good = changed(calling(vec![function("F", vec![turn()])], one()));
    good.check().expect("is sound");
    let inferred = good.infer(&|_| None).expect("fits");
    let z = inferred.get("z").and_then(|z| z.dims.clone());
    assert_eq!(z, Some(vec![Dim::Known(4), "rows".into()]), "the call says the order");

    let most = Fault::Count { what: "inputs", found: 2, least: 0, most: Some(1) };
    let two = call("F", &["a", "a"], &["z"]);
    refused("node 3 (own.F)", most, calling(vec![function("F", vec![turn()])], two));
    let relu = |from: &str| node("Relu", &[from], &["y"]);
    refused(
        "node 0 (Relu) in the function own.F",
        Fault::Undefined { value: value("a") },
        calling(vec![function("F", vec![relu("a")])], one()),
    );
    refused(
        "the function own.F",
        Fault::FunctionTwice,
        calling(vec![function("F", vec![relu("x")]), function("F", vec![relu("x")])], one()),
    );
    refused(
        "the function own.F",
        Fault::NoOutput { value: value("y") },
        calling(vec![function("F", Vec::new())], one()),
    );
    let around = vec![
        function("F", vec![call("G", &["x"], &["y"])]),
        function("G", vec![call("F", &["x"], &["y"])]),
        function("H", vec![relu("x")]),
    ];
    refused("the function own.F", Fault::Recursion, calling(around, one()));
    let square = function("F", vec![node("MatMul", &["x", "x"], &["y"])]);
    let e = changed(calling(vec![square], call("F", &["b"], &["z"])));
    let e = e.infer(&|_| None).expect_err("[4, 6] times itself does not fit");
    assert_eq!(e.place, "node 0 (MatMul) in the function own.F in node 3 (own.F)");
}

#[test]
fn dimensions_contradict() {
    let at = |op: &str| format!("node 3 ({op})");
    contradicts(
        "node 0 (MatMul \"/MatMul\")",
        "inner dimensions of [rows, 4] and [5, 6] are [4] and [5]",
        |p| {
            p.graph.inputs[1] = ValueInfo::tensor("b", Elem::F32, &[5, 6].map(Dim::Known));
        },
    );
    contradicts("node 2 (Add \"/Add\")", "do not broadcast: 6 beside 7", |p| {
        p.graph.inputs[2] = ValueInfo::tensor("c", Elem::F32, &[Dim::Known(7)]);
    });
    let push = |n: Node| move |p: &mut Program| p.graph.nodes.push(n);
    let axis = |op: &str, inputs: &[&str], axis| with(node(op, inputs, &["z"]), Attribute::int("axis", axis));
    contradicts(&at("Concat"), "beside [rows, 4], along dimension 0", push(axis("Concat", &["a", "b"], 0)));
    contradicts(&at("Concat"), "axis 2 of 2 dimensions", push(axis("Concat", &["a", "b"], 2)));
    let turn = with(node("Transpose", &["b"], &["z"]), Attribute::ints("perm", &[0, 2]));
    contradicts(&at("Transpose"), "[0, 2] is no order of the dimensions [4, 6]", push(turn));
    let split = with(node("Split", &["b"], &["z", "z1", "z2", "z3", "z4"]), Attribute::int("axis", 1));
    contradicts(&at("Split"), "6 along dimension 1 are no 5 equal parts", push(split));
    let listed = |op: &str, list: &[i64]| {
        let (op, list) = (op.to_owned(), list.to_vec());
        move |p: &mut Program| {
            p.graph.initializers.push(Tensor::ints("list", &[list.len() as i64], &list));
            p.graph.nodes.push(node(&op, &["b", "list"], &["z"]));
        }
    };
    contradicts(&at("Reshape"), "another number of elements", listed("Reshape", &[5, 5]));
    contradicts(&at("Reshape"), "with a whole number in place of -1", listed("Reshape", &[5, -1]));
    contradicts(&at("Reshape"), "two dimensions are -1", listed("Reshape", &[-1, -1]));
    contradicts(&at("Squeeze"), "dimension 1 of [4, 6] is not one", listed("Squeeze", &[1]));
    contradicts(&at("Unsqueeze"), "axis -1 is named twice", listed("Unsqueeze", &[3, -1]));
    contradicts(&at("Gather"), "there is no place 4 along dimension 0", listed("Gather", &[0, 4]));
    contradicts(&at("Expand"), "do not broadcast", listed("Expand", &[3, 6]));
    contradicts(&at("ReduceSum"), "axis 2 of 2 dimensions", listed("ReduceSum", &[2]));
    let norm = node("LayerNormalization", &["a", "c"], &["z"]);
    contradicts(
        &at("LayerNormalization"),
        "does not fit what is normalized",
        push(with(norm, Attribute::int("axis", -1))),
    );
}

#[test]
fn types_contradict() {
    let push = |n: Node| move |p: &mut Program| p.graph.nodes.push(n);
    contradicts("node 2 (Add \"/Add\")", "is float and \"c\" is float16", |p| {
        p.graph.inputs[2] = ValueInfo::tensor("c", Elem::F16, &[Dim::Known(6)]);
    });
    let cond = push(node("Not", &["c"], &["z"]));
    contradicts("node 3 (Not)", "\"c\" is float, which the operator does not take", cond);
    // Convolutions take bfloat16 since 22.
    let conv = |version: i64| {
        move |p: &mut Program| {
            for (name, dims) in [("x", [1, 2, 8]), ("w", [3, 2, 4])] {
                p.graph.inputs.push(ValueInfo::tensor(name, Elem::BF16, &dims.map(Dim::Known)));
            }
            p.graph.nodes.push(node("Conv", &["x", "w"], &["z"]));
            p.opsets[0].version = version;
        }
    };
    contradicts("node 3 (Conv)", "\"x\" is bfloat16, which the operator does not take", conv(21));
    let inferred = changed(conv(22)).infer(&|_| None).expect("takes it");
    assert_eq!(inferred.get("z").map(ToString::to_string).as_deref(), Some("bfloat16[1, 3, 5]"));
}

#[test]
fn declarations_contradict() {
    let at = "node 2 (Add \"/Add\")";
    let declare = |elem, dims: &[Dim]| {
        let info = ValueInfo::tensor("y", elem, dims);
        move |p: &mut Program| p.graph.outputs[0] = info
    };
    let named = Dim::from("rows");
    contradicts(
        at,
        "declared as int64[rows, 6]; what is computed is float[rows, 6]",
        declare(Elem::I64, &[named.clone(), 6.into()]),
    );
    contradicts(at, "declared as float[rows, 7]", declare(Elem::F32, &[named.clone(), 7.into()]));
    contradicts(at, "declared as float[rows]", declare(Elem::F32, &[named]));
    contradicts("node 0 (MatMul \"/MatMul\")", "declared as float[3, 3]", |p| {
        p.graph.values.push(ValueInfo::tensor("/MatMul_output_0", Elem::F32, &[3, 3].map(Dim::Known)));
    });
    // Other names, and less than is known, are no contradiction.
    for dims in [["batch".into(), Dim::Known(6)], [Dim::Unknown, Dim::Unknown]] {
        changed(declare(Elem::F32, &dims)).infer(&|_| None).expect("may be so");
    }
}

#[test]
fn shapes_that_graphs_compute_are_followed() {
    let mut b = Builder::new("g", 17, Elem::F32);
    let x = b.input("x", Elem::F32, &["batch".into(), "length".into(), Dim::Known(24)]);
    let past = b.input("past", Elem::F32, &["batch".into(), "past".into(), Dim::Known(24)]);
    let shape = b.node("Shape", &[&x], vec![]);
    let part = |b: &mut Builder, i: i64| {
        let i = b.ints(&[1], &[i]);
        b.node("Gather", &[&shape, &i], vec![])
    };
    let (batch, length) = (part(&mut b, 0), part(&mut b, 1));
    let rest = b.ints(&[2], &[-1, 8]);
    let to = b.node("Concat", &[&batch, &length, &rest], vec![Attribute::int("axis", 0)]);
    let heads = b.node("Reshape", &[&x, &to], vec![]);
    let all = b.node("Concat", &[&past, &x], vec![Attribute::int("axis", 1)]);
    let rows = b.ints(&[3], &[-1, 2, 12]);
    let rows = b.node("Reshape", &[&all, &rows], vec![]);
    let total = b.node("Shape", &[&all], vec![Attribute::int("start", 1), Attribute::int("end", 2)]);
    let now = b.node("Sub", &[&total, &length], vec![]);
    let [now, total] = [now, total].map(|v| {
        let axis = b.ints(&[1], &[0]);
        b.node("Squeeze", &[&v, &axis], vec![])
    });
    let one = b.ints(&[], &[1]);
    let places = b.node("Range", &[&now, &total, &one], vec![]);
    let double = b.ints(&[4], &[0, 3, -1, 8]);
    let flat = b.node("Reshape", &[&heads, &double], vec![]);
    let open = b.node("NonZero", &[&places], vec![]);
    let program = b.finish(8, Vec::new());
    program.check().expect("is sound");
    let inferred = program.infer(&|_| None).expect("fits");
    let fact = |v: &Value| inferred.get(v.name()).expect("is there").to_string();
    assert_eq!(fact(&heads), "float[batch, length, 3, 8]");
    assert_eq!(fact(&all), "float[batch, past + length, 24]");
    assert_eq!(fact(&rows), "float[?, 2, 12]", "a product of names");
    assert_eq!(fact(&places), "int64[length]");
    assert_eq!(fact(&flat), "float[batch, 3, length, 8]");
    assert_eq!(fact(&open), "int64[1, ?]");
}

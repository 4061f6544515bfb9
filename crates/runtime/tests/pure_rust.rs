//! The runtime written in Rust, on graphs whose outputs ONNX Runtime gave: no library, no network.

mod common;

use common::{golden, golden_graphs_give_golden_outputs, open, run, values};
use std::fs;
use tensormill_model::ErrorKind;
use tensormill_runtime::{Backend, Dim, Port, Session, Value};
use tensormill_tensor::DType;

#[test]
fn graphs_of_several_opsets_give_what_onnx_runtime_gives() {
    golden_graphs_give_golden_outputs(&Backend::Tract);
}

#[test]
fn a_graph_says_what_it_takes_and_gives() {
    let decoder = open("decoder.onnx", &Backend::Tract);
    let symbol = |s: &str| Dim::Symbol(s.to_owned());
    let dims = vec![symbol("batch"), Dim::Fixed(2), symbol("past_sequence_length"), Dim::Fixed(4)];
    let name = "past_key_values.0.key".to_owned();
    assert_eq!(decoder.inputs()[3], Port { name, dtype: DType::F32, dims: Some(dims) });
    assert_eq!(decoder.inputs()[3].to_string(), "f32 [batch, 2, past_sequence_length, 4]");
    let outputs: Vec<&str> = decoder.outputs().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(outputs, ["logits", "present.0.key", "present.0.value"]);
    assert_eq!(decoder.runtime(), "tract");
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let inputs = values("encoder.inputs.safetensors");
    let mut session = open("encoder.opset17.onnx", &Backend::Tract);
    let first = run(&mut session, &inputs);
    assert_eq!(run(&mut session, &inputs), first);
    assert_eq!(run(&mut open("encoder.opset17.onnx", &Backend::Tract), &inputs), first);
}

#[test]
fn wrong_inputs_are_named() {
    let mut session = open("encoder.opset17.onnx", &Backend::Tract);
    let ids = || Value::from_i64(&[1, 2], &[3, 4]).unwrap();
    let mut refused = |inputs: &[(&str, Value)]| {
        let e = session.run(inputs).expect_err("inputs that the graph does not take");
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.file_name().unwrap().ends_with("encoder.opset17.onnx"));
        e.message().to_owned()
    };
    assert!(refused(&[("input_ids", ids())]).contains("`attention_mask` is not given"));
    assert!(refused(&[("ids", ids())]).contains("no input `ids`"));
    assert!(refused(&[("input_ids", ids()), ("input_ids", ids())]).contains("given twice"));
    let all = |first: Value| [("input_ids", first), ("attention_mask", ids()), ("token_type_ids", ids())];
    let narrow = refused(&all(ids().cast(DType::I32).unwrap()));
    assert!(narrow.contains("`input_ids` is i64 [batch, sequence]; i32 [1, 2] is given"), "{narrow}");
    assert!(refused(&all(Value::from_i64(&[2], &[3, 4]).unwrap())).contains("i64 [2] is given"));
}

#[test]
fn what_tract_lacks_is_an_error_with_a_way_out() {
    let refused = |path: &std::path::Path| Session::open(path, &Backend::Tract).err().expect("refused");
    let e = refused(&golden("bf16.onnx"));
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.message().contains("Bfloat16") && e.hint_text().unwrap().contains("--onnxruntime"), "{e}");

    // An operator of a name that nobody has, as long as the one whose place it takes (field 4 of a node).
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(golden("encoder.opset17.onnx")).unwrap();
    let kind = bytes.windows(9).position(|w| w == b"\x22\x07Softmax").unwrap();
    bytes[kind + 2..kind + 9].copy_from_slice(b"Hardmux");
    let path = dir.path().join("strange.onnx");
    fs::write(&path, &bytes).unwrap();
    let e = refused(&path);
    assert_eq!((e.kind(), e.message()), (ErrorKind::Unsupported, "tract does not compute Hardmux"));
}

#[test]
fn files_that_are_no_graphs_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.onnx");
    let open = || Session::open(&path, &Backend::Tract).err();
    assert_eq!(open().unwrap().kind(), ErrorKind::Io, "no such file");
    fs::write(&path, b"\xff\xff\xff no protobuf").unwrap();
    assert_eq!(open().unwrap().kind(), ErrorKind::Malformed);
    fs::write(&path, b"").unwrap();
    assert_eq!(open().unwrap().kind(), ErrorKind::Malformed, "an empty message has no graph");

    // Every byte of a graph turned over, one at a time: an error or a graph, never the end of the process.
    let whole = fs::read(golden("encoder.opset14.onnx")).unwrap();
    let mut refused = 0;
    for i in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[i] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        refused += usize::from(open().is_some());
    }
    assert!(refused > 50, "{refused} of them were refused");
}

/// Without a library to load, and none named, the other runtime is taken; a library that is named is meant.
#[test]
fn a_named_library_is_used_or_refused() {
    let graph = golden("encoder.opset17.onnx");
    let missing = Some("/nowhere/libonnxruntime.so".into());
    for backend in [Backend::Auto { library: missing.clone() }, Backend::OnnxRuntime { library: missing }] {
        let e = Session::open(&graph, &backend).err().expect("no such library");
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.message().contains("/nowhere/libonnxruntime.so"), "{e}");
        assert!(e.hint_text().unwrap().contains("--onnxruntime PATH"));
    }
    let text = Some(golden("encoder.opset17.onnx"));
    let e = Session::open(&graph, &Backend::OnnxRuntime { library: text }).err().expect("this is no library");
    assert_eq!(e.kind(), ErrorKind::Unsupported);
}

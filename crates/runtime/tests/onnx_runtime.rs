//! ONNX Runtime itself, where somebody names its library in `ORT_DYLIB_PATH`.

mod common;

use common::{golden_graphs_give_golden_outputs, open, run};
use tensormill_model::ErrorKind;
use tensormill_runtime::{Backend, Session, Value};
use tensormill_tensor::DType;

const BACKEND: Backend = Backend::OnnxRuntime { library: None };

fn is_there() -> bool {
    let there = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|v| !v.is_empty());
    if !there {
        eprintln!("skipped: ORT_DYLIB_PATH names no ONNX Runtime");
    }
    there
}

#[test]
fn golden_graphs() {
    if is_there() {
        golden_graphs_give_golden_outputs(&BACKEND);
    }
}

#[test]
fn bf16_goes_in_and_comes_out() {
    if !is_there() {
        return;
    }
    let mut session = open("bf16.onnx", &BACKEND);
    assert!(session.runtime().starts_with("ONNX Runtime ("));
    let x = Value::from_f32(&[3], &[1.0, -2.5, 1.0 / 3.0]).unwrap().cast(DType::BF16).unwrap();
    let y = &run(&mut session, &[("x".to_owned(), x)])[0].1;
    assert_eq!((y.dtype(), y.to_f32().unwrap()), (DType::BF16, vec![2.0, -5.0, 0.667_968_75]));
}

#[test]
fn errors_name_the_file() {
    if !is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("graph.onnx");
    let open = || Session::open(&path, &BACKEND).err().expect("no graph");
    assert_eq!(open().kind(), ErrorKind::Io);
    std::fs::write(&path, b"\xff\xff\xff no protobuf").unwrap();
    let e = open();
    assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
    assert!(e.file_name().unwrap().ends_with("graph.onnx"));
}

#[test]
fn a_process_loads_one_library() {
    if !is_there() {
        return;
    }
    drop(open("bf16.onnx", &BACKEND));
    let other = Backend::OnnxRuntime { library: Some("/nowhere/libonnxruntime.so".into()) };
    let e = Session::open(&common::golden("bf16.onnx"), &other).err().expect("another library");
    assert_eq!(e.kind(), ErrorKind::Usage, "{e}");
}

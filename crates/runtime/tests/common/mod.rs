//! The golden graphs, and values from safetensors files beside them.

#![allow(dead_code, reason = "each test uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
};
use tensormill_runtime::{Backend, Session, Value};
use tensormill_tensor::DType;

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/onnx-runtime").join(name)
}

pub fn open(graph: &str, backend: &Backend) -> Session {
    Session::open(&golden(graph), backend).unwrap_or_else(|e| panic!("{e}"))
}

pub fn values(name: &str) -> Vec<(String, Value)> {
    let bytes = fs::read(golden(name)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut values: Vec<(String, Value)> = file
        .iter()
        .map(|(name, t)| {
            let dtype = match t.dtype() {
                safetensors::Dtype::F32 => DType::F32,
                safetensors::Dtype::I64 => DType::I64,
                other => panic!("{other:?}"),
            };
            (name.to_owned(), Value::new(dtype, t.shape().to_vec(), t.data().to_vec()).unwrap())
        })
        .collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

pub fn run(session: &mut Session, inputs: &[(String, Value)]) -> Vec<(String, Value)> {
    let inputs: Vec<(&str, Value)> = inputs.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
    session.run(&inputs).unwrap_or_else(|e| panic!("{e}"))
}

/// Every expected output is there, and within `tolerance`.
pub fn assert_near(got: &[(String, Value)], want: &[(String, Value)], tolerance: f32) {
    for (name, want) in want {
        let (_, got) = got.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no output {name}"));
        assert_eq!(got.shape(), want.shape(), "{name}");
        let (got, want) = (got.to_f32().unwrap(), want.to_f32().unwrap());
        let off = got
            .iter()
            .zip(&want)
            .map(|(g, w)| (g - w).abs())
            .fold(0f32, |a, e| if e > a || e.is_nan() { e } else { a });
        assert!(off <= tolerance, "{name} is off by {off}");
    }
}

/// All golden graphs that hold no bf16, each against what ONNX Runtime gave for it.
pub fn golden_graphs_give_golden_outputs(backend: &Backend) {
    let (inputs, want) = (values("encoder.inputs.safetensors"), values("encoder.expected.safetensors"));
    let forms =
        ["encoder.opset14.onnx", "encoder.opset17.onnx", "encoder.opset18.onnx", "encoder.opset21.onnx"];
    for graph in forms {
        assert_near(&run(&mut open(graph, backend), &inputs), &want, 2e-6);
    }
    let narrow = run(&mut open("encoder.f16.onnx", backend), &inputs);
    assert!(narrow.iter().all(|(_, v)| v.dtype() == DType::F16));
    assert_near(&narrow, &want, 2e-2);

    // One session for a prefill with an empty past and a step with another length: sizes may change between runs.
    let mut decoder = open("decoder.onnx", backend);
    for stage in ["prefill", "step"] {
        let inputs = values(&format!("decoder.{stage}.inputs.safetensors"));
        let want = values(&format!("decoder.{stage}.expected.safetensors"));
        assert_near(&run(&mut decoder, &inputs), &want, 2e-6);
    }
}

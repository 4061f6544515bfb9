//! `compare --outputs`: graphs that are run, by the runtime that tests build in.

mod common;

use common::{expect, json, mill};
use serde_json::Value as Json;
use std::fs;

fn golden(name: &str) -> String {
    format!("{}/../../golden/onnx-runtime/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The report; `--runtime tract` whatever this machine has installed.
fn compare(code: i32, a: &str, b: &str, more: &[&str]) -> Json {
    let args = ["compare", &golden(a), &golden(b), "--outputs", "--runtime", "tract", "--json"];
    json(&expect(code, args.iter().chain(more)).0)
}

fn output<'r>(report: &'r Json, name: &str) -> &'r Json {
    let outputs = report["outputs"].as_array().unwrap();
    outputs.iter().find(|o| o["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn known_outputs_are_met() {
    let inputs = golden("encoder.inputs.safetensors");
    let limits = ["--input", &inputs, "--rtol", "1e-5", "--atol", "2e-6"];
    for opset in [14, 17, 18, 21] {
        let graph = format!("encoder.opset{opset}.onnx");
        let report = compare(0, &graph, "encoder.expected.safetensors", &limits);
        assert_eq!(report["runtime"], "tract");
        let hidden = output(&report, "last_hidden_state");
        assert_eq!(hidden["shape"], serde_json::json!([3, 5, 8]));
        assert_eq!(
            (hidden["argmax"]["rows"].as_u64(), hidden["argmax"]["equal"].as_u64()),
            (Some(15), Some(15))
        );
        assert_eq!(hidden["beyond"], 0);
        assert!(hidden["cosine"].as_f64().unwrap() > 0.999_999);
    }
    // Either may be the reference.
    compare(0, "encoder.expected.safetensors", "encoder.opset17.onnx", &limits);
    for stage in ["prefill", "step"] {
        let inputs = golden(&format!("decoder.{stage}.inputs.safetensors"));
        let expected = format!("decoder.{stage}.expected.safetensors");
        let report = compare(0, "decoder.onnx", &expected, &["--input", &inputs, "--atol", "2e-6"]);
        assert_eq!(report["outputs"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn a_narrow_graph_gets_the_same_inputs_and_is_told_apart() {
    let report = compare(0, "encoder.opset17.onnx", "encoder.f16.onnx", &[]);
    let hidden = output(&report, "last_hidden_state");
    assert_eq!((&hidden["type_a"], &hidden["type_b"]), (&"f32".into(), &"f16".into()));
    assert_eq!(hidden["shape"], serde_json::json!([2, 7, 8]), "batch and sequence");
    let max = hidden["max_abs"].as_f64().unwrap();
    assert!(max > 1e-5 && max < 2e-2, "{max}");
    assert_eq!(report["failure"], Json::Null, "no limit, no failure");

    let within = format!("{}", max * 1.01);
    compare(0, "encoder.opset17.onnx", "encoder.f16.onnx", &["--atol", &within]);
    let beyond = format!("{}", max * 0.99);
    let report = compare(5, "encoder.opset17.onnx", "encoder.f16.onnx", &["--atol", &beyond]);
    assert!(report["failure"].as_str().unwrap().contains("beyond the tolerance"), "{report}");
    let report = compare(5, "encoder.opset17.onnx", "encoder.f16.onnx", &["--max-rmse", "1e-7"]);
    assert!(report["failure"].as_str().unwrap().contains("RMSE"), "{report}");
}

#[test]
fn generated_inputs_depend_on_the_seed_alone() {
    let report = |seed: &str| {
        compare(0, "decoder.onnx", "decoder.onnx", &["--generate", seed, "--rtol", "0"])["outputs"].clone()
    };
    let first = report("1");
    assert_eq!(first, report("1"));
    let logits = first.as_array().unwrap().iter().find(|o| o["name"] == "logits").unwrap();
    assert_eq!((&logits["shape"], &logits["different"]), (&serde_json::json!([2, 7, 24]), &0.into()));
    let f16 = |seed: &str| {
        let report = compare(0, "encoder.opset17.onnx", "encoder.f16.onnx", &["--generate", seed]);
        output(&report, "last_hidden_state")["rmse"].clone()
    };
    assert_ne!(f16("1"), f16("2"), "other seeds, other inputs");
}

#[test]
fn graphs_with_other_outputs_differ() {
    let report = compare(0, "encoder.opset17.onnx", "decoder.onnx", &[]);
    assert_eq!(report["only_in_a"].as_array().unwrap().len(), 2);
    assert_eq!(report["only_in_b"].as_array().unwrap().len(), 3);
    let report = compare(5, "encoder.opset17.onnx", "decoder.onnx", &["--atol", "1"]);
    assert!(report["failure"].as_str().unwrap().contains("not on both sides"), "{report}");
}

#[test]
fn what_people_read() {
    let inputs = golden("encoder.inputs.safetensors");
    let (a, b) = (golden("encoder.opset17.onnx"), golden("encoder.f16.onnx"));
    let args = ["compare", &a, &b, "--outputs", "--runtime", "tract", "--input", &inputs, "--atol", "1e-6"];
    let (stdout, _) = expect(5, args);
    for part in
        ["last_hidden_state", "[3, 5, 8]", "f16", "ARGMAX", "run by tract on", "input_ids [3, 5]", "FAILED: "]
    {
        assert!(stdout.contains(part), "{part} in\n{stdout}");
    }
}

#[test]
fn mistakes_are_explained() {
    let (graph, known) = (golden("encoder.opset17.onnx"), golden("encoder.expected.safetensors"));
    let inputs = golden("encoder.inputs.safetensors");
    let explained = |code: i32, a: &str, b: &str, more: &[&str], what: &str| {
        let args = ["compare", a, b, "--runtime", "tract"];
        let (_, stderr) = expect(code, args.iter().chain(more));
        assert!(stderr.contains(what), "{what} in\n{stderr}");
    };
    explained(2, &graph, &known, &["--outputs"], "--input FILE.safetensors");
    explained(2, &known, &known, &["--outputs", "--input", &inputs], "neither of the two is a graph");
    explained(2, &graph, &graph, &["--outputs", "--input", &known], "`input_ids` is not given");
    explained(6, &graph, "nothing.onnx", &["--outputs"], "nothing.onnx");
    explained(4, &golden("bf16.onnx"), &graph, &["--outputs"], "--onnxruntime PATH");
    explained(2, &graph, &graph, &[], "--outputs");

    // A library that is named and not there is an error with a next step, and no panic.
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("libonnxruntime.so").display().to_string();
    let by_option = ["compare", &graph, &graph, "--outputs", "--onnxruntime", &missing];
    let (_, stderr) = expect(4, by_option);
    assert!(stderr.contains(&missing) && stderr.contains("hint: install ONNX Runtime"), "{stderr}");
    fs::write(&missing, b"no library").unwrap();
    let mut by_variable = mill();
    by_variable.args(["compare", &graph, &graph, "--outputs"]).env("ORT_DYLIB_PATH", &missing);
    let out = by_variable.output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("ONNX Runtime is not there"), "{stderr}");
}

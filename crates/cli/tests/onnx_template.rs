//! Other weights in a graph that exists, and names for weights that exporters hide.

mod common;

use common::{expect, json};
use std::path::PathBuf;

fn golden(path: &str) -> String {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/onnx")).join(path).display().to_string()
}

/// The small BERT with its weights rounded to `bf16`: a checkpoint that differs from the one that was exported.
fn tuned(dir: &tempfile::TempDir) -> String {
    let at = |name: &str| dir.path().join(name).display().to_string();
    expect(
        0,
        ["convert", &golden("models/bert"), "--to", "safetensors", "--dtype", "bf16", "-o", &at("half")],
    );
    expect(0, ["convert", &at("half"), "--to", "safetensors", "--dtype", "f32", "-o", &at("tuned")]);
    at("tuned")
}

#[test]
fn a_graph_takes_the_weights_of_another_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.onnx").display().to_string();
    let tuned = tuned(&dir);
    for export in ["bert-torchscript", "bert-dynamo"] {
        let graph = golden(&format!("exports/{export}/model.onnx"));
        expect(0, ["convert", &tuned, "--graph", &graph, "-o", &out, "--force"]);
        // The graph has its positions beside, which are no parameter.
        let (said, _) = expect(0, ["compare", &out, &tuned]);
        assert!(said.contains("error: none (every value exact)"), "{said}");
        expect(5, ["compare", &out, &graph, "--max-rmse", "0"]);
    }
}

#[test]
fn hidden_weights_get_their_parameters_names() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.onnx").display().to_string();
    let graph = golden("exports/bert-torchscript/model.onnx");
    let hidden = |file: &str| {
        let said = json(&expect(0, ["inspect", file, "--json"]).0);
        let all = said["graph"]["parameters"].as_array().unwrap().clone();
        all.into_iter().filter(|p| p["how"] == "node's name").count()
    };
    assert_eq!(hidden(&graph), 12);
    expect(0, ["convert", &graph, "--rename-weights", "-o", &out]);
    assert_eq!(hidden(&out), 0);
    expect(0, ["compare", &out, &graph, "--max-rmse", "0"]);
    let (said, _) = expect(0, ["inspect", &out]);
    assert!(said.contains("encoder.layer.0.attention.self.query.MatMul.weight"), "{said}");
}

#[test]
fn graphs_of_other_models_and_fused_weights_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.onnx").display().to_string();
    let bert = golden("models/bert");
    let refused = |graph: String, code: i32, why: &str| {
        let (_, said) = expect(code, ["convert", &bert, "--graph", &graph, "-o", &out]);
        assert!(said.contains(why), "{said}");
        assert!(!dir.path().join("out.onnx").exists());
    };
    refused(golden("exports/llama-dynamo/model.onnx"), 3, "model.embed_tokens.weight");
    refused(golden("exports/bert-ort-fused/model.onnx"), 3, "Attention_0_qkv_weight");
    refused(golden("models/bert"), 2, "this is none");
    let elsewhere = dir.path().join("out.safetensors").display().to_string();
    let graph = golden("exports/bert-torchscript/model.onnx");
    for said in [vec!["--graph", &graph], vec!["--rename-weights"]] {
        let args = ["convert", &bert, "-o", &elsewhere].into_iter().chain(said.iter().copied());
        let (_, why) = expect(2, args);
        assert!(why.contains("is about ONNX graphs"), "{why}");
    }
}

//! Names and layouts of parameters that exporters hide, beside those that comparing values with the checkpoint gave
//! (`names.json` of `golden/onnx/exports`).

mod common;

use common::{Files, json, listed};
use std::collections::{BTreeMap, BTreeSet};
use tensormill_graph::{Elem, Graph, How, Node, Program, Recovered, Tensor, Weight};

/// Buffers of modules: in the graph under their names, in no checkpoint.
const BUFFERS: &[&str] = &["position_ids", "token_type_ids", "inv_freq"];

fn is_buffer(name: &str) -> bool {
    BUFFERS.iter().any(|b| name.ends_with(&format!(".{b}")))
}

#[test]
fn names_and_layouts_are_the_checkpoints() {
    let (mut packed, mut unnamed, mut wrong) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut right = 0;
    for export in listed("exports") {
        let reader = Files::golden(&format!("exports/{export}")).open("model.onnx");
        let found = reader.program().recover();
        let list = json(&format!("exports/{export}/names.json"));
        let mut own: BTreeMap<&str, &Recovered> = found
            .parameters
            .iter()
            .filter(|r| r.how != How::Identity)
            .map(|r| (r.initializer.as_str(), r))
            .collect();
        for (initializer, want) in list.as_object().expect("names") {
            let transposed = want["transposed"].as_bool().expect("transposed");
            let name = want.get("module").or(want.get("name")).and_then(|n| n.as_str());
            match (own.remove(initializer.as_str()), name) {
                (Some(r), Some(name)) if r.name == name && r.transposed == transposed => right += 1,
                (Some(r), None) if r.transposed == transposed => {
                    packed.insert(format!("{export}: {}", r.name));
                }
                (None, _) => {
                    unnamed.insert(format!("{export}: {initializer}"));
                }
                (Some(r), _) => wrong.push(format!("{export}: {initializer} is {want}, and is called {r:?}")),
            }
        }
        let no_weights = own.into_values().filter(|r| !is_buffer(&r.name));
        wrong.extend(no_weights.map(|r| format!("{export}: no weight is called {r:?}")));
        // Names are one tensor's each.
        let names: BTreeSet<&str> = found.parameters.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names.len(), found.parameters.len(), "{export}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(right >= 800, "{right} names");
    let set = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    // Query, key and value in one, as ONNX Runtime GenAI has them: under the name that models have which are trained so.
    assert_eq!(
        packed,
        set(&[
            "llama-genai: model.layers.0.self_attn.qkv_proj.weight",
            "llama-genai: model.layers.1.self_attn.qkv_proj.weight",
            "qwen3-genai: model.layers.0.self_attn.qkv_proj.weight",
            "qwen3-genai: model.layers.1.self_attn.qkv_proj.weight",
        ])
    );
    // The same of ONNX Runtime's optimizer: it names what it makes by numbers, and nothing in the graph says more.
    assert_eq!(
        unnamed,
        set(&[
            "bert-ort-fused-f16: Attention_0_qkv_bias",
            "bert-ort-fused-f16: Attention_0_qkv_weight",
            "bert-ort-fused-f16: Attention_1_qkv_bias",
            "bert-ort-fused-f16: Attention_1_qkv_weight",
            "bert-ort-fused: Attention_0_qkv_bias",
            "bert-ort-fused: Attention_0_qkv_weight",
            "bert-ort-fused: Attention_1_qkv_bias",
            "bert-ort-fused: Attention_1_qkv_weight",
        ])
    );
}

#[test]
fn equal_parameters_that_are_held_once_have_all_their_names() {
    // The tracing exporter holds equal parameters (norms' weights of ones) once, and names the others by `Identity` nodes.
    let held = Tensor { slot: Some(0), ..Tensor::raw("a.norm.weight", Elem::F32, &[2], [0u8; 8]) };
    let identity = |to: &str| Node {
        inputs: vec!["a.norm.weight".into()],
        outputs: vec![to.into()],
        op: "Identity".into(),
        ..Node::default()
    };
    let nodes = vec![identity("b.norm.weight"), identity("onnx::Mul_7"), identity("c.norm.weight")];
    let graph = Graph { initializers: vec![held], nodes, ..Graph::default() };
    let program = Program { graph, weights: vec![Weight::plain("a.norm.weight")], ..Program::default() };
    let found = program.recover();
    let names: Vec<_> = found.parameters.iter().map(|r| (r.name.as_str(), r.weight, r.how)).collect();
    let want = [
        ("a.norm.weight", 0, How::Initializer),
        ("b.norm.weight", 0, How::Identity),
        ("c.norm.weight", 0, How::Identity),
    ];
    assert_eq!(names, want);
    assert!(found.unnamed.is_empty());
}

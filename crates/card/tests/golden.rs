//! The keys of `golden/card/cases.json` and of the golden models, as llama.cpp derived them.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensormill_card::{ParamCounts, general, general_metadata};
use tensormill_model::{Array, Assets, Expr, Form, MemoryAssets, Metadata, Model, Tensor, Value};
use tensormill_tensor::{Encoding, Shape};

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A value in the form of the golden files: GGUF type name and JSON value.
fn typed(value: &Value) -> (String, Json) {
    let scalar = |v: &Value| match v {
        Value::Str(s) => ("str", Json::from(s.as_str())),
        Value::U32(n) => ("u32", Json::from(*n)),
        Value::I32(n) => ("i32", Json::from(*n)),
        Value::F32(x) => ("f32", Json::from(f64::from(*x))),
        Value::Bool(b) => ("bool", Json::from(*b)),
        other => panic!("a value that the peer never writes here: {other}"),
    };
    match value {
        Value::Array(a) => {
            let items = (0..a.len()).map(|i| scalar(&a.get(i).unwrap()).1).collect::<Vec<_>>();
            let element = match a {
                Array::Str(_) => "str",
                Array::I32(_) => "i32",
                Array::F32(_) => "f32",
                Array::Bool(_) => "bool",
                _ => panic!("an array type that the peer never writes here"),
            };
            (format!("arr<{element}>"), Json::from(items))
        }
        v => (scalar(v).0.to_owned(), scalar(v).1),
    }
}

fn rows(meta: &Metadata) -> Vec<Json> {
    let row = |(key, value): (&str, &Value)| {
        let (kind, value) = typed(value);
        Json::from(vec![Json::from(key), Json::from(kind), value])
    };
    meta.iter().map(row).collect()
}

#[test]
fn every_case_gives_the_peers_keys() {
    let cases = json(&golden("card/cases.json"));
    let (mut wrong, mut stops, mut warned) = (Vec::new(), 0, 0);
    for case in cases.as_array().unwrap() {
        let mut assets = MemoryAssets { name: case["name"].as_str().unwrap().into(), ..Default::default() };
        let mut put = |file: &str, content: &Json| match content {
            Json::Null => {}
            Json::String(s) => drop(assets.files.insert(file.into(), s.clone().into_bytes())),
            other => drop(assets.files.insert(file.into(), other.to_string().into_bytes())),
        };
        put("README.md", &case["card"]);
        put("config.json", &case["config"]);
        put("generation_config.json", &case["generation"]);
        let count = |i: usize| case["counts"][i].as_u64().unwrap();
        let counts = ParamCounts {
            total: count(0),
            shared: count(1),
            expert: count(2),
            expert_count: count(3),
            adapter: false,
        };
        let got = general(&assets, counts, &[]).unwrap();
        match &case["expected"] {
            Json::Null => {
                stops += 1;
                assert_eq!(got.metadata.str("general.type"), Some("model"));
                assert!(rows(&got.metadata).iter().all(|row| !row.to_string().contains("\\u0000")), "{case}");
                warned += usize::from(!got.warnings.is_empty());
            }
            expected => {
                let got = Json::from(rows(&got.metadata));
                if got != *expected {
                    wrong.push(format!("{case}\n     got {got}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // The others are read as they are plainly meant: a whole number written 50.0, a merge key as text.
    assert!(warned >= 20, "{warned} warnings in {stops} cases where the peer stops");
    assert!(
        stops > 20 && cases.as_array().unwrap().len() > 300,
        "the golden file is not the one this test is for"
    );
}

/// A folder read into memory.
fn folder(path: &Path) -> MemoryAssets {
    let mut assets =
        MemoryAssets { name: path.file_name().unwrap().to_string_lossy().into_owned(), ..Default::default() };
    for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["README.md", "config.json", "generation_config.json"].contains(&name.as_str()) {
            assets.files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    assets
}

#[test]
fn every_golden_model_gives_the_peers_keys() {
    let mut seen = 0;
    for entry in std::fs::read_dir(golden("models")).unwrap().map(Result::unwrap) {
        let expected = json(&entry.path().join("expected/F32.json"));
        let assets: Arc<dyn Assets> = Arc::new(folder(&entry.path()));
        let tensors = expected["tensors"].as_array().unwrap().iter().map(|t| {
            let dims = t[2].as_array().unwrap().iter().rev().map(|d| d.as_u64().unwrap()).collect();
            let form = Form::new(Shape::new(dims).unwrap(), Encoding::F32);
            Tensor::new(t[0].as_str().unwrap(), Expr::Read { source: 0, tensor: 0, form }).unwrap()
        });
        let model = Model {
            tensors: tensors.collect(),
            metadata: Metadata::new(),
            assets: assets.clone(),
            program: None,
        };
        let got = general_metadata(assets.as_ref(), ParamCounts::of(&model)).unwrap();
        let set_elsewhere = ["general.architecture", "general.quantization_version", "general.file_type"];
        let wanted = |row: &&Json| {
            let key = row[0].as_str().unwrap();
            key.starts_with("general.") && !set_elsewhere.contains(&key)
        };
        let expected: Vec<Json> = expected["kv"].as_array().unwrap().iter().filter(wanted).cloned().collect();
        assert_eq!(rows(&got), expected, "{}", entry.path().display());
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} golden models");
}

#[test]
fn overrides_replace_in_place() {
    let mut assets = MemoryAssets { name: "Grain-7B-chat".into(), ..Default::default() };
    assets.files.insert("README.md".into(), b"---\nlicense: mit\ntags: [a]\n---\n".to_vec());
    let set = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let overrides = [
        set("general.name", "Mine"),
        set("general.tags", "x, y"),
        set("general.sampling.top_k", "7"),
        set("general.author", "me"),
        set("llama.context_length", "64"),
    ];
    let got = general(&assets, ParamCounts::default(), &overrides).unwrap();
    let keys: Vec<&str> = got.metadata.iter().map(|(k, _)| k).collect();
    let order = [
        "general.type",
        "general.sampling.top_k",
        "general.name",
        "general.author",
        "general.finetune",
        "general.basename",
        "general.size_label",
        "general.license",
        "general.tags",
    ];
    assert_eq!(keys, order);
    assert_eq!(got.metadata.str("general.name"), Some("Mine"));
    assert_eq!(got.metadata.get("general.sampling.top_k"), Some(&Value::I32(7)));
    assert_eq!(got.metadata.get("general.tags"), Some(&Value::from(vec!["x".to_owned(), "y".to_owned()])));
    assert_eq!(got.unused, [set("llama.context_length", "64")]);
    let bad = general(&assets, ParamCounts::default(), &[set("general.sampling.top_k", "many")]).unwrap_err();
    assert!(bad.message().contains("top_k"), "{bad}");
}

#[test]
fn a_config_that_is_not_json_is_an_error_with_its_name() {
    let mut assets = MemoryAssets { name: "m".into(), ..Default::default() };
    for bad in ["{", "[]", "\u{0}"] {
        assets.files.insert("config.json".into(), bad.into());
        let e = general_metadata(&assets, ParamCounts::default()).unwrap_err();
        assert_eq!(e.file_name(), Some("config.json"));
    }
}

/// Cards cut anywhere, and cards with a character of YAML's grammar put anywhere: always an answer, never a panic.
#[test]
fn damaged_cards_are_survived() {
    let cases = json(&golden("card/cases.json"));
    let full = cases.as_array().unwrap().iter().find(|c| c["name"] == "full").unwrap();
    let card = full["card"].as_str().unwrap();
    assert!(card.is_ascii() && card.len() > 1000);
    let read = |text: Vec<u8>| {
        let mut assets = MemoryAssets { name: "Grain-7B".into(), ..Default::default() };
        assets.files.insert("README.md".into(), text);
        let got = general(&assets, ParamCounts::default(), &[]).unwrap();
        assert!(got.metadata.str("general.type").is_some());
    };
    for at in 0..card.len() {
        read(card.as_bytes()[..at].to_vec());
        let damage = b"{}[],:&*!|>'\"%@`#?-\t\n\\\xff";
        let mut text = card.as_bytes().to_vec();
        text[at] = damage[at % damage.len()];
        read(text.clone());
        text.insert(at, damage[(at * 7 + 3) % damage.len()]);
        read(text);
    }
}

//! Recipes as plans: for realistic models, every tensor's type equals llama-quantize's, with no weights at all.
//!
//! The tables come from llama-quantize itself: `golden/generators/recipes.py`.

use serde_json::Value as Json;
use std::{path::PathBuf, sync::Arc};
use tensormill_model::{Array, Expr, Form, MemoryAssets, Metadata, Model, Tensor, Transform, Value};
use tensormill_tensor::{Encoding, Shape};
use tensormill_transforms::{
    Importance, Quantize, QuantizeOptions, TensorType, parse_type, quantized_order, recipe, recipes,
};

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/recipes")
}

fn load(name: &str) -> Json {
    let path = golden().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("golden files are JSON")
}

fn text(v: &Json) -> &str {
    v.as_str().expect("a string")
}
fn list(v: &Json) -> &[Json] {
    v.as_array().expect("an array")
}

fn metadata(json: &Json) -> Metadata {
    let mut m = Metadata::new();
    for (key, v) in json.as_object().expect("an object") {
        match v {
            Json::String(s) => m.set(key, s.as_str()),
            Json::Bool(b) => m.set(key, *b),
            Json::Number(n) if n.is_u64() => m.set(key, n.as_u64().unwrap() as u32),
            Json::Number(n) => m.set(key, n.as_f64().unwrap() as f32),
            other => panic!("{key}: {other}"),
        }
    }
    m
}

fn tensor(name: &str, encoding: &str, dims: &Json) -> Tensor {
    let dims = list(dims).iter().map(|d| d.as_u64().unwrap()).collect();
    let form = Form::new(Shape::new(dims).unwrap(), Encoding::parse(encoding).unwrap());
    Tensor::new(name, Expr::Read { source: 0, tensor: 0, form }).unwrap()
}

fn options(args: &Json) -> QuantizeOptions {
    let mut o = QuantizeOptions::default();
    let mut args = list(args).iter().map(text);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("an option's value");
        match arg {
            "--pure" => o.pure = true,
            "--leave-output-tensor" => o.leave_output_tensor = true,
            "--output-tensor-type" => o.output_tensor_type = Some(parse_type(value()).unwrap()),
            "--token-embedding-type" => o.token_embedding_type = Some(parse_type(value()).unwrap()),
            "--tensor-type" => o.tensor_types.push(TensorType::parse(value()).unwrap()),
            other => panic!("{other}"),
        }
    }
    o
}

/// Undoes the run lengths: a letter is a type's place in the palette, a number after it how often it repeats.
fn expand<'a>(plan: &str, types: &'a [Json]) -> Vec<&'a str> {
    let mut out = Vec::new();
    let mut rest = plan;
    while let Some(letter) = rest.chars().next() {
        let place = ('a'..='z').chain('A'..='Z').position(|c| c == letter).expect("a letter");
        rest = &rest[1..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let n = if digits == 0 { 1 } else { rest[..digits].parse().unwrap() };
        rest = &rest[digits..];
        out.extend(std::iter::repeat_n(text(&types[place]), n));
    }
    out
}

/// Checks one table; gives the number of runs compared.
fn check(file: &str) -> usize {
    let doc = load(file);
    let mut tensors: Vec<Tensor> =
        list(&doc["tensors"]).iter().map(|t| tensor(text(&t[0]), text(&t[1]), &t[2])).collect();
    let names: Vec<String> = tensors.iter().map(|t| t.name().to_owned()).collect();
    tensors.reverse();
    tensors.sort_by(|a, b| quantized_order(a.name(), b.name()));
    assert!(tensors.iter().map(Tensor::name).eq(names.iter()), "{file}: order");
    let model = Model {
        tensors,
        metadata: metadata(&doc["metadata"]),
        assets: Arc::new(MemoryAssets::default()),
        program: None,
    };
    let importance = Arc::new(Importance::default());
    let runs = list(&doc["runs"]);
    for run in runs {
        let name = text(&run[0]);
        let quantize = Quantize {
            recipe: recipe(name).unwrap_or_else(|| panic!("no recipe {name}")),
            options: options(&run[2]),
            importance: run[1].as_bool().unwrap().then(|| importance.clone()),
        };
        let got = quantize.choices(&model);
        let Some(plan) = run[3].as_u64() else {
            let error = got.expect_err(&format!("{file} {run}"));
            assert!(error.tensor_name().is_some() && error.hint_text().is_some(), "{error}");
            continue;
        };
        let got = got.unwrap_or_else(|e| panic!("{file} {run}: {e}"));
        let want = expand(text(&doc["plans"][plan as usize]), list(&doc["types"]));
        assert_eq!(got.len(), want.len(), "{file} {run}");
        for ((choice, want), tensor) in got.iter().zip(want).zip(&names) {
            let got = choice.encoding.name().to_uppercase();
            assert_eq!(got, want, "{file} {name} importance {} {}: {tensor}", run[1], run[2]);
        }
    }
    runs.len()
}

#[test]
fn every_plan_equals_the_peers() {
    let mut models = 0;
    for entry in std::fs::read_dir(golden()).expect("golden/recipes") {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if matches!(file.as_str(), "edits.json" | "bytes.json") || !file.contains(".json") {
            continue;
        }
        // Every recipe by name, with and without importance, and three recipes by their aliases.
        assert!(check(&file) >= 2 * (recipes().len() + 3), "{file} lacks recipes");
        models += 1;
    }
    assert!(models >= 18, "{models} tables");
}

#[test]
fn architectures_are_not_guessed() {
    let model = |metadata| Model {
        tensors: vec![tensor("blk.0.attn_q.weight", "f32", &serde_json::json!([256, 256]))],
        metadata,
        assets: Arc::new(MemoryAssets::default()),
        program: None,
    };
    let q =
        Quantize { recipe: recipe("Q4_K").unwrap(), options: QuantizeOptions::default(), importance: None };
    assert!(q.rewrite(model(Metadata::new())).is_err());
    let mut m = Metadata::new();
    m.set("general.architecture", "llama");
    assert!(q.choices(&model(m.clone())).unwrap_err().message().contains("llama.block_count"));
    m.set("llama.block_count", 1u32);
    assert!(q.rewrite(model(m)).is_ok());
}

/// The metadata value that golden files write as `[key, type, contents]`.
fn value(kind: &str, v: &Json) -> Value {
    let strings = |v: &Json| list(v).iter().map(|s| text(s).to_owned()).collect::<Vec<_>>();
    match kind {
        "uint32" => Value::U32(v.as_u64().unwrap() as u32),
        "float32" => Value::F32(v.as_f64().unwrap() as f32),
        "string" => Value::Str(text(v).to_owned()),
        "array/string" => Value::Array(Array::Str(strings(v))),
        "hex" => {
            let hex = text(v);
            let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
            Value::Bytes((0..hex.len()).step_by(2).map(byte).collect())
        }
        other => panic!("{other}"),
    }
}

fn entries(json: &Json) -> Vec<(String, Value)> {
    let entry = |e: &Json| (text(&e[0]).to_owned(), value(text(&e[1]), &e[2]));
    list(json).iter().map(entry).collect()
}

#[test]
fn metadata_and_order_are_edited_as_the_peer_edits_them() {
    let doc = load("edits.json");
    for run in list(&doc["after"]) {
        let tensors = list(&doc["before_tensors"]).iter();
        let mut before = Metadata::new();
        for (key, value) in entries(&doc["before"]) {
            before.set(key, value);
        }
        let splits = [("split.no", Value::U16(0)), ("split.count", Value::U16(1))];
        for (key, value) in splits {
            before.set(key, value);
        }
        before.set("split.tensors.count", Value::I32(1));
        let model = Model {
            tensors: tensors.map(|t| tensor(text(&t[0]), text(&t[1]), &t[2])).collect(),
            metadata: before,
            assets: Arc::new(MemoryAssets::default()),
            program: None,
        };
        let importance = run["imatrix"].as_str().map(|name| {
            let ones: Arc<[f32]> = vec![1.0; 256].into();
            Arc::new(Importance {
                file_name: name.to_owned(),
                entries: [("blk.0.attn_q.weight", ones.clone()), ("blk.1.attn_v.weight", ones)]
                    .map(|(k, v)| (k.to_owned(), v))
                    .into(),
                datasets: vec!["words.txt".to_owned()],
                chunks: 17,
            })
        });
        let q = Quantize { recipe: recipe("Q4_0").unwrap(), options: QuantizeOptions::default(), importance };
        let out = q.rewrite(model).unwrap();
        let got: Vec<(String, Value)> = out.metadata.iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
        assert_eq!(got, entries(&run["metadata"]), "importance {}", run["imatrix"]);
        let got: Vec<(String, String)> = out
            .tensors
            .iter()
            .map(|t| (t.name().to_owned(), t.spec.encoding.name().to_uppercase()))
            .collect();
        let want: Vec<(String, String)> =
            list(&run["tensors"]).iter().map(|t| (text(&t[0]).to_owned(), text(&t[1]).to_owned())).collect();
        assert_eq!(got, want);
    }
}

mod rewriting {
    use super::*;
    use tensormill_model::ErrorKind;

    fn model(encoding: &str) -> Model {
        let mut m = Metadata::new();
        m.set("general.architecture", "llama");
        m.set("llama.block_count", 8u32);
        let square = serde_json::json!([256, 256]);
        let names = ["token_embd.weight", "blk.0.attn_q.weight", "output.weight"];
        Model {
            tensors: names.iter().map(|n| tensor(n, encoding, &square)).collect(),
            metadata: m,
            assets: Arc::new(MemoryAssets::default()),
            program: None,
        }
    }
    fn quantize(name: &str, importance: Option<Importance>) -> Quantize {
        Quantize {
            recipe: recipe(name).unwrap(),
            options: QuantizeOptions::default(),
            importance: importance.map(Arc::new),
        }
    }
    fn importance(name: &str, values: usize) -> Importance {
        Importance { entries: [(name.to_owned(), vec![1.0; values].into())].into(), ..Importance::default() }
    }

    #[test]
    fn quantized_sources_need_permission() {
        let e = quantize("Q4_K_M", None).rewrite(model("q8_0")).err().unwrap();
        assert_eq!(e.tensor_name(), Some("output.weight"));
        assert!(e.hint_text().unwrap().contains("--allow-requantize"));
        let mut q = quantize("Q4_K_M", None);
        q.options.allow_requantize = true;
        let out = q.rewrite(model("q8_0")).unwrap();
        assert_eq!(out.tensors[0].expr.to_string(), "quantize[Q6_K](read(0:0))");
        assert_eq!(out.tensors[2].expr.to_string(), "quantize[Q4_K](read(0:0))");
        // The same type needs nothing.
        let same = quantize("Q8_0", None).rewrite(model("q8_0")).unwrap();
        assert!(same.tensors.iter().all(|t| t.expr.to_string() == "read(0:0)"));
    }

    #[test]
    fn entries_of_the_wrong_size_are_refused_except_for_embeddings() {
        let q = quantize("Q4_K_M", Some(importance("blk.0.attn_q.weight", 512)));
        let e = q.rewrite(model("f32")).err().unwrap();
        assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Mismatch, Some("blk.0.attn_q.weight")));
        let q = quantize("Q4_K_M", Some(importance("token_embd.weight", 512)));
        assert!(q.rewrite(model("f32")).is_ok());
        let q = quantize("Q4_K_M", Some(importance("blk.0.attn_q.weight", 256)));
        let out = q.rewrite(model("f32")).unwrap();
        assert!(out.tensors[2].expr.to_string().starts_with("quantize[Q4_K importance 256 values "));
    }

    #[test]
    fn coarse_types_need_an_entry() {
        for given in [None, Some(importance("something.else", 256))] {
            let e = quantize("Q2_K_S", given).rewrite(model("f32")).err().unwrap();
            assert_eq!(e.tensor_name(), Some("blk.0.attn_q.weight"));
            assert!(e.hint_text().unwrap().contains("--imatrix"));
        }
        let q = quantize("Q2_K_S", Some(importance("blk.0.attn_q.weight", 256)));
        assert!(q.rewrite(model("f32")).is_ok());
        assert!(quantize("Q2_K", None).rewrite(model("f32")).is_ok());
    }

    #[test]
    fn plain_recipes_cast() {
        let out = quantize("F16", None).rewrite(model("bf16")).unwrap();
        assert_eq!(out.tensors[0].expr.to_string(), "checked-cast[f16](read(0:0))");
    }
}

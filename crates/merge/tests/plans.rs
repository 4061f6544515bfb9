//! Merges as plans, without a weight: which tensors come out, by which expressions; and models that do not fit together.

use serde_json::{Value, json};
use std::sync::Arc;
use tensormill_merge::{Input, Merged, Recipe, merge};
use tensormill_model::{ErrorKind, Index, MemoryAssets, Metadata, Model, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape, TensorSpec};

const BF16: Encoding = Encoding::BF16;

/// A model with these tensors, as source number `source`.
fn model(source: usize, tensors: &[(&str, &[u64], Encoding)]) -> Input {
    let spec = |(name, dims, encoding): &(&str, &[u64], Encoding)| TensorSpec {
        name: (*name).to_owned(),
        shape: Shape::new(dims.to_vec()).unwrap(),
        encoding: *encoding,
    };
    let index =
        Index { tensors: tensors.iter().map(spec).collect(), metadata: Metadata::new(), ..Index::default() };
    let model = Model::from_index(&index, source, Arc::new(MemoryAssets::default()));
    Input { name: ["base", "a", "b"][source].to_owned(), model }
}

const SMALL: &[(&str, &[u64], Encoding)] = &[
    ("embed_tokens.weight", &[8, 4], BF16),
    ("layers.0.up.weight", &[4, 4], BF16),
    ("layers.1.up.weight", &[4, 4], BF16),
    ("layers.1.rotary_emb.inv_freq", &[2], Encoding::F32),
    ("norm.weight", &[4], BF16),
];

fn changed(change: impl FnOnce(&mut Vec<(&'static str, &'static [u64], Encoding)>)) -> Input {
    let mut tensors = SMALL.to_vec();
    change(&mut tensors);
    model(1, &tensors)
}

fn run(recipe: &Value, inputs: &[Input]) -> Result<Merged> {
    merge(&Recipe::parse(recipe).unwrap(), inputs, 0)
}

/// The base and another model, by a method.
fn two(method: &str, parameters: &Value) -> Value {
    json!({"merge_method": method, "base_model": "base", "models": [{"model": "a"}], "parameters": parameters})
}

fn text(merged: &Merged, name: &str) -> String {
    merged.model.tensor(name).unwrap().expr.to_string()
}

#[test]
fn expressions_say_what_is_computed() {
    let of = |recipe: &Value| run(recipe, &[model(0, SMALL), model(1, SMALL)]).unwrap();
    let m = of(&two(
        "ties",
        &json!({"weight": [0.5, 1], "density": 0.25, "lambda": {"filter": "up", "value": 2}}),
    ));
    assert_eq!(
        text(&m, "layers.1.up.weight"),
        "delta[[1.0] [Largest(0.25)] elect=true normalize=true 2.0 bf16](read(0:2), read(1:2), \
         prune[[Largest(0.25)] rescale=false bf16](read(0:2), read(1:2)))"
    );
    // Outside the layers, gradients have their first values.
    assert!(text(&m, "norm.weight").starts_with("delta[[0.5] [Largest(0.25)] elect=true normalize=true 1.0"));
    assert_eq!(
        m.model.tensors.iter().map(Tensor::name).collect::<Vec<_>>().join(" "),
        "embed_tokens.weight layers.0.up.weight layers.1.up.weight norm.weight"
    );
    assert!(m.notes[0].contains("inv_freq"));
    let m = of(&two("dare_linear", &json!({"weight": 1, "density": 1})));
    assert!(!text(&m, "norm.weight").contains("prune"), "nothing to look for");
    let mut slerp = two("slerp", &json!({"t": 0.5}));
    slerp["dtype"] = "float32".into();
    slerp["out_dtype"] = "float16".into();
    let m = of(&slerp);
    assert_eq!(
        text(&m, "norm.weight"),
        "cast[f16](slerp[0.5 f32](read(0:4), read(1:4), angle[f32](read(0:4), read(1:4))))"
    );
}

#[test]
fn types_are_promoted_as_torch_does() {
    let of = |encoding: Encoding| {
        let other = changed(|t| t[4].2 = encoding);
        let recipe = two("task_arithmetic", &json!({"weight": 1}));
        run(&recipe, &[model(0, SMALL), other]).map(|m| m.model.tensor("norm.weight").unwrap().spec.encoding)
    };
    assert_eq!(of(BF16).unwrap(), BF16);
    assert_eq!(of(Encoding::F16).unwrap(), Encoding::F32);
    assert_eq!(of(Encoding::F32).unwrap(), Encoding::F32);
    assert_eq!(of(Encoding::Plain(DType::F64)).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(of(Encoding::Plain(DType::I32)).unwrap_err().kind(), ErrorKind::Unsupported);
    let ints = |t: &mut Vec<(&'static str, &'static [u64], Encoding)>| t[4].2 = Encoding::Plain(DType::I32);
    let mut tensors = SMALL.to_vec();
    ints(&mut tensors);
    let m =
        run(&two("task_arithmetic", &json!({"weight": 1})), &[model(0, &tensors), changed(ints)]).unwrap();
    assert_eq!(text(&m, "norm.weight"), "same[](read(1:4), read(0:4))");
}

#[test]
fn what_is_tied_is_found_and_stays_tied() {
    let mut untied = SMALL.to_vec();
    untied[0].0 = "model.embed_tokens.weight";
    let tied = untied.clone();
    untied.push(("lm_head.weight", &[8, 4], BF16));
    let recipe = two("dare_linear", &json!({"weight": 1, "density": 0.5}));
    let m = run(&recipe, &[model(0, &tied), model(1, &untied)]).unwrap();
    assert!(m.untied && text(&m, "lm_head.weight").contains("(read(0:0), read(1:5)"));
    let m = run(&recipe, &[model(0, &untied), model(1, &tied)]).unwrap();
    assert!(!m.untied);
    // One tensor under two names in both: the same random numbers, and so still one tensor.
    let twice = |source| {
        let mut input = model(source, &tied);
        let mut copy = input.model.tensors[0].clone();
        copy.spec.name = "lm_head.weight".to_owned();
        input.model.tensors.push(copy);
        input
    };
    let m = run(&recipe, &[twice(0), twice(1)]).unwrap();
    assert_eq!(text(&m, "lm_head.weight"), text(&m, "model.embed_tokens.weight"));
}

#[test]
fn layers_are_stacked_under_new_numbers() {
    let part = |m: &str, a: u64, b: u64| json!({"sources": [{"model": m, "layer_range": [a, b]}]});
    let recipe = json!({"merge_method": "passthrough", "slices": [part("base", 0, 2), part("a", 1, 2), part("base", 0, 1)]});
    let m = run(&recipe, &[model(0, SMALL), model(1, SMALL)]).unwrap();
    assert_eq!(m.layers.as_deref(), Some(&[(0, 0), (0, 1), (1, 1), (0, 0)][..]));
    assert_eq!(text(&m, "layers.2.up.weight"), "read(1:2)");
    assert_eq!(text(&m, "layers.3.up.weight"), "read(0:1)");
    assert_eq!(m.model.tensors.len(), 6);
    let beyond = json!({"merge_method": "passthrough", "slices": [part("base", 1, 3)]});
    let e = run(&beyond, &[model(0, SMALL)]).err().unwrap();
    assert!(e.message().contains("which has 2 layers"), "{e}");
    let many = vec![part("base", 0, 2); 900];
    let mut tall = SMALL.to_vec();
    tall.push(("layers.99999999999.up.weight", &[4, 4], BF16));
    let hostile = json!({"merge_method": "passthrough", "slices": [part("base", 0, 100_000_000_000)]});
    assert_eq!(run(&hostile, &[model(0, &tall)]).err().unwrap().kind(), ErrorKind::OverLimit);
    let m = run(&json!({"merge_method": "passthrough", "slices": many}), &[model(0, SMALL)]).unwrap();
    assert_eq!(m.layers.unwrap().len(), 1800);
}

#[test]
fn models_that_do_not_fit_are_told_apart_by_names() {
    let linear = json!({"merge_method": "linear", "base_model": "base",
        "models": [{"model": "base", "parameters": {"weight": 1}}, {"model": "a", "parameters": {"weight": 1}}]});
    let refuse = |other: Input, kind: ErrorKind, says: &str| {
        let e = run(&linear, &[model(0, SMALL), other]).err().unwrap();
        assert!(e.kind() == kind && format!("{e} {:?}", e.hint_text()).contains(says), "{e}");
    };
    refuse(
        changed(|t| {
            t.remove(2);
        }),
        ErrorKind::Mismatch,
        "layers.1.up.weight of a",
    );
    refuse(changed(|t| t.push(("more", &[1], BF16))), ErrorKind::Mismatch, "more of base");
    refuse(changed(|t| t[1].1 = &[4, 5]), ErrorKind::Mismatch, "[4, 4] in base, and [4, 5] in a");
    refuse(changed(|t| t[0].1 = &[9, 4]), ErrorKind::Mismatch, "vocabularies");
    refuse(changed(|t| t[1].2 = Encoding::Plain(DType::F8E4M3)), ErrorKind::Unsupported, "--dtype bf16");
    let mut zero = linear.clone();
    zero["models"][1]["parameters"]["weight"] = json!(-1);
    let e = run(&zero, &[model(0, SMALL), model(1, SMALL)]).err().unwrap();
    assert!(e.message().contains("sum up to zero"), "{e}");
    zero["models"][1]["parameters"] = json!({});
    let e = run(&zero, &[model(0, SMALL), model(1, SMALL)]).err().unwrap();
    assert!(e.message().contains("no weight for a"), "{e}");
}

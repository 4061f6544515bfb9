//! Graphs of other exporters, rewritten: in other types, with weights beside them, with an adapter, and built anew from the
//! parameters that were recovered. Each is run beside the original.

mod common;
mod graphs;

use common::{Stored, expect, names, tensors, text, write_tensors};
use graphs::{Export, Off, folders, onnx_runtime, open};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tensormill_model::ErrorKind;
use tensormill_runtime::{Backend, Session, Value};
use tensormill_tensor::DType;

/// Graphs with operators that `tract` does not have, computes otherwise, or (Gemm) not in `f16`.
const ONLY_ONNX_RUNTIME: &[&str] = &[
    "bert-f16-keep-io",
    "bert-ort-fused",
    "bert-ort-fused-f16",
    "distilbert-dynamo-unoptimized",
    "llama-genai",
    "qwen3-genai",
    "roberta-seq-class-dynamo",
    "vit-f16",
];
/// What `tract` is asked to run in every rewriting, for which it is prepared each time anew: one of each exporter and family.
const BY_TRACT: &[&str] = &[
    "bert-optimum-sentence",
    "distilbert-dynamo",
    "llama-optimum",
    "roberta-seq-class-torchscript",
    "vit-optimum",
];
/// Graphs whose parameters are packed into others, so that modules do not have them under their names.
const PACKED: &[&str] = &["bert-ort-fused", "bert-ort-fused-f16", "llama-genai", "qwen3-genai"];
/// Graphs with names of transformers 5's modules, which its checkpoints do not have: they are recovered, and no graph is built of
/// them yet.
const OTHER_NAMES: &[&str] = &["vit-dynamo", "vit-f16", "vit-torchscript"];
/// Graphs in `f16`.
const NARROW: &[&str] = &["bert-f16-keep-io", "bert-ort-fused-f16", "vit-f16"];

/// As far as `f16` may be off.
const F16: f32 = 3e-2;
/// As far as runtimes may be from transformers.
const F32: f32 = 1e-4;

fn exports() -> Vec<String> {
    let all = folders("exports");
    assert!(all.len() >= 24);
    all
}

/// Converts a graph, with an adapter or other options.
fn convert(from: &Path, to: &Path, more: &[&str]) {
    expect(0, [&["convert", &text(from), "-o", &text(to)], more].concat());
}

/// Float types of inputs, then outputs.
fn floats(session: &Session) -> Vec<DType> {
    let ports = session.inputs().iter().chain(session.outputs());
    ports.map(|p| p.dtype).filter(|d| d.is_float()).collect()
}

/// The folder that a graph would have been published in: configuration and modules of its model beside it.
fn published(export: &Export, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let beside = export.graph.parent().unwrap();
    for from in [&export.reference.folder, &beside.to_owned()] {
        for name in names(from) {
            let (from, to) = (from.join(&name), folder.join(&name));
            if from.is_dir() {
                fs::create_dir_all(&to).unwrap();
                for inner in names(&from) {
                    fs::copy(from.join(&inner), to.join(inner)).unwrap();
                }
            } else if !name.ends_with(".safetensors") {
                fs::copy(from, to).unwrap();
            }
        }
    }
}

/// Every rewriting of a graph, run beside it.
fn rewritten(dir: &Path, name: &str, backend: &Backend) -> BTreeMap<&'static str, f32> {
    let export = Export::of(name);
    let path = |n: &str| dir.join(format!("{name}-{n}.onnx"));
    let mut worst = BTreeMap::new();
    let original = export.run(&export.graph, backend);
    let narrow = NARROW.contains(&name);
    let mut note = |what, off: Off, tolerance| {
        off.within(tolerance, &format!("{name} {what} by {backend:?}"));
        worst.insert(what, off.most());
    };
    note("original", export.off(&original, &export.expected), if narrow { F16 } else { F32 });

    convert(&export.graph, &path("same"), &[]);
    let same = export.run(&path("same"), backend);
    assert_eq!(same, original, "{name}");
    convert(&export.graph, &path("external"), &["--external-data"]);
    assert!(dir.join(format!("{name}-external.onnx_data")).exists());
    assert_eq!(export.run(&path("external"), backend), original, "{name}");
    convert(&export.graph, &path("divided"), &["--external-data", "--max-shard-size", "20KB"]);
    assert!(dir.join(format!("{name}-divided.onnx_data_1")).exists());
    assert_eq!(export.run(&path("divided"), backend), original, "{name}");

    convert(&export.graph, &path("wide"), &["--dtype", "f32"]);
    let wide = export.run(&path("wide"), backend);
    assert!(wide.values().all(|v| v.dtype() != DType::F16));
    note("as f32", export.off(&wide, &original), if narrow { F16 } else { 0.0 });
    for (what, back, more) in
        [("f16", "f16 and back", &[][..]), ("keep", "keep and back", &["--keep-io-types"])]
    {
        convert(&export.graph, &path(what), &[&["--dtype", "f16"], more].concat());
        match export.try_run(&path(what), backend) {
            Ok(got) => {
                let session = open(&path(what), backend);
                let (kept, types) = (floats(&open(&export.graph, backend)), floats(&session));
                let narrow = vec![DType::F16; types.len()];
                assert_eq!(types, if more.is_empty() { narrow } else { kept }, "{name} {what}");
                note(what, export.off(&got, &original), F16);
            }
            // Said aloud; ONNX Runtime runs all of them.
            Err(e) => {
                assert!(
                    *backend == Backend::Tract && e.kind() == ErrorKind::Unsupported,
                    "{name} {what}: {e}"
                );
                eprintln!("skipped: {name} in f16 by tract: {e}");
            }
        }
        convert(&path(what), &path(back), &["--dtype", "f32"]);
        let got = export.run(&path(back), backend);
        note(back, export.off(&got, &original), F16);
    }
    worst
}

/// The graph that is built of an export's recovered parameters.
fn rebuilt(dir: &Path, name: &str, backend: &Backend) -> f32 {
    let export = Export::of(name);
    let [from, folder, out] = ["published", "folder", "out"].map(|n| dir.join(n).join(name));
    published(&export, &from);
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    convert(&from, &folder, &["--to", "safetensors", "--allow-loss"]);
    // Every parameter that was recovered is the checkpoint's, bit by bit, if the exporter left it as it was.
    if !NARROW.contains(&name) {
        let source = tensors(&export.reference.folder.join("model.safetensors"));
        let recovered = tensors(&folder.join("model.safetensors"));
        let common: Vec<_> = source.iter().filter_map(|(n, t)| Some((n, t, recovered.get(n)?))).collect();
        assert!(common.len() * 10 >= source.len() * 9, "{name}: {} of {}", common.len(), source.len());
        for (tensor, want, got) in common {
            assert!(want == got, "{name}: {tensor}");
        }
    }
    fs::create_dir_all(out.parent().unwrap()).unwrap();
    convert(&folder, &out, &["--to", "onnx"]);
    let made = ["onnx/model.onnx", "onnx/model_fp16.onnx"].map(|n| out.join(n));
    let graph = made.iter().find(|p| p.exists()).unwrap();
    let original = export.run(&export.graph, backend);
    let mut got = export.run(graph, backend);
    // What a graph without a cache has no outputs for is no difference.
    got.retain(|name, _| !name.starts_with("present."));
    let original: BTreeMap<String, Value> =
        original.into_iter().filter(|(name, _)| !name.starts_with("present.")).collect();
    let comparable =
        original.into_iter().filter(|(name, _)| got.contains_key(name) || name == "logits").collect();
    let off = export.off(&got, &comparable);
    off.within(if NARROW.contains(&name) { F16 } else { F32 }, &format!("{name}, built anew"));
    off.most()
}

fn all(backend: &Backend, which: impl Fn(&str) -> bool, f: impl Fn(&Path, &str) -> String) {
    let mut run = 0;
    for name in exports().into_iter().filter(|n| which(n)) {
        let dir = tempfile::tempdir().unwrap();
        let started = std::time::Instant::now();
        eprintln!("{name} by {backend:?}: {} {:?}", f(dir.path(), &name), started.elapsed());
        run += 1;
    }
    assert!(run > 0);
}

#[test]
fn rewritten_graphs_compute_the_same() {
    let backend = Backend::Tract;
    all(&backend, |n| BY_TRACT.contains(&n), |dir, name| format!("{:?}", rewritten(dir, name, &backend)));
}

#[test]
fn rewritten_graphs_compute_the_same_by_onnx_runtime() {
    let Some(backend) = onnx_runtime() else { return };
    all(&backend, |_| true, |dir, name| format!("{:?}", rewritten(dir, name, &backend)));
}

#[test]
fn recovered_parameters_make_the_same_model() {
    let tract = Backend::Tract;
    let whole = |n: &str| !PACKED.contains(&n) && !OTHER_NAMES.contains(&n);
    let by_tract = |n: &str| whole(n) && !ONLY_ONNX_RUNTIME.contains(&n);
    all(&tract, by_tract, |dir, name| format!("{:?}", rebuilt(dir, name, &tract)));
    let Some(other) = onnx_runtime() else { return };
    all(&other, whole, |dir, name| format!("{:?}", rebuilt(dir, name, &other)));
}

/// A small adapter of one module.
fn adapter(folder: &Path, module: &str, width: usize) -> PathBuf {
    let factor = |n: usize, scale: f32| (0..n).map(move |i| ((i * 7919 % 31) as f32 - 15.0) / 15.0 * scale);
    let key = |side: &str| format!("base_model.model.{module}.lora_{side}.weight");
    let tensors = BTreeMap::from([
        (key("A"), Stored::f32(&[2, width], factor(2 * width, 0.3))),
        (key("B"), Stored::f32(&[width, 2], factor(2 * width, 0.2))),
    ]);
    fs::create_dir_all(folder).unwrap();
    write_tensors(&folder.join("adapter_model.safetensors"), &tensors);
    let last = module.rsplit('.').next().unwrap();
    let config = format!(r#"{{"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["{last}"]}}"#);
    fs::write(folder.join("adapter_config.json"), config).unwrap();
    folder.to_owned()
}

#[test]
fn adapters_are_merged_into_graphs() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| dir.path().join(n);
    for (name, module) in [
        ("bert-torchscript", "encoder.layer.1.attention.self.query"),
        ("distilbert-dynamo", "transformer.layer.0.attention.v_lin"),
        ("llama-optimum", "model.layers.1.self_attn.q_proj"),
    ] {
        let export = Export::of(name);
        let width =
            export.reference.config["hidden_size"].as_u64().or(export.reference.config["dim"].as_u64());
        let adapter = adapter(&path(&format!("{name}-lora")), module, width.unwrap() as usize);
        let with = ["--adapter", &text(&adapter)];
        let (graph, built) = (path(&format!("{name}.onnx")), path(&format!("{name}-built.onnx")));
        convert(&export.graph, &graph, &with);
        convert(&export.reference.folder, &built, &with);
        // The change is as large in the rewritten graph as in the checkpoint.
        let merged = path(&format!("{name}.safetensors"));
        convert(&export.reference.folder, &merged, &with);
        let read = path(&format!("{name}-read.safetensors"));
        convert(&graph, &read, &["--allow-loss"]);
        let (merged, read) = (tensors(&merged), tensors(&read));
        let weight = format!("{module}.weight");
        assert_eq!(merged[&weight], read[&weight], "{name}");
        let (before, after) =
            (export.run(&export.graph, &Backend::Tract), export.run(&graph, &Backend::Tract));
        assert!(export.off(&after, &before).most() > 1e-3, "{name}: the adapter changes nothing");
        let mut built = export.run(&built, &Backend::Tract);
        built.retain(|name, _| after.contains_key(name));
        let after = after.into_iter().filter(|(name, _)| built.contains_key(name)).collect();
        export.off(&built, &after).within(1e-5, name);
    }
}

//! ONNX graphs that are built from a folder, beside transformers: what `tract` makes of them everywhere, and ONNX Runtime
//! where `ORT_DYLIB_PATH` names it.

mod common;
mod graphs;

use common::{expect, text};
use graphs::{Prompts, Reference, check, folders, onnx_runtime, open};
use std::path::Path;
use tensormill_runtime::Backend;

/// Decoders that `tract`, which is prepared anew for every step, is asked for all steps of; of the others, a batch and a
/// step.
const ALL_STEPS: &[&str] = &["llama", "qwen3"];

/// As far as graphs may be from transformers.
fn tolerance(reference: &Reference, dtype: &str) -> f32 {
    match dtype {
        "f32" if reference.is_decoder() => 1e-4,
        "f32" => 1e-5,
        _ => 3e-2,
    }
}

/// Builds the graph of a model and compares what it computes.
fn built(name: &str, dtype: &str, more: &[&str], backend: &Backend) {
    let dir = tempfile::tempdir().unwrap();
    let reference = Reference::of(name);
    let out = dir.path().join("model.onnx");
    let args = ["convert", &text(&reference.folder), "-o", &text(&out), "--dtype", dtype];
    expect(0, args.iter().chain(more));
    computes(&out, &reference, dtype, more, backend);
}

/// Builds a graph in one version of operators, raises it to another, and compares what it computes.
fn raised(name: &str, from: &str, to: &str, backend: &Backend) {
    let dir = tempfile::tempdir().unwrap();
    let reference = Reference::of(name);
    let (old, new) = (dir.path().join("old.onnx"), dir.path().join("new.onnx"));
    expect(0, ["convert", &text(&reference.folder), "-o", &text(&old), "--dtype", "f32", "--opset", from]);
    expect(0, ["convert", &text(&old), "-o", &text(&new), "--opset", to]);
    computes(&new, &reference, "f32", &["--opset", from, "raised to", to], backend);
}

/// Compares what the graph of a model computes.
fn computes(out: &Path, reference: &Reference, dtype: &str, more: &[&str], backend: &Backend) {
    let name = reference.name.as_str();
    let few = *backend == Backend::Tract && !(ALL_STEPS.contains(&name) && more.is_empty());
    // GroupQueryAttention counts tokens from the start.
    let right = more.contains(&"genai");
    let prompts =
        if few { Prompts { single: false, steps: 1, right } } else { Prompts { right, ..Prompts::ALL } };
    let off = check(&mut open(out, backend), reference, prompts);
    let what = format!("{name} in {dtype} {more:?}");
    eprintln!("{what}: {:?}, {} of {} tokens", off.worst, off.same_tokens, off.tokens);
    off.within(tolerance(reference, dtype), &what);
    assert!(reference.is_decoder() == (off.tokens > 0), "{what}");
    if dtype == "f32" {
        assert_eq!(off.same_tokens, off.tokens, "{what}: other greedy tokens");
    }
}

fn models(decoders: bool) -> Vec<String> {
    let all: Vec<String> =
        folders("models").into_iter().filter(|n| Reference::of(n).is_decoder() == decoders).collect();
    assert!(all.len() >= 9);
    all
}

#[test]
fn encoders_compute_what_transformers_does() {
    for name in models(false) {
        built(&name, "f32", &[], &Backend::Tract);
    }
    for opset in ["14", "18"] {
        for name in ["bert", "vit"] {
            built(name, "f32", &["--opset", opset], &Backend::Tract);
        }
    }
    raised("bert", "14", "18", &Backend::Tract);
    for name in ["bert", "distilbert", "mpnet"] {
        built(name, "f16", &[], &Backend::Tract);
        built(name, "f16", &["--keep-io-types"], &Backend::Tract);
    }
}

#[test]
fn decoders_compute_what_transformers_does() {
    for name in models(true) {
        built(&name, "f32", &[], &Backend::Tract);
    }
    built("qwen2", "f32", &["--opset", "14"], &Backend::Tract);
    raised("qwen2", "14", "18", &Backend::Tract);
    built("qwen2", "f16", &[], &Backend::Tract);
}

#[test]
fn onnx_runtime_agrees() {
    let Some(backend) = onnx_runtime() else { return };
    for (name, decoder) in [false, true].iter().flat_map(|d| models(*d).into_iter().map(|n| (n, *d))) {
        for dtype in ["f32", "f16"] {
            for opset in ["14", "17", "21"] {
                built(&name, dtype, &["--opset", opset], &backend);
            }
            built(&name, dtype, &["--keep-io-types"], &backend);
            raised(&name, "14", "21", &backend);
            // Which turns heads of a multiple of 16, and here are 8.
            if decoder && name != "base-llama3-bpe" {
                built(&name, dtype, &["--onnx-form", "genai"], &backend);
                built(&name, dtype, &["--onnx-form", "genai", "--keep-io-types"], &backend);
            }
        }
    }
}

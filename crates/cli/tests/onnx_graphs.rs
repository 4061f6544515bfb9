//! ONNX graphs that are built from a folder, beside transformers: what `tract` makes of them everywhere, and ONNX Runtime
//! where `ORT_DYLIB_PATH` names it.

mod common;
mod graphs;

use common::{expect, text};
use graphs::{Reference, check, folders, onnx_runtime, open};
use std::path::Path;
use tensormill_runtime::Backend;

/// As far as graphs may be from transformers in `f32`.
fn tolerance(reference: &Reference, dtype: &str) -> f32 {
    match dtype {
        "f32" if reference.is_decoder() => 1e-4,
        "f32" => 1e-5,
        _ => 3e-2,
    }
}

/// Builds the graph of a model and compares what it computes.
fn built(dir: &Path, name: &str, dtype: &str, more: &[&str], backend: &Backend) {
    let reference = Reference::of(name);
    let out = dir.join(format!("{name}-{dtype}-{}.onnx", more.concat()));
    if !out.exists() {
        let args = ["convert", &text(&reference.folder), "-o", &text(&out), "--dtype", dtype];
        expect(0, args.iter().chain(more));
    }
    let started = std::time::Instant::now();
    let right = more.contains(&"genai");
    let off = check(&mut open(&out, backend), &reference, right);
    eprintln!(
        "{name} {dtype} {more:?} {backend:?}: {:?}, {} of {} tokens, {:?}",
        off.worst,
        off.same_tokens,
        off.tokens,
        started.elapsed()
    );
    off.within(tolerance(&reference, dtype), &format!("{name} {dtype} {more:?}"));
    if dtype == "f32" {
        assert_eq!(off.same_tokens, off.tokens, "{name} {more:?}: other greedy tokens");
    }
}

#[test]
fn built_graphs_compute_what_transformers_does() {
    let dir = tempfile::tempdir().unwrap();
    for name in folders("models") {
        built(dir.path(), &name, "f32", &[], &Backend::Tract);
    }
}

#[test]
fn f16() {
    let dir = tempfile::tempdir().unwrap();
    for name in folders("models") {
        let r = std::panic::catch_unwind(|| built(dir.path(), &name, "f16", &[], &Backend::Tract));
        eprintln!("{name}: {}", r.is_ok());
    }
}

#[test]
fn onnx_runtime_agrees() {
    let Some(backend) = onnx_runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in folders("models") {
        let decoder = Reference::of(&name).is_decoder();
        for dtype in ["f32", "f16"] {
            for opset in ["14", "17", "21"] {
                built(dir.path(), &name, dtype, &["--opset", opset], &backend);
            }
            if decoder {
                built(dir.path(), &name, dtype, &["--onnx-form", "genai"], &backend);
            }
        }
    }
}

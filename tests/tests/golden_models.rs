//! Every model in `golden/models`, converted here, against the manifest of what the peer made of it: all variants of
//! a model in one run, from one read.

use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};
use tensormill_core::{
    DType,
    convert::Target,
    job::{self, Job, Variant},
};
use tensormill_tests::{Manifest, golden};

/// Sets what the manifest's `options` say, in llama-quantize's spelling.
fn apply_options(v: &mut Variant, options: &[&str]) {
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let mut value = || (*rest.next().expect("option has a value")).to_owned();
        match *option {
            "--pure" => v.pure = true,
            "--leave-output-tensor" => v.leave_output_tensor = true,
            "--output-tensor-type" => v.output_tensor_type = Some(value()),
            "--token-embedding-type" => v.token_embedding_type = Some(value()),
            "--tensor-type" => v.tensor_types.push(value()),
            other => panic!("unknown option {other} in a golden manifest"),
        }
    }
}

/// What the peer made of a model, and the variant that makes it here.
fn variant(folder: &Path, path: &Path) -> (Variant, Json) {
    let name = path.file_stem().expect("name").to_string_lossy().into_owned();
    let expected: Json =
        serde_json::from_slice(&fs::read(path).expect("manifest reads")).expect("manifest is JSON");
    let target = match name.split('.').next().expect("name") {
        "F32" => Target::Dtype(DType::F32),
        "F16" => Target::Dtype(DType::F16),
        "BF16" => Target::Dtype(DType::BF16),
        recipe => Target::Recipe(recipe.to_owned()),
    };
    let mut v = Variant::new(&name, format!("{name}.gguf"), target);
    let options: Vec<&str> =
        expected["options"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    apply_options(&mut v, &options);
    v.imatrix = expected["imatrix"].as_str().map(|name| folder.join("expected").join(name));
    (v, expected)
}

/// Converts one folder; gives the number of variants and the differences.
fn check(folder: &Path) -> (usize, Vec<String>) {
    let model = folder.file_name().expect("name").to_string_lossy();
    let mut manifests: Vec<PathBuf> = fs::read_dir(folder.join("expected"))
        .expect("a golden model has expectations")
        .map(|e| e.expect("folder lists").path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    manifests.sort();
    let (variants, expected): (Vec<Variant>, Vec<Json>) =
        manifests.iter().map(|p| variant(folder, p)).unzip();
    let scratch = tempfile::tempdir().expect("scratch folder");
    let mut job = Job::new(folder, scratch.path(), "golden");
    job.pre = expected.iter().find_map(|e| e["pre"].as_str()).map(str::to_owned);
    job.variants = variants;
    let names: Vec<String> = job.variants.iter().map(|v| v.file.clone()).collect();
    let result = job::plan(job).and_then(|planned| planned.run(&(), &AtomicBool::new(false)));
    let mut wrong = Vec::new();
    match result {
        Err(e) => wrong.push(format!("{model}: {e}")),
        Ok(done) => {
            let read = done.run.read_bytes;
            let planned = done.plan.job.read_bytes_planned;
            if read != planned || read > done.plan.job.source_bytes {
                wrong.push(format!("{model}: {read} bytes were read of {planned} planned"));
            }
            for (file, expected) in names.iter().zip(&expected) {
                let differences = Manifest::of(&scratch.path().join(file))
                    .differences(expected, &["tensormill.", "general.quantized_by"]);
                wrong.extend(differences.into_iter().map(|d| format!("{model} {file}: {d}")));
            }
        }
    }
    (names.len(), wrong)
}

#[test]
fn every_golden_model_converts_to_the_peers_bytes() {
    let mut folders: Vec<_> =
        fs::read_dir(golden("models")).expect("golden models").map(|e| e.expect("lists").path()).collect();
    folders.retain(|p| p.is_dir());
    folders.sort();
    let (mut checked, mut wrong) = (0, Vec::new());
    for folder in &folders {
        let (n, w) = check(folder);
        checked += n;
        wrong.extend(w);
    }
    assert!(folders.len() >= 10 && checked >= 100, "{} models, {checked} variants", folders.len());
    assert!(wrong.is_empty(), "{} differences in {checked} variants:\n{}", wrong.len(), wrong.join("\n"));
}

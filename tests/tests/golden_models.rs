//! Every model in `golden/models`, converted here, against the manifest of what the peer made of it.

use serde_json::Value as Json;
use std::{fs, path::Path, sync::atomic::AtomicBool};
use tensormill_core::{
    DType,
    convert::{Request, Target, plan},
};
use tensormill_tests::{Manifest, golden};

/// Sets what the manifest's `options` say, in llama-quantize's spelling.
fn apply_options(request: &mut Request, options: &[&str]) {
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let mut value = || (*rest.next().expect("option has a value")).to_owned();
        match *option {
            "--pure" => request.pure = true,
            "--leave-output-tensor" => request.leave_output_tensor = true,
            "--output-tensor-type" => request.output_tensor_type = Some(value()),
            "--token-embedding-type" => request.token_embedding_type = Some(value()),
            "--tensor-type" => request.tensor_types.push(value()),
            other => panic!("unknown option {other} in a golden manifest"),
        }
    }
}

/// Converts one folder once per manifest; gives the differences.
fn check(folder: &Path, scratch: &Path) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    let mut checked = 0;
    let mut manifests: Vec<_> = fs::read_dir(folder.join("expected"))
        .expect("a golden model has expectations")
        .map(|e| e.expect("folder lists").path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .collect();
    manifests.sort();
    for path in manifests {
        let variant = path.file_stem().expect("name").to_string_lossy().into_owned();
        let expected: Json =
            serde_json::from_slice(&fs::read(&path).expect("manifest reads")).expect("manifest is JSON");
        let target = match variant.split('.').next().expect("name") {
            "F32" => Target::Dtype(DType::F32),
            "F16" => Target::Dtype(DType::F16),
            "BF16" => Target::Dtype(DType::BF16),
            recipe => Target::Recipe(recipe.to_owned()),
        };
        let out = scratch.join(format!("{variant}.gguf"));
        let mut request = Request::new(folder, &out, target);
        request.pre = expected["pre"].as_str().map(str::to_owned);
        let options: Vec<&str> =
            expected["options"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        apply_options(&mut request, &options);
        request.imatrix = expected["imatrix"].as_str().map(|name| folder.join("expected").join(name));
        let result = plan(&request).and_then(|c| c.run(&(), &AtomicBool::new(false)));
        let name = folder.file_name().expect("name").to_string_lossy();
        if let Err(e) = result {
            wrong.push(format!("{name} {variant}: {e}"));
        } else {
            let differences =
                Manifest::of(&out).differences(&expected, &["tensormill.", "general.quantized_by"]);
            wrong.extend(differences.into_iter().map(|d| format!("{name} {variant}: {d}")));
            fs::remove_file(&out).expect("output is removed");
        }
        checked += 1;
    }
    (checked, wrong)
}

#[test]
fn every_golden_model_converts_to_the_peers_bytes() {
    let mut folders: Vec<_> =
        fs::read_dir(golden("models")).expect("golden models").map(|e| e.expect("lists").path()).collect();
    folders.retain(|p| p.is_dir());
    folders.sort();
    let scratch = tempfile::tempdir().expect("scratch folder");
    let (mut checked, mut wrong) = (0, Vec::new());
    for folder in &folders {
        let (n, w) = check(folder, scratch.path());
        checked += n;
        wrong.extend(w);
    }
    assert!(folders.len() >= 10 && checked >= 100, "{} models, {checked} variants", folders.len());
    assert!(wrong.is_empty(), "{} differences in {checked} variants:\n{}", wrong.len(), wrong.join("\n"));
}

//! Every folder of `golden/quantized`, converted to GGUF, against the manifest of what llama.cpp's converter makes of it.

use serde_json::Value as Json;
use std::{fs, path::Path, sync::atomic::AtomicBool};
use tensormill_core::{
    convert::Target,
    job::{self, Job, Variant},
};
use tensormill_tests::{Manifest, golden};

/// Architectures that have no GGUF form here.
const UNKNOWN: &[&str] = &["gpt-oss-mxfp4"];

/// What the peer made of a folder; `None` where it refuses it.
fn expected(folder: &Path) -> Option<Json> {
    let bytes = fs::read(folder.join("llama_cpp.json")).ok()?;
    let manifest: Json = serde_json::from_slice(&bytes).expect("manifest is JSON");
    manifest.get("refused").is_none().then_some(manifest)
}

/// The folder with the tokenizer that the peer had beside the model.
fn with_tokenizer(folder: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for file in ["config.json", "hf_quant_config.json", "model.safetensors"] {
        if folder.join(file).exists() {
            fs::copy(folder.join(file), to.join(file)).expect("copies");
        }
    }
    for file in ["tokenizer.model", "tokenizer_config.json"] {
        fs::copy(golden("quantized/source").join(file), to.join(file)).expect("copies");
    }
}

#[test]
fn every_quantized_folder_converts_to_the_peers_bytes() {
    let (mut checked, mut wrong) = (0, Vec::new());
    let mut folders: Vec<_> = fs::read_dir(golden("quantized"))
        .expect("golden folders")
        .map(|e| e.expect("lists").path())
        .collect();
    folders.sort();
    for folder in folders.iter().filter(|f| f.is_dir()) {
        let name = folder.file_name().expect("name").to_string_lossy().into_owned();
        let Some(expected) = expected(folder).filter(|_| !UNKNOWN.contains(&&*name)) else { continue };
        checked += 1;
        let scratch = tempfile::tempdir().expect("scratch folder");
        let source = scratch.path().join(&name);
        with_tokenizer(folder, &source);
        let mut job = Job::new(&source, scratch.path(), "golden");
        job.variants = vec![Variant::new("out", "out.gguf", Target::Lossless)];
        match job::plan(job).and_then(|planned| planned.run(&(), &AtomicBool::new(false))) {
            Err(e) => wrong.push(format!("{name}: {e}")),
            Ok(_) => {
                let differences = Manifest::of(&scratch.path().join("out.gguf"))
                    .differences(&expected, &["tensormill.", "general.quantized_by"]);
                wrong.extend(differences.into_iter().map(|d| format!("{name}: {d}")));
            }
        }
    }
    assert!(checked >= 20, "{checked} folders");
    assert!(wrong.is_empty(), "{} differences in {checked} folders:\n{}", wrong.len(), wrong.join("\n"));
}

//! Damaged and hostile inputs, as a user meets them: the exit code is 3, the message names the file (and tensor where
//! there is one), and nothing stands under the output's name.

mod common;

use common::{big_zero_model, copy_demo, expect, names, safetensors};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Converts `model` and expects a refusal that says all of `says`.
fn refused(model: &Path, says: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    let start = Instant::now();
    let (_, stderr) = expect(3, ["convert".as_ref(), model.as_os_str(), "-o".as_ref(), out.as_os_str()]);
    for s in says {
        assert!(stderr.contains(s), "{s:?} is not in: {stderr}");
    }
    assert!(start.elapsed() < Duration::from_secs(30), "refusing took {:?}", start.elapsed());
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn damaged_weights() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    copy_demo(&model);
    let weights = model.join("model.safetensors");
    let good = fs::read(&weights).unwrap();
    for cut in [0, 7, 8, 100, good.len() / 2, good.len() - 1] {
        fs::write(&weights, &good[..cut]).unwrap();
        refused(&model, &["model.safetensors"]);
    }
    let entry = |name: &str, a: u64, b: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":[4],"data_offsets":[{a},{b}]}}"#)
    };
    for (header, data, says) in [
        (format!("{{{},{}}}", entry("a", 0, 16), entry("b", 8, 24)), 24, "b"),
        (format!("{{{}}}", entry("huge", 0, 1 << 62)), 16, "huge"),
        (format!("{{{},{}}}", entry("twice", 0, 16), entry("twice", 16, 32)), 32, "twice"),
        (
            r#"{"x":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,16]}}"#.to_owned(),
            16,
            "x",
        ),
        ("[".repeat(100_000), 0, "model.safetensors"),
    ] {
        fs::write(&weights, safetensors(&header, data)).unwrap();
        refused(&model, &["model.safetensors", says]);
    }
    let mut absurd = u64::MAX.to_le_bytes().to_vec();
    absurd.extend_from_slice(b"{}");
    fs::write(&weights, absurd).unwrap();
    refused(&model, &["model.safetensors"]);
}

#[test]
fn pointers_and_missing_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    copy_demo(&model);
    let weights = model.join("model.safetensors");
    let good = fs::read(&weights).unwrap();
    fs::write(
        &weights,
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
    )
    .unwrap();
    refused(&model, &["model.safetensors", "git lfs pull"]);

    fs::remove_file(&weights).unwrap();
    fs::write(model.join("model-00001-of-00002.safetensors"), &good).unwrap();
    let index = |entries: &str| {
        fs::write(model.join("model.safetensors.index.json"), format!(r#"{{"weight_map":{{{entries}}}}}"#))
            .unwrap();
    };
    index(r#""model.norm.weight":"model-00001-of-00002.safetensors","x":"model-00002-of-00002.safetensors""#);
    refused(&model, &["model-00002-of-00002.safetensors"]);
    // Everything that is there, and one tensor more.
    let header: u64 = u64::from_le_bytes(*good.first_chunk().unwrap());
    let tensors = common::json(std::str::from_utf8(&good[8..8 + header as usize]).unwrap());
    let listed = tensors.as_object().unwrap().keys().filter(|k| *k != "__metadata__");
    let entries: Vec<String> = listed
        .map(String::as_str)
        .chain(["nowhere"])
        .map(|name| format!(r#""{name}":"model-00001-of-00002.safetensors""#))
        .collect();
    index(&entries.join(","));
    refused(&model, &["nowhere", "model-00001-of-00002.safetensors"]);
    // A tensor that is there but not listed may belong to another model.
    index(r#""model.norm.weight":"model-00001-of-00002.safetensors""#);
    refused(&model, &["model.embed_tokens.weight", "does not list"]);
    index(r#""a":"../../etc/passwd""#);
    refused(&model, &["model.safetensors.index.json"]);
    fs::write(model.join("model.safetensors.index.json"), "{").unwrap();
    refused(&model, &["model.safetensors.index.json"]);
}

#[test]
fn pointers_are_recognised_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n", "4d".repeat(32));
    for name in ["m.safetensors", "m.gguf", "m-00001-of-00002.gguf", "m.bin", "m.pt", "m.ckpt", "m.onnx"] {
        let path = dir.path().join(name);
        fs::write(&path, &pointer).unwrap();
        refused(&path, &[name, "git lfs pull"]);
    }
    for name in ["pytorch_model.bin", "model.onnx", "consolidated.safetensors"] {
        let folder = dir.path().join(format!("with-{name}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(name), &pointer).unwrap();
        refused(&folder, &[name, "git lfs pull"]);
    }
    let folder = dir.path().join("config");
    copy_demo(&folder);
    fs::write(folder.join("config.json"), &pointer).unwrap();
    refused(&folder, &["config.json", "git lfs pull"]);
}

#[test]
fn damaged_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let good_path = dir.path().join("good.gguf");
    let demo = common::demo();
    expect(0, ["convert".as_ref(), demo.as_os_str(), "-o".as_ref(), good_path.as_os_str()]);
    let good = fs::read(&good_path).unwrap();
    let bad = dir.path().join("bad.gguf");
    for cut in [4, 8, 24, 1000, good.len() / 2, good.len() - 1] {
        fs::write(&bad, &good[..cut]).unwrap();
        refused(&bad, &["bad.gguf"]);
    }
    for at in [8usize, 16] {
        let mut b = good.clone();
        b[at..at + 8].copy_from_slice(&(1u64 << 62).to_le_bytes());
        fs::write(&bad, b).unwrap();
        refused(&bad, &["bad.gguf"]);
    }
}

#[test]
fn damaged_side_files() {
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in [
        ("config.json", &b"{\"architectures\": [\"LlamaForCausalLM\"], "[..]),
        ("config.json", b"[]"),
        ("tokenizer.model", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
    ] {
        let model = dir.path().join("m");
        let _ = fs::remove_dir_all(&model);
        copy_demo(&model);
        fs::write(model.join(file), content).unwrap();
        refused(&model, &[file]);
    }
}

#[test]
fn values_that_cannot_be_quantized() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m");
    big_zero_model(&model, 256, 1);
    let weights = model.join("model.safetensors");
    let mut b = fs::read(&weights).unwrap();
    let n = b.len();
    // The last tensor but one is a matrix's neighbour: put NaN (bf16 0x7fc0) into every element of the file's middle.
    for pair in b[n / 2..n / 2 + 1024].chunks_exact_mut(2) {
        pair.copy_from_slice(&0x7fc0u16.to_le_bytes());
    }
    fs::write(&weights, b).unwrap();
    let out = dir.path().join("out.gguf");
    let (_, stderr) = expect(
        3,
        [
            "convert".as_ref(),
            model.as_os_str(),
            "-o".as_ref(),
            out.as_os_str(),
            "--quant".as_ref(),
            "Q4_K_M".as_ref(),
        ],
    );
    assert!(stderr.contains("tensor blk.0.") && stderr.contains("row") && stderr.contains("NaN"), "{stderr}");
    assert_eq!(names(dir.path()), ["m"]);
}

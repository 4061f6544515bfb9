//! Folders that `mlx_lm.convert` wrote: decoded to the values that mlx decodes, and written again byte by byte from the same
//! source.

use serde_json::Value as Json;
use std::{collections::BTreeMap, fs, path::Path, sync::atomic::AtomicBool};
use tensormill_core::{
    DType,
    convert::Target,
    job::{self, Job, Variant},
};
use tensormill_tensor::decode_plain;
use tensormill_tests::golden;

/// Folders and how they are made of `golden/quantized/source`.
const FOLDERS: &[(&str, &str, &[&str])] = &[
    ("mlx-2bit-g32", "mlx-2bit-g32", &[]),
    ("mlx-3bit-g32", "mlx-3bit-g32", &[]),
    ("mlx-4bit-g32", "mlx-4bit-g32", &[]),
    ("mlx-5bit-g32", "mlx-5bit-g32", &[]),
    ("mlx-6bit-g32", "mlx-6bit-g32", &[]),
    ("mlx-8bit-g32", "mlx-8bit-g32", &[]),
    ("mlx-mxfp4", "mlx-mxfp4", &[]),
    ("mlx-nvfp4", "mlx-nvfp4", &[]),
    ("mlx-mxfp8", "mlx-mxfp8", &[]),
    ("mlx-mixed", "mlx-4bit-g32", &["o_proj=plain", "(down_proj|embed_tokens)=mlx-6bit-g32"]),
];

/// A tensor: type, dimensions, bytes.
type Stored = (String, Vec<u64>, Vec<u8>);

fn read(path: &Path) -> (Json, BTreeMap<String, Stored>) {
    let bytes = fs::read(path).expect("reads");
    let n = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut header: Json = serde_json::from_slice(&bytes[8..8 + n]).expect("header");
    let metadata = header["__metadata__"].take();
    let each = header.as_object().expect("object").iter().filter(|(_, t)| t.is_object());
    let tensors = each.map(|(name, t)| {
        let at = |i: usize| 8 + n + t["data_offsets"][i].as_u64().expect("offset") as usize;
        let shape =
            t["shape"].as_array().expect("shape").iter().map(|d| d.as_u64().expect("number")).collect();
        let dtype = t["dtype"].as_str().expect("type").to_owned();
        (name.clone(), (dtype, shape, bytes[at(0)..at(1)].to_vec()))
    });
    (metadata, tensors.collect())
}

fn values((dtype, _, bytes): &Stored) -> Vec<f32> {
    let (dtype, width) = if dtype == "F32" { (DType::F32, 4) } else { (DType::BF16, 2) };
    let mut x = vec![0f32; bytes.len() / width];
    assert!(decode_plain(dtype, bytes, &mut x));
    x
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).expect("reads")).expect("JSON")
}

fn convert(source: &Path, to: &Path, variant: Variant) {
    let mut job = Job::new(source, to, "test");
    job.variants = vec![variant];
    job::plan(job)
        .and_then(|p| p.run(&(), &AtomicBool::new(false)))
        .unwrap_or_else(|e| panic!("{}: {e}", source.display()));
}

#[test]
fn mlx_folders_decode_as_mlx_decodes_them() {
    for (name, ..) in FOLDERS {
        let folder = golden("quantized").join(name);
        let scratch = tempfile::tempdir().expect("scratch folder");
        convert(&folder, scratch.path(), Variant::new("v", "out.safetensors", Target::Dtype(DType::F32)));
        let (_, made) = read(&scratch.path().join("out.safetensors"));
        let (_, expected) = read(&folder.join("expected.safetensors"));
        assert!(!expected.is_empty());
        assert!(made.keys().all(|n| !n.ends_with(".scales") && !n.ends_with(".biases")), "{name}");
        for (tensor, want) in &expected {
            let got = made.get(tensor).unwrap_or_else(|| panic!("{name}: no {tensor}"));
            assert_eq!(got.1, want.1, "{name} {tensor}");
            assert_eq!(values(got), values(want), "{name} {tensor}");
        }
    }
}

#[test]
fn the_same_source_gives_mlx_lms_bytes() {
    let mut wrong = Vec::new();
    for (name, scheme, rules) in FOLDERS {
        let folder = golden("quantized").join(name);
        let scratch = tempfile::tempdir().expect("scratch folder");
        let mut v = Variant::new("v", "model.safetensors", Target::Recipe((*scheme).to_owned()));
        v.tensor_types = rules.iter().map(|r| (*r).to_owned()).collect();
        v.side_files = true;
        convert(&golden("quantized/source"), scratch.path(), v);
        let (metadata, made) = read(&scratch.path().join("model.safetensors"));
        let (_, expected) = read(&folder.join("model.safetensors"));
        assert_eq!(metadata["format"], "mlx");
        assert!(made.keys().eq(expected.keys()), "{name}: {:?}", made.keys());
        for (tensor, want) in &expected {
            let got = &made[tensor];
            assert_eq!((&got.0, &got.1), (&want.0, &want.1), "{name} {tensor}");
            let different = got.2.iter().zip(&want.2).filter(|(a, b)| a != b).count();
            if different > 0 {
                wrong.push(format!("{name} {tensor}: {different} of {} bytes", want.2.len()));
            }
        }
        let (ours, theirs) = (json(&scratch.path().join("config.json")), json(&folder.join("config.json")));
        for key in ["quantization", "quantization_config"] {
            assert_eq!(ours[key], theirs[key], "{name} {key}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

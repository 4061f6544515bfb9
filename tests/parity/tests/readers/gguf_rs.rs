//! `gguf-rs`: names, shapes, types, offsets and metadata of every file; sizes of the types it gets right.

use serde_json::Value as Json;
use std::path::Path;
use tensormill_gguf::{code_of, encoding_of};
use tensormill_model::{Array, Index, Metadata, Reader, Value};
use tensormill_parity::{for_every_conversion, open, write};
use tensormill_tensor::{DType, Encoding, Shape, TensorSpec, ggml};

/// Types whose size in bytes `gguf-rs` 0.1.8 gets wrong.
const WRONG_SIZES: [Encoding; 9] = [
    Encoding::Block(ggml::Q8_1),
    Encoding::Block(ggml::IQ4_NL),
    Encoding::Plain(DType::I8),
    Encoding::Plain(DType::I16),
    Encoding::Plain(DType::I32),
    Encoding::Plain(DType::I64),
    Encoding::Plain(DType::F64),
    Encoding::BF16,
    Encoding::Block(ggml::MXFP4),
];

/// The largest type code that it knows; it panics on the next, and refuses the files of those after it.
const LAST_CODE: u32 = 39;

pub fn try_read(path: &Path) -> Result<gguf_rs::GGUFModel, Box<dyn std::error::Error + Send + Sync>> {
    // Without this limit it would cut the arrays of the vocabulary to three elements.
    let mut container =
        gguf_rs::get_gguf_container_array_size(path.to_str().expect("path is text"), u64::MAX)?;
    Ok(container.decode()?)
}

pub fn read(path: &Path) -> gguf_rs::GGUFModel {
    try_read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The JSON that `gguf-rs` makes of a value. It keeps the digits of a float as its width prints them, not the width.
fn json(value: &Value) -> Json {
    match value {
        Value::U8(v) => Json::from(*v),
        Value::I8(v) => Json::from(*v),
        Value::U16(v) => Json::from(*v),
        Value::I16(v) => Json::from(*v),
        Value::U32(v) => Json::from(*v),
        Value::I32(v) => Json::from(*v),
        Value::U64(v) => Json::from(*v),
        Value::I64(v) => Json::from(*v),
        Value::F32(v) => Json::from(*v),
        Value::F64(v) => Json::from(*v),
        Value::Bool(v) => Json::from(*v),
        Value::Str(v) => Json::from(v.as_str()),
        Value::Bytes(v) => Json::from(String::from_utf8_lossy(v)),
        Value::Array(v) => (0..v.len()).map(|i| json(&v.get(i).expect("index in range"))).collect(),
    }
}

pub fn compare_metadata(theirs: &gguf_rs::GGUFModel, ours: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, value) in ours.iter() {
        assert!(!matches!(value, Value::Array(Array::Array(_))), "gguf-rs refuses nested arrays");
        let theirs = theirs.metadata().get(key);
        if theirs != Some(&json(value)) {
            wrong.push(format!("{key}: we read {value}, gguf-rs {theirs:?}"));
        }
    }
    if theirs.metadata().len() != ours.len() || theirs.num_kv() != ours.len() as u64 {
        wrong.push(format!("we read {} keys, gguf-rs {}", ours.len(), theirs.metadata().len()));
    }
    wrong
}

/// Names and their order, shapes, types, places; sizes but for [`WRONG_SIZES`].
pub fn compare_tensors(theirs: &gguf_rs::GGUFModel, ours: &dyn Reader) -> Vec<String> {
    let mut wrong = Vec::new();
    let tensors = &ours.index().tensors;
    if tensors.len() != theirs.tensors().len() || theirs.num_tensor() != tensors.len() as u64 {
        wrong.push(format!("we see {} tensors, gguf-rs {}", tensors.len(), theirs.tensors().len()));
    }
    for (i, (spec, t)) in tensors.iter().zip(theirs.tensors()).enumerate() {
        let name = &spec.name;
        if t.name != *name {
            wrong.push(format!("tensor {i}: our name is {name}, theirs {}", t.name));
        }
        // Innermost first, as in the file.
        if !t.shape.iter().eq(spec.shape.dims().iter().rev()) {
            wrong.push(format!("{name}: our shape is {}, theirs reversed {:?}", spec.shape, t.shape));
        }
        if Some(t.kind) != code_of(spec.encoding) {
            wrong.push(format!("{name}: our type is {}, theirs {}", spec.encoding, t.kind));
        }
        let offset = theirs.data_offset() + t.offset;
        if ours.place(i).offset != offset {
            wrong.push(format!("{name}: we find it at {}, gguf-rs at {offset}", ours.place(i).offset));
        }
        let size = spec.bytes().expect("size");
        if !WRONG_SIZES.contains(&spec.encoding) && t.size != size {
            wrong.push(format!("{name} ({}): our size is {size}, theirs {}", spec.encoding, t.size));
        }
    }
    wrong
}

#[test]
fn gguf_rs_sees_the_same_metadata_and_tensors() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let mut wrong = Vec::new();
    for_every_conversion(scratch.path(), |model, variant, path| {
        let (ours, theirs) = (open(path), read(path));
        let mut found = compare_metadata(&theirs, &ours.index().metadata);
        found.extend(compare_tensors(&theirs, &*ours));
        wrong.extend(found.into_iter().map(|d| format!("{model} {variant}: {d}")));
    });
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn gguf_rs_agrees_on_every_type_but_on_the_size_of_known_ones() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let path = scratch.path().join("types.gguf");
    let encodings: Vec<Encoding> = (0..=LAST_CODE).filter_map(encoding_of).collect();
    let shape = Shape::new(vec![3, 512]).expect("shape");
    let tensors: Vec<TensorSpec> =
        encodings.iter().map(|&e| TensorSpec::new(e.name(), shape.clone(), e)).collect();
    write(&path, &Index { tensors, ..Index::default() }, &[]);

    let (ours, theirs) = (open(&path), read(&path));
    let wrong = compare_tensors(&theirs, &*ours);
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    let wrong_sizes: Vec<Encoding> = ours
        .index()
        .tensors
        .iter()
        .zip(theirs.tensors())
        .filter(|(spec, t)| spec.bytes().expect("size") != t.size)
        .map(|(spec, _)| spec.encoding)
        .collect();
    assert_eq!(wrong_sizes, WRONG_SIZES, "sizes that gguf-rs gets wrong");
    assert_eq!(encodings.len(), 32, "types that gguf-rs can be shown");
}

#[test]
fn gguf_rs_cannot_be_shown_newer_types() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let path = scratch.path().join("type.gguf");
    for encoding in (LAST_CODE + 1..64).filter_map(encoding_of) {
        let spec = TensorSpec::new("t", Shape::new(vec![256]).expect("shape"), encoding);
        write(&path, &Index { tensors: vec![spec], ..Index::default() }, &[]);
        // A panic counts as a refusal.
        let read = std::panic::catch_unwind(|| try_read(&path).is_ok());
        assert!(!read.unwrap_or(false), "gguf-rs can read {encoding} now: raise LAST_CODE");
    }
}

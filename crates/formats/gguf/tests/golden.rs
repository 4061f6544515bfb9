//! Files that gguf-py wrote (`golden/generators/formats.py`): read right, and reproduced byte for byte.

use serde_json::Value as Json;
use std::{path::PathBuf, sync::Arc};
use tensormill_gguf::{CAPABILITIES, FORMAT, ggml_type_name, join_metadata, split_names};
use tensormill_model::{
    Array, Checked, Format, Index, Limits, MemoryAssets, MemoryStore, Metadata, Model, Reader, ShardLimits,
    Value, WriteOptions,
};

fn bytes(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../golden/formats").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn open(name: &str) -> Box<dyn Reader> {
    let store = Arc::new(MemoryStore { name: name.to_owned(), bytes: bytes(name) });
    FORMAT.open(store, &Limits::default()).unwrap()
}

fn manifest() -> Json {
    serde_json::from_slice(&bytes("manifest.json")).unwrap()
}

fn hex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

/// A manifest value in the type the manifest states.
fn value(ty: &str, element: Option<&str>, v: &Json) -> Value {
    let int = || v.as_i64().unwrap();
    let uint = || v.as_u64().unwrap();
    match ty {
        "UINT8" => Value::U8(uint() as u8),
        "INT8" => Value::I8(int() as i8),
        "UINT16" => Value::U16(uint() as u16),
        "INT16" => Value::I16(int() as i16),
        "UINT32" => Value::U32(uint() as u32),
        "INT32" => Value::I32(int() as i32),
        "UINT64" => Value::U64(uint()),
        "INT64" => Value::I64(int()),
        "FLOAT32" => Value::F32(v.as_f64().unwrap() as f32),
        "FLOAT64" => Value::F64(v.as_f64().unwrap()),
        "BOOL" => Value::Bool(v.as_bool().unwrap()),
        "STRING" => Value::Str(v.as_str().unwrap().to_owned()),
        "ARRAY" => {
            let list = v.as_array().unwrap();
            Value::Array(match element.unwrap() {
                "UINT8" => Array::U8(list.iter().map(|x| x.as_u64().unwrap() as u8).collect()),
                "INT16" => Array::I16(list.iter().map(|x| x.as_i64().unwrap() as i16).collect()),
                "INT32" => Array::I32(list.iter().map(|x| x.as_i64().unwrap() as i32).collect()),
                "UINT64" => Array::U64(list.iter().map(|x| x.as_u64().unwrap()).collect()),
                "FLOAT32" => Array::F32(list.iter().map(|x| x.as_f64().unwrap() as f32).collect()),
                "FLOAT64" => Array::F64(list.iter().map(|x| x.as_f64().unwrap()).collect()),
                "BOOL" => Array::Bool(list.iter().map(|x| x.as_bool().unwrap()).collect()),
                "STRING" => Array::Str(list.iter().map(|x| x.as_str().unwrap().to_owned()).collect()),
                other => panic!("{other}"),
            })
        }
        other => panic!("{other}"),
    }
}

/// The manifest's metadata; a file with an alignment of its own has it second.
fn metadata(alignment: Option<u32>) -> Metadata {
    let mut m = Metadata::new();
    for (i, kv) in manifest()["gguf"]["metadata"].as_array().unwrap().iter().enumerate() {
        if let (1, Some(a)) = (i, alignment) {
            m.set("general.alignment", a);
        }
        m.set(
            kv["key"].as_str().unwrap(),
            value(kv["type"].as_str().unwrap(), kv["element"].as_str(), &kv["value"]),
        );
    }
    m
}

fn whole(reader: &dyn Reader, t: usize) -> Vec<u8> {
    let spec = &reader.index().tensors[t];
    let mut out = vec![0; spec.bytes().unwrap() as usize];
    reader.read(t, 0..spec.shape.rows(), &mut out).unwrap();
    out
}

fn assert_tensors(reader: &dyn Reader, first: usize, count: usize) {
    let manifest = manifest();
    let want = &manifest["gguf"]["tensors"].as_array().unwrap()[first..first + count];
    assert_eq!(reader.index().tensors.len(), want.len());
    for (t, w) in want.iter().enumerate() {
        let spec = &reader.index().tensors[t];
        let shape: Vec<u64> = w["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        assert_eq!(spec.name, w["name"].as_str().unwrap());
        assert_eq!(spec.shape.dims(), shape, "{}", spec.name);
        assert_eq!(ggml_type_name(spec.encoding), w["type"].as_str().unwrap(), "{}", spec.name);
        let data = hex(w["hex"].as_str().unwrap());
        assert_eq!(whole(reader, t), data, "{}", spec.name);
        // Row by row must be the same as all at once.
        let row = spec.row_bytes().unwrap() as usize;
        for r in 0..spec.shape.rows() {
            let mut out = vec![0; row];
            reader.read(t, r..r + 1, &mut out).unwrap();
            assert_eq!(out, data[r as usize * row..][..row], "{} row {r}", spec.name);
        }
    }
}

fn checked(reader: &dyn Reader) -> Checked {
    Model::from_index(reader.index(), 0, Arc::new(MemoryAssets::default())).check(&CAPABILITIES).unwrap()
}

fn options(name: &str, max_shard_bytes: Option<u64>) -> WriteOptions {
    WriteOptions {
        file_name: name.to_owned(),
        shards: ShardLimits { bytes: max_shard_bytes, tensors: None },
        external: false,
    }
}

/// Executes a layout the way an engine would: header first, tensors at their places, zeros elsewhere.
fn write(reader: &dyn Reader, options: &WriteOptions) -> Vec<(String, Vec<u8>)> {
    let layout = FORMAT.layout(&checked(reader), options).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = layout
        .files
        .iter()
        .map(|f| {
            let mut b = f.header.clone();
            b.resize(f.len as usize, 0);
            (f.name.clone(), b)
        })
        .collect();
    for (t, place) in layout.places.iter().enumerate() {
        let data = whole(reader, t);
        files[place.file].1[place.offset as usize..][..data.len()].copy_from_slice(&data);
    }
    files
}

#[test]
fn both_byte_orders_read_the_same() {
    for name in ["le.gguf", "be.gguf"] {
        let r = open(name);
        assert_eq!(r.index().metadata, metadata(None), "{name}");
        assert_tensors(&*r, 0, 12);
    }
}

#[test]
fn written_files_are_gguf_pys() {
    for name in ["le.gguf", "aligned.gguf", "empty.gguf"] {
        let files = write(&*open(name), &options(name, None));
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].0, name);
        assert!(files[0].1 == bytes(name), "{name} differs from the file gguf-py wrote");
    }
    assert_eq!(open("aligned.gguf").index().metadata, metadata(Some(64)));
    // A big-endian source becomes the little-endian file.
    assert!(write(&*open("be.gguf"), &options("x.gguf", None))[0].1 == bytes("le.gguf"));
}

#[test]
fn split_sets_are_read_and_written_as_gguf_py_does() {
    let mut names = Vec::new();
    for count in 2..20 {
        let found = split_names(&format!("split-00001-of-{count:05}.gguf")).unwrap();
        if PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../golden/formats").join(&found[0]).exists()
        {
            names = found;
        }
    }
    assert!(names.len() > 2, "no split set found");
    let readers: Vec<_> = names.iter().map(|n| open(n)).collect();
    let parts: Vec<(&str, &Index)> =
        names.iter().map(String::as_str).zip(readers.iter().map(|r| r.index())).collect();
    assert_eq!(join_metadata(&parts).unwrap(), metadata(None));
    assert!(join_metadata(&parts[1..]).is_err());
    let mut first = 0;
    for r in &readers {
        let count = r.index().tensors.len();
        assert_tensors(&**r, first, count);
        first += count;
    }
    assert_eq!(first, 12);

    let files = write(&*open("le.gguf"), &options("split.gguf", Some(150)));
    assert_eq!(files.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), names);
    for (name, got) in files {
        assert!(got == bytes(&name), "{name} differs from the file gguf-py wrote");
    }
}

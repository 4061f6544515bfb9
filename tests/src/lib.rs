//! What the cross-crate tests share: where golden data is, and GGUF files as manifests that can be compared with the
//! ones the peer's files gave (`golden/generators/gguf_manifest.py` defines the form).

pub mod fuzz;
pub mod hostile;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, path::PathBuf, sync::Arc};
use tensormill_core::{Limits, formats};
use tensormill_model::{Array, Format, Value};
use tensormill_tensor::{DType, Encoding};

/// Arrays longer than this stand in manifests as a length and a hash.
const LONG_ARRAY: usize = 32;

/// A path under `golden/`.
pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../golden")).join(path)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A GGUF file as `[[key, type, value], ...]` and `[[name, type, [ne0, ...], sha256], ...]`.
pub struct Manifest {
    /// Metadata in order.
    pub kv: Vec<Json>,
    /// Tensors in order.
    pub tensors: Vec<Json>,
}

impl Manifest {
    /// Reads one GGUF file.
    ///
    /// # Panics
    /// When it cannot be read: these are tests.
    pub fn of(path: &std::path::Path) -> Self {
        let store = Arc::new(tensormill_core::LocalFile::open(path).expect("file opens"));
        let reader = formats::GGUF.open(store, &Limits::default()).expect("file is GGUF");
        let index = reader.index();
        let kv = index.metadata.iter().map(|(k, v)| {
            let (t, v) = value(v);
            json!([k, t, v])
        });
        let tensors = (0..index.tensors.len()).map(|i| {
            let spec = &index.tensors[i];
            let mut bytes = vec![0; usize::try_from(spec.bytes().expect("size")).expect("fits memory")];
            reader.read(i, 0..spec.shape.rows(), &mut bytes).expect("data reads");
            let ne: Vec<u64> = spec.shape.dims().iter().rev().copied().collect();
            json!([spec.name, type_name(spec.encoding), ne, sha256(&bytes)])
        });
        Self { kv: kv.collect(), tensors: tensors.collect() }
    }

    /// Differences from an expected manifest, in words; empty when there are none. Keys that start with one of
    /// `extra` may be there though nobody expects them.
    ///
    /// # Panics
    /// When `expected` is not a manifest.
    pub fn differences(&self, expected: &Json, extra: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        let ours: Vec<&Json> = self
            .kv
            .iter()
            .filter(|e| !extra.iter().any(|p| e[0].as_str().expect("key").starts_with(p)))
            .collect();
        let theirs: Vec<&Json> = expected["kv"].as_array().expect("kv").iter().collect();
        compare("key", &ours, &theirs, &mut out);
        let ours: Vec<&Json> = self.tensors.iter().collect();
        let theirs: Vec<&Json> = expected["tensors"].as_array().expect("tensors").iter().collect();
        compare("tensor", &ours, &theirs, &mut out);
        out
    }
}

fn compare(what: &str, ours: &[&Json], theirs: &[&Json], out: &mut Vec<String>) {
    let name = |e: &Json| e[0].as_str().expect("name").to_owned();
    let mut common = true;
    for e in theirs {
        match ours.iter().find(|o| o[0] == e[0]) {
            None => {
                common = false;
                out.push(format!("{what} {} is missing", name(e)));
            }
            Some(o) if !same(o, e) => out.push(format!("{what} {}: expected {e}, got {o}", name(e))),
            Some(_) => {}
        }
    }
    for o in ours {
        if !theirs.iter().any(|e| e[0] == o[0]) {
            common = false;
            out.push(format!("{what} {} is not expected", name(o)));
        }
    }
    if common && let Some(i) = (0..ours.len()).find(|&i| ours[i][0] != theirs[i][0]) {
        out.push(format!("{what} number {i}: expected {}, got {}", name(theirs[i]), name(ours[i])));
    }
}

/// JSON equality in which numbers are equal by value: generators print `1.0` where we print `1.0` too, but
/// a float that is whole may come back as an integer.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Array(x), Json::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Json::Number(x), Json::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

fn type_name(e: Encoding) -> &'static str {
    match e {
        Encoding::Block(b) => b.name,
        Encoding::Plain(DType::F32) => "F32",
        Encoding::Plain(DType::F16) => "F16",
        Encoding::Plain(DType::BF16) => "BF16",
        Encoding::Plain(d) => d.name(),
    }
}

fn value(v: &Value) -> (String, Json) {
    let t = v.value_type().0.to_owned();
    match v {
        Value::Array(a) => {
            let t = format!("arr<{}>", a.element_type().0);
            if a.len() > LONG_ARRAY {
                return (t, json!({"len": a.len(), "sha256": sha256(&array_bytes(a))}));
            }
            let items: Vec<Json> =
                (0..a.len()).map(|i| value(&a.get(i).expect("index in range")).1).collect();
            (t, Json::Array(items))
        }
        Value::Str(s) => (t, json!(s)),
        Value::Bytes(b) => (t, json!(String::from_utf8_lossy(b))),
        Value::Bool(b) => (t, json!(b)),
        Value::F32(x) => (t, json!(f64::from(*x))),
        Value::F64(x) => (t, json!(x)),
        Value::I8(x) => (t, json!(x)),
        Value::I16(x) => (t, json!(x)),
        Value::I32(x) => (t, json!(x)),
        Value::I64(x) => (t, json!(x)),
        Value::U8(_) | Value::U16(_) | Value::U32(_) | Value::U64(_) => (t, json!(v.as_u64())),
    }
}

/// The elements as a GGUF file holds them.
fn array_bytes(a: &Array) -> Vec<u8> {
    fn string(s: &[u8]) -> Vec<u8> {
        [&(s.len() as u64).to_le_bytes()[..], s].concat()
    }
    match a {
        Array::U8(v) => v.clone(),
        Array::I8(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Array::Bool(v) => v.iter().map(|x| u8::from(*x)).collect(),
        Array::Str(v) => v.iter().flat_map(|s| string(s.as_bytes())).collect(),
        Array::Bytes(v) => v.iter().flat_map(|s| string(s)).collect(),
        Array::Array(_) => unreachable!("no peer writes nested arrays"),
    }
}

//! What a model's headers say, as data.

use crate::Source;
use serde::Serialize;
use std::path::Path;
use tensormill_model::{Array, Limits, Result, Value};

/// Arrays longer than this are abridged.
const ARRAY_SHOWN: usize = 16;

/// One metadata entry.
#[derive(Debug, Serialize)]
pub struct MetadataRow {
    /// Key.
    pub key: String,
    /// Type, `arr<u32>` style for arrays.
    #[serde(rename = "type")]
    pub value_type: String,
    /// Value; long arrays as `{"len": n, "first": [...]}`.
    pub value: serde_json::Value,
    /// Value in one line for people.
    #[serde(skip)]
    pub text: String,
}

/// One tensor.
#[derive(Debug, Serialize)]
pub struct TensorRow {
    /// Name.
    pub name: String,
    /// Encoding.
    #[serde(rename = "type")]
    pub encoding: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Bytes.
    pub bytes: u64,
}

/// What a model's headers say.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// The path as given.
    pub path: String,
    /// What it is.
    pub format: String,
    /// Weights in all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Metadata in order.
    pub metadata: Vec<MetadataRow>,
    /// Tensors in order.
    pub tensors: Vec<TensorRow>,
}

/// Reads headers; no weights.
///
/// # Errors
/// As [`Source::open`].
pub fn inspect(path: &Path) -> Result<Inspection> {
    let source = Source::open(path, &Limits::default())?;
    let model = &source.model;
    let metadata = model
        .metadata
        .iter()
        .map(|(k, v)| MetadataRow {
            key: k.to_owned(),
            value_type: match v {
                Value::Array(a) => format!("arr<{}>", a.element_type().0),
                _ => v.value_type().0.to_owned(),
            },
            value: json(v),
            text: v.to_string(),
        })
        .collect();
    let mut tensors = Vec::with_capacity(model.tensors.len());
    for t in &model.tensors {
        tensors.push(TensorRow {
            name: t.name().to_owned(),
            encoding: t.spec.encoding.to_string(),
            shape: t.spec.shape.dims().to_vec(),
            bytes: t.spec.bytes()?,
        });
    }
    Ok(Inspection {
        path: path.display().to_string(),
        format: source.format,
        parameters: model.parameters(),
        bytes: model.bytes()?,
        metadata,
        tensors,
    })
}

fn json(v: &Value) -> serde_json::Value {
    use serde_json::json;
    match v {
        Value::U8(_) | Value::U16(_) | Value::U32(_) | Value::U64(_) => json!(v.as_u64()),
        Value::I8(x) => json!(x),
        Value::I16(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        Value::Str(x) => json!(x),
        Value::Bytes(x) => json!(String::from_utf8_lossy(x)),
        Value::Array(a) if a.len() > ARRAY_SHOWN => {
            json!({"len": a.len(), "first": items(a, ARRAY_SHOWN)})
        }
        Value::Array(a) => json!(items(a, a.len())),
    }
}

fn items(a: &Array, n: usize) -> Vec<serde_json::Value> {
    (0..n).filter_map(|i| a.get(i)).map(|v| json(&v)).collect()
}

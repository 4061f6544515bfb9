//! What a model's headers say, as data.

use crate::{
    Source,
    location::{Access, Location, Opening},
    quantized,
};
use serde::{Serialize, Serializer};
use tensormill_graph::{Program, Recovered};
use tensormill_model::{Array, Metadata, Result, Value};

/// Arrays longer than this are abridged.
const ARRAY_SHOWN: usize = 16;

/// One metadata entry, as JSON shows it.
#[derive(Serialize)]
struct MetadataRow<'a> {
    key: &'a str,
    #[serde(rename = "type")]
    value_type: String,
    value: serde_json::Value,
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

/// A parameter that was found in a graph.
#[derive(Debug, Serialize)]
pub struct ParameterRow {
    /// The initializer.
    pub initializer: String,
    /// The parameter's name.
    pub name: String,
    /// Whether the initializer has its last two dimensions the other way round.
    pub transposed: bool,
    /// How that is known.
    pub how: &'static str,
}

/// What is computed with the tensors.
#[derive(Debug, Serialize)]
pub struct GraphRow {
    /// Nodes, inputs and outputs, in a sentence.
    pub summary: String,
    /// Initializers that are parameters.
    pub parameters: Vec<ParameterRow>,
}

/// Weights that several tensors hold.
#[derive(Debug, Serialize)]
pub struct QuantizedRow {
    /// What such checkpoints are called.
    pub kind: &'static str,
    /// Number of weights by what they are held as.
    pub weights: std::collections::BTreeMap<String, usize>,
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
    /// Metadata in order. In JSON, entries with `key`, `type` (`arr<u32>` style for arrays) and `value`; long arrays as
    /// `{"len": n, "first": [...]}`.
    #[serde(serialize_with = "rows")]
    pub metadata: Metadata,
    /// How weights are quantized, where several tensors hold one: the kind of checkpoint, and weights by what they are held as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized: Option<QuantizedRow>,
    /// The graph, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphRow>,
    /// Tensors in order.
    pub tensors: Vec<TensorRow>,
}

/// Reads headers; no weights.
///
/// # Errors
/// As [`Source::open`].
pub fn inspect(at: impl Into<Location>) -> Result<Inspection> {
    inspect_by(&at.into(), &Access::default())
}

/// The same, with the Hub reached so.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_by(at: &Location, access: &Access) -> Result<Inspection> {
    let source = Source::open_at(at, &Opening { access: access.clone(), ..Opening::default() })?;
    let model = &source.model;
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
        path: source.location.to_string(),
        format: source.format.clone(),
        parameters: model.parameters(),
        bytes: model.bytes()?,
        metadata: model.metadata.clone(),
        quantized: quantized::summary(&source).map_err(|e| e.file(&source.location))?,
        graph: source.readers.iter().find_map(|r| r.program()).map(|p| graph(p)),
        tensors,
    })
}

fn graph(program: &Program) -> GraphRow {
    let row = |r: Recovered| ParameterRow {
        initializer: r.initializer,
        name: r.name,
        transposed: r.transposed,
        how: r.how.text(),
    };
    GraphRow {
        summary: program.summary(),
        parameters: program.recover().parameters.into_iter().map(row).collect(),
    }
}

/// The type of a value: `u32`, `arr<str>`.
pub fn type_name(v: &Value) -> String {
    match v {
        Value::Array(a) => format!("arr<{}>", a.element_type().0),
        _ => v.value_type().0.to_owned(),
    }
}

/// Entry by entry: files may hold texts of many megabytes, which are not copied all at once.
fn rows<S: Serializer>(metadata: &Metadata, s: S) -> std::result::Result<S::Ok, S::Error> {
    let row = |(key, v)| MetadataRow { key, value_type: type_name(v), value: json(v) };
    s.collect_seq(metadata.iter().map(row))
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

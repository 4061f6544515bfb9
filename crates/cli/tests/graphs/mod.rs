//! Graphs that the program wrote, run beside what transformers computed: golden references, runtimes, encoders and
//! decoders with their cache.
#![allow(dead_code, reason = "each test file uses its part")]

use crate::common::{self, json, tensors};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tensormill_model::Result;
use tensormill_runtime::{Backend, Dim, Session, Value};
use tensormill_tensor::DType;

/// Steps that references have after the prefill.
pub const STEPS: usize = 10;

/// A file or folder of the golden ONNX data.
pub fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/onnx")).join(name)
}

/// Names of the folders in a golden folder.
pub fn folders(of: &str) -> Vec<String> {
    common::names(&golden(of)).into_iter().filter(|n| golden(of).join(n).is_dir()).collect()
}

/// ONNX Runtime, where somebody names its library; said aloud where nobody does.
pub fn onnx_runtime() -> Option<Backend> {
    let there = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|v| !v.is_empty());
    if !there {
        eprintln!("skipped: ORT_DYLIB_PATH names no ONNX Runtime");
    }
    there.then_some(Backend::OnnxRuntime { library: None })
}

/// The tensors of a safetensors file as values.
pub fn values(path: &Path) -> BTreeMap<String, Value> {
    let value = |t: common::Stored| {
        let dtype = match t.dtype.as_str() {
            "F32" => DType::F32,
            "I64" => DType::I64,
            other => panic!("{other}"),
        };
        Value::new(dtype, t.shape, t.bytes).unwrap()
    };
    tensors(path).into_iter().map(|(name, t)| (name, value(t))).collect()
}

/// A golden model with what transformers makes of it.
pub struct Reference {
    pub name: String,
    /// The Hugging Face folder.
    pub folder: PathBuf,
    pub config: Json,
    pub values: BTreeMap<String, Value>,
}

impl Reference {
    pub fn of(name: &str) -> Self {
        let own = golden("models").join(name);
        let folder = match fs::read_to_string(own.join("base.txt")) {
            Ok(base) => golden("..").join(base.trim()),
            Err(_) => own.clone(),
        };
        let config = json(&fs::read_to_string(folder.join("config.json")).unwrap());
        Self { name: name.to_owned(), folder, config, values: values(&own.join("reference.safetensors")) }
    }

    pub fn is_decoder(&self) -> bool {
        self.values.contains_key("single.logits")
    }

    fn ints(&self, name: &str) -> Rows {
        Rows::of(&self.values[name])
    }
}

/// Largest differences by output; how often the most likely token was the reference's.
#[derive(Default, Debug)]
pub struct Off {
    pub worst: BTreeMap<String, f32>,
    pub tokens: usize,
    pub same_tokens: usize,
}

impl Off {
    fn add(&mut self, name: &str, got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len(), "{name}");
        let worst = self.worst.entry(name.to_owned()).or_default();
        for (g, w) in got.iter().zip(want) {
            let off = (g - w).abs();
            // What is not a number is beyond every limit.
            if off > *worst || off.is_nan() {
                *worst = off;
            }
        }
    }

    fn token(&mut self, got: usize, want: i64) {
        self.tokens += 1;
        self.same_tokens += usize::from(got as i64 == want);
    }

    /// The largest difference of all.
    pub fn most(&self) -> f32 {
        self.worst.values().fold(0.0, |m, w| if *w > m || w.is_nan() { *w } else { m })
    }

    /// Fails where something is beyond the tolerance.
    pub fn within(&self, tolerance: f32, what: &str) {
        assert!(!self.worst.is_empty(), "{what}: nothing was compared");
        assert!(self.most() <= tolerance, "{what}: {:?}, beyond {tolerance}", self.worst);
    }
}

/// Opens a graph.
pub fn open(path: &Path, backend: &Backend) -> Session {
    Session::open(path, backend).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs a graph on what it asks for, in the types that it asks for.
pub fn run(session: &mut Session, from: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    try_run(session, from).unwrap_or_else(|e| panic!("{e}"))
}

/// The same, where a runtime may not be able to.
fn try_run(session: &mut Session, from: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
    let ports = session.inputs().to_vec();
    let given: Vec<(&str, Value)> = ports
        .iter()
        .map(|port| {
            let name = port.name.as_str();
            let value = from.get(name).unwrap_or_else(|| panic!("the graph asks for {name}, {port}"));
            (name, value.cast(port.dtype).unwrap())
        })
        .collect();
    Ok(session.run(&given)?.into_iter().collect())
}

/// How a decoder is asked.
#[derive(Clone, Copy)]
pub struct Prompts {
    /// The single prompt too, and not the batch alone.
    pub single: bool,
    /// Steps after the prefill.
    pub steps: usize,
    /// Padding on the right.
    pub right: bool,
}

impl Prompts {
    pub const ALL: Self = Self { single: true, steps: STEPS, right: false };
}

/// Runs whatever the model is.
pub fn check(session: &mut Session, reference: &Reference, prompts: Prompts) -> Off {
    let mut off = Off::default();
    if reference.is_decoder() {
        for prompt in if prompts.single { &["single", "batch"][..] } else { &["batch"] } {
            decode(session, reference, prompt, prompts, &mut off);
        }
    } else {
        encode(session, reference, &mut off);
    }
    off
}

/// Runs an encoder; only places that the attention mask has count.
fn encode(session: &mut Session, reference: &Reference, off: &mut Off) {
    let inputs = ["input_ids", "attention_mask", "token_type_ids", "pixel_values"];
    for name in inputs.iter().filter(|n| reference.values.contains_key(**n)) {
        assert!(session.inputs().iter().any(|p| p.name == *name), "{}: no input {name}", reference.name);
    }
    let outputs = run(session, &reference.values);
    let main = ["sentence_embedding", "logits", "last_hidden_state"];
    let main = main.iter().find(|n| reference.values.contains_key(**n)).unwrap();
    assert!(outputs.contains_key(*main), "{}: no output {main}", reference.name);
    for (name, got) in &outputs {
        let known = if name == "token_embeddings" { "last_hidden_state" } else { name };
        let Some(want) = reference.values.get(known) else { continue };
        compare(off, name, got, want, reference.values.get("attention_mask"));
    }
}

/// Adds the differences of an output; of one that has places, those that are not padded.
pub fn compare(off: &mut Off, name: &str, got: &Value, want: &Value, mask: Option<&Value>) {
    assert_eq!(got.shape(), want.shape(), "{name}");
    let (got, all) = (got.to_f32().unwrap(), want.to_f32().unwrap());
    match mask.filter(|_| want.shape().len() == 3) {
        None => off.add(name, &got, &all),
        Some(mask) => {
            let width = *want.shape().last().unwrap();
            for (place, _) in mask.to_i64().unwrap().iter().enumerate().filter(|(_, m)| **m == 1) {
                let at = place * width..(place + 1) * width;
                off.add(name, &got[at.clone()], &all[at]);
            }
        }
    }
}

/// A matrix of whole numbers.
#[derive(Clone)]
struct Rows(Vec<Vec<i64>>);

impl Rows {
    fn of(value: &Value) -> Self {
        let numbers = value.to_i64().unwrap();
        Self(numbers.chunks_exact(value.shape()[1]).map(<[i64]>::to_vec).collect())
    }

    fn value(&self) -> Value {
        Value::from_i64(&[self.0.len(), self.0[0].len()], &self.0.concat()).unwrap()
    }

    /// Rows that are padded on the left, padded on the right.
    fn turned(mut self, lengths: &[usize]) -> Self {
        for (row, n) in self.0.iter_mut().zip(lengths) {
            let padding = row.len() - n;
            row.rotate_left(padding);
        }
        self
    }

    fn column(&self, at: usize) -> Self {
        Self(self.0.iter().map(|row| vec![row[at]]).collect())
    }
}

/// An empty cache.
fn empty_past(session: &Session, batch: usize, config: &Json) -> BTreeMap<String, Value> {
    let number = |key: &str| config[key].as_u64().map(|n| n as usize);
    let ports = session.inputs().iter().filter(|p| p.name.starts_with("past_key_values."));
    let Some(heads) = number("num_key_value_heads") else { return BTreeMap::new() };
    let width = number("head_dim")
        .unwrap_or_else(|| number("hidden_size").unwrap() / number("num_attention_heads").unwrap());
    ports
        .map(|port| {
            let dims = port.dims.as_ref().unwrap();
            for (at, size) in [(1, heads), (3, width)] {
                assert!(matches!(dims[at], Dim::Symbol(_)) || dims[at] == Dim::Fixed(size), "{port}");
            }
            (port.name.clone(), Value::new(port.dtype, vec![batch, heads, 0, width], Vec::new()).unwrap())
        })
        .collect()
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// Runs a prefill, and steps with the cache and the reference's tokens.
fn decode(session: &mut Session, reference: &Reference, prompt: &str, prompts: Prompts, off: &mut Off) {
    let Prompts { steps, right, .. } = prompts;
    let get = |name: &str| reference.ints(&format!("{prompt}.{name}"));
    let logits = &reference.values[&format!("{prompt}.logits")];
    let stepped = &reference.values[&format!("{prompt}.decode_logits")];
    let (tokens, places) = (get("decode_tokens"), get("decode_position_ids"));
    let [batch, longest, width] = *logits.shape() else { panic!("{:?}", logits.shape()) };
    let (logits, stepped) = (logits.to_f32().unwrap(), stepped.to_f32().unwrap());
    let (mut ids, mut mask, mut positions) = (get("input_ids"), get("attention_mask"), get("position_ids"));
    let lengths: Vec<usize> = mask.0.iter().map(|row| row.iter().sum::<i64>() as usize).collect();
    if right {
        [ids, mask, positions] = [ids, mask, positions].map(|rows| rows.turned(&lengths));
    }
    let mut past = empty_past(session, batch, &reference.config);
    assert!(!past.is_empty(), "{}: the graph has no past", reference.name);
    for step in 0..=steps {
        let mut inputs = past;
        for (name, rows) in [("input_ids", &ids), ("attention_mask", &mask), ("position_ids", &positions)] {
            inputs.insert(name.to_owned(), rows.value());
        }
        let outputs = run(session, &inputs);
        let got = outputs["logits"].to_f32().unwrap();
        let per_row = got.len() / batch / width;
        for (row, &length) in lengths.iter().enumerate() {
            let at = |place: usize| &got[(row * per_row + place) * width..][..width];
            // References are padded on the left.
            let padding = longest - length;
            let first = if right { 0 } else { padding };
            if step == 0 {
                for i in 0..length {
                    off.add(
                        "prefill",
                        at(first + i),
                        &logits[(row * longest + padding + i) * width..][..width],
                    );
                }
            } else {
                off.add("decode", at(0), &stepped[(row * STEPS + step - 1) * width..][..width]);
            }
            if step < STEPS {
                let last = if step == 0 { first + length - 1 } else { 0 };
                off.token(largest(at(last)), tokens.0[row][step]);
            }
        }
        let present = outputs
            .into_iter()
            .filter_map(|(name, v)| Some((format!("past_key_values.{}", name.strip_prefix("present.")?), v)));
        past = present.collect();
        assert!(past.values().all(|v| v.shape()[2] == longest + step), "{}: cache", reference.name);
        if step < STEPS {
            (ids, positions) = (tokens.column(step), places.column(step));
            mask.0.iter_mut().for_each(|row| row.push(1));
        }
    }
}

/// A graph that another exporter made.
pub struct Export {
    pub name: String,
    pub graph: PathBuf,
    /// The model that it is of.
    pub reference: Reference,
    /// What it is given.
    pub inputs: BTreeMap<String, Value>,
    /// What transformers computes, by the graph's outputs.
    pub expected: BTreeMap<String, Value>,
}

impl Export {
    pub fn of(name: &str) -> Self {
        let folder = golden("exports").join(name);
        let about = json(&fs::read_to_string(folder.join("export.json")).unwrap());
        let reference = Reference::of(about["model"].as_str().unwrap());
        let mut known = reference.values.clone();
        let own = folder.join("expected.safetensors");
        if own.exists() {
            known.extend(values(&own));
        }
        let named = |key: &str| {
            let each = about[key].as_object().unwrap().iter();
            each.filter_map(|(k, v)| Some((k.clone(), known[v.as_str()?].clone()))).collect()
        };
        let (inputs, expected) = (named("inputs"), named("outputs"));
        Self { name: name.to_owned(), graph: folder.join("model.onnx"), reference, inputs, expected }
    }

    /// What a graph of the model makes of the export's inputs; caches are empty.
    pub fn run(&self, graph: &Path, backend: &Backend) -> BTreeMap<String, Value> {
        self.try_run(graph, backend).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The same, where a runtime may not be able to.
    pub fn try_run(&self, graph: &Path, backend: &Backend) -> Result<BTreeMap<String, Value>> {
        let mut session = Session::open(graph, backend)?;
        let mut inputs = self.reference.values.clone();
        for (name, value) in &self.reference.values {
            if let Some(name) = name.strip_prefix("single.") {
                inputs.insert(name.to_owned(), value.clone());
            }
        }
        inputs.extend(self.inputs.clone());
        // Exporters take what a graph does not ask for as zero.
        if let Some(types) =
            inputs.get_mut("token_type_ids").filter(|_| !self.inputs.contains_key("token_type_ids"))
        {
            *types = Value::new(types.dtype(), types.shape().to_vec(), vec![0; types.bytes().len()]).unwrap();
        }
        inputs.extend(empty_past(&session, 1, &self.reference.config));
        try_run(&mut session, &inputs)
    }

    /// How far outputs are from others, or from transformers'; of places that are not padded.
    pub fn off(&self, got: &BTreeMap<String, Value>, want: &BTreeMap<String, Value>) -> Off {
        let mut off = Off::default();
        for (name, want) in want {
            // Models of sentences call one output by two names.
            let also = if name == "token_embeddings" { "last_hidden_state" } else { name };
            let got = got.get(name).or_else(|| got.get(also));
            let got = got.unwrap_or_else(|| panic!("{}: no output {name}", self.name));
            compare(&mut off, name, got, want, self.inputs.get("attention_mask"));
        }
        off
    }
}

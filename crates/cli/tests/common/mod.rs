//! Running the binary and making small inputs.
#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The bundled demo model.
pub fn demo() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models/tiny-llama"))
}

/// The binary with a clean environment, and without this machine's devices.
pub fn mill() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_tensormill"));
    c.env_remove("TENSORMILL_MEMORY").env_remove("TENSORMILL_SIMD").env("TENSORMILL_DEVICE", "cpu");
    c
}

/// Runs with these arguments.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    mill().args(args).output().expect("the binary starts")
}

/// Runs, checks the exit code, and gives standard output and standard error.
pub fn expect<S: AsRef<std::ffi::OsStr>>(code: i32, args: impl IntoIterator<Item = S>) -> (String, String) {
    let out = run(args);
    let (o, e) = (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    );
    assert_eq!(out.status.code(), Some(code), "stdout:\n{o}\nstderr:\n{e}");
    (o, e)
}

/// Standard output as JSON.
pub fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("not JSON ({e}):\n{text}"))
}

/// Names in a folder, hidden ones too.
pub fn names(dir: &Path) -> Vec<String> {
    let mut v: Vec<String> = fs::read_dir(dir)
        .expect("folder lists")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    v.sort();
    v
}

/// A copy of the demo model without its expectations.
pub fn copy_demo(to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for e in fs::read_dir(demo()).expect("demo lists") {
        let e = e.expect("entry");
        if e.file_type().expect("type").is_file() {
            fs::copy(e.path(), to.join(e.file_name())).expect("copies");
        }
    }
}

/// Bytes of a safetensors file with this header and this much zero data.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.resize(out.len() + data, 0);
    out
}

/// The demo's folder with weights of the same architecture but other sizes, all zero, sparse on disk: `layers`
/// layers of `hidden` x `hidden` matrices in one file. Gives the bytes of tensor data.
pub fn big_zero_model(to: &Path, hidden: u64, layers: u64) -> u64 {
    copy_demo(to);
    let config_path = to.join("config.json");
    let mut config = json(&fs::read_to_string(&config_path).expect("config"));
    let vocab = config["vocab_size"].as_u64().expect("vocab_size");
    for (key, value) in [
        ("hidden_size", hidden),
        ("intermediate_size", hidden),
        ("num_hidden_layers", layers),
        ("num_attention_heads", hidden / 64),
        ("num_key_value_heads", hidden / 64),
        ("head_dim", 64),
    ] {
        config[key] = value.into();
    }
    fs::write(&config_path, config.to_string()).expect("config writes");
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for i in 0..layers {
        for m in [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ] {
            tensors.push((format!("model.layers.{i}.{m}.weight"), vec![hidden, hidden]));
        }
        for n in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push((format!("model.layers.{i}.{n}.weight"), vec![hidden]));
        }
    }
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for (name, shape) in tensors {
        let bytes = shape.iter().product::<u64>() * 2;
        header.insert(
            name,
            serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [at, at + bytes]}),
        );
        at += bytes;
    }
    let head = safetensors(&Json::Object(header).to_string(), 0);
    let path = to.join("model.safetensors");
    fs::write(&path, &head).expect("header writes");
    let file = fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.set_len(head.len() as u64 + at).expect("grows");
    at
}

/// Golden models, and the pre-tokenizer that a small vocabulary has to be told.
pub const GOLDEN: &[(&str, Option<&str>)] = &[
    ("tiny-llama", None),
    ("llama-f32-bias", None),
    ("mistral-f16", None),
    ("mixtral-4x", None),
    ("qwen2-odd", Some("qwen2")),
    ("qwen3", Some("qwen2")),
    ("qwen3-moe", Some("qwen2")),
    ("gpt-oss", Some("gpt-4o")),
    ("gemma2", None),
    ("gemma3", None),
    ("bert", Some("jina-v2-en")),
];

/// The folder of a golden model.
pub fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models")).join(name)
}

/// A path as an argument.
pub fn text(p: &Path) -> String {
    p.display().to_string()
}

/// A tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Stored {
    /// Floats.
    pub fn f32(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Self {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self { dtype: "F32".into(), shape: shape.to_vec(), bytes }
    }
    /// Values of a tensor of `F32`.
    pub fn floats(&self) -> Vec<f32> {
        assert_eq!(self.dtype, "F32");
        self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
    }
    /// Some of its rows, under other dimensions.
    pub fn rows(&self, start: usize, len: usize) -> Self {
        let columns = *self.shape.last().expect("a matrix");
        let row = self.bytes.len() / self.shape.iter().product::<usize>() * columns;
        let bytes = self.bytes[start * row..(start + len) * row].to_vec();
        Self { dtype: self.dtype.clone(), shape: vec![len, columns], bytes }
    }
    /// Rows as columns.
    pub fn transposed(&self) -> Self {
        let [rows, columns] = self.shape[..] else { panic!("{:?}", self.shape) };
        let x = self.floats();
        let turned = (0..rows * columns).map(|at| x[at % rows * columns + at / rows]);
        Self::f32(&[columns, rows], turned.collect::<Vec<_>>())
    }
}

/// The tensors of a safetensors file.
pub fn tensors(path: &Path) -> BTreeMap<String, Stored> {
    let bytes = fs::read(path).expect("weights read");
    let n = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header = json(std::str::from_utf8(&bytes[8..8 + n]).expect("text"));
    let each = header.as_object().expect("object").iter().filter(|(name, _)| *name != "__metadata__");
    let number = |v: &Json| v.as_u64().expect("number") as usize;
    each.map(|(name, t)| {
        let at = |i: usize| number(&t["data_offsets"][i]) + 8 + n;
        let stored = Stored {
            dtype: t["dtype"].as_str().expect("text").to_owned(),
            shape: t["shape"].as_array().expect("list").iter().map(number).collect(),
            bytes: bytes[at(0)..at(1)].to_vec(),
        };
        (name.clone(), stored)
    })
    .collect()
}

/// Writes a safetensors file.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, t) in tensors {
        let start = data.len();
        data.extend(&t.bytes);
        let entry = serde_json::json!({
            "dtype": t.dtype, "shape": t.shape, "data_offsets": [start, data.len()]
        });
        header.insert(name.clone(), entry);
    }
    let mut file = safetensors(&Json::Object(header).to_string(), 0);
    file.extend(data);
    fs::write(path, file).expect("weights write");
}

//! A large model of random weights: a small one's side files, and one file of bf16 tensors.

use clap::Args;
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{BufWriter, Write},
    path::PathBuf,
};

/// `model`
#[derive(Args)]
pub struct Options {
    /// Folder to write
    folder: PathBuf,
    /// Model whose configuration and tokenizer are borrowed
    #[arg(long)]
    like: PathBuf,
    /// Bytes of weights, as GB
    #[arg(long, default_value_t = 4)]
    gb: u64,
    /// Columns of every matrix
    #[arg(long, default_value_t = 4096)]
    hidden: u64,
}

/// Matrices of a layer.
const MATRICES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// Writes the folder.
pub fn run(o: &Options) -> Result<(), String> {
    let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", o.folder.display());
    fs::create_dir_all(&o.folder).map_err(|e| fail(&e))?;
    for entry in fs::read_dir(&o.like).map_err(|e| format!("{}: {e}", o.like.display()))?.flatten() {
        if entry.path().is_file() && entry.path().extension().is_none_or(|e| e != "safetensors") {
            fs::copy(entry.path(), o.folder.join(entry.file_name())).map_err(|e| fail(&e))?;
        }
    }
    let path = o.folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(|e| fail(&e))?;
    let mut config: Value = serde_json::from_str(&text).map_err(|e| fail(&e))?;
    let vocabulary = config["vocab_size"].as_u64().ok_or_else(|| fail(&"no vocab_size"))?;
    let (hidden, matrix) = (o.hidden, o.hidden * o.hidden * 2);
    let layers = (o.gb * 1_000_000_000).div_ceil(matrix * MATRICES.len() as u64).max(1);
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
    fs::write(&path, config.to_string()).map_err(|e| fail(&e))?;

    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for i in 0..layers {
        tensors.extend(MATRICES.map(|m| (format!("model.layers.{i}.{m}.weight"), vec![hidden, hidden])));
        let norms = ["input_layernorm", "post_attention_layernorm"];
        tensors.extend(norms.map(|n| (format!("model.layers.{i}.{n}.weight"), vec![hidden])));
    }
    let mut header = Map::new();
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + shape.iter().product::<u64>() * 2;
        header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut text = Value::Object(header).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let file = fs::File::create(o.folder.join("model.safetensors")).map_err(|e| fail(&e))?;
    let mut file = BufWriter::with_capacity(8 << 20, file);
    let written = file
        .write_all(&(text.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| noise(&mut file, at))
        .and_then(|()| file.flush());
    written.map_err(|e| fail(&e))?;
    println!("{}: {layers} layers, {:.2} GB of bf16", o.folder.display(), at as f64 / 1e9);
    Ok(())
}

/// Weights of about a hundredth: sums of four random bytes, with a random sign.
fn noise(file: &mut impl Write, bytes: u64) -> std::io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = Vec::with_capacity(1 << 20);
    let mut left = bytes / 2;
    while left > 0 {
        block.clear();
        for _ in 0..left.min(1 << 19) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let sum: u64 = (0..4).map(|i| state >> (8 * i) & 0xff).sum();
            let x = (sum as f32 - 510.0) * 3e-5;
            block.extend(((x.to_bits() >> 16) as u16).to_le_bytes());
        }
        left -= block.len() as u64 / 2;
        file.write_all(&block)?;
    }
    Ok(())
}

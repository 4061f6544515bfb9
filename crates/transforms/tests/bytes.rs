//! Whole runs: the ops that a plan is made of give llama-quantize's bytes, importance and experts included.
//!
//! Weights are a formula, so that only hashes need keeping: `golden/generators/recipes.py`, `bytes_of_runs`.

use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::{path::PathBuf, sync::Arc};
use tensormill_model::{
    Expr, Form, Index, MemoryAssets, Metadata, Model, Place, Reader, Result, Rows, Tensor, Transform,
};
use tensormill_tensor::{Encoding, Shape, TensorSpec};
use tensormill_transforms::{Importance, Quantize, QuantizeOptions, recipe};

/// CRC-32 as zlib computes it: names seed the formula.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg()))
    })
}

fn weights(name: &str, n: usize) -> Vec<f32> {
    let seed = crc32(name.as_bytes());
    let one = |i: u32| {
        let mut x = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
        x ^= x >> 15;
        x = x.wrapping_mul(0x85eb_ca6b);
        x ^= x >> 13;
        ((x >> 8) as f32 / 16_777_216.0 - 0.5) * 0.2
    };
    (0..n as u32).map(one).collect()
}

fn importance(name: &str, n: usize) -> Vec<f32> {
    let w = weights(&format!("importance of {name}"), n);
    w.into_iter().map(|w| if w < -0.08 { 0.0 } else { (w + 0.1) * 50.0 }).collect()
}

fn le(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A file in memory.
#[derive(Default)]
struct Memory(Index, Vec<Vec<f32>>);

impl Memory {
    fn push(&mut self, name: String, dims: Vec<u64>, values: Vec<f32>) {
        self.0.tensors.push(TensorSpec::new(name, Shape::new(dims).unwrap(), Encoding::F32));
        self.1.push(values);
    }
}

impl Reader for Memory {
    fn index(&self) -> &Index {
        &self.0
    }
    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let n = self.0.tensors[tensor].shape.row_len();
        out.copy_from_slice(&le(&self.1[tensor][(rows.start * n) as usize..(rows.end * n) as usize]));
        Ok(())
    }
    fn place(&self, tensor: usize) -> Place {
        Place { file: 0, offset: tensor as u64 }
    }
}

fn legacy(entries: &[(String, usize)]) -> Importance {
    let mut b = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, n) in entries {
        b.extend((name.len() as i32).to_le_bytes());
        b.extend(name.as_bytes());
        b.extend(3i32.to_le_bytes());
        b.extend((*n as i32).to_le_bytes());
        b.extend(le(&importance(name, *n)));
    }
    Importance::from_legacy(&b, "im.dat").unwrap()
}

fn gguf(entries: &[(String, usize)]) -> Importance {
    let mut m = Memory::default();
    m.0.metadata.set("imatrix.datasets", vec!["words.txt".to_owned()]);
    m.0.metadata.set("imatrix.chunk_count", 17u32);
    m.0.metadata.set("imatrix.chunk_size", 512u32);
    for (name, n) in entries {
        let matrices = if name.contains("exps") { 2 } else { 1 };
        m.push(format!("{name}.in_sum2"), vec![matrices, *n as u64 / matrices], importance(name, *n));
        let counts = [7.0, 0.0][..matrices as usize].to_vec();
        m.push(format!("{name}.counts"), vec![matrices, 1], counts);
    }
    Importance::from_reader(&m, "im.gguf").unwrap()
}

/// Evaluates an expression of reads and ops, a few rows at a time as the engine would.
fn evaluate(expr: &Expr, source: &Memory) -> Vec<u8> {
    match expr {
        Expr::Read { tensor, .. } => le(&source.1[*tensor]),
        Expr::Apply { op, inputs } => {
            let forms: Vec<Form> = inputs.iter().map(|i| i.form().unwrap()).collect();
            let input = evaluate(&inputs[0], source);
            let out = op.form(&forms).unwrap();
            let (rows, i, o) = (out.shape.rows(), forms[0].row_bytes().unwrap(), out.row_bytes().unwrap());
            let mut bytes = vec![0u8; (rows * o) as usize];
            let mut start = 0;
            while start < rows {
                // An odd number, so that a piece may hold rows of two experts.
                let end = (start + 37).min(rows);
                let span = |row: u64| (start * row) as usize..(end * row) as usize;
                op.run(start..end, &forms, &[&input[span(i)]], &mut bytes[span(o)]).unwrap();
                start = end;
            }
            bytes
        }
        other => panic!("{other}"),
    }
}

#[test]
fn runs_give_the_peers_bytes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/recipes/bytes.json");
    let doc: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut metadata = Metadata::new();
    for (key, v) in doc["metadata"].as_object().unwrap() {
        match (v.as_str(), v.as_u64()) {
            (Some(s), _) => metadata.set(key, s),
            (_, Some(n)) => metadata.set(key, n as u32),
            _ => metadata.set(key, v.as_f64().unwrap() as f32),
        }
    }
    let mut source = Memory::default();
    for t in doc["tensors"].as_array().unwrap() {
        let dims: Vec<u64> = t[2].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        let name = t[0].as_str().unwrap();
        source.push(name.to_owned(), dims.clone(), weights(name, dims.iter().product::<u64>() as usize));
    }
    let entries = |key: &str| -> Vec<(String, usize)> { serde_json::from_value(doc[key].clone()).unwrap() };
    let (partial, full) = (Arc::new(legacy(&entries("entries"))), Arc::new(legacy(&entries("full"))));
    let gguf = Arc::new(gguf(&entries("entries")));
    let (mut compared, mut refused) = (0, 0);
    for run in doc["runs"].as_array().unwrap() {
        let importance = match run[1].as_str() {
            None => None,
            Some("im.dat") => Some(partial.clone()),
            Some("full.dat") => Some(full.clone()),
            Some(_) => Some(gguf.clone()),
        };
        let tensors = source.0.tensors.iter().enumerate().map(|(i, s)| {
            let form = Form::new(s.shape.clone(), s.encoding);
            Tensor::new(&s.name, Expr::Read { source: 0, tensor: i, form }).unwrap()
        });
        let model = Model {
            tensors: tensors.collect(),
            metadata: metadata.clone(),
            assets: Arc::new(MemoryAssets::default()),
            program: None,
        };
        let recipe = recipe(run[0].as_str().unwrap()).unwrap();
        let quantize = Quantize { recipe, options: QuantizeOptions::default(), importance };
        let out = quantize.rewrite(model);
        let Some(want) = run[2].as_array() else {
            assert!(out.is_err(), "llama-quantize refuses {} with {}: {}", recipe.name, run[1], run[2]);
            refused += 1;
            continue;
        };
        let out = out.unwrap_or_else(|e| panic!("{} with {}: {e}", recipe.name, run[1]));
        assert_eq!(out.tensors.len(), want.len());
        for (t, want) in out.tensors.iter().zip(want) {
            let hash = Sha256::digest(evaluate(&t.expr, &source));
            let hash = format!("{:016x}", u64::from_be_bytes(*hash.first_chunk().unwrap()));
            let got = [t.name().to_owned(), t.spec.encoding.name().to_uppercase(), hash];
            let want: [String; 3] = serde_json::from_value(want.clone()).unwrap();
            assert_eq!(got, want, "{} with {}", recipe.name, run[1]);
            compared += 1;
        }
    }
    assert!(compared >= 48 * 20 && refused > 0, "{compared} tensors compared, {refused} runs refused");
}

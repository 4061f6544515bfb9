//! Writes checkpoints for `golden/generators/check_pickles.py` to open with torch: every dtype, ties, shards, and with
//! `--large` a sparse file of more than four GiB.
//!
//! ```text
//! cargo run --package tensormill-pickle --example samples -- FOLDER [--large]
//! python golden/generators/check_pickles.py FOLDER
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};
use tensormill_model::{Alias, Format, Index, MemoryAssets, Model, ShardLimits, WriteOptions};
use tensormill_pickle::{CAPABILITIES, FORMAT};
use tensormill_tensor::{Encoding, Shape, TensorSpec};

type Data = Box<dyn Fn(usize) -> Vec<u8>>;

fn spec(name: &str, dims: &[u64], encoding: Encoding) -> TensorSpec {
    TensorSpec::new(name, Shape::new(dims.to_vec()).expect("small"), encoding)
}

fn size(t: &TensorSpec) -> usize {
    t.bytes().expect("a size") as usize
}

/// Every dtype in several shapes, and two ties.
fn everything() -> (Index, Data) {
    let mut index = Index::default();
    for d in tensormill_tensor::DType::ALL {
        let e = Encoding::Plain(d);
        if (CAPABILITIES.encoding)(e) {
            for (what, dims) in
                [("vector", &[6][..]), ("matrix", &[5, 4]), ("deep", &[2, 1, 3, 2, 2]), ("none", &[0, 4])]
            {
                index.tensors.push(spec(&format!("{d}.{what}"), dims, e));
            }
        }
    }
    index.tensors.push(spec("scalar", &[], Encoding::F32));
    index.tensors.push(spec("gr\u{fc}\u{df}e \u{2581}", &[300, 300], Encoding::BF16));
    index.aliases.push(Alias {
        name: "tied".into(),
        tensor: index.tensors.len() - 1,
        at: index.tensors.len(),
    });
    index.aliases.push(Alias { name: "first again".into(), tensor: 0, at: 3 });
    let sizes: Vec<usize> = index.tensors.iter().map(size).collect();
    let bools: Vec<bool> = index.tensors.iter().map(|t| t.name.starts_with("bool")).collect();
    let data = move |t: usize| {
        let top = if bools[t] { 2 } else { 251 };
        (0..sizes[t]).map(|i| ((i * 7 + t * 31) % top) as u8).collect()
    };
    (index, Box::new(data))
}

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().expect("usage: samples FOLDER [--large]");
    let folder = Path::new(&folder);
    let mut manifest = Vec::new();
    for (file, max) in [("plain.pt", None), ("pytorch_model.bin", Some(20_000)), ("small.bin", Some(500))] {
        let (index, data) = everything();
        manifest.push(write(folder, file, max, &index, &data));
    }
    let (empty, nothing): (Index, Data) = (Index::default(), Box::new(|_| Vec::new()));
    manifest.push(write(folder, "empty.pt", None, &empty, &nothing));
    if args.next().is_some() {
        manifest.push(large(folder));
    }
    let json = serde_json::to_vec_pretty(&manifest).expect("JSON");
    fs::write(folder.join("manifest.json"), json).expect("the manifest");
}

fn model(index: &Index) -> Model {
    Model::from_index(index, 0, Arc::new(MemoryAssets::default()))
}

fn entry(model: &Model, t: usize, bytes: &[u8]) -> Json {
    let spec = &model.tensors[t].spec;
    json!([spec.name, spec.encoding.to_string(), spec.shape.dims(), common::sha256(bytes)])
}

fn write(folder: &Path, name: &str, max_shard_bytes: Option<u64>, index: &Index, data: &Data) -> Json {
    let model = model(index);
    let source = |t: usize| match &model.tensors[t].expr {
        tensormill_model::Expr::Read { tensor, .. } => *tensor,
        _ => t,
    };
    let options = WriteOptions {
        file_name: name.to_owned(),
        shards: ShardLimits { bytes: max_shard_bytes, tensors: None },
        external: false,
    };
    let checked = model.clone().check(&CAPABILITIES).expect("the model is fine");
    let out = common::files(&checked, &options, |t| data(source(t)));
    let names: Vec<&String> = out.iter().map(|(n, _)| n).collect();
    for (name, bytes) in &out {
        fs::write(folder.join(name), bytes).expect("written");
    }
    let tensors: Vec<Json> = (0..model.tensors.len()).map(|t| entry(&model, t, &data(source(t)))).collect();
    json!({ "files": names, "tensors": tensors, "tied": index.aliases.len() })
}

/// More than four GiB, of which few bytes are not zero.
fn large(folder: &Path) -> Json {
    let index = Index {
        tensors: vec![
            spec("a", &[10], Encoding::F32),
            spec("big", &[(1 << 32) + 100], Encoding::Plain(tensormill_tensor::DType::U8)),
            spec("c", &[3], Encoding::F32),
        ],
        ..Index::default()
    };
    let model = model(&index);
    let options =
        WriteOptions { file_name: "large.pt".into(), shards: ShardLimits::default(), external: false };
    let layout =
        FORMAT.layout(&model.clone().check(&CAPABILITIES).expect("fine"), &options).expect("a layout");
    let file = File::create(folder.join("large.pt")).expect("created");
    let planned = &layout.files[0];
    file.set_len(planned.len).expect("sparse");
    file.write_all_at(&planned.header, 0).expect("written");
    for p in &planned.pieces {
        file.write_all_at(&p.bytes, p.offset).expect("written");
    }
    let mut tensors = Vec::new();
    for slot in &layout.checksums {
        let (mut crc, mut hash) = (crc32fast::Hasher::new(), Sha256::new());
        let zeros = vec![0u8; 1 << 20];
        let mut left = model.tensors[slot.tensor].spec.bytes().expect("a size");
        while left > 0 {
            let n = left.min(1 << 20);
            crc.update(&zeros[..n as usize]);
            hash.update(&zeros[..n as usize]);
            left -= n;
        }
        let crc = crc.finalize().to_le_bytes();
        for p in &slot.places {
            file.write_all_at(&crc, p.offset).expect("written");
        }
        let spec = &model.tensors[slot.tensor].spec;
        let hash = common::hex(&hash.finalize());
        tensors.push(json!([spec.name, spec.encoding.to_string(), spec.shape.dims(), hash]));
    }
    json!({ "files": ["large.pt"], "tensors": tensors, "tied": 0 })
}

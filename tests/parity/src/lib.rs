//! What the parity tests share: golden models converted, and files as tensormill itself sees them.
//!
//! The tests in `tests/readers` open files that tensormill wrote with two readers that share no code with it, `candle`
//! and `gguf-rs`, and demand that they see the same metadata, names, shapes, types, places and values. They also
//! go the other way: tensormill opens a file that `candle` wrote.
//!
//! `candle` also opens our safetensors files and torch checkpoints, whole, sharded and cast, and sees the source's names,
//! shapes, types and values (its own cast being the measure of ours).
//!
//! # Why a workspace of its own
//!
//! - `candle-core` takes about four minutes of processor time to build, more than the rest of the project.
//! - `gguf-rs` switches on `serde_json/arbitrary_precision`. Cargo would unify that into every crate of the main
//!   workspace, where it changes how numbers of configs compare and flatten. Here it is on, so the first
//!   test of the suite checks that the files handed to the readers are nevertheless the golden ones.
//!
//! Run it with `cargo test --release --manifest-path tests/parity/Cargo.toml`.
//!
//! # What each reader is asked
//!
//! | | `candle` 0.11 | `gguf-rs` 0.1.8 |
//! |---|---|---|
//! | types | F32, F16, BF16, Q4_0 to Q8_1, Q2_K to Q8_K; one tensor of another type and it refuses the whole file | any up to MXFP4 (code 39) by number; it panics on NVFP4 (code 40) and refuses the files of later ones |
//! | sizes | right | right for F32, F16, Q4_0 to Q8_0, the K, IQ and TQ formats but IQ4_NL; wrong for BF16, I8 to I64, F64, Q8_1, IQ4_NL and MXFP4 |
//! | metadata | every kind, nested arrays included; order is lost, and so is the element type of an empty array | becomes JSON: widths of numbers are lost, nested arrays are refused |
//! | values | decoded, and equal to ours in every bit | not read |
//!
//! No type needed a tolerance: `candle` multiplies and adds in the order of ggml's `dequantize_row_*`, as our kernels
//! do. It reads headers with Q8_1 and Q8_K but cannot load such tensors, so those two are compared in files that it wrote
//! with what it holds in memory (Q8_1 by its bytes only: ggml uses it for activations, and our kernels lack it).
//!
//! What the readers get wrong is asserted too, so that a new release that mends it is noticed and asked more.
//!
//! This crate must *not* be depended on, and must not test what the main workspace can test without other readers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};
use tensormill_core::{
    DType, Limits, LocalFile,
    convert::{Request, Target, plan},
    formats::GGUF,
};
use tensormill_model::{Format, Index, MemoryAssets, Model, Place, Reader, ShardLimits, WriteOptions};
use tensormill_tensor::{Encoding, TensorSpec, decode_plain};

/// Golden models that are converted: SentencePiece, experts in three dimensions, tied embeddings, WordPiece, BPE.
pub const MODELS: [&str; 5] = ["tiny-llama", "mixtral-4x", "gemma2", "bert", "qwen3"];

/// What they are converted to.
pub const VARIANTS: [&str; 13] = [
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M",
    "Q6_K",
];

/// A path under `golden/models/`.
pub fn golden_model(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/models")).join(path)
}

/// The golden manifest of one conversion.
pub fn manifest(model: &str, variant: &str) -> serde_json::Value {
    let path = golden_model(model).join("expected").join(format!("{variant}.json"));
    serde_json::from_slice(&fs::read(path).expect("manifest reads")).expect("manifest is JSON")
}

/// The request that makes what the golden manifest describes.
pub fn request(model: &str, variant: &str, output: &Path) -> Request {
    let target = match variant {
        "F32" => Target::Dtype(DType::F32),
        "F16" => Target::Dtype(DType::F16),
        "BF16" => Target::Dtype(DType::BF16),
        recipe => Target::Recipe(recipe.to_owned()),
    };
    let mut request = Request::new(golden_model(model), output, target);
    request.job.pre = manifest(model, variant)["pre"].as_str().map(str::to_owned);
    request
}

/// Plans and runs a request; gives the paths of the files that it wrote.
pub fn convert(request: &Request) -> Vec<PathBuf> {
    let conversion = plan(request).unwrap_or_else(|e| panic!("{}: {e}", request.output.display()));
    let report = conversion
        .run(&(), &AtomicBool::new(false))
        .unwrap_or_else(|e| panic!("{}: {e}", request.output.display()));
    report.plan.variant.files.iter().map(|f| PathBuf::from(&f.path)).collect()
}

/// Converts every model to every variant into `folder`, hands each file to `look`, and removes it.
pub fn for_every_conversion(folder: &Path, mut look: impl FnMut(&str, &str, &Path)) {
    for model in MODELS {
        for variant in VARIANTS {
            let path = folder.join(format!("{model}.{variant}.gguf"));
            assert_eq!(convert(&request(model, variant, &path)), [path.as_path()]);
            look(model, variant, &path);
            fs::remove_file(&path).expect("output is removed");
        }
    }
}

/// Writes tensors of given bytes with our writer, without a conversion; gives their places.
pub fn write(path: &Path, index: &Index, data: &[Vec<u8>]) -> Vec<Place> {
    let file_name = path.file_name().expect("a file name").to_string_lossy().into_owned();
    let checked = Model::from_index(index, 0, Arc::new(MemoryAssets::default()))
        .check(&GGUF.info().capabilities)
        .expect("GGUF can hold the model");
    let layout = GGUF
        .layout(&checked, &WriteOptions { file_name, shards: ShardLimits::default(), external: false })
        .expect("layout is made");
    let [file] = &layout.files[..] else { panic!("one file was asked for") };
    let mut bytes = file.header.clone();
    bytes.resize(usize::try_from(file.len).expect("fits memory"), 0);
    for (place, data) in layout.places.iter().zip(data) {
        bytes[place.offset as usize..][..data.len()].copy_from_slice(data);
    }
    fs::write(path, bytes).expect("file is written");
    layout.places
}

/// Opens a GGUF file with our reader.
pub fn open(path: &Path) -> Box<dyn Reader> {
    let store = Arc::new(LocalFile::open(path).expect("file opens"));
    GGUF.open(store, &Limits::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The bytes of tensor number `tensor` as our reader gives them.
pub fn bytes(reader: &dyn Reader, tensor: usize) -> Vec<u8> {
    let spec = &reader.index().tensors[tensor];
    let mut bytes = vec![0; usize::try_from(spec.bytes().expect("size")).expect("fits memory")];
    reader.read(tensor, 0..spec.shape.rows(), &mut bytes).expect("data reads");
    bytes
}

/// A tensor's values as our kernels decode them.
pub fn decode(spec: &TensorSpec, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0f32; usize::try_from(spec.shape.elements()).expect("fits memory")];
    match spec.encoding {
        Encoding::Plain(dtype) => assert!(decode_plain(dtype, bytes, &mut values), "{dtype} has values"),
        Encoding::Block(block) => {
            let codec = tensormill_kernels::codec(block).expect("block format has a codec");
            let row = spec.shape.row_len() as usize;
            let row_bytes = spec.row_bytes().expect("whole blocks") as usize;
            for (x, b) in values.chunks_exact_mut(row).zip(bytes.chunks_exact(row_bytes)) {
                codec.decode_row(b, x).expect("row decodes");
            }
        }
    }
    values
}

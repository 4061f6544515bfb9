//! What is fuzzed: for each kind of file a function that may be given any bytes, and must neither panic nor hang nor
//! take much memory. `fuzz/` makes a program of each (`cargo xtask fuzz`), `tests/seeds.rs` runs them on the seeds.

mod answers;
mod graphs;
mod scans;
mod schemes;
pub mod seeds;
mod texts;
mod training;
mod weights;

use std::{collections::BTreeMap, sync::Arc};
use tensormill_core::Limits;
use tensormill_model::{Error, ErrorKind, Folder, MemoryAssets, MemoryStore, Result, Store};

pub use answers::hub;
pub use graphs::onnx;
pub use scans::{NAMES, scan};
pub use schemes::schemes;
pub use texts::{TOKENIZERS, release, side_files, tokenizer};
pub use training::{FILES, training};
pub use weights::{gguf, imatrix, pickle, safetensors};

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("gguf", gguf),
    ("hub", hub),
    ("imatrix", imatrix),
    ("onnx", onnx),
    ("pickle", pickle),
    ("release", release),
    ("safetensors", safetensors),
    ("scan", scan),
    ("schemes", schemes),
    ("side_files", side_files),
    ("tokenizer", tokenizer),
    ("training", training),
];

/// Limits at which what they allow is still quick.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.header_bytes = 1 << 20;
    limits.tensors = 1 << 12;
    limits.metadata = 1 << 12;
    limits.string_bytes = 1 << 20;
    limits.array_len = 1 << 16;
    limits.opcodes = 1 << 16;
    limits.values = 1 << 16;
    limits.unpacked_bytes = 1 << 20;
    limits
}

fn store(name: &str, data: &[u8]) -> Arc<dyn Store> {
    Arc::new(MemoryStore { name: name.into(), bytes: data.to_vec() })
}

/// Files of a folder by name.
struct Files(BTreeMap<String, Arc<dyn Store>>);

impl Folder for Files {
    fn label(&self) -> String {
        "fuzz".into()
    }
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
    fn store(&self, name: &str) -> Result<Option<Arc<dyn Store>>> {
        Ok(self.0.get(name).cloned())
    }
}

fn assets(files: &[(&str, &[u8])]) -> MemoryAssets {
    let files = files.iter().map(|(n, b)| ((*n).to_owned(), b.to_vec())).collect();
    MemoryAssets { name: "fuzz".into(), files }
}

/// No error of another kind may come out of bytes alone.
fn expected(e: &Error) {
    use ErrorKind::{Malformed, Mismatch, OverLimit, Unsupported, Usage};
    let kinds = [Malformed, Unsupported, OverLimit, Mismatch, Usage];
    assert!(kinds.contains(&e.kind()), "an error of kind {:?}: {e}", e.kind());
}

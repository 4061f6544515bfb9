//! The registry of formats. Adding one is one line here.

use tensormill_model::{Format, Score};

pub use tensormill_gguf::FORMAT as GGUF;
pub use tensormill_onnx::FORMAT as ONNX;
pub use tensormill_pickle::FORMAT as PICKLE;
pub use tensormill_safetensors::FORMAT as SAFETENSORS;

/// Every format, in the order in which they are asked whether a file is theirs.
pub static FORMATS: &[&dyn Format] = &[&GGUF, &SAFETENSORS, &ONNX, &PICKLE];

/// The format that is surest about a file that starts with `head` and is called `name`.
pub fn probe(head: &[u8], name: &str) -> Option<&'static dyn Format> {
    FORMATS
        .iter()
        .map(|f| (f.probe(head, name), *f))
        .filter(|(score, _)| *score != Score::No)
        .max_by_key(|(score, _)| *score)
        .map(|(_, f)| f)
}

//! GGUF: reading versions 1 to 3 of either byte order, writing version 3, split sets.
//!
//! Definition: `docs/gguf.md` of the ggml repository; limits and strictness follow `gguf.cpp`, written bytes
//! follow `gguf-py`'s writer (see [`Gguf`]'s `layout`). Everything a file decides is checked before memory is
//! taken for it; values are little-endian from here on whatever the file was.
//!
//! This crate must *not* know what a key means, beyond `general.alignment` and `split.*`, nor what a block holds
//! beyond which of its fields have more than one byte.

mod cursor;
mod reader;
mod split;
mod swap;
mod wire;
mod writer;

use std::sync::Arc;
use tensormill_model::{
    Capabilities, Checked, Error, Format, FormatInfo, Layout, Limits, MetadataKind, Reader, Result, Score,
    Store, WriteOptions,
};

pub use split::{SPLIT_KEYS, SplitName, join_metadata, split_names};
pub use wire::{DEFAULT_ALIGNMENT, code_of, encoding_of, ggml_type_name};

/// The format. Stateless; use [`FORMAT`].
pub struct Gguf;

/// The one instance, for registration.
pub static FORMAT: Gguf = Gguf;

/// What a GGUF file can hold (`GGML_MAX_NAME` counts the terminating zero, `GGML_MAX_DIMS`).
pub const CAPABILITIES: Capabilities = Capabilities {
    format: "GGUF",
    max_name_bytes: 63,
    max_rank: wire::MAX_RANK,
    encoding: |e| code_of(e).is_some(),
};

static INFO: FormatInfo = FormatInfo {
    id: "gguf",
    title: "GGUF (llama.cpp, ggml)",
    extensions: &["gguf"],
    can_write: true,
    metadata: MetadataKind::Typed,
    folder_name: None,
    capabilities: CAPABILITIES,
};

impl Format for Gguf {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, head: &[u8], name: &str) -> Score {
        if head.starts_with(&wire::MAGIC) {
            Score::Yes
        } else if name.to_ascii_lowercase().ends_with(".gguf") {
            Score::Maybe
        } else {
            Score::No
        }
    }

    fn open(&self, store: Arc<dyn Store>, limits: &Limits) -> Result<Box<dyn Reader>> {
        let name = store.name().to_owned();
        Ok(Box::new(reader::GgufReader::open(store, limits).map_err(|e: Error| e.file(name))?))
    }

    /// The bytes that `gguf-py`'s `GGUFWriter` writes, and that `llama-quantize` writes, for the same metadata and
    /// tensors in the same order: version 3, little-endian, every tensor padded to the alignment *including
    /// the last*, so the file's length is a multiple of it.
    ///
    /// Two differences between these peers lie in the model, not here, and are the caller's to choose: ggml
    /// drops outermost dimensions of one (`[1, 64]` becomes `[64]`) where `gguf-py` keeps them, and
    /// `gguf-py` skips empty strings and arrays where ggml writes them.
    fn layout(&self, model: &Checked, options: &WriteOptions) -> Result<Layout> {
        writer::layout(model.model(), options)
    }
}

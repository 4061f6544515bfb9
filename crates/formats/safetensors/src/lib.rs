//! safetensors: one file, and the sharded folders that the Hugging Face libraries write.
//!
//! Layout: eight bytes of header length (little-endian), a JSON object, tensor data. Definition and strictness follow
//! the README and `tensor.rs` of the `safetensors` project: data without holes or overlaps from the end of the
//! header to the end of the file, no key twice, a header of at most 100,000,000 bytes.
//!
//! This crate must *not* know what a tensor's name means, and opens no files itself.

mod dtypes;
mod header;
mod index;
mod reader;
mod writer;

use std::sync::Arc;
use tensormill_model::{
    Capabilities, Checked, Error, Format, FormatInfo, Layout, Limits, MetadataKind, Reader, Result, Score,
    Store, WriteOptions,
};
use tensormill_tensor::Encoding;

pub use index::{INDEX_NAME, ShardIndex, part_names, shard_names};

/// Largest header that the format allows, in bytes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The format. Stateless; use [`FORMAT`].
pub struct Safetensors;

/// The one instance, for registration.
pub static FORMAT: Safetensors = Safetensors;

/// What a safetensors file can hold. The format itself bounds neither names nor dimensions; these bounds are ours.
pub const CAPABILITIES: Capabilities = Capabilities {
    format: "safetensors",
    max_name_bytes: 1 << 16,
    max_rank: 64,
    encoding: |e| matches!(e, Encoding::Plain(_)),
};

static INFO: FormatInfo = FormatInfo {
    id: "safetensors",
    title: "safetensors (Hugging Face)",
    extensions: &["safetensors"],
    can_write: true,
    folder_name: Some("model.safetensors"),
    metadata: MetadataKind::Text,
    capabilities: CAPABILITIES,
};

impl Format for Safetensors {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, head: &[u8], name: &str) -> Score {
        let looks =
            head.first_chunk().is_some_and(|n| (2..=MAX_HEADER_BYTES).contains(&u64::from_le_bytes(*n)))
                && head.get(8) == Some(&b'{');
        if looks {
            Score::Yes
        } else if name.to_ascii_lowercase().ends_with(".safetensors") {
            Score::Maybe
        } else {
            Score::No
        }
    }

    /// Tensors of the index are sorted by name (by code point), whatever their order in the file: so do the
    /// reference library's Python binding and llama.cpp's `SafetensorsLocal`, whose order conversion has to meet.
    fn open(&self, store: Arc<dyn Store>, limits: &Limits) -> Result<Box<dyn Reader>> {
        let name = store.name().to_owned();
        Ok(Box::new(reader::SafetensorsReader::open(store, limits).map_err(|e: Error| e.file(name))?))
    }

    /// The canonical file of the reference library: widest dtype first, then by name; header padded with spaces to a
    /// multiple of eight. Metadata keeps its order. Several files get huggingface_hub's names and an index.
    fn layout(&self, model: &Checked, options: &WriteOptions) -> Result<Layout> {
        writer::layout(model.model(), options)
    }
}

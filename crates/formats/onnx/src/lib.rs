//! ONNX: a graph and its weights, in one file or with weights in files beside it.
//!
//! The format is `onnx.proto` of the ONNX project (IR version 13) in the wire format of protocol buffers. Reading is lazy:
//! the graph is read, weights stay where they are, however large the file. What the file says beside weights is a
//! [`Program`](tensormill_graph::Program); fields that are not known go through rewriting as they are.
//!
//! This crate must *not* know what operators compute, what a tensor's name means, and opens no files itself.

mod codec;
mod data;
mod reader;
mod sound;
mod tensor;
mod wire;
mod writer;

pub use reader::OnnxReader;

use std::sync::Arc;
use tensormill_model::{
    Capabilities, Checked, Error, Folder, Format, FormatInfo, Layout, Limits, MetadataKind, Reader, Result,
    Score, Store, WriteOptions,
};
use tensormill_tensor::Encoding;

/// The format. Stateless; use [`FORMAT`].
pub struct Onnx;

/// The one instance, for registration.
pub static FORMAT: Onnx = Onnx;

/// What an ONNX file can hold. The format itself bounds neither names nor dimensions; these bounds are ours.
pub const CAPABILITIES: Capabilities = Capabilities {
    format: "ONNX",
    max_name_bytes: 1 << 16,
    max_rank: 64,
    encoding: |e| matches!(e, Encoding::Plain(_)),
};

static INFO: FormatInfo = FormatInfo {
    id: "onnx",
    title: "ONNX (graph and weights)",
    extensions: &["onnx"],
    can_write: true,
    folder_name: Some("onnx/model.onnx"),
    metadata: MetadataKind::Text,
    capabilities: CAPABILITIES,
};

/// Opens a model whose weights may lie in other files of `folder`.
///
/// # Errors
/// As [`Format::open`], and where these files are missing or too short.
pub fn open_in(store: Arc<dyn Store>, folder: &dyn Folder, limits: &Limits) -> Result<OnnxReader> {
    let name = store.name().to_owned();
    OnnxReader::open(store, Some(folder), limits).map_err(|e: Error| e.file(name))
}

impl Format for Onnx {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    /// Protocol buffers have no magic number. Models begin with their version, a small number in field 1.
    fn probe(&self, head: &[u8], name: &str) -> Score {
        let suffix = name.to_ascii_lowercase().ends_with(".onnx");
        match (head, suffix) {
            ([0x08, 1..=32, ..], true) => Score::Yes,
            (_, true) => Score::Maybe,
            _ => Score::No,
        }
    }

    fn open(&self, store: Arc<dyn Store>, limits: &Limits) -> Result<Box<dyn Reader>> {
        let name = store.name().to_owned();
        Ok(Box::new(OnnxReader::open(store, None, limits).map_err(|e: Error| e.file(name))?))
    }

    /// The graph with its weights; those of 1 KiB and more go into files beside it where that is asked for, or where
    /// one file would be larger than protocol buffers allow.
    fn layout(&self, model: &Checked, options: &WriteOptions) -> Result<Layout> {
        writer::layout(model.model(), options)
    }
}

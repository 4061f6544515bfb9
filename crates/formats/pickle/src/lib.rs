//! PyTorch checkpoints: what `torch.save` writes, read without Python and without running anything.
//!
//! Read: zip archives (stored and deflated members, both byte orders, TorchScript), the legacy stream, tar archives of
//! torch 0.1, plain pickles with numpy arrays; protocols 0 to 5. A pickle is a program. Here it is interpreted by a
//! machine that knows plain values and the few functions that rebuild tensors; every other name becomes an opaque object
//! that is listed, and an error only where tensors are inside it. Weights stay in the file and are read by position.
//!
//! Checkpoints that training leaves are many files that make one model: folders of `torch.distributed.checkpoint`, files of
//! each rank with `DTensor`s in them, DeepSpeed's. [`Training`] reads them, merged.
//!
//! Written: the archive that `torch.save` writes for a flat dict of tensors, protocol 2, byte for byte except for the
//! serialization id; `torch.load(weights_only=True, mmap=True)` opens it.
//!
//! Definitions: `torch/serialization.py`, `torch/_utils.py` and `_weights_only_unpickler.py` of torch 2.15, CPython's
//! `pickle.py`. This crate must *not* know what a tensor's name means, and opens no files itself.

mod audit;
mod cursor;
mod data;
mod files;
mod gather;
mod machine;
mod names;
mod numpy;
mod reader;
mod scalars;
mod sharded;
mod shards;
mod tensors;
mod training;
mod types;
mod walk;
mod write;

use std::sync::Arc;
use tensormill_model::{
    Capabilities, Checked, Error, Format, FormatInfo, Layout, Limits, MetadataKind, Reader, Result, Score,
    Store, WriteOptions,
};
use tensormill_tensor::Encoding;

pub use audit::{
    Argument, Audit, Call, Import, Instruction, Instructions, PickleIn, audit, instructions, pickles,
};
pub use shards::{INDEX_NAME, part_names};
pub use training::Training;

/// The format. Stateless; use [`FORMAT`].
pub struct Pickle;

/// The one instance, for registration.
pub static FORMAT: Pickle = Pickle;

/// What a PyTorch checkpoint can hold. Nothing bounds names and dimensions there; these bounds are ours.
pub const CAPABILITIES: Capabilities = Capabilities {
    format: "PyTorch",
    max_name_bytes: names::MAX_NAME,
    max_rank: 64,
    encoding: |e| match e {
        Encoding::Plain(d) => types::of(d).is_some(),
        Encoding::Block(_) => false,
    },
};

const EXTENSIONS: &[&str] = &["pt", "pth", "ckpt", "bin", "pkl"];

static INFO: FormatInfo = FormatInfo {
    id: "pickle",
    title: "PyTorch checkpoint (torch.save); reads DCP, FSDP and DeepSpeed folders",
    extensions: EXTENSIONS,
    can_write: true,
    folder_name: Some("pytorch_model.bin"),
    metadata: MetadataKind::Nothing,
    capabilities: CAPABILITIES,
};

/// What is wanted of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PickleOptions {
    /// The part to read, names of parts joined by dots: `model.state_dict`. Names of tensors start below it.
    pub key: Option<String>,
    /// Keep the state of optimizers, which is left out otherwise.
    pub all: bool,
}

impl Format for Pickle {
    fn info(&self) -> &'static FormatInfo {
        &INFO
    }

    fn probe(&self, head: &[u8], name: &str) -> Score {
        let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
        let known = extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()));
        files::probe(head, if known { Score::Maybe } else { Score::No })
    }

    /// With default [`PickleOptions`]. Tensors are in the order of the state dict; names of nested containers are joined
    /// by dots. Exactly equal views of one storage are aliases; overlapping ones are tensors of their own.
    fn open(&self, store: Arc<dyn Store>, limits: &Limits) -> Result<Box<dyn Reader>> {
        open_with(&store, limits, &PickleOptions::default())
    }

    /// A dict of plain tensors, one storage each; tensors with equal expressions share theirs. With bounds on shards
    /// several files and an index, divided as `huggingface_hub` does it. Checksums are left to the caller: see
    /// [`Layout::checksums`].
    fn layout(&self, model: &Checked, options: &WriteOptions) -> Result<Layout> {
        write::layout(model.model(), options)
    }
}

/// Opens a checkpoint, or a part of it.
///
/// # Errors
/// As [`Format::open`]; `Usage` when there is no such part.
pub fn open_with(
    store: &Arc<dyn Store>,
    limits: &Limits,
    options: &PickleOptions,
) -> Result<Box<dyn Reader>> {
    let opened = reader::PickleReader::open(store, limits, options);
    Ok(Box::new(opened.map_err(|e: Error| e.file(store.name()))?))
}

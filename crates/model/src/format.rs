//! The traits between files and models: stores, readers, formats, layouts, limits.

use crate::{Capabilities, Checked, Error, Metadata, Result, Rows, ShardLimits};
use std::{fmt, sync::Arc};
use tensormill_graph::Program;
use tensormill_tensor::TensorSpec;

/// Bytes at a place: a local file, an HTTP object. Positional, shareable between threads.
pub trait Store: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Name for messages: a path or a URL.
    fn name(&self) -> &str;
    /// Fills `buf` from `offset`. Never reads past the end: that is an error, not a short read.
    ///
    /// # Errors
    /// I/O errors, and `Malformed` when the range ends after the last byte; both name the store.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;
}

/// Files by name: what a checkpoint of many files is opened from.
pub trait Folder: Send + Sync {
    /// Name for messages: a path or a URL.
    fn label(&self) -> String;
    /// Names of the files directly in it, sorted.
    fn names(&self) -> Vec<String>;
    /// Opens a file; `None` when there is none. Names may come from files.
    ///
    /// # Errors
    /// I/O errors, and `Malformed` when the name leads out of the folder.
    fn store(&self, name: &str) -> Result<Option<Arc<dyn Store>>>;
}

/// Bytes held in memory: for tests, fuzzing, and records unpacked from archives.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    /// What [`Store::name`] answers.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Store for MemoryStore {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buf.len())?))
            .and_then(|range| self.bytes.get(range));
        match found {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => return Err(Error::malformed("the file ends early").file(&self.name).at(offset)),
        }
        Ok(())
    }
}

/// Bounds on what a file may make a reader allocate or loop over.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a header (safetensors' own cap is 100 MB; GGUF vocabularies reach tens of MB).
    pub header_bytes: u64,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of metadata entries.
    pub metadata: u64,
    /// Bytes of one string.
    pub string_bytes: u64,
    /// Elements of one metadata array.
    pub array_len: u64,
    /// Nesting of metadata arrays or JSON.
    pub depth: u32,
    /// Dimensions of one tensor.
    pub rank: u32,
    /// Instructions of a header that is a program (pickle).
    pub opcodes: u64,
    /// Values such a program may make: objects, their elements, and what is kept on its stack and in its memo.
    pub values: u64,
    /// Bytes that a compressed header may unpack to; compressed weights are never unpacked as a whole.
    pub unpacked_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 1 << 30,
            tensors: 1 << 20,
            metadata: 1 << 16,
            string_bytes: 64 << 20,
            array_len: 1 << 26,
            depth: 16,
            rank: 16,
            opcodes: 1 << 26,
            values: 1 << 24,
            unpacked_bytes: 64 << 20,
        }
    }
}

/// What a reader found: specs in file order, and metadata.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Tensors in file order.
    pub tensors: Vec<TensorSpec>,
    /// Metadata in file order.
    pub metadata: Metadata,
    /// Further names of these tensors, in file order.
    pub aliases: Vec<Alias>,
    /// What the file holds and this index does not, in file order.
    pub left_out: Vec<LeftOut>,
}

/// Another name for exactly the same bytes: tied weights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alias {
    /// The other name.
    pub name: String,
    /// Number of the tensor in [`Index::tensors`].
    pub tensor: usize,
    /// How many names, of tensors and of aliases, the file lists before this one.
    pub at: usize,
}

/// Something in a file that is neither a tensor nor metadata: to be shown before it is lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Where it is: a name like a tensor's.
    pub name: String,
    /// What it is.
    pub what: String,
}

/// An opened file (or set of files): headers read, weights on demand.
pub trait Reader: Send + Sync {
    /// Specs and metadata.
    fn index(&self) -> &Index;
    /// Reads whole rows of tensor number `tensor` as little-endian bytes; `out` is exactly as long as they are.
    ///
    /// # Errors
    /// I/O errors; names file and tensor.
    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()>;
    /// File and first byte of a tensor's data: readers of many tensors go through files in this order.
    fn place(&self, tensor: usize) -> Place;
    /// What is computed with the tensors, where the file says so; its weights have the tensors' names.
    fn program(&self) -> Option<&Arc<Program>> {
        None
    }
    /// What tells its files from all others, where that is known without reading them: hashes that a repository lists.
    fn identity(&self) -> Option<&str> {
        None
    }
}

/// How sure a format is that a file is its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Score {
    /// Certainly not.
    No,
    /// The name suggests it.
    Maybe,
    /// The content says so.
    Yes,
}

/// Static facts about a format.
pub struct FormatInfo {
    /// Short name: `gguf`, `safetensors`.
    pub id: &'static str,
    /// One line for `list formats`.
    pub title: &'static str,
    /// File name extensions, without the dot.
    pub extensions: &'static [&'static str],
    /// Whether [`Format::layout`] works.
    pub can_write: bool,
    /// What the weights' file is called in a folder that is a checkpoint; `None` where the format has no such folders.
    pub folder_name: Option<&'static str>,
    /// What it can hold beside tensors.
    pub metadata: MetadataKind,
    /// What it can hold.
    pub capabilities: Capabilities,
}

/// What metadata a format has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetadataKind {
    /// None.
    Nothing,
    /// Text under text keys.
    Text,
    /// Values of many types.
    Typed,
}

/// Choices of the one who writes.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// File name of the output, without folder.
    pub file_name: String,
    /// When to start a new file.
    pub shards: ShardLimits,
    /// Weights in files beside the graph, also where one file could hold all; only for formats that have graphs.
    pub external: bool,
}

/// Where a tensor's first byte lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Index of the file.
    pub file: usize,
    /// Byte offset in it.
    pub offset: u64,
}

/// One output file, before any weight is written. Bytes not covered by the header, a piece or a tensor are zero.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FileLayout {
    /// File name, without folder.
    pub name: String,
    /// The bytes at the start.
    pub header: Vec<u8>,
    /// Bytes between and behind tensors, by ascending offset: what archives put around their members.
    pub pieces: Vec<Piece>,
    /// Total length.
    pub len: u64,
}

/// Bytes at an offset of an output file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Offset of the first.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for FileLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces: usize = self.pieces.iter().map(|p| p.bytes.len()).sum();
        write!(f, "{} ({} bytes, header {}, pieces {pieces})", self.name, self.len, self.header.len())
    }
}

/// All output files and every tensor's place in them, in the model's tensor order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// Files.
    pub files: Vec<FileLayout>,
    /// One place per tensor of the checked model. Tensors with equal places have equal expressions: they are tied, and
    /// their bytes are there once.
    pub places: Vec<Place>,
    /// Where checksums of tensors go, in the order of their first places; each tensor at most once.
    pub checksums: Vec<ChecksumSlot>,
}

/// Places for the CRC-32 (as in zip and gzip) of one tensor's bytes, four bytes each, little-endian; planned bytes have
/// zeros there. All of them lie behind the tensor, so that a file can be hashed while it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChecksumSlot {
    /// Number of the tensor.
    pub tensor: usize,
    /// Where its checksum goes.
    pub places: Vec<Place>,
}

/// A file format. One static per format; the facade registers them.
pub trait Format: Sync {
    /// Static facts.
    fn info(&self) -> &'static FormatInfo;
    /// Whether a file that starts with `head` and is called `name` is of this format.
    fn probe(&self, head: &[u8], name: &str) -> Score;
    /// Reads headers.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`, `OverLimit` or `Io`, naming the file.
    fn open(&self, store: Arc<dyn Store>, limits: &Limits) -> Result<Box<dyn Reader>>;
    /// Fixes header bytes and positions from the model alone.
    ///
    /// # Errors
    /// `Unsupported` for read-only formats or options that the format lacks.
    fn layout(&self, model: &Checked, options: &WriteOptions) -> Result<Layout>;
}

//! The files that hold pickles and storages: zip archives, legacy streams, tar archives, plain pickles.
//!
//! Must not know what a pickle's values mean beyond the lists of storages that the containers themselves keep.

mod legacy;
pub(crate) mod sequential;
mod tar;
mod torch_zip;
pub(crate) mod zip;

use crate::machine::{
    Finished,
    heap::{Heap, Value},
};
use std::sync::Arc;
use tensormill_model::{Error, Limits, Result, Score, Store};

/// Bytes of a file that hold a storage, wherever and however they lie.
#[derive(Clone)]
pub(crate) struct Record {
    pub store: Arc<dyn Store>,
    /// First byte in `store`.
    pub at: u64,
    pub len: u64,
    /// Where that is in the file, as near as can be said.
    pub place: u64,
}

/// A range of a store, seen as a store of its own.
pub(crate) struct Window {
    pub store: Arc<dyn Store>,
    pub start: u64,
    pub len: u64,
}

impl Store for Window {
    fn len(&self) -> u64 {
        self.len
    }
    fn name(&self) -> &str {
        self.store.name()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= self.len => self.store.read_at(self.start + offset, buf),
            _ => Err(Error::malformed("the data ends early").file(self.store.name()).at(self.start + offset)),
        }
    }
}

/// One pickle that was run.
pub(crate) struct Program {
    pub heap: Heap,
    pub root: Value,
    /// Where long strings of it lie, and where that is in the file.
    pub source: Arc<dyn Store>,
    pub place: u64,
    /// What names of its tensors start with.
    pub prefix: &'static str,
}

impl Program {
    pub fn new(done: Finished, source: Arc<dyn Store>, place: u64) -> Self {
        Self { heap: done.heap, root: done.root, source, place, prefix: "" }
    }
}

/// Finds storages.
pub(crate) trait Records {
    /// The bytes of storage `key` of program number `program`.
    fn find(&self, program: usize, key: &str) -> Result<Option<Record>>;
}

/// An opened file.
pub(crate) struct Opened {
    /// Usually one; TorchScript archives have a second for constants.
    pub programs: Vec<Program>,
    pub records: Box<dyn Records>,
    /// Whether storages are big-endian.
    pub big_endian: bool,
}

/// Opens a file of whichever kind it is.
pub(crate) fn open(store: &Arc<dyn Store>, limits: &Limits) -> Result<Opened> {
    let mut head = vec![0; store.len().min(512) as usize];
    store.read_at(0, &mut head)?;
    if head.starts_with(&zip::LOCAL) {
        torch_zip::open(store, limits)
    } else if tar::is_tar(&head) {
        tar::open(store, limits)
    } else {
        legacy::open(store, limits)
    }
}

/// A member with pickles in it (no name: the file itself), and where they start.
pub(crate) type Pickled = (String, Arc<dyn Store>, Vec<u64>);

/// Every pickle of a file that a loader would follow.
pub(crate) fn pickles(store: &Arc<dyn Store>, limits: &Limits) -> Result<Vec<Pickled>> {
    let mut head = vec![0; store.len().min(512) as usize];
    store.read_at(0, &mut head)?;
    if head.starts_with(&zip::LOCAL) {
        torch_zip::pickles(store, limits)
    } else if tar::is_tar(&head) {
        tar::pickles(store, limits)
    } else {
        let starts = crate::audit::sequence(&**store, 0, legacy::PICKLES, limits);
        Ok(vec![(String::new(), Arc::clone(store), starts)])
    }
}

/// Whether a file starts like one of these. The names of members that torch writes first tell its archives from
/// others; `by_name` is what the file's own name suggests.
pub(crate) fn probe(head: &[u8], by_name: Score) -> Score {
    if head.starts_with(&zip::LOCAL) {
        let name = head.get(zip::LOCAL_BYTES as usize..).unwrap_or_default();
        let len = head.get(26..28).map_or(0, |n| usize::from(n[0]) | usize::from(n[1]) << 8);
        return if torch_zip::is_ours(name.get(..len).unwrap_or(name)) { Score::Yes } else { by_name };
    }
    if legacy::is_legacy(head) || tar::is_tar(head) {
        return Score::Yes;
    }
    // Pickles of protocol 2 on say so; older ones start with anything.
    let pickle = matches!(head, [0x80, 2..=5, ..]);
    if pickle || head.is_empty() { by_name } else { by_name.min(Score::Maybe) }
}

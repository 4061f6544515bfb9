//! The archives that `torch.save` writes since 1.6, and TorchScript's.
//!
//! Members lie under one folder of any name: `data.pkl` with storages `data/<key>`, `byteorder`; TorchScript adds
//! `constants.pkl` with `constants/<key>`, and `code/`, which nobody reads here. Definition: `torch/serialization.py`,
//! `caffe2/serialize/inline_container.cc`.

use super::{
    Opened, Pickled, Program, Record, Records, Window,
    zip::{Archive, Entry},
};
use crate::machine::{self, Persistent};
use std::sync::Arc;
use tensormill_model::{Error, Limits, MemoryStore, Result, Store};

const PICKLE: &str = "data.pkl";
const CONSTANTS: &str = "constants.pkl";

/// Whether this may be the first member of an archive of torch.
pub(super) fn is_ours(name: &[u8]) -> bool {
    let inner = name.splitn(2, |b| *b == b'/').nth(1).unwrap_or(name);
    let exact: [&[u8]; 6] =
        [b"data.pkl", b"constants.pkl", b"version", b"byteorder", b".format_version", b".data/version"];
    exact.contains(&inner) || inner.starts_with(b"data/") || inner.starts_with(b"code/")
}

struct ZipRecords {
    archive: Archive,
    /// Folder of the storages of each program.
    folders: Vec<String>,
}

impl Records for ZipRecords {
    fn find(&self, program: usize, key: &str) -> Result<Option<Record>> {
        let Some(folder) = self.folders.get(program) else { return Ok(None) };
        self.archive.find(&format!("{folder}{key}")).map(|e| self.archive.record(e)).transpose()
    }
}

/// The folder that the members lie in, with its slash.
fn folder(archive: &Archive) -> Result<String> {
    let top = |name: &str| name.find('/').map_or(String::new(), |i| name[..=i].to_owned());
    // As PyTorchStreamReader: the folder of the first member.
    if let Some(first) = archive.entries.first() {
        let folder = top(&first.name);
        if archive.find(&format!("{folder}{PICKLE}")).is_some() {
            return Ok(folder);
        }
    }
    let mut others = archive.entries.iter().filter(|e| {
        let folder = top(&e.name);
        e.name[folder.len()..] == *PICKLE
    });
    match (others.next(), others.next()) {
        (Some(e), None) => Ok(top(&e.name)),
        (Some(_), Some(_)) => Err(Error::malformed("the archive holds several data.pkl")),
        (None, _) if archive.entries.iter().any(|e| e.name.ends_with("/model.json")) => {
            Err(Error::unsupported("a TorchScript archive of torch before 1.3")
                .hint("load and save it with torch 1.3 to 1.13"))
        }
        (None, _) => Err(Error::unsupported("a zip archive without data.pkl: this is no PyTorch checkpoint")),
    }
}

/// A pickle of the archive as a store: in place, or unpacked where it is deflated.
fn source(
    archive: &Archive,
    store: &Arc<dyn Store>,
    e: &Entry,
    limits: &Limits,
) -> Result<(Arc<dyn Store>, u64)> {
    let r = archive.record(e)?;
    if Archive::is_packed(e) {
        let bytes = archive.small(e, limits.unpacked_bytes.min(e.plausible()))?;
        return Ok((Arc::new(MemoryStore { name: store.name().to_owned(), bytes }), r.place));
    }
    // Beyond that it holds arrays, which are as little verified as other weights are.
    if e.len <= limits.unpacked_bytes {
        archive.verify(e)?;
    }
    Ok((Arc::new(Window { store: r.store, start: r.at, len: r.len }), r.place))
}

pub(super) fn open(store: &Arc<dyn Store>, limits: &Limits) -> Result<Opened> {
    let archive = Archive::open(Arc::clone(store), limits)?;
    let folder = folder(&archive)?;
    let big_endian = match archive.find(&format!("{folder}byteorder")) {
        None => false,
        Some(e) => match archive.small(e, 64)?.as_slice() {
            b"little" => false,
            b"big" => true,
            other => {
                let other = String::from_utf8_lossy(other).into_owned();
                return Err(Error::unsupported(format!(
                    "the byte order {other:?}; little and big are known"
                )));
            }
        },
    };
    let mut programs = Vec::new();
    let mut folders = Vec::new();
    for (name, storages, prefix) in [(PICKLE, "data/", ""), (CONSTANTS, "constants/", "CONSTANTS")] {
        let Some(e) = archive.find(&format!("{folder}{name}")) else { continue };
        let (source, place) = source(&archive, store, e, limits)?;
        let done = machine::run(&*source, 0, name, Persistent::Storages, limits)?;
        let mut program = Program::new(done, source, place);
        program.prefix = prefix;
        programs.push(program);
        folders.push(format!("{folder}{storages}"));
    }
    Ok(Opened { programs, records: Box::new(ZipRecords { archive, folders }), big_endian })
}

/// Every member that is called like a pickle, for scanning: name and bytes.
pub(super) fn pickles(store: &Arc<dyn Store>, limits: &Limits) -> Result<Vec<Pickled>> {
    let archive = Archive::open(Arc::clone(store), limits)?;
    let named = |e: &&Entry| {
        let suffix = e.name.rsplit_once('.').map(|(_, s)| s.to_ascii_lowercase());
        matches!(suffix.as_deref(), Some("pkl" | "debug_pkl"))
    };
    archive
        .entries
        .iter()
        .filter(named)
        .map(|e| source(&archive, store, e, limits).map(|(s, _)| (e.name.clone(), s, vec![0])))
        .collect()
}

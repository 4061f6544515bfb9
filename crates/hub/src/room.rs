//! Room on the disk: looked for before a download, and what an error means that says there is none.

use crate::snapshot::Entry;
use std::{fs, io, path::Path};
use tensormill_model::{Error, ErrorKind};

/// Bytes that a file takes on its disk, at most its length: parts may be sparse.
#[cfg(unix)]
pub(crate) fn allocated(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(meta).saturating_mul(512).min(meta.len())
}

/// The error of a disk that is known to be too small before the first byte.
pub(crate) fn too_little(needed: u64, free: u64, folder: &Path) -> Error {
    Error::io("download", io::Error::from(io::ErrorKind::StorageFull))
        .context(format!("{needed} bytes are needed, {free} are free"))
        .file(folder.display())
        .hint("free some space, or let HF_HUB_CACHE name a folder on another disk")
}

/// Says for an error of the disk which file it is about, where nobody did, and what to do where there is no room for it.
pub(crate) fn explained(e: Error, entry: Option<&Entry>, at: &Path) -> Error {
    let source = std::error::Error::source(&e).and_then(|s| s.downcast_ref::<io::Error>());
    let kind = source.map(io::Error::kind);
    let e = if e.file_name().is_none() && e.kind() == ErrorKind::Io { e.file(at.display()) } else { e };
    let what = entry.map_or_else(String::new, |e| format!(" ({} has {} bytes)", e.path, e.size));
    match kind {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => e.hint(format!(
            "free some space{what}, or let HF_HUB_CACHE name a folder on another disk; what arrived is kept"
        )),
        Some(io::ErrorKind::FileTooLarge) => e.hint(format!(
            "this file system, or a limit of this process (ulimit -f), takes no file of that length{what}: lift the limit, or let \
             HF_HUB_CACHE name a folder on another disk; what arrived is kept"
        )),
        _ => e,
    }
}

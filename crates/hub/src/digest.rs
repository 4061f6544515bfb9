//! Whether bytes are those that the Hub lists: SHA-256 for large files, Git's blob hash for the others.

use crate::snapshot::Entry;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use tensormill_model::{Error, Result};

/// A hash being taken.
pub(crate) enum Hasher {
    /// Of the bytes.
    Sha256(Sha256),
    /// Of Git's header and the bytes.
    Git(Sha1),
    /// Nobody said what the hash should be.
    Unknown,
}

impl Hasher {
    /// The hash that an entry is listed with.
    pub fn of(entry: &Entry) -> Self {
        match (&entry.sha256, entry.oid.as_str()) {
            (Some(_), _) => Self::Sha256(Sha256::new()),
            (None, "") => Self::Unknown,
            (None, _) => Self::Git(Sha1::new_with_prefix(format!("blob {}\0", entry.size))),
        }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Git(h) => h.update(bytes),
            Self::Unknown => {}
        }
    }

    /// Compares with what is listed.
    ///
    /// # Errors
    /// `Mismatch` naming both hashes.
    pub fn check(self, entry: &Entry) -> Result<()> {
        let (found, listed, kind) = match self {
            Self::Sha256(h) => (hex(&h.finalize()), entry.etag(), "SHA-256"),
            Self::Git(h) => (hex(&h.finalize()), entry.etag(), "Git blob hash"),
            Self::Unknown => return Ok(()),
        };
        if found == listed {
            return Ok(());
        }
        Err(Error::mismatch(format!(
            "what arrived is not what the Hub lists: its {kind} is {found}, listed is {listed}"
        ))
        .hint("nothing was kept: run it again; where it happens again, a proxy or a disk changes bytes"))
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

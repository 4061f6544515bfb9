//! What servers and caches say, from their bytes: for who gets them in another way, and for tests that give any bytes.
//!
//! Every function takes any bytes at all: what they cannot mean is an error, and none takes more memory than a few times
//! their length.

use crate::{
    cache::TreeNote,
    json::{self, VALUES},
    push,
    snapshot::{Entry, Info, TreeEntry},
};
use tensormill_model::Result;

/// The files of a commit, as a cache notes them (`trees/<commit>.json`); `None` where the note is of a version that is not known.
///
/// # Errors
/// `Malformed` or `OverLimit` for what is no such note.
pub fn tree_note(bytes: &[u8]) -> Result<Option<Vec<Entry>>> {
    TreeNote::read(bytes)
}

/// The files of a page of a listing, as the server sends it.
///
/// # Errors
/// `Malformed` or `OverLimit` for what is none.
pub fn listing(bytes: &[u8]) -> Result<Vec<Entry>> {
    let page: Vec<TreeEntry> = json::read(bytes, VALUES)?;
    page.into_iter().filter_map(|entry| entry.file().transpose()).collect()
}

/// What a server says of a model.
///
/// # Errors
/// As [`listing`].
pub fn info(bytes: &[u8]) -> Result<Info> {
    json::read(bytes, VALUES)
}

/// How many of some objects (by SHA-256) a server wants to be sent, by what it answers.
///
/// # Errors
/// As [`listing`]; `Unsupported` where it takes none of them.
pub fn objects_wanted(bytes: &[u8], sha256: &[&str]) -> Result<usize> {
    push::objects_wanted(&json::read(bytes, VALUES)?, sha256)
}

//! Where bytes live: local files and folders to read from, output files that appear only when complete, and
//! many readers presented as one.
//!
//! This crate must *not* know any format, architecture or block type. It is the only crate that creates,
//! renames or removes files.

mod dir;
mod direct;
mod ends;
mod file;
mod joined;
mod lfs;
mod log;
mod output;

pub use dir::{ASSET_BYTES, LocalDir};
pub use direct::{ALIGN, DirectFile, LARGE};
pub use file::LocalFile;
pub use joined::JoinedReader;
pub use log::AppendLog;
pub use output::{
    Existing, OutputSet, Parts, discard_parts, ensure_folder, finish_commit, free_bytes, refuse_existing,
    require_parts,
};

//! The cache folder that every tool around the Hub shares, in the layout of `huggingface_hub`:
//!
//! ```text
//! hub/models--org--name/blobs/<hash>              the bytes, by SHA-256 (large files) or Git blob hash
//!                       snapshots/<commit>/<path> relative symbolic links to blobs
//!                       refs/<branch or tag>      the commit that it was
//!                       trees/<commit>.json       what the commit holds
//!                       .no_exist/<commit>/<path> files that were asked for and do not exist
//! hub/.locks/models--org--name/<hash>.lock        held (flock) while a blob is made
//! ```
//!
//! Whatever stands under a final name is complete: files are made under another name and renamed. Names come from servers; they
//! were checked when they were read ([`crate::snapshot`]).

use crate::{
    address::is_commit,
    json,
    snapshot::{Entry, FILES},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};
use tensormill_model::{Error, Result};

/// How often a lock that another process holds is tried.
const POLL: Duration = Duration::from_millis(50);

/// Makes backup programs skip the folder (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This file is a cache directory tag created by tensormill for the Hugging Face cache.\n";

/// The part of a cache that belongs to one repository.
#[derive(Clone, Debug)]
pub struct RepoCache {
    root: PathBuf,
    folder: PathBuf,
    locks: PathBuf,
    symlinks: bool,
}

/// Bytes of a note of what a commit holds, at most: 256 for each of the most files there may be.
const NOTE: u64 = 256 * FILES as u64;

/// Values that such a note may have: of a file, no more than eight.
const NOTE_VALUES: usize = 8 * FILES;

/// Bytes of a note of which commit a revision is, at most.
const REF: u64 = 4096;

/// A note of what a commit holds.
#[derive(Deserialize)]
pub(crate) struct TreeNote {
    files: BTreeMap<String, Noted>,
}

#[derive(Deserialize)]
struct Noted {
    #[serde(default)]
    size: Option<u64>,
    blob_id: String,
    #[serde(default)]
    lfs_sha256: Option<String>,
    #[serde(default)]
    lfs_size: Option<u64>,
    #[serde(default)]
    xet_hash: Option<String>,
}

impl TreeNote {
    /// The files that a note lists, sorted by path; `None` where it is of a version that is not known.
    ///
    /// # Errors
    /// `Malformed` or `OverLimit` for what is no such note.
    pub fn read(bytes: &[u8]) -> Result<Option<Vec<Entry>>> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let version: Version = json::read(bytes, NOTE_VALUES)?;
        if version.format_version != 1 {
            return Ok(None);
        }
        let note: Self = json::read(bytes, NOTE_VALUES)?;
        let entry = |(path, noted): (String, Noted)| {
            let size = if noted.lfs_sha256.is_some() { noted.lfs_size } else { noted.size };
            let size = size.ok_or_else(|| Error::malformed("its size is missing").file(&path))?;
            // As strict as with a server: another program wrote this.
            Entry { path, size, oid: noted.blob_id, sha256: noted.lfs_sha256, xet: noted.xet_hash }.checked()
        };
        // Paths are in order already.
        note.files.into_iter().map(entry).collect::<Result<_>>().map(Some)
    }
}

/// A lock on one blob; let go when dropped.
pub(crate) struct Lock(#[allow(dead_code, reason = "closing the file lets the lock go")] Option<File>);

impl RepoCache {
    /// A repository's part of the cache at `root`. Nothing is made yet.
    pub fn new(root: &Path, repo: &str, symlinks: bool) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self {
            root: root.to_owned(),
            folder: root.join(&name),
            locks: root.join(".locks").join(name),
            symlinks,
        }
    }

    /// The repository's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }
    /// The folder of blobs.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }
    /// Where a file's bytes are, or will be.
    pub(crate) fn blob(&self, entry: &Entry) -> PathBuf {
        self.blobs().join(entry.etag())
    }
    /// A file of a commit, where it is there.
    pub fn file(&self, commit: &str, path: &str) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(path);
        path.is_file().then_some(path)
    }

    /// The commit that a revision was when it was last asked for; a commit is itself.
    pub fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = read_small(&self.folder.join("refs").join(revision), REF).ok()?;
        let commit = String::from_utf8(text).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Notes which commit a revision is.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        write_whole(&self.folder.join("refs").join(revision), commit.as_bytes())
    }

    fn tree_note(&self, commit: &str) -> PathBuf {
        self.folder.join("trees").join(format!("{commit}.json"))
    }

    /// What a commit holds, where that was noted; a note that makes no sense is as good as none.
    pub fn tree(&self, commit: &str) -> Option<Vec<Entry>> {
        self.noted(commit).unwrap_or_else(|error| {
            tracing::warn!(%error, "this note is passed over; remove it, and the next request makes it anew");
            None
        })
    }

    fn noted(&self, commit: &str) -> Result<Option<Vec<Entry>>> {
        let path = self.tree_note(commit);
        match read_small(&path, NOTE) {
            Ok(bytes) => TreeNote::read(&bytes).map_err(|e| e.file(path.display())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read the list of files", e).file(path.display())),
        }
    }

    /// Removes a note of what a commit holds that makes no sense (a machine that stopped leaves such), so that it is made anew.
    pub(crate) fn mend(&self, commit: &str) {
        if let Err(error) = self.noted(commit) {
            tracing::info!(%error, "removing a note that makes no sense");
            drop(fs::remove_file(self.tree_note(commit)));
        }
    }

    /// Notes what a commit holds.
    pub(crate) fn set_tree(&self, commit: &str, files: &[Entry]) -> Result<()> {
        let path = self.tree_note(commit);
        if path.exists() {
            return Ok(());
        }
        let one = |e: &Entry| {
            let mut v = json!({ "size": e.size, "blob_id": e.oid });
            if let Some(sha256) = &e.sha256 {
                v["lfs_sha256"] = json!(sha256);
                v["lfs_size"] = json!(e.size);
            }
            if let Some(xet) = &e.xet {
                v["xet_hash"] = json!(xet);
            }
            (e.path.clone(), v)
        };
        let files: BTreeMap<String, Value> = files.iter().map(one).collect();
        let text = serde_json::to_vec_pretty(&json!({ "format_version": 1, "files": files }));
        write_whole(&path, &text.map_err(|e| Error::io("write the list of files", e.into()))?)
    }

    /// Files that are there of a commit whose contents nobody noted: what links say.
    pub(crate) fn walk(&self, commit: &str) -> Vec<Entry> {
        let mut files = Vec::new();
        walk(&self.snapshot(commit), "", &mut files);
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        files
    }

    /// Notes that a commit has no such file, as others look for such notes before they ask.
    pub(crate) fn set_absent(&self, commit: &str, path: &str) -> Result<()> {
        write_whole(&self.folder.join(".no_exist").join(commit).join(path), b"")
    }
    /// Whether it is noted that a commit has no such file.
    pub fn is_absent(&self, commit: &str, path: &str) -> bool {
        self.folder.join(".no_exist").join(commit).join(path).is_file()
    }

    /// Makes the folders of blobs and locks.
    pub(crate) fn prepare(&self) -> Result<()> {
        for folder in [&self.blobs(), &self.locks] {
            fs::create_dir_all(folder).map_err(|e| {
                Error::io("create the cache folder", e)
                    .file(folder.display())
                    .hint("HF_HUB_CACHE (or HF_HOME) names another folder")
            })?;
        }
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            // Nothing depends on it.
            drop(write_whole(&tag, CACHEDIR_TAG.as_bytes()));
        }
        Ok(())
    }

    /// Waits until no other process makes this blob. File systems without locks give one at once: parts are written by position,
    /// so that two who write the same do no harm.
    ///
    /// # Errors
    /// `Io` where the lock's file cannot be made, `Cancelled` where `cancelled` says so meanwhile.
    pub(crate) fn lock(&self, entry: &Entry, waits: &dyn Fn(), cancelled: &dyn Fn() -> bool) -> Result<Lock> {
        let path = self.locks.join(format!("{}.lock", entry.etag()));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::io("open the lock", e).file(path.display()))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(Some(file))),
                Err(TryLockError::Error(_)) => return Ok(Lock(None)),
                Err(TryLockError::WouldBlock) => {}
            }
            if !std::mem::replace(&mut told, true) {
                waits();
            }
            if cancelled() {
                return Err(Error::cancelled());
            }
            thread::sleep(POLL);
        }
    }

    /// Puts a blob into a commit's folder. `new` blobs may be moved where a file system knows no links.
    pub(crate) fn link(&self, entry: &Entry, commit: &str, new: bool) -> Result<()> {
        let target = self.snapshot(commit).join(&entry.path);
        if target.is_file() {
            return Ok(());
        }
        let folder = target.parent().unwrap_or(&target);
        let fail = |e| Error::io("put the file into the snapshot", e).file(target.display());
        fs::create_dir_all(folder).map_err(fail)?;
        let temporary = beside(&target);
        let up = "../".repeat(2 + entry.path.matches('/').count());
        let blob = self.blob(entry);
        let linked =
            self.symlinks && symlink(Path::new(&format!("{up}blobs/{}", entry.etag())), &temporary).is_ok();
        if !linked && fs::hard_link(&blob, &temporary).is_err() {
            if new {
                return fs::rename(&blob, &target).map_err(fail);
            }
            fs::copy(&blob, &temporary).map_err(fail)?;
        }
        fs::rename(&temporary, &target).map_err(|e| {
            drop(fs::remove_file(&temporary));
            fail(e)
        })
    }
}

/// A file that is known to be small, and is not read where it is not.
pub(crate) fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// Writes a small file so that readers see all of it or nothing.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail = |e| Error::io("write", e).file(path.display());
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(fail)?;
    let temporary = beside(path);
    fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path)).map_err(|e| {
        drop(fs::remove_file(&temporary));
        fail(e)
    })
}

/// A name beside a file that nobody else uses.
pub(crate) fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{}-{number}.tmp", std::process::id()))
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}
#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Regular files below a folder with their lengths; what hides (`.git`, `.cache`) is not the model's.
pub(crate) fn walk(folder: &Path, prefix: &str, files: &mut Vec<Entry>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).map(|n| format!("{prefix}{n}")) else {
            continue;
        };
        match fs::metadata(&path) {
            Ok(m) if m.is_dir() => {
                let hidden = prefix.is_empty() && matches!(name.as_str(), ".git" | ".cache");
                // A link to a folder could lead in a circle.
                if !hidden && !path.is_symlink() {
                    walk(&path, &format!("{name}/"), files);
                }
            }
            Ok(m) if m.is_file() => {
                files.push(Entry { path: name, size: m.len(), oid: String::new(), sha256: None, xet: None });
            }
            _ => {}
        }
    }
}

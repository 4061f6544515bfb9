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
    address::{check_path, is_commit},
    snapshot::{Entry, check_hash},
};
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
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Notes which commit a revision is.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        write_whole(&self.folder.join("refs").join(revision), commit.as_bytes())
    }

    /// What a commit holds, where that was noted.
    pub fn tree(&self, commit: &str) -> Option<Vec<Entry>> {
        let text = fs::read(self.folder.join("trees").join(format!("{commit}.json"))).ok()?;
        let value: Value = serde_json::from_slice(&text).ok()?;
        if value.get("format_version") != Some(&json!(1)) {
            return None;
        }
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_owned);
        let mut files = Vec::new();
        for (path, v) in value.get("files")?.as_object()? {
            let sha256 = text(v, "lfs_sha256");
            let size = if sha256.is_some() { v.get("lfs_size") } else { v.get("size") };
            let entry = Entry {
                path: path.clone(),
                size: size?.as_u64()?,
                oid: text(v, "blob_id")?,
                sha256,
                xet: text(v, "xet_hash"),
            };
            // As strict as with a server: another program wrote this.
            check_path(path).ok()?;
            check_hash(&entry.oid, 40, path).ok()?;
            entry.sha256.as_ref().map_or(Ok(()), |h| check_hash(h, 64, path)).ok()?;
            files.push(entry);
        }
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Some(files)
    }

    /// Notes what a commit holds.
    pub(crate) fn set_tree(&self, commit: &str, files: &[Entry]) -> Result<()> {
        let path = self.folder.join("trees").join(format!("{commit}.json"));
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

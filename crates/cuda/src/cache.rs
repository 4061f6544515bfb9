//! Compiled device code on the disk, so that only the first run compiles.
//!
//! An entry carries its length and hash: what is damaged is not there. Nothing here is needed: where entries cannot be
//! read or written, code is compiled. Must not know what it keeps, nor how that is made.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Environment variable that names the folder for what can be made again; `tensormill` in the user's cache otherwise.
pub const CACHE_VARIABLE: &str = "TENSORMILL_CACHE";

const MAGIC: &[u8; 16] = b"tensormill code\n";

/// Entries larger than this are damaged, whatever they say.
const MOST: u64 = 256 << 20;

/// What tells entries apart: everything that decides their bytes.
#[derive(Default)]
pub(crate) struct Key(Xxh3);

impl Key {
    /// Adds a part; parts do not run into each other.
    pub(crate) fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        self.0.update(&(part.as_ref().len() as u64).to_le_bytes());
        self.0.update(part.as_ref());
        self
    }
}

/// A folder of entries, or none.
#[derive(Clone, Debug)]
pub struct Cache(Option<PathBuf>);

impl Cache {
    /// The user's.
    pub fn of_user() -> Self {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folder = set(CACHE_VARIABLE).or_else(|| {
            let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
            // The variable's rule: what is not absolute is not to be used.
            caches.filter(|c| c.is_absolute()).map(|c| c.join("tensormill"))
        });
        Self(folder.map(|f| f.join("cuda")))
    }

    /// In this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self(Some(folder.into()))
    }

    /// The folder, if there is one.
    pub fn folder(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    fn path(&self, name: &str, key: &Key) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(format!("{name}-{:032x}", key.0.digest128())))
    }

    /// The entry, if it stands and is whole.
    pub(crate) fn get(&self, name: &str, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(name, key)?;
        let len = fs::metadata(&path).ok()?.len();
        let bytes = if len <= MOST { fs::read(&path).ok()? } else { Vec::new() };
        let body = open(&bytes);
        if body.is_none() {
            tracing::info!(path = %path.display(), "a damaged entry of the cache is made again");
        }
        body.map(<[u8]>::to_vec)
    }

    /// Keeps an entry, for other runs that may be looking for it at this moment too.
    pub(crate) fn put(&self, name: &str, key: &Key, body: &[u8]) {
        let Some(path) = self.path(name, key) else { return };
        if let Err(e) = write(&path, body) {
            tracing::info!(path = %path.display(), error = %e, "compiled device code is not kept");
        }
    }
}

/// The body of an entry.
fn open(bytes: &[u8]) -> Option<&[u8]> {
    let (head, body) = bytes.split_at_checked(48)?;
    (head == seal(body)).then_some(body)
}

/// What stands before a body.
fn seal(body: &[u8]) -> [u8; 48] {
    let mut head = [0; 48];
    head[..16].copy_from_slice(MAGIC);
    head[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[32..].copy_from_slice(&xxh3_128(body).to_le_bytes());
    head
}

/// Under another name first, so that nobody finds half of it.
fn write(path: &Path, body: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let part = folder.join(format!(".part-{}-{number}", std::process::id()));
    let written = fs::File::create_new(&part).and_then(|mut file| {
        file.write_all(&seal(body))?;
        file.write_all(body)
    });
    written.and_then(|()| fs::rename(&part, path)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> Key {
        parts.iter().fold(Key::default(), Key::with)
    }

    #[test]
    fn entries_come_back_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(dir.path().join("deep/er"));
        let k = key(&["a", "b"]);
        assert_eq!(cache.get("x", &k), None);
        for body in [&b""[..], b"code", &vec![7; 100_000]] {
            cache.put("x", &k, body);
            assert_eq!(cache.get("x", &k).as_deref(), Some(body));
        }
        assert_eq!(cache.get("y", &k), None);
        assert_eq!(cache.get("x", &key(&["ab", ""])), None, "parts do not run together");
        let file = fs::read_dir(dir.path().join("deep/er")).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        for (at, value) in [(0, b'T'), (16, 1), (32, whole[32] ^ 1), (60, 8)] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            fs::write(&file, &damaged).unwrap();
            assert_eq!(cache.get("x", &k), None, "byte {at}");
        }
        for len in [0, 10, 48, whole.len() - 1] {
            fs::write(&file, &whole[..len]).unwrap();
            assert_eq!(cache.get("x", &k), None, "cut at {len}");
        }
        fs::write(&file, &whole).unwrap();
        assert!(cache.get("x", &k).is_some());
    }

    #[test]
    fn where_nothing_can_be_kept_nothing_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "not a folder").unwrap();
        for cache in [Cache(None), Cache::in_folder(&file)] {
            cache.put("x", &key(&["k"]), b"code");
            assert_eq!(cache.get("x", &key(&["k"])), None);
        }
        assert_eq!(fs::read(&file).unwrap(), b"not a folder");
    }
}

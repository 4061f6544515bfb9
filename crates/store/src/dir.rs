//! A local folder: side files by name, and weight files opened from it.
//!
//! Names come from users *and from files* (a shard index, `modules.json`), so they are confined to the folder:
//! plain relative paths only. Symbolic links are followed, because download caches are made of them.

use crate::{LocalFile, lfs};
use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use tensormill_model::{Assets, Error, Folder, Result, Store};

/// Largest side file that is read whole, in bytes. Real ones (`tokenizer.json`) stay below 64 MiB.
pub const ASSET_BYTES: u64 = 256 << 20;

/// A folder of a model.
#[derive(Clone, Debug)]
pub struct LocalDir {
    path: PathBuf,
    name: String,
}

impl LocalDir {
    /// Opens a folder. Its name is the last component of its canonical path.
    ///
    /// # Errors
    /// `Io` when it cannot be resolved, `Usage` when it is not a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |e: Error| e.file(path.display());
        let full = path.canonicalize().map_err(|e| fail(Error::io("open", e)))?;
        if !full.is_dir() {
            return Err(fail(Error::usage("this is a file; expected a folder")));
        }
        let name = full.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        Ok(Self { path: path.to_owned(), name })
    }

    /// The folder, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of a file in the folder.
    ///
    /// # Errors
    /// `Malformed` when `name` is absolute, empty, or leads out of the folder.
    pub fn resolve(&self, name: &str) -> Result<PathBuf> {
        let inner = Path::new(name);
        let plain = !name.is_empty() && inner.components().all(|c| matches!(c, Component::Normal(_)));
        if !plain {
            return Err(Error::malformed(format!(
                "{name:?} is not the name of a file inside the model's folder"
            ))
            .file(self.path.display()));
        }
        Ok(self.path.join(inner))
    }

    /// Whether the folder holds a regular file of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.resolve(name).is_ok_and(|p| p.is_file())
    }

    /// Opens a file of the folder for positional reading.
    ///
    /// # Errors
    /// As [`LocalFile::open`] and [`Self::resolve`].
    pub fn open_file(&self, name: &str) -> Result<LocalFile> {
        LocalFile::open(self.resolve(name)?)
    }
}

impl Assets for LocalDir {
    fn name(&self) -> &str {
        &self.name
    }
    /// Regular files directly in the folder, sorted by name. A folder that cannot be listed has none.
    fn list(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|e| e.path().is_file())
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.resolve(name)?;
        let label = path.display().to_string();
        let io = |what: &str, e| Error::io(what, e).file(&label);
        let file = match File::open(&path) {
            Ok(f) => f,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(io("open", e)),
        };
        let meta = file.metadata().map_err(|e| io("inspect", e))?;
        if !meta.is_file() {
            return Ok(None);
        }
        let too_large =
            || Error::over_limit(format!("side files may have at most {ASSET_BYTES} bytes")).file(&label);
        if meta.len() > ASSET_BYTES {
            return Err(too_large());
        }
        // The length may be stale (or a lie, on special file systems): the limit holds for what arrives.
        let mut bytes = Vec::with_capacity(meta.len() as usize);
        file.take(ASSET_BYTES + 1).read_to_end(&mut bytes).map_err(|e| io("read", e))?;
        if bytes.len() as u64 > ASSET_BYTES {
            return Err(too_large());
        }
        lfs::check(&bytes, &label)?;
        Ok(Some(bytes))
    }
}

impl Folder for LocalDir {
    fn label(&self) -> String {
        self.path.display().to_string()
    }
    fn names(&self) -> Vec<String> {
        self.list()
    }
    fn store(&self, name: &str) -> Result<Option<Arc<dyn Store>>> {
        Ok(if self.resolve(name)?.is_file() { Some(Arc::new(self.open_file(name)?)) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;

    #[test]
    fn lists_and_reads_what_is_there() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("My-Model-7B");
        std::fs::create_dir_all(root.join("1_Pooling")).unwrap();
        std::fs::write(root.join("config.json"), "{}").unwrap();
        std::fs::write(root.join("1_Pooling/config.json"), "[]").unwrap();
        let dir = LocalDir::open(root.join("1_Pooling/..")).unwrap();
        assert_eq!(dir.name(), "My-Model-7B");
        assert_eq!(dir.list(), ["config.json"]);
        assert_eq!(dir.read("config.json").unwrap().unwrap(), b"{}");
        assert_eq!(dir.read("1_Pooling/config.json").unwrap().unwrap(), b"[]");
        assert_eq!(dir.read("config.json/x").unwrap(), None);
        assert_eq!(dir.read("absent").unwrap(), None);
        assert_eq!(dir.read("1_Pooling").unwrap(), None);
        assert!(dir.contains("config.json") && !dir.contains("1_Pooling"));
    }

    #[test]
    fn names_stay_inside_and_files_stay_small() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = LocalDir::open(tmp.path()).unwrap();
        for bad in ["../x", "/etc/hostname", "", "a/../b", "."] {
            assert_eq!(dir.read(bad).unwrap_err().kind(), ErrorKind::Malformed, "{bad:?}");
            assert!(!dir.contains(bad));
        }
        let big = File::create(tmp.path().join("big.json")).unwrap();
        big.set_len(ASSET_BYTES + 1).unwrap();
        assert_eq!(dir.read("big.json").unwrap_err().kind(), ErrorKind::OverLimit);
        std::fs::write(tmp.path().join("tokenizer.model"), "version https://git-lfs.github.com/spec/v1\noid")
            .unwrap();
        let e = dir.read("tokenizer.model").unwrap_err();
        assert!(e.hint_text().unwrap().contains("git lfs pull"), "{e}");
        assert_eq!(LocalDir::open(tmp.path().join("big.json")).unwrap_err().kind(), ErrorKind::Usage);
    }
}

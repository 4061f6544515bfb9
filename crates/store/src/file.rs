//! A local file read by position.
//!
//! Reads go by position into the caller's buffer, large ones past the page cache ([`DirectFile`]): a memory map
//! would leave pages in the resident set that no budget accounts for, and would turn a truncated source into a
//! signal.

use crate::{DirectFile, lfs};
use std::{fs::File, io, path::Path};
use tensormill_model::{Error, Result, Store};

/// An opened regular file of fixed length. Shareable: reads do not move a cursor.
#[derive(Debug)]
pub struct LocalFile {
    file: DirectFile,
    len: u64,
    name: String,
}

impl LocalFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `Io` when it cannot be opened, `Malformed` when it is a Git-LFS pointer, `Usage` when it is not a
    /// regular file. All name the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| Error::io("open", e).file(&name))?;
        let meta = file.metadata().map_err(|e| Error::io("inspect", e).file(&name))?;
        if !meta.is_file() {
            let what = if meta.is_dir() { "a folder" } else { "not a regular file" };
            return Err(Error::usage(format!("this is {what}; expected a file")).file(name));
        }
        let opened = Self { file: DirectFile::reading(file), len: meta.len(), name };
        let mut head = [0u8; lfs::HEAD];
        if opened.len >= head.len() as u64 {
            opened.read_at(0, &mut head)?;
            lfs::check(&head, &opened.name)?;
        }
        Ok(opened)
    }

    /// The same file with every read through the page cache: for one that is read over and over, as an adapter's factors
    /// are for every tile of a weight.
    #[must_use]
    pub fn buffered(self) -> Self {
        Self { file: self.file.buffered(), ..self }
    }
}

impl Store for LocalFile {
    fn len(&self) -> u64 {
        self.len
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(Error::malformed(format!(
                "the file ends early: {} bytes are needed here, the file has {}",
                buf.len(),
                self.len
            ))
            .file(&self.name)
            .at(offset));
        }
        self.file.read_exact_at(buf, offset).map_err(|e| {
            let e = if e.kind() == io::ErrorKind::UnexpectedEof {
                Error::io("read", io::Error::other("the file became shorter while it was being read"))
            } else {
                Error::io("read", e)
            };
            e.file(&self.name).at(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;

    #[test]
    fn reads_by_position_and_never_past_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        std::fs::write(&path, [1, 2, 3, 4, 5]).unwrap();
        let f = LocalFile::open(&path).unwrap();
        let mut b = [0; 2];
        f.read_at(3, &mut b).unwrap();
        assert_eq!(b, [4, 5]);
        for offset in [4, 5, u64::MAX] {
            let e = f.read_at(offset, &mut b).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Malformed);
            assert_eq!(e.file_name(), Some(path.to_str().unwrap()));
        }
        // A source that shrinks under us is an error with the file's name, not stale or zero bytes.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2).unwrap();
        let e = f.read_at(1, &mut b).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().contains("shorter"), "{e}");
    }

    #[test]
    fn refuses_pointers_folders_and_absent_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
            .unwrap();
        let e = LocalFile::open(&path).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert!(e.hint_text().unwrap().contains("git lfs pull"));
        assert!(e.file_name().unwrap().ends_with("model.safetensors"));
        assert_eq!(LocalFile::open(dir.path()).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(LocalFile::open(dir.path().join("no")).unwrap_err().kind(), ErrorKind::Io);
    }
}

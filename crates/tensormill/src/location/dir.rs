//! A folder of model files, wherever it is: what sources are opened from.
//!
//! Who opens a source says which files it needs; whether these are on a disk or behind a network is said here and
//! nowhere else.

use std::sync::Arc;
use tensormill_model::{Assets, Error, Folder, Reader, Result, Store};
use tensormill_store::LocalDir;

/// A folder.
pub(crate) trait Dir: Assets + Folder {
    /// Whether the folder holds a file of this name, which may be one in a folder below.
    fn contains(&self, name: &str) -> bool;

    /// Opens a file that should be there.
    ///
    /// # Errors
    /// I/O errors, `Malformed` when the name leads out of the folder or the file is a pointer to one.
    fn open(&self, name: &str) -> Result<Arc<dyn Store>>;

    /// The same, for a file that is read over and over.
    ///
    /// # Errors
    /// As [`Self::open`].
    fn open_often(&self, name: &str) -> Result<Arc<dyn Store>>;

    /// A folder below; `None` where there is none. Names may come from files.
    ///
    /// # Errors
    /// `Malformed` when the name leads out of the folder.
    fn inner(&self, name: &str) -> Result<Option<Arc<dyn Dir>>>;

    /// The folder around it.
    fn outer(&self) -> Option<Arc<dyn Dir>>;

    /// A file of the folder, as messages name it.
    fn label_of(&self, name: &str) -> String;

    /// A reader of files that were opened here, with what tells them from others where that is known without reading.
    fn identified(&self, reader: Arc<dyn Reader>) -> Arc<dyn Reader> {
        reader
    }
}

/// Puts a file of a folder into an error that names none.
pub(crate) fn named<'a>(dir: &'a dyn Dir, name: &'a str) -> impl Fn(Error) -> Error + 'a {
    move |e| e.file(dir.label_of(name))
}

impl Dir for LocalDir {
    fn contains(&self, name: &str) -> bool {
        Self::contains(self, name)
    }
    fn open(&self, name: &str) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.open_file(name)?))
    }
    fn open_often(&self, name: &str) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.open_file(name)?.buffered()))
    }
    fn inner(&self, name: &str) -> Result<Option<Arc<dyn Dir>>> {
        let path = self.resolve(name)?;
        Ok(if path.is_dir() { Some(Arc::new(Self::open(path)?)) } else { None })
    }
    fn outer(&self) -> Option<Arc<dyn Dir>> {
        Some(Arc::new(Self::open(self.path().join("..")).ok()?))
    }
    fn label_of(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }
}

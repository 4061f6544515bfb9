//! Where a source is, and how it is reached.
//!
//! A [`Location`] is what a user writes; it is looked at once, and what was [`Found`] there is opened through [`Dir`], which
//! does not tell where bytes come from.

mod dir;

pub(crate) use dir::{Dir, named};

use serde::Deserialize;
use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};
use tensormill_model::{Error, Limits, Result, Store};
use tensormill_pickle::PickleOptions;
use tensormill_store::{LocalDir, LocalFile};

/// Where a source is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Location {
    /// A file or folder of this machine.
    Local(PathBuf),
}

impl Location {
    /// The path of what is on this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
        }
    }

    /// Its last component: of a file, or of a folder or repository.
    pub fn last(&self) -> String {
        match self {
            Self::Local(path) => {
                path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
            }
        }
    }

    /// A file of the folder that it is.
    #[must_use]
    pub(crate) fn file(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
        }
    }

    /// What it is called, without the suffix of a file.
    pub fn name(&self) -> String {
        match self {
            Self::Local(path) => {
                let full = path.canonicalize().unwrap_or_else(|_| path.clone());
                let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
                name.map_or_else(String::new, |n| n.to_string_lossy().into_owned())
            }
        }
    }

    /// The path of the file that it is, for what reads files by their paths.
    ///
    /// # Errors
    /// As fetching it.
    pub(crate) fn on_disk(&self) -> Result<PathBuf> {
        match self {
            Self::Local(path) => Ok(path.clone()),
        }
    }

    /// The same place for a file of a folder, where paths are relative to it.
    #[must_use]
    pub fn within(self, folder: &Path) -> Self {
        match self {
            Self::Local(path) => Self::Local(folder.join(path)),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Location {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(Self::Local(text.into()))
    }
}

impl TryFrom<String> for Location {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<OsString> for Location {
    type Error = Error;
    fn try_from(text: OsString) -> Result<Self> {
        match text.to_str() {
            Some(text) => text.parse(),
            None => Ok(Self::Local(text.into())),
        }
    }
}

impl From<&Self> for Location {
    fn from(at: &Self) -> Self {
        at.clone()
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Location {
    fn from(path: &P) -> Self {
        Self::Local(path.as_ref().to_owned())
    }
}

/// How sources are opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) limits: Limits,
    /// Of PyTorch checkpoints.
    pub(crate) part: PickleOptions,
}

/// What is at a location.
pub(crate) enum Found {
    /// A folder.
    Folder(Arc<dyn Dir>),
    /// A file, its name, and the folder in which it is.
    File { store: Arc<dyn Store>, name: String, dir: Arc<dyn Dir> },
}

impl Location {
    /// Looks at it.
    ///
    /// # Errors
    /// When it is not there, or not readable.
    pub(crate) fn find(&self) -> Result<Found> {
        match self {
            Self::Local(path) if path.is_dir() => Ok(Found::Folder(Arc::new(LocalDir::open(path)?))),
            Self::Local(path) => {
                let store = Arc::new(LocalFile::open(path)?);
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                Ok(Found::File { store, name: self.last(), dir: Arc::new(LocalDir::open(folder)?) })
            }
        }
    }
}

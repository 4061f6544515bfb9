//! Where a source is, and how it is reached.
//!
//! A [`Location`] is what a user writes. It is looked at once, and what was found there is opened through one seam, which
//! does not tell where bytes come from: a disk, the Hub's cache, or the Hub itself, range by range ([`Access`]).

mod access;
mod dir;
mod repository;

pub use access::{Access, Reach, RepositoryFile, RepositoryReport};
pub(crate) use dir::{Dir, named};

use serde::Deserialize;
use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
};
use tensormill_engine::Progress;
use tensormill_hub::{Address, address::SCHEME};
use tensormill_model::{Error, Limits, Result, Store};
use tensormill_pickle::PickleOptions;
use tensormill_store::{LocalDir, LocalFile};

/// Where a source is. Text that begins with `hf://` is an address, everything else a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Location {
    /// A file or folder of this machine.
    Local(PathBuf),
    /// A repository on the Hub, or a file or folder in it.
    Hub(Address),
}

impl Location {
    /// The path of what is on this machine.
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Hub(_) => None,
        }
    }

    /// The commit, where it is certain.
    pub fn commit(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Hub(address) => address.commit(),
        }
    }

    /// Its last component: of a file, or of a folder or repository.
    pub fn last(&self) -> String {
        match self {
            Self::Local(path) => {
                path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
            }
            Self::Hub(a) => a.path.as_deref().map_or(a.name(), last).to_owned(),
        }
    }

    /// What others know it by: a path as it is, of a repository its name without the revision.
    pub fn known_as(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Hub(address) => address.repo.clone(),
        }
    }

    /// What it is called in files that are published: never where it lies on this machine.
    pub(crate) fn published_as(&self) -> String {
        match self {
            Self::Local(path) => Self::Local(path.canonicalize().unwrap_or_else(|_| path.clone())).last(),
            Self::Hub(address) => address.repo.clone(),
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
            Self::Hub(a) => match a.path.as_deref().map(last) {
                None => a.name().to_owned(),
                Some(file) => file.rsplit_once('.').map_or(file, |(stem, _)| stem).to_owned(),
            },
        }
    }

    /// A file of the folder that it is.
    #[must_use]
    pub(crate) fn file(&self, name: &str) -> Self {
        match self {
            Self::Local(path) => Self::Local(path.join(name)),
            Self::Hub(a) => {
                let path = a.path.as_ref().map_or_else(|| name.to_owned(), |p| format!("{p}/{name}"));
                Self::Hub(Address { path: Some(path), ..a.clone() })
            }
        }
    }

    /// The same place for what is written in a file of a folder, where paths are relative to it.
    #[must_use]
    pub fn within(self, folder: &Path) -> Self {
        match self {
            Self::Local(path) => Self::Local(folder.join(path)),
            hub @ Self::Hub(_) => hub,
        }
    }

    /// The same place at a revision, where it says none.
    ///
    /// # Errors
    /// `Usage` where it says another, and for what cannot be a revision.
    pub(crate) fn at_revision(self, revision: &str) -> Result<Self> {
        match self {
            Self::Hub(a) if a.revision.is_none() => Ok(Self::Hub(a.at(revision)?)),
            Self::Hub(a) if a.revision() != revision => {
                Err(Error::usage(format!("two revisions are asked for: {} and {revision}", a.revision()))
                    .file(Self::Hub(a)))
            }
            same => Ok(same),
        }
    }
}

/// What stands behind the last slash.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Hub(address) => write!(f, "{SCHEME}{address}"),
        }
    }
}

impl FromStr for Location {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Ok(if Address::is_url(text) { Self::Hub(text.parse()?) } else { Self::Local(text.into()) })
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
    /// How the Hub is reached.
    pub(crate) access: Access,
}

/// What is at a location.
pub(crate) enum Found {
    /// A folder.
    Folder(Arc<dyn Dir>),
    /// A file, its name, and the folder in which it is.
    File { store: Arc<dyn Store>, name: String, dir: Arc<dyn Dir> },
}

impl Found {
    /// The folder, or that of the file.
    pub(crate) fn dir(&self) -> &Arc<dyn Dir> {
        match self {
            Self::Folder(dir) | Self::File { dir, .. } => dir,
        }
    }
}

impl Location {
    /// Looks at it. Gives the same place, too, with the commit where there is one.
    ///
    /// # Errors
    /// When it is not there, or cannot be read or reached.
    pub(crate) fn find(&self, access: &Access) -> Result<(Self, Found)> {
        match self {
            Self::Local(path) => Ok((self.clone(), on_this_machine(path)?)),
            Self::Hub(address) => {
                let (address, found) = access.repository(address)?.find(address)?;
                Ok((Self::Hub(address), found))
            }
        }
    }

    /// The same place with the commit, where there is one.
    ///
    /// # Errors
    /// Where a repository cannot be reached.
    pub(crate) fn pinned(&self, access: &Access) -> Result<Self> {
        match self {
            Self::Local(_) => Ok(self.clone()),
            Self::Hub(address) => Ok(Self::Hub(access.repository(address)?.pinned(address))),
        }
    }

    /// The path of the file that it is, for what reads files by their paths. Everything that was opened before is fetched
    /// with it.
    ///
    /// # Errors
    /// As fetching it; `Usage` where nothing may be fetched; `Cancelled`.
    pub(crate) fn on_disk(
        &self,
        access: &Access,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<PathBuf> {
        match self {
            Self::Local(path) => Ok(path.clone()),
            Self::Hub(address) => access.repository(address)?.on_disk(address, progress, cancel),
        }
    }
}

fn on_this_machine(path: &Path) -> Result<Found> {
    if path.is_dir() {
        return Ok(Found::Folder(Arc::new(LocalDir::open(path)?)));
    }
    let store = Arc::new(LocalFile::open(path)?);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Ok(Found::File { store, name, dir: Arc::new(LocalDir::open(folder)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_begin_with_their_scheme_and_all_else_is_a_path() {
        assert_eq!(at("org/model").local(), Some(Path::new("org/model")));
        let hub = at("hf://org/model@v1/onnx/model.onnx");
        assert_eq!(hub.local(), None);
        assert_eq!(hub.to_string(), "hf://org/model@v1/onnx/model.onnx");
        assert_eq!(
            (hub.last(), hub.name(), hub.known_as()),
            ("model.onnx".into(), "model".into(), "org/model".into())
        );
        let whole = at("hf://org/Model-1.5B");
        assert_eq!((whole.last(), whole.name()), ("Model-1.5B".into(), "Model-1.5B".into()));
        assert_eq!(whole.file("a.gguf").to_string(), "hf://org/Model-1.5B/a.gguf");
        assert!("hf://a/b--c".parse::<Location>().is_err());
    }

    #[test]
    fn files_move_paths_and_not_addresses() {
        assert_eq!(at("m").within(Path::new("/r")), at("/r/m"));
        assert_eq!(at("/m").within(Path::new("/r")), at("/m"));
        assert_eq!(at("hf://o/m").within(Path::new("/r")), at("hf://o/m"));
    }

    #[test]
    fn a_revision_is_said_once() {
        assert_eq!(at("hf://o/m").at_revision("v1").unwrap(), at("hf://o/m@v1"));
        assert_eq!(at("hf://o/m@v1").at_revision("v1").unwrap(), at("hf://o/m@v1"));
        assert!(at("hf://o/m@v1").at_revision("v2").is_err());
        assert_eq!(at("/m").at_revision("v2").unwrap(), at("/m"));
    }
}

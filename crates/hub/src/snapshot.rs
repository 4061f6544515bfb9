//! What a repository holds at one commit, and what the Hub says of it.

use crate::{address::check_path, json::shown};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tensormill_model::{Error, Result};

/// Files of one repository, at most: beyond it a listing is refused before it fills memory.
pub(crate) const FILES: usize = 1 << 20;

/// Largest file that is believed in, 8 TiB: the sum of so many files of that size can still be counted.
const FILE_BYTES: u64 = 1 << 43;

/// A file of a repository.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Entry {
    /// Its name, with slashes.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its Git blob hash (SHA-1); of files in LFS or Xet storage, the hash of their pointer. Empty where nobody says.
    pub oid: String,
    /// SHA-256 of its bytes, for files in LFS or Xet storage.
    pub sha256: Option<String>,
    /// Hash in Xet storage, where it lies there; kept for other tools that share the cache.
    pub xet: Option<String>,
}

impl Entry {
    /// What its blob in the cache is called: the server's ETag.
    pub fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.oid)
    }
}

/// A repository at one commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `org/model`.
    pub repo: String,
    /// What was asked for: `main`, a tag, a commit.
    pub revision: String,
    /// The commit that is: 40 hexadecimal digits. `None` only for the folder of a mirror that does not say.
    pub commit: Option<String>,
    /// Its files, sorted by path.
    pub files: Vec<Entry>,
    /// What the Hub says of the repository; `None` where nobody was asked (cache, mirror).
    pub info: Option<Info>,
    /// Where the files are.
    pub(crate) place: Place,
}

/// Where a snapshot's files are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// On the server.
    Server,
    /// In this folder, of the cache or of a mirror: nobody else is asked.
    Local(std::path::PathBuf),
}

impl Snapshot {
    /// The file of a name.
    pub fn file(&self, path: &str) -> Option<&Entry> {
        self.files.binary_search_by(|e| e.path.as_str().cmp(path)).ok().map(|i| &self.files[i])
    }

    /// The commit, or what was asked for where no commit is known.
    pub fn pinned(&self) -> &str {
        self.commit.as_deref().unwrap_or(&self.revision)
    }

    /// A file (or folder) of it, for messages: `hf://org/model@0123456789ab/path`.
    pub fn file_name(&self, path: &str) -> String {
        let pinned = self.pinned();
        let short = if self.commit.is_some() { &pinned[..12.min(pinned.len())] } else { pinned };
        let slash = if path.is_empty() { "" } else { "/" };
        format!("{}{}@{short}{slash}{path}", crate::address::SCHEME, self.repo)
    }

    /// Whether its files have to be asked for; otherwise they are in [`Self::folder`].
    pub fn is_remote(&self) -> bool {
        self.place == Place::Server
    }

    /// The folder with its files, where they are on this machine: the cache (offline), or a mirror.
    pub fn folder(&self) -> Option<&std::path::Path> {
        match &self.place {
            Place::Server => None,
            Place::Local(folder) => Some(folder),
        }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|e| e.size).fold(0, u64::saturating_add)
    }
}

/// How a repository admits people to its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// Everybody.
    #[default]
    Open,
    /// Whoever accepts the terms.
    Auto,
    /// Whom the owner lets in.
    Manual,
}

/// What the Hub says of a model's repository; fields that an answer lacks are empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Info {
    /// `org/model`, as the Hub writes it.
    #[serde(default)]
    pub id: String,
    /// Commit of the revision that was asked for.
    #[serde(default)]
    pub sha: Option<String>,
    /// Whether only some accounts see it.
    #[serde(default)]
    pub private: bool,
    /// Whether its files ask for terms to be accepted.
    #[serde(default, deserialize_with = "gate")]
    pub gated: Gate,
    /// Whether the Hub has switched it off.
    #[serde(default)]
    pub disabled: bool,
    /// Tags: tasks, libraries, `license:...`, `base_model:...`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Task.
    #[serde(default)]
    pub pipeline_tag: Option<String>,
    /// Library.
    #[serde(default)]
    pub library_name: Option<String>,
    /// Front matter of its card.
    #[serde(default, rename = "cardData")]
    pub card: Option<Value>,
    /// Downloads of the last month.
    #[serde(default)]
    pub downloads: Option<u64>,
    /// Likes.
    #[serde(default)]
    pub likes: Option<u64>,
    /// Time of the last commit, as the Hub writes it.
    #[serde(default, rename = "lastModified")]
    pub last_modified: Option<String>,
}

impl Info {
    /// The licence, as tags or the card have it.
    pub fn license(&self) -> Option<&str> {
        let tagged = self.tags.iter().find_map(|t| t.strip_prefix("license:"));
        tagged.or_else(|| self.card.as_ref()?.get("license")?.as_str())
    }
}

/// `false`, `"auto"` or `"manual"`; anything else that is set counts as the stricter.
fn gate<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Gate, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null | Value::Bool(false) => Gate::Open,
        Value::String(s) if s == "auto" => Gate::Auto,
        _ => Gate::Manual,
    })
}

/// An entry of the Hub's tree listing.
#[derive(Deserialize)]
pub(crate) struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    lfs: Option<Lfs>,
    #[serde(default, rename = "xetHash")]
    xet: Option<String>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl TreeEntry {
    /// The file, or `None` for a folder.
    ///
    /// # Errors
    /// `Malformed` for names that lead out of the repository, and for hashes that are none: both become paths.
    pub fn file(self) -> Result<Option<Entry>> {
        if self.kind != "file" {
            return Ok(None);
        }
        let (size, sha256) = match self.lfs {
            Some(lfs) => (lfs.size, Some(lfs.oid)),
            None => (self.size, None),
        };
        Entry { path: self.path, size, oid: self.oid, sha256, xet: self.xet }.checked().map(Some)
    }
}

impl Entry {
    /// Itself, where everything that becomes a path or a length can be one.
    ///
    /// # Errors
    /// `Malformed` or `OverLimit` where not.
    pub(crate) fn checked(self) -> Result<Self> {
        check_path(&self.path)?;
        let hash = |hash: &str, digits: usize| {
            // Names of files in the cache: nothing but hexadecimal digits gets there.
            let is_hash = hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if hash.len() == digits && is_hash {
                return Ok(());
            }
            let what = format!("{:?} is no hash of {digits} hexadecimal digits", shown(hash));
            Err(Error::malformed(what).file(&self.path))
        };
        hash(&self.oid, 40)?;
        self.sha256.as_deref().map_or(Ok(()), |h| hash(h, 64))?;
        if self.size > FILE_BYTES {
            let what = format!("a file of {} bytes: more than {FILE_BYTES} are not taken", self.size);
            return Err(Error::over_limit(what).file(&self.path));
        }
        Ok(self)
    }
}

//! Repositories: files, commits, branches and tags, and who may see them.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files of a served folder from this many bytes on are large files, whatever their names.
pub(crate) const LARGE: u64 = 1 << 20;

/// Names of files that the Hub keeps as large files (its default `.gitattributes`), by extension.
pub(crate) const LFS: &[&str] = &[
    "safetensors",
    "bin",
    "gguf",
    "onnx",
    "pt",
    "pth",
    "ckpt",
    "h5",
    "msgpack",
    "zip",
    "pb",
    "tflite",
    "npz",
    "npy",
    "parquet",
    "model",
];

/// The bytes of a file.
#[derive(Clone, Debug)]
pub enum Content {
    /// In memory.
    Memory(Arc<Vec<u8>>),
    /// On disk, of this length.
    Disk(PathBuf, u64),
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(b) => b.len() as u64,
            Self::Disk(_, len) => *len,
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes from an offset.
    ///
    /// # Errors
    /// I/O errors; the range has to lie inside.
    pub fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Memory(b) => Ok(b[at as usize..at as usize + len].to_vec()),
            Self::Disk(path, _) => {
                let mut file = fs::File::open(path)?;
                file.seek(SeekFrom::Start(at))?;
                let mut out = vec![0; len];
                file.read_exact(&mut out)?;
                Ok(out)
            }
        }
    }
    /// All bytes.
    ///
    /// # Errors
    /// I/O errors.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        self.read(0, self.len() as usize)
    }

    fn feed(&self, digest: &mut impl Digest) -> io::Result<()> {
        let mut at = 0;
        while at < self.len() {
            let n = (self.len() - at).min(1 << 20);
            digest.update(self.read(at, n as usize)?);
            at += n;
        }
        Ok(())
    }
}

/// A file of a commit.
#[derive(Clone, Debug)]
pub struct File {
    /// Its bytes.
    pub content: Content,
    /// Git's hash of it, or of its pointer.
    pub oid: String,
    /// SHA-256, where it is a large file.
    pub sha256: Option<String>,
}

impl File {
    /// A file that Git itself keeps.
    ///
    /// # Errors
    /// I/O errors.
    pub fn plain(content: Content) -> io::Result<Self> {
        let mut digest = Sha1::new();
        digest.update(format!("blob {}\0", content.len()));
        content.feed(&mut digest)?;
        Ok(Self { content, oid: hex(&digest.finalize()), sha256: None })
    }

    /// A large file.
    ///
    /// # Errors
    /// I/O errors.
    pub fn lfs(content: Content) -> io::Result<Self> {
        let mut digest = Sha256::new();
        content.feed(&mut digest)?;
        let sha256 = hex(&digest.finalize());
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {}\n",
            content.len()
        );
        let oid = Self::plain(Content::Memory(Arc::new(pointer.into_bytes())))?.oid;
        Ok(Self { content, oid, sha256: Some(sha256) })
    }

    /// What the server calls this content.
    pub fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.oid)
    }
}

/// All files at one moment.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its hash.
    pub sha: String,
    /// The one before.
    pub parent: Option<String>,
    /// First line of its message.
    pub title: String,
    /// Files by path.
    pub files: BTreeMap<String, File>,
}

/// A model's repository.
#[derive(Clone, Debug)]
pub struct Repo {
    /// `org/name`.
    pub id: String,
    /// Whether only its owner sees it.
    pub private: bool,
    /// `auto` or `manual`, where its terms have to be accepted.
    pub gated: Option<&'static str>,
    /// Front matter of its card, tags, task and so on, as the API gives them.
    pub meta: serde_json::Map<String, serde_json::Value>,
    /// Commits by hash.
    pub commits: BTreeMap<String, Commit>,
    /// Branches.
    pub branches: BTreeMap<String, String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl Repo {
    /// An empty repository with a main branch and its first commit.
    pub fn new(id: &str) -> Self {
        let mut repo = Self {
            id: id.to_owned(),
            private: false,
            gated: None,
            meta: serde_json::Map::new(),
            commits: BTreeMap::new(),
            branches: BTreeMap::new(),
            tags: BTreeMap::new(),
        };
        repo.commit("main", "initial commit", |_| {});
        repo
    }

    /// Everything below a folder, as one commit.
    ///
    /// # Errors
    /// I/O errors.
    pub fn from_folder(id: &str, folder: &Path) -> io::Result<Self> {
        let mut found = BTreeMap::new();
        walk(folder, "", &mut found)?;
        let mut repo = Self::new(id);
        repo.commit("main", "files of a folder", |files| files.extend(found));
        Ok(repo)
    }

    /// With a small file on the main branch.
    #[must_use]
    pub fn file(mut self, path: &str, bytes: &[u8]) -> Self {
        let file = File::plain(Content::Memory(Arc::new(bytes.to_vec()))).expect("memory can be read");
        self.amend(path, file);
        self
    }
    /// With a large file on the main branch.
    #[must_use]
    pub fn lfs(mut self, path: &str, bytes: &[u8]) -> Self {
        let file = File::lfs(Content::Memory(Arc::new(bytes.to_vec()))).expect("memory can be read");
        self.amend(path, file);
        self
    }
    /// Seen by its owner alone.
    #[must_use]
    pub fn private(self) -> Self {
        Self { private: true, ..self }
    }
    /// With terms to accept: `auto` or `manual`.
    #[must_use]
    pub fn gated(self, how: &'static str) -> Self {
        Self { gated: Some(how), ..self }
    }
    /// With a value that the API shows: `tags`, `pipeline_tag`, `library_name`, `cardData`, `downloads`, `likes`.
    #[must_use]
    pub fn meta(mut self, key: &str, value: serde_json::Value) -> Self {
        self.meta.insert(key.to_owned(), value);
        self
    }
    /// With a tag on the main branch as it is now.
    #[must_use]
    pub fn tag(mut self, name: &str) -> Self {
        let head = self.branches["main"].clone();
        self.tags.insert(name.to_owned(), head);
        self
    }

    fn amend(&mut self, path: &str, file: File) {
        let path = path.to_owned();
        self.commit("main", &format!("add {path}"), |files| drop(files.insert(path.clone(), file)));
    }

    /// Adds a commit to a branch, which is made where it does not exist; gives its hash. The hash follows from the
    /// parent, the title and the files, so it is the same in every run.
    pub fn commit(
        &mut self,
        branch: &str,
        title: &str,
        change: impl FnOnce(&mut BTreeMap<String, File>),
    ) -> String {
        let parent = self.branches.get(branch).cloned();
        let mut files =
            parent.as_ref().and_then(|p| self.commits.get(p)).map(|c| c.files.clone()).unwrap_or_default();
        change(&mut files);
        let mut digest = Sha1::new();
        digest.update(format!("{} {} {title}\n", self.id, parent.as_deref().unwrap_or_default()));
        for (path, file) in &files {
            digest.update(format!("{path} {}\n", file.etag()));
        }
        let sha = hex(&digest.finalize());
        let commit = Commit { sha: sha.clone(), parent, title: title.to_owned(), files };
        self.commits.insert(sha.clone(), commit);
        self.branches.insert(branch.to_owned(), sha.clone());
        sha
    }

    /// The commit of a branch, a tag, `refs/heads/...`, `refs/tags/...` or a hash of at least 7 digits.
    pub fn resolve(&self, revision: &str) -> Option<&Commit> {
        let branch = revision.strip_prefix("refs/heads/").unwrap_or(revision);
        let tag = revision.strip_prefix("refs/tags/").unwrap_or(revision);
        if let Some(sha) = self.branches.get(branch).or_else(|| self.tags.get(tag)) {
            return self.commits.get(sha);
        }
        self.commits.values().find(|c| revision.len() >= 7 && c.sha.starts_with(revision))
    }

    /// The commit that the main branch is at.
    pub fn head(&self) -> &Commit {
        &self.commits[&self.branches["main"]]
    }

    /// User or organisation.
    pub fn owner(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }
}

fn walk(folder: &Path, prefix: &str, found: &mut BTreeMap<String, File>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".git") && name != ".gitattributes" || name == ".cache" {
            continue;
        }
        let full = format!("{prefix}{name}");
        if path.is_dir() {
            walk(&path, &format!("{full}/"), found)?;
        } else {
            let len = fs::metadata(&path)?.len();
            let extension = Path::new(&name).extension().map(|e| e.to_string_lossy().into_owned());
            let large = len >= LARGE || extension.is_some_and(|e| LFS.contains(&e.as_str()));
            let content = Content::Disk(path, len);
            found.insert(full, if large { File::lfs(content)? } else { File::plain(content)? });
        }
    }
    Ok(())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

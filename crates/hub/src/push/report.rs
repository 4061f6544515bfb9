//! What a push would do, and what it did: plain data. Names in the repository only; no path of this machine.

use super::remote::{Mode, Visibility};
use serde::Serialize;

/// What becomes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is sent.
    Send,
    /// The repository has the same bytes under this name.
    Same,
    /// The repository's `.gitignore` names it.
    Ignored,
}

/// A file of the folder.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Name in the repository.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// How it is sent. Before the repository exists this is what the Hub usually says.
    pub mode: Mode,
    /// What becomes of it.
    pub state: State,
    /// SHA-256, where it is known.
    pub sha256: Option<String>,
    /// Whether LFS storage had the bytes already, so that they were not sent again; known after a push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_already: Option<bool>,
}

/// A commit that was made.
#[derive(Clone, Debug, Serialize)]
pub struct CommitReport {
    /// Its name.
    pub oid: String,
    /// First line of its message.
    pub message: String,
    /// Files added or changed.
    pub files: usize,
    /// Files deleted.
    pub deleted: usize,
}

/// One branch.
#[derive(Clone, Debug, Serialize)]
pub struct BranchReport {
    /// Its name; of a pull request, its ref.
    pub revision: String,
    /// Whether the branch is made by this push.
    pub new: bool,
    /// The commit that it stood at before.
    pub parent: Option<String>,
    /// The commit that it stands at now; known after a push.
    pub head: Option<String>,
    /// Files of the folder.
    pub files: Vec<FileReport>,
    /// Files of the repository that go.
    pub deleted: Vec<String>,
    /// Commits that were made.
    pub commits: Vec<CommitReport>,
    /// Files whose hashes were compared with what the repository says after the push.
    pub verified: usize,
}

impl BranchReport {
    /// Files that are sent.
    pub fn sent(&self) -> impl Iterator<Item = &FileReport> {
        self.files.iter().filter(|f| f.state == State::Send)
    }
}

/// A push.
#[derive(Clone, Debug, Serialize)]
pub struct PushReport {
    /// Shape of this document.
    pub schema: &'static str,
    /// `org/name`
    pub repo: String,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Whether the repository is (to be) made by this push.
    pub created: bool,
    /// Who sees it afterwards.
    pub visibility: Visibility,
    /// Whether this push changes who sees it.
    pub visibility_changed: bool,
    /// First line of the commit's message.
    pub message: String,
    /// Branches, in the order in which they are written.
    pub branches: Vec<BranchReport>,
    /// The tag that the first branch's last commit gets.
    pub tag: Option<String>,
    /// Number of the pull request, once it is open.
    pub pull_request: Option<u64>,
    /// Bytes of files that are sent, whether or not LFS storage has them already.
    pub bytes: u64,
    /// Bytes of files that the repository has.
    pub bytes_same: u64,
    /// Bytes that went to LFS storage.
    pub bytes_uploaded: u64,
    /// What is worth telling.
    pub notes: Vec<String>,
}

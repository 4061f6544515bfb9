//! Publishing a folder: [`list`] says which files, [`plan`] what there is to do, [`Planned::run`] does it.
//!
//! Invariants: planning writes nothing. A commit is made on top of the commit that the plan looked at, or not at all.
//! Whatever was interrupted is continued by planning and running again. Files are read as they are sent; none is in
//! memory as a whole. Afterwards the repository's own hashes are compared with those of the files.
//!
//! Bytes go by plain LFS over HTTP, never by Xet. This module must *not* know what the files are.

mod account;
mod batches;
mod body;
mod commit;
mod digest;
mod folder;
mod lfs;
mod patterns;
mod plan;
mod remote;
mod report;
mod run;
mod wire;

pub use folder::{Item, Known, Listing, list};
pub use patterns::Patterns;
pub use plan::Planned;
pub use remote::{Mode, Visibility};
pub use report::{BranchReport, CommitReport, FileReport, PushReport, State};

pub use crate::address::MAIN;

use crate::Hub;
use serde_json::Value;
use std::sync::atomic::AtomicBool;
use tensormill_model::{Error, Result};

/// Hears what goes on. Called by several threads.
pub trait Watch: Sync {
    /// Other work begins, on so many bytes.
    fn phase(&self, name: &'static str, bytes: u64);
    /// Bytes of it are done.
    fn advanced(&self, bytes: u64);
    /// Something that is not an error.
    fn note(&self, text: &str);
}

impl Watch for () {
    fn phase(&self, _: &'static str, _: u64) {}
    fn advanced(&self, _: u64) {}
    fn note(&self, _: &str) {}
}

/// What is to be published where.
#[derive(Clone, Debug)]
pub struct Request {
    /// `org/name`
    pub repo: String,
    /// Make the repository where there is none.
    pub create: bool,
    /// Who is to see it. Without a wish new ones are private, and others stay as they are.
    pub visibility: Option<Visibility>,
    /// First line of the commits' message.
    pub message: String,
    /// The rest of it.
    pub description: String,
    /// Open a pull request instead of writing to the branch.
    pub pull_request: bool,
    /// Name that the first branch's last commit gets.
    pub tag: Option<String>,
    /// What goes to which branch.
    pub targets: Vec<Target>,
}

/// What goes to one branch.
#[derive(Clone, Debug)]
pub struct Target {
    /// The branch.
    pub branch: String,
    /// Files.
    pub items: Vec<Item>,
    /// Files of the repository that go, unless they are among those that are sent.
    pub delete: Option<Patterns>,
}

impl Target {
    /// Whether a file of the repository goes. What git itself reads (`.gitattributes`) stays.
    fn goes(&self, name: &str) -> bool {
        !name.starts_with('.') && self.delete.as_ref().is_some_and(|d| d.takes(name))
    }
}

impl Request {
    fn check(&self) -> Result<()> {
        if self.message.trim().is_empty() {
            return Err(Error::usage("a commit needs a message"));
        }
        let elsewhere = |t: &Target| t.branch != MAIN;
        if self.pull_request && (self.targets.len() != 1 || self.targets.iter().any(elsewhere)) {
            return Err(Error::usage("a pull request is made to main, and to nothing else"));
        }
        if self.pull_request && self.tag.is_some() {
            return Err(Error::usage("what is only a pull request gets no tag")
                .hint("tag it when it was accepted: push again with --tag"));
        }
        if self.targets.iter().all(|t| t.items.is_empty() && t.delete.is_none()) {
            return Err(Error::usage("there is nothing to send")
                .hint("names that begin with a dot are not sent; look at --include and --exclude"));
        }
        Ok(())
    }
}

/// Finds out what a push would do, without writing anything. Files are read where the repository has one of the same
/// name and size.
///
/// # Errors
/// `Usage` for what cannot be meant and for tokens that may not write; what connections and the server say.
pub fn plan<'a>(
    hub: &'a Hub,
    request: Request,
    watch: &dyn Watch,
    cancel: &AtomicBool,
) -> Result<Planned<'a>> {
    plan::plan(hub, request, watch, cancel)
}

/// How many of some objects (by SHA-256) a server wants to be sent, by its answer.
pub(crate) fn objects_wanted(answer: &Value, sha256: &[&str]) -> Result<usize> {
    let wanted = lfs::understand(answer, sha256.iter().map(|s| (*s, *s)), &str::to_owned)?;
    Ok(wanted.iter().filter(|w| **w != lfs::Wanted::Nothing).count())
}

//! Snapshots that are on this machine: in the cache, when no request may be sent, and in mirrors, which are folders in a server's
//! place.
//!
//! A mirror `DIR` has a repository `org/model` as `DIR/org/model` (a clone, or what `tensormill pull -o` or `hf download
//! --local-dir` made), or is a cache itself (`DIR/models--org--model`).

use crate::{
    address::{Address, is_commit},
    cache::{RepoCache, walk},
    snapshot::{Place, Snapshot},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tensormill_model::{Error, Result};

/// A snapshot of the cache.
///
/// # Errors
/// `Usage` that says what the cache lacks and where it is.
pub(crate) fn cached(cache: &RepoCache, address: &Address, root: &Path) -> Result<Snapshot> {
    let revision = address.revision();
    let lacks = |what: String| {
        Error::usage(what).file(&address.repo).hint(format!(
            "fetch it where requests are permitted: tensormill pull {address}; the cache is {}",
            root.display()
        ))
    };
    if !cache.folder().is_dir() {
        return Err(lacks("offline, and the cache holds nothing of this repository".to_owned()));
    }
    let commit = cache.commit(revision).or_else(|| abbreviated(cache, revision));
    let commit = commit
        .ok_or_else(|| lacks(format!("offline, and the cache does not know which commit {revision:?} is")))?;
    let folder = cache.snapshot(&commit);
    if !folder.is_dir() {
        return Err(lacks(format!("offline, and the cache holds no files of commit {commit}")));
    }
    Ok(Snapshot {
        repo: address.repo.clone(),
        revision: revision.to_owned(),
        files: cache.tree(&commit).unwrap_or_else(|| cache.walk(&commit)),
        commit: Some(commit),
        info: None,
        place: Place::Local(folder),
    })
}

/// A commit by its first digits, where only one begins so.
fn abbreviated(cache: &RepoCache, revision: &str) -> Option<String> {
    if revision.len() < 7 || !revision.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let names = fs::read_dir(cache.folder().join("snapshots")).ok()?.flatten();
    let mut found =
        names.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with(revision));
    found.next().filter(|n| is_commit(n) && found.next().is_none())
}

/// A snapshot of a mirror.
///
/// # Errors
/// `Usage` where the mirror has no such repository, or another revision of it.
pub(crate) fn mirrored(mirror: &Path, address: &Address) -> Result<Snapshot> {
    let as_cache = RepoCache::new(mirror, &address.repo, true);
    if as_cache.folder().is_dir() {
        return cached(&as_cache, address, mirror);
    }
    let folder = mirror.join(&address.repo);
    if !folder.is_dir() {
        return Err(Error::usage(format!("this mirror holds no {}", address.repo))
            .file(mirror.display())
            .hint(format!("make one: tensormill pull {address} -o {}", folder.display())));
    }
    let commit = commit_of(&folder);
    let asked = address.revision();
    let main = address.revision.is_none() || asked == crate::address::MAIN;
    if !main && commit.as_deref() != Some(asked) && !branch_is(&folder, asked) {
        let found =
            commit.map_or_else(|| "does not say which commit it is".to_owned(), |c| format!("is commit {c}"));
        return Err(Error::usage(format!("revision {asked:?} was asked for, and this mirror {found}"))
            .file(folder.display())
            .hint("leave the revision out to take what is there"));
    }
    let mut files = Vec::new();
    walk(&folder, "", &mut files);
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Snapshot {
        repo: address.repo.clone(),
        revision: asked.to_owned(),
        commit,
        files,
        info: None,
        place: Place::Local(folder),
    })
}

/// The commit that a folder holds: what downloads noted beside their files, or the head of a clone.
fn commit_of(folder: &Path) -> Option<String> {
    let notes = fs::read_dir(folder.join(".cache/huggingface/download")).into_iter().flatten().flatten();
    let first_line = |path: PathBuf| fs::read_to_string(path).ok()?.lines().next().map(str::to_owned);
    let mut commits: Vec<String> = notes
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "metadata"))
        .filter_map(first_line)
        .filter(|c| is_commit(c))
        .collect();
    commits.dedup();
    match commits.as_slice() {
        [one] => Some(one.clone()),
        [] => head(folder),
        // Files of several commits lie together: no commit is what the folder holds.
        _ => None,
    }
}

fn head(folder: &Path) -> Option<String> {
    let head = fs::read_to_string(folder.join(".git/HEAD")).ok()?;
    let commit = match head.trim().strip_prefix("ref: ") {
        None => head.trim().to_owned(),
        Some(name) => fs::read_to_string(folder.join(".git").join(name)).ok()?.trim().to_owned(),
    };
    Some(commit).filter(|c| is_commit(c))
}

/// Whether a clone stands at this branch or tag.
fn branch_is(folder: &Path, name: &str) -> bool {
    let git = folder.join(".git");
    let at = |kind: &str| fs::read_to_string(git.join(kind).join(name)).ok().map(|t| t.trim().to_owned());
    let head = head(folder);
    head.is_some() && ["refs/heads", "refs/tags"].iter().any(|kind| at(kind) == head)
}

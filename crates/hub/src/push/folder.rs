//! Which files of a folder are sent, and under which names.
//!
//! Names that begin with a dot stay here (journals, parts, `.git`, editors' files), as do caches of Python. A link is
//! followed to a file of the folder, or to the blobs of a download cache; one that leads elsewhere is an error, since
//! what it leads to may not be meant to be seen.

use super::patterns::Patterns;
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};
use tensormill_model::{Error, Result};

/// Files of one folder and all below it that are looked at.
const MOST: usize = 100_000;

/// Folders in folders.
const DEEPEST: u32 = 32;

/// Names of folders that hold nothing to publish.
const CACHES: [&str; 2] = ["__pycache__", "node_modules"];

/// A file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Name in the repository: relative, with `/`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// When it was last written, where the file system says.
    pub modified: Option<SystemTime>,
    /// What whoever made it says of it.
    pub known: Option<Known>,
}

/// A hash that was written down when a file was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Whether it may be believed without reading the file. Before a file is sent it is read in any case.
    pub trusted: bool,
}

/// The files of a folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those to send, by name.
    pub items: Vec<Item>,
    /// Hidden names directly in the folder, which are not sent.
    pub hidden: Vec<String>,
    /// What is worth telling.
    pub notes: Vec<String>,
}

/// Lists what of a folder would be sent.
///
/// # Errors
/// `Usage` for what is no folder, links that leave it, and names that a repository cannot have.
pub fn list(folder: &Path, wanted: &Patterns) -> Result<Listing> {
    let root = folder.canonicalize().map_err(|e| Error::io("open", e).file(folder.display()))?;
    if !root.is_dir() {
        return Err(Error::usage("this is not a folder").file(folder.display()));
    }
    let mut walk = Walk { root, wanted, listing: Listing::default() };
    walk.folder(folder, "", 0)?;
    walk.listing.items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(walk.listing)
}

struct Walk<'a> {
    root: PathBuf,
    wanted: &'a Patterns,
    listing: Listing,
}

impl Walk<'_> {
    fn folder(&mut self, dir: &Path, prefix: &str, depth: u32) -> Result<()> {
        if depth > DEEPEST {
            return Err(Error::over_limit("folders nested deeper than are sent").file(prefix));
        }
        let failed = |e| Error::io("list", e).file(dir.display());
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::usage("a name that is not UTF-8 cannot stand in a repository")
                    .file(entry.path().display())
                    .hint("rename the file"));
            };
            if name.starts_with('.') {
                if depth == 0 {
                    self.listing.hidden.push(name);
                }
                continue;
            }
            let inner = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                if !CACHES.contains(&name.as_str()) {
                    self.folder(&entry.path(), &format!("{inner}/"), depth + 1)?;
                }
            } else if self.wanted.takes(&inner) {
                self.file(&entry.path(), inner, kind.is_symlink())?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: String, is_link: bool) -> Result<()> {
        // Follows links.
        let meta = fs::metadata(path).map_err(|e| Error::io("inspect", e).file(&name))?;
        if is_link && meta.is_dir() {
            self.listing.notes.push(format!("{name} is a link to a folder and is not sent"));
            return Ok(());
        }
        if !meta.is_file() {
            return Err(Error::usage("this is no regular file")
                .file(&name)
                .hint("leave it out with --exclude"));
        }
        if is_link && self.leaves(path) {
            return Err(Error::usage("a link that leads out of the folder is not followed")
                .file(&name)
                .hint("put the file itself there, or leave it out with --exclude"));
        }
        if name.chars().any(char::is_control) {
            return Err(Error::usage(format!("{name:?} holds control characters")).hint("rename the file"));
        }
        if self.listing.items.len() == MOST {
            return Err(
                Error::over_limit(format!("more than {MOST} files")).hint("leave some out with --exclude")
            );
        }
        self.listing.items.push(Item {
            name,
            path: path.to_owned(),
            size: meta.len(),
            modified: meta.modified().ok(),
            known: None,
        });
        Ok(())
    }

    /// Whether a link leads out of the folder. Snapshots of download caches are links to `blobs` beside them.
    fn leaves(&self, link: &Path) -> bool {
        let Ok(target) = link.canonicalize() else { return true };
        let is_cache = |p: &&Path| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("models--"));
        let blobs = self.root.ancestors().find(is_cache).map(|p| p.join("blobs"));
        !target.starts_with(&self.root) && !blobs.is_some_and(|b| target.starts_with(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::ErrorKind;

    fn names(folder: &Path, wanted: &Patterns) -> Vec<String> {
        list(folder, wanted).unwrap().items.into_iter().map(|i| i.name).collect()
    }

    #[test]
    fn hidden_names_and_caches_stay_here() {
        let tmp = tempfile::tempdir().unwrap();
        for name in [
            "b.gguf",
            "a.json",
            ".run.tensormill-journal",
            ".git/HEAD",
            "sub/x.bin",
            "sub/.DS_Store",
            "__pycache__/m",
        ] {
            let path = tmp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        assert_eq!(names(tmp.path(), &Patterns::default()), ["a.json", "b.gguf", "sub/x.bin"]);
        let mut hidden = list(tmp.path(), &Patterns::default()).unwrap().hidden;
        hidden.sort();
        assert_eq!(hidden, [".git", ".run.tensormill-journal"]);
    }

    #[test]
    fn links_are_followed_inside_only() {
        let (tmp, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(tmp.path().join("a"), "1").unwrap();
        fs::write(other.path().join("secret"), "2").unwrap();
        std::os::unix::fs::symlink("a", tmp.path().join("b")).unwrap();
        assert_eq!(names(tmp.path(), &Patterns::default()), ["a", "b"]);
        std::os::unix::fs::symlink(other.path().join("secret"), tmp.path().join("c")).unwrap();
        let e = list(tmp.path(), &Patterns::default()).unwrap_err();
        assert_eq!((e.kind(), e.file_name()), (ErrorKind::Usage, Some("c")));
        let without = Patterns::new(&[], &["c".to_owned()]);
        assert_eq!(names(tmp.path(), &without), ["a", "b"]);
    }

    #[test]
    fn snapshots_of_a_cache_are_links_to_its_blobs() {
        let tmp = tempfile::tempdir().unwrap();
        let cache = tmp.path().join("models--org--name");
        let snapshot = cache.join("snapshots/abc");
        fs::create_dir_all(cache.join("blobs")).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(cache.join("blobs/123"), "{}").unwrap();
        std::os::unix::fs::symlink("../../blobs/123", snapshot.join("config.json")).unwrap();
        assert_eq!(names(&snapshot, &Patterns::default()), ["config.json"]);
    }
}

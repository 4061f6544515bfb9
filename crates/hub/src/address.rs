//! What people write for a model on the Hub: `org/model`, `org/model@revision`, `hf://org/model@revision/folder/file`.
//!
//! An address says nothing about whether a local path of the same name exists: who takes both decides by the `hf://`.

use crate::json::shown;
use std::{fmt, str::FromStr};
use tensormill_model::{Error, Result};

/// The scheme that makes an address unmistakable.
pub const SCHEME: &str = "hf://";

/// The branch that is meant where nobody names one.
pub const MAIN: &str = "main";

/// A model's repository, perhaps at a revision, perhaps a file or folder in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    /// `org/model`, or `model` for the few that have no owner.
    pub repo: String,
    /// Branch, tag, `refs/pr/N` or commit; `None` is the main branch.
    pub revision: Option<String>,
    /// A file or folder in the repository, with slashes.
    pub path: Option<String>,
}

impl Address {
    /// A repository's main branch.
    ///
    /// # Errors
    /// `Usage` where no repository can have that name.
    pub fn new(repo: impl Into<String>) -> Result<Self> {
        let repo = repo.into();
        check_repo(&repo)?;
        Ok(Self { repo, revision: None, path: None })
    }

    /// The same at a revision.
    ///
    /// # Errors
    /// `Usage` where no revision can have that name.
    pub fn at(self, revision: impl Into<String>) -> Result<Self> {
        let revision = revision.into();
        check_revision(&revision)?;
        Ok(Self { revision: Some(revision), ..self })
    }

    /// Whether text is an address and cannot be a path: it begins with `hf://`.
    pub fn is_url(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|s| s.eq_ignore_ascii_case(SCHEME))
    }

    /// The revision that is asked for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The commit, where the revision is one: 40 hexadecimal digits.
    pub fn commit(&self) -> Option<&str> {
        self.revision.as_deref().filter(|r| is_commit(r))
    }

    /// The repository's own name, without its owner.
    pub fn name(&self) -> &str {
        self.repo.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if let Some(revision) = &self.revision {
            if revision.strip_prefix("refs/").is_some_and(|tail| tail.matches('/').count() == 1) {
                write!(f, "@{revision}")?;
            } else {
                write!(f, "@{}", revision.replace('/', "%2F"))?;
            }
        }
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("{text:?} is no model on the Hub: {why}"))
                .hint("write org/model, org/model@revision, or hf://org/model@revision/file")
        };
        let body = if Self::is_url(text) { &text[SCHEME.len()..] } else { text };
        let body = body.strip_prefix("models/").unwrap_or(body).trim_end_matches('/');
        for other in ["datasets/", "spaces/", "kernels/", "buckets/"] {
            if body.starts_with(other) {
                return Err(wrong("only repositories of models are read"));
            }
        }
        let (front, back) = match body.split_once('@') {
            Some((front, back)) => (front, Some(back)),
            None => (body, None),
        };
        let mut parts = front.splitn(3, '/');
        let owner = parts.next().unwrap_or_default();
        let repo = match parts.next() {
            Some(name) => format!("{owner}/{name}"),
            None => owner.to_owned(),
        };
        let mut path = parts.next().map(str::to_owned);
        let mut revision = None;
        if let Some(back) = back {
            if path.is_some() {
                return Err(wrong("the revision stands behind the repository's name, before the file"));
            }
            // Names of branches may hold slashes; an address takes them from the encoded form, or from `refs/`.
            let (name, rest) = match back.strip_prefix("refs/") {
                Some(tail) => {
                    let mut at = tail.match_indices('/').map(|(i, _)| "refs/".len() + i).skip(1);
                    at.next().map_or((back, None), |end| (&back[..end], Some(&back[end + 1..])))
                }
                None => back.split_once('/').map_or((back, None), |(name, rest)| (name, Some(rest))),
            };
            let name = name.replace("%2F", "/").replace("%2f", "/");
            check_revision(&name)?;
            revision = Some(name);
            path = rest.map(str::to_owned);
        }
        check_repo(&repo).map_err(|e| wrong(e.message()))?;
        if let Some(path) = &path {
            check_path(path).map_err(|e| wrong(e.message()))?;
        }
        Ok(Self { repo, revision, path })
    }
}

/// Whether a revision is a full commit hash.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The rules of the Hub for names of repositories, so that a typing error is no request.
fn check_repo(repo: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::usage(format!("{repo:?}: {why}")));
    if repo.is_empty() || repo.len() > 96 {
        return bad("a name has 1 to 96 characters");
    }
    if repo.matches('/').count() > 1 {
        return bad("a name has one owner and one name");
    }
    if repo.contains("--") || repo.contains("..") || repo.strip_suffix(".git").is_some() {
        return bad("a name holds neither -- nor .. and does not end in .git");
    }
    for part in repo.split('/') {
        let edge = |b: Option<u8>| b.is_none_or(|b| matches!(b, b'-' | b'.'));
        let allowed = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !allowed || edge(part.bytes().next()) || edge(part.bytes().next_back()) {
            return bad("names are letters, digits, - _ and . and neither begin nor end with - or .");
        }
    }
    Ok(())
}

/// A revision becomes a file name in the cache (`refs/NAME`): what Git would refuse never gets there.
fn check_revision(revision: &str) -> Result<()> {
    let part = |p: &str| !p.is_empty() && !p.starts_with('.') && p.strip_suffix(".lock").is_none();
    let plain = revision.bytes().all(|b| b > b' ' && b != 0x7f && !b"~^:?*[\\@{}".contains(&b));
    if plain && revision.len() <= 256 && !revision.contains("..") && revision.split('/').all(part) {
        return Ok(());
    }
    Err(Error::usage(format!("{revision:?} is no name of a branch, tag or commit"))
        .hint("a revision is written behind an @: org/model@main, org/model@v1.0, org/model@<commit>"))
}

/// A file's name in a repository becomes a path below a snapshot: plain relative names only.
pub(crate) fn check_path(path: &str) -> Result<()> {
    let part = |p: &str| !p.is_empty() && p != "." && p != "..";
    let plain = !path.contains(|c: char| c == '\\' || c.is_control()) && path.len() <= 4096;
    if plain && path.split('/').all(part) {
        return Ok(());
    }
    Err(Error::malformed(format!("{:?} is not the name of a file inside a repository", shown(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, Option<String>, Option<String>) {
        let a: Address = text.parse().unwrap();
        (a.repo, a.revision, a.path)
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(parts("org/model"), ("org/model".into(), None, None));
        assert_eq!(parts("gpt2"), ("gpt2".into(), None, None));
        assert_eq!(parts("org/model@v1.0"), ("org/model".into(), some("v1.0"), None));
        assert_eq!(
            parts("hf://org/model@abc/sub/f.bin"),
            ("org/model".into(), some("abc"), some("sub/f.bin"))
        );
        assert_eq!(parts("HF://models/org/model/"), ("org/model".into(), None, None));
        assert_eq!(parts("hf://org/model/a/b.gguf"), ("org/model".into(), None, some("a/b.gguf")));
        assert_eq!(parts("org/m@refs/pr/1"), ("org/m".into(), some("refs/pr/1"), None));
        assert_eq!(parts("org/m@refs/pr/1/f"), ("org/m".into(), some("refs/pr/1"), some("f")));
        assert_eq!(parts("org/m@feature%2Fx/f"), ("org/m".into(), some("feature/x"), some("f")));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["org/model", "org/model@v1", "org/model@refs/pr/7/a/b", "o/m@feature%2Fx/f"] {
            let a: Address = text.parse().unwrap();
            assert_eq!(a.to_string(), text);
        }
    }

    #[test]
    fn names_that_no_repository_has_are_refused() {
        for bad in [
            "",
            "a/b--c",
            "a/..",
            "../a",
            "a/b/../c",
            "-a/b",
            "a/b.",
            "a b/c",
            "org/m.git",
            "datasets/org/x",
            "org/m@",
            "org/m@../x",
            "org/m@a..b",
            "org/m@.x",
            "org/m@a/../b",
            "org/m/f@main",
            "org/m@x y",
            "org/m@a@b",
        ] {
            let e = bad.parse::<Address>().unwrap_err();
            assert_eq!(e.kind(), tensormill_model::ErrorKind::Usage, "{bad:?}");
        }
    }

    #[test]
    fn commits_are_told_from_branches() {
        let a: Address = format!("o/m@{}", "0a".repeat(20)).parse().unwrap();
        assert!(a.commit().is_some());
        assert!("o/m@main".parse::<Address>().unwrap().commit().is_none());
        assert_eq!("o/m".parse::<Address>().unwrap().revision(), "main");
    }
}

//! Files: `/{repo}/resolve/{revision}/{path}`, where the Hub redirects, and what stands at the end of redirects.
//!
//! As the Hub does it: a large file is a redirect to another host whose URL carries a signature, and a small one a redirect within
//! the Hub; what a client wants to know of the file is on the redirect itself.

use super::repo_of;
use crate::{
    http::{Reply, Request},
    repo::{Commit, File, Repo},
    state::State,
};

/// What a signed URL carries here. A real one is another each time; that it is needed is what matters.
const SIGNATURE: &str = "sig=signed";

/// Files, by the Hub.
pub fn route(state: &State, request: &Request) -> Option<Reply> {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return None;
    }
    let segments = request.segments();
    let cached = segments.iter().map(String::as_str).take(3).eq(["api", "resolve-cache", "models"]);
    let (id, rest) = repo_of(state, if cached { &segments[3..] } else { &segments });
    let (revision, path) = match rest {
        [word, revision, path @ ..] if !cached && word == "resolve" => (revision, path.join("/")),
        [revision, path @ ..] if cached => (revision, path.join("/")),
        _ => return None,
    };
    let found = match state.visible(request, &id, true) {
        Ok(repo) => find(&repo, revision, &path).map(|(commit, file)| (commit.clone(), file.clone())),
        Err(reply) => Err(reply),
    };
    let (commit, file) = match found {
        Ok(found) => found,
        Err(reply) => return Some(reply),
    };
    let described = |reply: Reply| {
        reply
            .header("x-repo-commit", &commit.sha)
            .header("x-linked-size", file.content.len().to_string())
            .header("x-linked-etag", format!("\"{}\"", file.etag()))
            .header("etag", format!("\"{}\"", file.etag()))
    };
    Some(described(match &file.sha256 {
        Some(sha256) => Reply::redirect(302, &format!("{}/blobs/{sha256}?{SIGNATURE}", state.cdn())),
        None if cached => Reply::file(request, &file.content),
        None => {
            let path = request
                .path
                .split_once(&format!("/resolve/{}/", encoded(request)))
                .map_or(&*path, |(_, p)| p);
            Reply::redirect(307, &format!("/api/resolve-cache/models/{id}/{}/{path}", commit.sha))
        }
    }))
}

/// The revision as it stands in the path.
fn encoded(request: &Request) -> &str {
    request.path.split_once("/resolve/").and_then(|(_, t)| t.split('/').next()).unwrap_or_default()
}

fn find<'a>(repo: &'a Repo, revision: &str, path: &str) -> Result<(&'a Commit, &'a File), Reply> {
    let commit = repo
        .resolve(revision)
        .ok_or_else(|| Reply::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}")))?;
    let file = commit.files.get(path).ok_or_else(|| {
        Reply::error(404, "EntryNotFound", "Entry not found").header("x-repo-commit", &commit.sha)
    })?;
    Ok((commit, file))
}

/// Files, by the content network: by hash, for whoever has a signed URL.
pub fn content(state: &State, request: &Request) -> Option<Reply> {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return None;
    }
    let hash = request.path.strip_prefix("/blobs/")?;
    if request.param("sig") != Some("signed") {
        return Some(Reply::error(403, "", "Access denied"));
    }
    let repos = state.repos();
    let files = repos.values().flat_map(|r| r.commits.values()).flat_map(|c| c.files.values());
    let file = files.into_iter().find(|f| f.sha256.as_deref() == Some(hash))?;
    Some(Reply::file(request, &file.content).header("etag", format!("\"cdn-{hash}\"")))
}

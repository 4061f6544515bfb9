//! What changes repositories: creating them, uploads, commits, branches, tags and pull requests.

use super::{lfs, repo_of};
use crate::{
    http::{Reply, Request},
    repo::{Content, File, LARGE, LFS, Repo},
    state::State,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

/// What uploads keep between requests, how they are wanted, and what came.
#[derive(Debug, Default)]
pub struct Uploads {
    /// Large files that arrived whole, by SHA-256.
    pub objects: BTreeMap<String, Arc<Vec<u8>>>,
    /// Parts of large files, by SHA-256 and number.
    pub parts: BTreeMap<(String, u64), Vec<u8>>,
    /// Objects larger than this are asked for in parts of so many bytes.
    pub part_bytes: Option<u64>,
    /// Signatures that are no longer good; those that are made get the next number.
    pub expired: u64,
    /// Whether batches are answered with a transfer that only some clients speak.
    pub xet_only: bool,
    /// What the server does to the bytes of the next object, if anything: as a broken disk would.
    pub damage: bool,
    /// Path and body of every request that wrote, for tests that look for what must not be there.
    pub received: Vec<(String, Vec<u8>)>,
}

impl State {
    /// What uploads keep.
    pub fn writing(&self) -> MutexGuard<'_, Uploads> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests to the Hub.
pub fn route(state: &State, request: &Request) -> Option<Reply> {
    if !matches!(request.method.as_str(), "POST" | "PUT") {
        return None;
    }
    state.writing().received.push((request.path.clone(), request.body.clone()));
    let segments = request.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let reply = match parts[..] {
        ["api", "repos", "create"] => create(state, request),
        // What a card's front matter is worth is not judged here.
        ["api", "validate-yaml"] => Ok(Reply::json(200, &json!({ "errors": [], "warnings": [] }))),
        ["api", "complete", _] => lfs::complete(state, request),
        [owner, repo, "info", "lfs", "objects", what] => {
            let id = format!("{owner}/{}", repo.trim_end_matches(".git"));
            lfs::route(state, request, &id, what)
        }
        ["api", "models", ..] => {
            let (id, rest) = repo_of(state, &segments[2..]);
            let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
            match rest[..] {
                ["preupload", revision] => preupload(state, request, &id, revision),
                ["commit", revision] => commit(state, request, &id, revision),
                ["branch", name] => branch(state, request, &id, name),
                ["tag", revision] => tag(state, request, &id, revision),
                ["settings"] => settings(state, request, &id),
                ["discussions"] => pull_request(state, request, &id),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(reply.unwrap_or_else(|reply| reply))
}

/// Bytes sent to the content network.
pub fn upload(state: &State, request: &Request) -> Option<Reply> {
    (request.method == "PUT").then(|| lfs::receive(state, request).unwrap_or_else(|reply| reply))
}

/// Nobody but an owner with the right token writes.
pub(super) fn may_write(state: &State, request: &Request, id: &str) -> Result<(), Reply> {
    let owner = id.split('/').next().unwrap_or_default();
    match state.who(request)? {
        None => Err(Reply::error(401, "", "Invalid username or password.")),
        Some(user) if user.writes && user.owns(owner) => {
            if state.repos().contains_key(id) || request.path.ends_with("/create") {
                Ok(())
            } else {
                Err(Reply::error(404, "RepoNotFound", "Repository not found"))
            }
        }
        Some(_) => Err(Reply::error(403, "", "You don't have the rights to write to this repository")),
    }
}

/// The document that a request is.
pub(super) fn document(request: &Request) -> Result<Value, Reply> {
    serde_json::from_slice(&request.body).map_err(|e| Reply::error(400, "", &format!("no JSON: {e}")))
}

fn missing(revision: &str) -> Reply {
    Reply::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}"))
}

/// Does something to a repository.
fn with<T>(state: &State, id: &str, change: impl FnOnce(&mut Repo) -> Result<T, Reply>) -> Result<T, Reply> {
    let mut repos = state.repos();
    change(repos.get_mut(id).ok_or_else(|| Reply::error(404, "RepoNotFound", "Repository not found"))?)
}

fn is_private(body: &Value) -> Option<bool> {
    body["visibility"].as_str().map(|v| v == "private").or_else(|| body["private"].as_bool())
}

fn create(state: &State, request: &Request) -> Result<Reply, Reply> {
    let body = document(request)?;
    let user = state.who(request)?.map(|u| u.name).unwrap_or_default();
    let owner = body["organization"].as_str().unwrap_or(&user);
    let id = format!("{owner}/{}", body["name"].as_str().unwrap_or_default());
    may_write(state, request, &id)?;
    let answer = json!({ "id": id, "name": id, "url": format!("{}/{id}", state.hub()) });
    if state.repos().contains_key(&id) {
        let mut reply = Reply::json(409, &answer);
        reply.headers.push(("x-error-message".to_owned(), "You already created this model repo".to_owned()));
        return Ok(reply);
    }
    let mut repo = Repo::new(&id).file(".gitattributes", b"*.bin filter=lfs diff=lfs merge=lfs -text\n");
    repo.private = is_private(&body).unwrap_or(false);
    state.add(repo);
    Ok(Reply::json(200, &answer))
}

fn settings(state: &State, request: &Request, id: &str) -> Result<Reply, Reply> {
    may_write(state, request, id)?;
    let private = is_private(&document(request)?);
    with(state, id, |repo| {
        repo.private = private.unwrap_or(repo.private);
        Ok(Reply::json(200, &json!({ "private": repo.private })))
    })
}

/// How files are wanted. Who opens a pull request need not own the repository.
fn preupload(state: &State, request: &Request, id: &str, revision: &str) -> Result<Reply, Reply> {
    if request.param("create_pr").is_none() {
        may_write(state, request, id)?;
    }
    let body = document(request)?;
    let listed = body["files"].as_array().cloned().unwrap_or_default();
    if listed.len() > 256 {
        return Err(Reply::error(400, "", "too many files"));
    }
    with(state, id, |repo| {
        let commit = repo.resolve(revision).ok_or_else(|| missing(revision))?;
        let ignored = commit.files.get(".gitignore").and_then(|f| f.content.bytes().ok()).unwrap_or_default();
        let ignored = String::from_utf8_lossy(&ignored).into_owned();
        let one = |file: &Value| {
            let path = file["path"].as_str().unwrap_or_default();
            let sample = decode(file["sample"].as_str().unwrap_or_default()).unwrap_or_default();
            let suffix = path.rsplit_once('.').map_or("", |(_, s)| s);
            let large = file["size"].as_u64().unwrap_or(0) >= LARGE;
            let mode = large || LFS.contains(&suffix) || sample.contains(&0);
            let should_ignore = ignored.lines().any(|l| l == path || l.strip_prefix("*.") == Some(suffix));
            json!({
                "path": path,
                "uploadMode": if mode { "lfs" } else { "regular" },
                "shouldIgnore": should_ignore,
                "oid": commit.files.get(path).map(File::etag),
            })
        };
        Ok(Reply::json(200, &json!({ "files": listed.iter().map(one).collect::<Vec<_>>() })))
    })
}

fn commit(state: &State, request: &Request, id: &str, revision: &str) -> Result<Reply, Reply> {
    may_write(state, request, id)?;
    if request.header("content-type") != Some("application/x-ndjson") {
        return Err(Reply::error(400, "", "a commit is application/x-ndjson"));
    }
    let bad = |what: String| Reply::error(400, "", &what);
    let text = String::from_utf8(request.body.clone()).map_err(|e| bad(e.to_string()))?;
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).map_err(|e| bad(e.to_string())))
        .collect::<Result<_, _>>()?;
    let Some((header, operations)) = lines.split_first().filter(|(h, _)| h["key"] == "header") else {
        return Err(bad("the first line is no header".to_owned()));
    };
    let title = header["value"]["summary"].as_str().filter(|s| !s.is_empty());
    let title = title.ok_or_else(|| bad("a commit needs a summary".to_owned()))?.to_owned();
    let files = operations.iter().map(|o| operation(state, o)).collect::<Result<Vec<_>, _>>()?;
    let hub = state.hub().to_owned();
    with(state, id, |repo| {
        let head = repo.branches.get(revision).cloned().ok_or_else(|| missing(revision))?;
        if let Some(parent) = header["value"]["parentCommit"].as_str()
            && !head.starts_with(parent)
        {
            let text = "A commit has happened since. Please refresh and try again.";
            return Err(Reply::error(412, "", text));
        }
        let gone = files.iter().filter(|(_, f)| f.is_none()).map(|(path, _)| path);
        for path in gone {
            if !repo.commits[&head].files.contains_key(path) {
                return Err(Reply::error(404, "EntryNotFound", "A file with this name doesn't exist"));
            }
        }
        let oid = repo.commit(revision, &title, |tree| {
            for (path, file) in files {
                match file {
                    Some(file) => drop(tree.insert(path, file)),
                    None => drop(tree.remove(&path)),
                }
            }
        });
        let url = format!("{hub}/{id}/commit/{oid}");
        Ok(Reply::json(
            200,
            &json!({ "success": true, "commitOid": oid, "commitUrl": url, "hookOutput": "" }),
        ))
    })
}

/// The file that a line adds, or `None` where it goes.
fn operation(state: &State, line: &Value) -> Result<(String, Option<File>), Reply> {
    let value = &line["value"];
    let bad = |what: &str| Reply::error(400, "", what);
    let path = value["path"].as_str().ok_or_else(|| bad("no path"))?.to_owned();
    let memory = |bytes: Arc<Vec<u8>>| Content::Memory(bytes);
    let read = |file: std::io::Result<File>| file.map(Some).map_err(|e| bad(&e.to_string()));
    let file = match line["key"].as_str() {
        Some("file") => {
            let bytes =
                decode(value["content"].as_str().unwrap_or_default()).ok_or_else(|| bad("no base64"))?;
            read(File::plain(memory(Arc::new(bytes))))?
        }
        Some("lfsFile") => {
            let oid = value["oid"].as_str().unwrap_or_default();
            let content = lfs::stored(state, oid).ok_or_else(|| bad("the LFS object was not uploaded"))?;
            if value["algo"] != "sha256" || value["size"].as_u64().is_some_and(|n| n != content.len()) {
                return Err(bad("the LFS object is another"));
            }
            read(File::lfs(content))?
        }
        Some("deletedFile") => None,
        _ => return Err(bad("an operation that this server does not know")),
    };
    Ok((path, file))
}

fn branch(state: &State, request: &Request, id: &str, name: &str) -> Result<Reply, Reply> {
    may_write(state, request, id)?;
    let body = document(request)?;
    let start = body["startingPoint"].as_str().unwrap_or("main").to_owned();
    with(state, id, |repo| {
        if repo.branches.contains_key(name) {
            return Err(Reply::error(409, "", "Reference already exists"));
        }
        let sha = repo.resolve(&start).ok_or_else(|| missing(&start))?.sha.clone();
        repo.branches.insert(name.to_owned(), sha);
        Ok(Reply::json(200, &json!({})))
    })
}

fn tag(state: &State, request: &Request, id: &str, revision: &str) -> Result<Reply, Reply> {
    may_write(state, request, id)?;
    let body = document(request)?;
    let name = body["tag"].as_str().unwrap_or_default().to_owned();
    with(state, id, |repo| {
        if repo.tags.contains_key(&name) {
            return Err(Reply::error(409, "", "Tag reference exists already"));
        }
        let sha = repo.resolve(revision).ok_or_else(|| missing(revision))?.sha.clone();
        repo.tags.insert(name, sha);
        Ok(Reply::json(200, &json!({})))
    })
}

fn pull_request(state: &State, request: &Request, id: &str) -> Result<Reply, Reply> {
    may_write(state, request, id)?;
    let url = format!("{}/{id}/discussions", state.hub());
    with(state, id, |repo| {
        let number = 1 + repo.branches.keys().filter(|b| b.starts_with("refs/pr/")).count();
        let head = repo.head().sha.clone();
        repo.branches.insert(format!("refs/pr/{number}"), head);
        Ok(Reply::json(200, &json!({ "num": number, "url": format!("{url}/{number}"), "pullRequest": true })))
    })
}

/// Bytes of base64 text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

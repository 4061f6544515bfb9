//! Who asks, what a repository is, and which files it has.

use super::repo_of;
use crate::{
    http::{Reply, Request, encode},
    repo::{Commit, File, Repo},
    state::State,
};
use serde_json::{Value, json};

/// Entries of a tree on one page, where nobody says otherwise.
const PAGE: usize = 1000;

/// `GET /api/whoami-v2`, `/api/models/{id}`, `.../revision/{rev}`, `.../tree/{rev}[/{folder}]`, `.../refs`.
pub fn route(state: &State, request: &Request) -> Option<Reply> {
    let segments = request.segments();
    match segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["api", "whoami-v2"] => return Some(whoami(state, request)),
        ["api", "models", _, ..] if matches!(request.method.as_str(), "GET" | "HEAD") => {}
        _ => return None,
    }
    let (id, rest) = repo_of(state, &segments[2..]);
    let repo = match state.visible(request, &id, false) {
        Ok(repo) => repo,
        Err(reply) => return Some(reply),
    };
    let at = |revision: &str| {
        repo.resolve(revision)
            .ok_or_else(|| Reply::error(404, "RevisionNotFound", &format!("Invalid rev id: {revision}")))
    };
    let reply = match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(info(&repo, repo.head(), request)),
        ["revision", revision] => at(revision).map(|commit| info(&repo, commit, request)),
        ["tree", revision, ref folder @ ..] => {
            at(revision).map(|c| tree(state, c, &folder.join("/"), request))
        }
        ["refs"] => Ok(refs(&repo)),
        _ => return None,
    };
    Some(reply.unwrap_or_else(|reply| reply))
}

fn whoami(state: &State, request: &Request) -> Reply {
    match state.who(request) {
        Err(reply) => reply,
        Ok(None) => Reply::error(401, "", "Invalid username or password."),
        Ok(Some(user)) => {
            let orgs: Vec<Value> = user.orgs.iter().map(|o| json!({ "type": "org", "name": o })).collect();
            let role = if user.writes { "write" } else { "read" };
            Reply::json(
                200,
                &json!({
                    "type": "user", "name": user.name, "orgs": orgs,
                    "auth": { "type": "access_token", "accessToken": { "displayName": "test", "role": role } },
                }),
            )
        }
    }
}

/// What the API says of a repository at a commit.
pub fn describe(repo: &Repo, commit: &Commit) -> serde_json::Map<String, Value> {
    let mut out = serde_json::Map::new();
    let mut put = |key: &str, value: Value| drop(out.insert(key.to_owned(), value));
    put("id", json!(repo.id));
    put("modelId", json!(repo.id));
    put("author", json!(repo.owner()));
    put("sha", json!(commit.sha));
    put("private", json!(repo.private));
    put("disabled", json!(false));
    put("gated", repo.gated.map_or(json!(false), |how| json!(how)));
    put("lastModified", json!("2026-01-01T00:00:00.000Z"));
    put("tags", json!([]));
    put("downloads", json!(0));
    put("likes", json!(0));
    for (key, value) in &repo.meta {
        put(key, value.clone());
    }
    out
}

fn info(repo: &Repo, commit: &Commit, request: &Request) -> Reply {
    let mut out = describe(repo, commit);
    let blobs = request.is_set("blobs");
    let sibling = |(path, file): (&String, &File)| {
        let mut one = json!({ "rfilename": path });
        if blobs {
            one["size"] = json!(file.content.len());
            one["blobId"] = json!(file.oid);
            if let Some(lfs) = lfs(file) {
                one["lfs"] = lfs;
                one["lfs"]["sha256"] = json!(file.sha256);
            }
        }
        one
    };
    out.insert("siblings".to_owned(), commit.files.iter().map(sibling).collect());
    Reply::json(200, &Value::Object(out))
}

fn lfs(file: &File) -> Option<Value> {
    let sha256 = file.sha256.as_ref()?;
    Some(json!({ "oid": sha256, "size": file.content.len(), "pointerSize": 134 }))
}

fn tree(state: &State, commit: &Commit, folder: &str, request: &Request) -> Reply {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut entries: Vec<Value> = Vec::new();
    let mut folders: Vec<String> = Vec::new();
    for (path, file) in &commit.files {
        let Some(inner) = path.strip_prefix(&prefix) else { continue };
        let parts: Vec<&str> = inner.split('/').collect();
        // Each folder once, where its first file stands.
        for depth in 1..parts.len() {
            let name = format!("{prefix}{}", parts[..depth].join("/"));
            if (depth == 1 || request.is_set("recursive")) && !folders.contains(&name) {
                entries.push(json!({ "type": "directory", "oid": "0".repeat(40), "size": 0, "path": name }));
                folders.push(name);
            }
        }
        if parts.len() > 1 && !request.is_set("recursive") {
            continue;
        }
        let mut one = json!({ "type": "file", "oid": file.oid, "size": file.content.len(), "path": path });
        if let Some(lfs) = lfs(file) {
            one["lfs"] = lfs;
        }
        entries.push(one);
    }
    if entries.is_empty() && !folder.is_empty() {
        return Reply::error(404, "EntryNotFound", &format!("{folder} does not exist on \"{}\"", commit.sha));
    }
    page(state, request, &entries, PAGE)
}

/// A page of entries, with a link to the next.
pub(crate) fn page(state: &State, request: &Request, entries: &[Value], default: usize) -> Reply {
    let fixed = *state.page.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let asked = request.param("limit").and_then(|l| l.parse().ok());
    let size = fixed.unwrap_or(default).min(asked.unwrap_or(usize::MAX)).max(1);
    let start: usize = request.param("cursor").and_then(|c| c.parse().ok()).unwrap_or(0).min(entries.len());
    let end = (start + size).min(entries.len());
    let reply = Reply::json(200, &Value::Array(entries[start..end].to_vec()));
    if end == entries.len() {
        return reply;
    }
    let kept = request.query.iter().filter(|(k, _)| k != "cursor").map(|(k, v)| format!("{k}={}", encode(v)));
    let query: Vec<String> = kept.chain([format!("cursor={end}")]).collect();
    reply.header("link", format!("<{}{}?{}>; rel=\"next\"", state.hub(), request.path, query.join("&")))
}

fn refs(repo: &Repo) -> Reply {
    let list = |names: &std::collections::BTreeMap<String, String>, kind: &str| -> Value {
        let one = |(name, sha): (&String, &String)| json!({ "name": name, "ref": format!("refs/{kind}/{name}"), "targetCommit": sha });
        // Pull requests are branches, too, but not listed among them.
        names.iter().filter(|(name, _)| !name.starts_with("refs/")).map(one).collect()
    };
    Reply::json(
        200,
        &json!({ "branches": list(&repo.branches, "heads"), "tags": list(&repo.tags, "tags"), "converts": [] }),
    )
}

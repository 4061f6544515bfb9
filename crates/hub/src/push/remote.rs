//! What a repository holds, and changes to it that are no commits: creating it, its visibility, branches, tags and pull
//! requests.

use super::wire::{Wire, value};
use crate::{Address, Info, Snapshot, client::Request, url::encode};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use tensormill_model::{Error, Result};

/// Who sees a repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Its owners.
    Private,
    /// Everybody.
    Public,
}

impl Visibility {
    /// As the Hub writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

/// Branches and tags, with the commits that they are.
#[derive(Debug, Default)]
pub struct Refs {
    pub branches: HashMap<String, String>,
    pub tags: HashMap<String, String>,
}

/// Who sees the repository; `None` where there is none, as far as the token can see.
pub fn visibility(wire: Wire<'_>) -> Result<Option<Visibility>> {
    let answer = wire.get(wire.api("")?, &[401, 404])?;
    let absent = answer.status() == 404 || answer.header("x-error-code") == Some("RepoNotFound");
    match answer.status() {
        200..300 => {
            let info: Info = serde_json::from_value(value(answer)?).map_err(|e| {
                Error::malformed(format!("what the server says of {} makes no sense: {e}", wire.repo()))
            })?;
            Ok(Some(if info.private { Visibility::Private } else { Visibility::Public }))
        }
        _ if absent => Ok(None),
        _ => Err(wire.error(answer)),
    }
}

/// Creates it.
pub fn create(wire: Wire<'_>, visibility: Visibility) -> Result<()> {
    let (organization, name) = wire.repo().split_once('/').unwrap_or(("", wire.repo()));
    let body = json!({
        "name": name, "organization": organization, "type": "model", "visibility": visibility.text(),
    });
    let may = format!("may this token create repositories of {organization}?");
    let answer = wire.post(wire.url("/api/repos/create")?, &body, &[402, 403, 409])?;
    match answer.status() {
        // Somebody was faster, or the answer to an earlier try got lost: what counts is that it is there.
        409 if self::visibility(wire)?.is_some() => Ok(()),
        402 | 403 | 409 => Err(wire.error(answer).context("the repository cannot be created").also_hint(may)),
        _ => Ok(()),
    }
}

/// Changes who sees it.
pub fn set_visibility(wire: Wire<'_>, visibility: Visibility) -> Result<()> {
    let body = json!({ "visibility": visibility.text() });
    let failed = |e: Error| e.context(format!("the repository cannot be made {}", visibility.text()));
    wire.put(wire.api("/settings")?, &body).map(drop).map_err(failed)
}

/// The commit that a branch, tag or commit is; `None` where there is no such thing, or nothing on it yet.
pub fn head(wire: Wire<'_>, revision: &str) -> Result<Option<String>> {
    let answer = wire.get(wire.api_at("revision", revision)?, &[404])?;
    if answer.status() == 404 {
        return Ok(None);
    }
    Ok(value(answer)?["sha"].as_str().map(str::to_owned))
}

/// Its branches and tags.
pub fn refs(wire: Wire<'_>) -> Result<Refs> {
    let value = value(wire.get(wire.api("/refs")?, &[])?)?;
    let of = |key: &str| {
        let each = value[key].as_array().into_iter().flatten();
        let pair = |r: &Value| Some((r["name"].as_str()?.to_owned(), r["targetCommit"].as_str()?.to_owned()));
        each.filter_map(pair).collect()
    };
    Ok(Refs { branches: of("branches"), tags: of("tags") })
}

/// All files of a commit.
pub fn tree(wire: Wire<'_>, commit: &str) -> Result<Snapshot> {
    wire.hub.model(&Address::new(wire.repo())?.at(commit)?)
}

/// Makes a branch that starts at a commit; one of that name may be there already.
pub fn create_branch(wire: Wire<'_>, name: &str, start: Option<&str>) -> Result<()> {
    let body = start.map_or_else(|| json!({}), |start| json!({ "startingPoint": start }));
    let failed = |e: Error| e.context(format!("the branch {name} cannot be made"));
    wire.post(wire.api_at("branch", name)?, &body, &[409]).map(drop).map_err(failed)
}

/// Gives a commit a name that stays.
pub fn create_tag(wire: Wire<'_>, tag: &str, commit: &str, message: &str) -> Result<()> {
    let body = json!({ "tag": tag, "message": message });
    let failed = |e: Error| e.context(format!("the tag {tag} cannot be made"));
    let answer = wire.post(wire.api_at("tag", commit)?, &body, &[409]).map_err(failed)?;
    // An earlier try's answer may have got lost.
    if answer.status() == 409 && refs(wire)?.tags.get(tag).is_none_or(|c| c != commit) {
        return Err(taken(tag));
    }
    Ok(())
}

/// The error of a tag that stands at something else.
pub fn taken(tag: &str) -> Error {
    Error::usage(format!("the tag {tag} stands at another commit already"))
        .hint("tags stay where they are: choose another name, or delete that tag on the Hub first")
}

/// Opens a pull request; gives its number.
pub fn create_pull_request(wire: Wire<'_>, title: &str, description: &str) -> Result<u64> {
    let body = json!({ "title": title, "description": description, "pullRequest": true }).to_string();
    // Sent twice, it would be opened twice.
    let payload = crate::client::Payload::Bytes(body.as_bytes(), super::wire::JSON);
    let request = Request::post(wire.api("/discussions")?, payload).once().about(wire.about());
    let failed = |e: Error| e.context("the pull request cannot be opened");
    let answer = value(wire.hub.client().send(&request).map_err(failed)?)?;
    answer["num"].as_u64().ok_or_else(|| Error::malformed("the server gave the pull request no number"))
}

/// How the server wants a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Its bytes in the commit.
    Regular,
    /// Its bytes by LFS, before the commit.
    Lfs,
    /// Not at all: the repository's `.gitignore` names it.
    Ignored,
}

/// Bytes of a file's beginning that the server looks at.
pub const SAMPLE: usize = 512;

/// Asks how the server wants files: name, size, and the beginning of each in base64.
pub fn modes(
    wire: Wire<'_>,
    revision: &str,
    pull_request: bool,
    files: &[(String, u64, String)],
) -> Result<Vec<Mode>> {
    let pr = if pull_request { "?create_pr=1" } else { "" };
    let url = wire.api(&format!("/preupload/{}{pr}", encode(revision)))?;
    let mut modes = Vec::with_capacity(files.len());
    for some in files.chunks(super::lfs::BATCH) {
        let listed: Vec<Value> = some
            .iter()
            .map(|(path, size, sample)| json!({ "path": path, "size": size, "sample": sample }))
            .collect();
        let failed = |e: Error| e.context("the server does not say how files are to be sent");
        let answer = value(wire.post(url.clone(), &json!({ "files": listed }), &[]).map_err(failed)?)?;
        let answers: HashMap<&str, &Value> = answer["files"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|f| Some((f["path"].as_str()?, f)))
            .collect();
        for (path, size, _) in some {
            let answer = answers.get(path.as_str());
            let mode = match (answer.and_then(|a| a["uploadMode"].as_str()), size) {
                _ if answer.is_some_and(|a| a["shouldIgnore"] == true) => Mode::Ignored,
                // Storages refuse objects without bytes.
                (Some("lfs"), 0) | (Some("regular"), _) => Mode::Regular,
                (Some("lfs"), _) => Mode::Lfs,
                _ => {
                    return Err(Error::malformed("the server does not say how it wants this file").file(path));
                }
            };
            modes.push(mode);
        }
    }
    Ok(modes)
}

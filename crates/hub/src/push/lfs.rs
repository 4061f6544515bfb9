//! Uploading what LFS holds: which objects are missing, their bytes, and the server's own check of them.
//!
//! Git LFS' batch API, with the transfers `basic` (one `PUT`) and the Hub's `multipart` (a `PUT` for each part, and a
//! completion). Addresses of uploads are signed; the token goes to the Hub's own host alone.

use super::{
    body::{self, Range, Sending},
    wire::{PATIENCE, Wire, value},
};
use crate::{
    client::{Payload, Request, Response},
    json::shown,
};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    io::Read,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use tensormill_model::{Error, Result};

/// What batch requests and completions are written in.
const MEDIA: &str = "application/vnd.git-lfs+json";

/// Objects that are asked for in one request.
pub const BATCH: usize = 256;

/// Signed addresses run out; so many new ones are asked for.
const NEW_ADDRESSES: usize = 3;

/// Parts of one object, at most: as storages have it.
const MOST_PARTS: u64 = 10_000;

/// Answers that say that an address is no longer good, and that what arrived is not what was announced.
const EXPIRED: [u16; 3] = [401, 403, 410];
const DAMAGED: [u16; 4] = [400, 409, 412, 422];
const ANSWERS: [u16; 7] = [400, 401, 403, 409, 410, 412, 422];

const ODD: &str = "is HF_ENDPOINT the address of a Hub?";

/// An object to upload.
#[derive(Clone, Debug)]
pub struct Object {
    /// For messages.
    pub name: String,
    pub path: PathBuf,
    pub sha256: String,
    pub size: u64,
}

/// What the server wants done with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It has it.
    Nothing,
    /// It goes to these addresses.
    Upload { upload: Action, verify: Option<Action> },
}

/// An address, and what else is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    href: String,
    header: Map<String, Value>,
}

/// Asks about at most [`BATCH`] objects; one answer each, in their order.
pub fn batch(wire: Wire<'_>, revision: Option<&str>, objects: &[Object]) -> Result<Vec<Wanted>> {
    let listed: Vec<Value> = objects.iter().map(|o| json!({ "oid": o.sha256, "size": o.size })).collect();
    let mut request = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": listed,
        "hash_algo": "sha256",
    });
    if let Some(revision) = revision {
        request["ref"] = json!({ "name": revision });
    }
    let url = wire.url(&format!("/{}.git/info/lfs/objects/batch", wire.repo()))?;
    let answer = value(wire.post_as(url, &request, MEDIA, &[])?)?;
    let token = wire.hub.client().token();
    let redacted = |said: &str| token.map_or(said.to_owned(), |t| t.redact(said));
    understand(&answer, objects.iter().map(|o| (&*o.sha256, &*o.name)), &redacted)
}

/// What an answer says of objects, by SHA-256 and name. What a server says goes through `redacted` before it is repeated.
pub fn understand<'o>(
    answer: &Value,
    objects: impl Iterator<Item = (&'o str, &'o str)>,
    redacted: &dyn Fn(&str) -> String,
) -> Result<Vec<Wanted>> {
    let odd = || Error::malformed("the server's answer about objects makes no sense").hint(ODD);
    if let Some(other) = answer["transfer"].as_str().filter(|t| !["basic", "multipart"].contains(t)) {
        return Err(only(&shown(&redacted(other))));
    }
    let answers = answer["objects"].as_array().ok_or_else(odd)?;
    // Whoever answers for one object twice is taken at the first word.
    let by_sha256: HashMap<&str, &Value> =
        answers.iter().rev().filter_map(|a| Some((a["oid"].as_str()?, a))).collect();
    let one = |sha256: &str| {
        let of = *by_sha256.get(sha256).ok_or_else(odd)?;
        if let Some(error) = of.get("error") {
            let said = error["message"].as_str().unwrap_or("no reason was given");
            return Err(Error::unsupported(format!(
                "the server does not take it: {}",
                shown(&redacted(said))
            )));
        }
        let Some(upload) = of.get("actions").and_then(|a| a.get("upload")) else {
            return Ok(Wanted::Nothing);
        };
        let upload = action(upload).ok_or_else(odd)?;
        let verify = of["actions"].get("verify").map(|v| action(v).ok_or_else(odd)).transpose()?;
        Ok(Wanted::Upload { upload, verify })
    };
    objects.map(|(sha256, name)| one(sha256).map_err(|e| e.file(name))).collect()
}

/// The transfer is one that we do not speak.
fn only(transfer: &str) -> Error {
    Error::unsupported(format!("the server takes large files by {transfer:?} only, and not by plain LFS"))
        .hint("upload this folder with `hf upload` (Python's huggingface_hub with hf_xet), which speaks it")
}

fn action(value: &Value) -> Option<Action> {
    let href = value["href"].as_str()?.to_owned();
    let header = match value.get("header") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(header)) => header.clone(),
        Some(_) => return None,
    };
    Some(Action { href, header })
}

/// Uploads one object as `wanted` says; `false` where there was nothing to do. `advanced` hears of bytes that are on their
/// way, and may stop it; bytes that have to be sent again are heard of once.
pub fn upload(
    wire: Wire<'_>,
    revision: Option<&str>,
    object: &Object,
    mut wanted: Wanted,
    advanced: &(dyn Fn(u64) -> Result<()> + Sync),
) -> Result<bool> {
    let told = AtomicU64::new(0);
    let mut tries = 0;
    loop {
        let Wanted::Upload { upload, verify } = &wanted else { return Ok(tries > 0) };
        let transfer = Transfer { wire, object, told: &told, advanced };
        let sent = transfer.send(upload).and_then(|sent| match (sent, verify) {
            (None, Some(verify)) => transfer.check(verify).map(|()| None),
            (sent, _) => Ok(sent),
        });
        match sent.map_err(|e| e.file(&object.name))? {
            None => return Ok(true),
            Some(expired) if tries == NEW_ADDRESSES => {
                return Err(transfer.error(expired));
            }
            Some(_) => {}
        }
        tries += 1;
        tracing::debug!(file = object.name, "asking for a new address");
        wanted = batch(wire, revision, std::slice::from_ref(object))?.swap_remove(0);
    }
}

/// One object on its way.
struct Transfer<'a> {
    wire: Wire<'a>,
    object: &'a Object,
    /// Bytes that were heard of.
    told: &'a AtomicU64,
    advanced: &'a (dyn Fn(u64) -> Result<()> + Sync),
}

impl Transfer<'_> {
    /// Sends it; gives the answer of a storage that refuses the address as such.
    fn send(&self, upload: &Action) -> Result<Option<Response>> {
        let url = self.wire.given(&upload.href)?;
        let odd = |what: String| Error::malformed(what).hint(ODD);
        let Some(size) = upload.header.get("chunk_size") else {
            return self.settle(self.put(url, 0, self.object.size)?).map(std::result::Result::err);
        };
        let size = number(size).filter(|s| *s > 0);
        let size = size.ok_or_else(|| odd("the server gave a size of parts that is no size".to_owned()))?;
        let count = self.object.size.div_ceil(size);
        let parts = upload.header.iter().filter_map(|(k, v)| Some((k.parse::<u64>().ok()?, v.as_str()?)));
        let mut parts: Vec<(u64, &str)> = parts.collect();
        parts.sort_unstable();
        if parts.len() as u64 != count || count > MOST_PARTS {
            return Err(odd(format!("the server gave {} addresses for {count} parts", parts.len())));
        }
        let mut done = Vec::with_capacity(parts.len());
        for (i, (_, address)) in (0..).zip(&parts) {
            let end = self.object.size.min((i + 1) * size);
            let answer = match self.settle(self.put(self.wire.given(address)?, i * size, end)?)? {
                Ok(answer) => answer,
                Err(expired) => return Ok(Some(expired)),
            };
            let Some(etag) = answer.header("etag").filter(|e| !e.is_empty()) else {
                return Err(odd(format!("the storage gave no name (ETag) to part {}", i + 1)));
            };
            done.push(json!({ "partNumber": i + 1, "etag": etag }));
        }
        let completion = json!({ "oid": self.object.sha256, "parts": done });
        self.settle(self.wire.post_as(url, &completion, MEDIA, &ANSWERS)?).map(std::result::Result::err)
    }

    /// Sends bytes `start..end`.
    fn put(&self, url: crate::url::Url, start: u64, end: u64) -> Result<Response> {
        let file = body::open(&self.object.path, self.object.size)?;
        let at = AtomicU64::new(start);
        let advanced = |n| {
            let now = at.fetch_add(n, Relaxed) + n;
            // Also where nothing is new, so that a stopped run hears of it.
            (self.advanced)(now.saturating_sub(self.told.fetch_max(now, Relaxed)))
        };
        let sending = Sending::new(&advanced);
        let open = || -> Result<Box<dyn Read + '_>> {
            sending.check()?;
            at.store(start, Relaxed);
            Ok(Box::new(Range::new(file.clone(), start, end, &sending)))
        };
        let payload = Payload::Stream { len: end - start, open: &open, kind: "" };
        let about = self.wire.about().file(&self.object.name);
        let request = Request::put(url, payload).patience(PATIENCE).about(about).accept(&ANSWERS);
        let sent = self.wire.hub.client().send(&request);
        sending.check()?;
        sent
    }

    fn error(&self, answer: Response) -> Error {
        self.wire.error_of(answer, self.wire.about().file(&self.object.name))
    }

    /// What an answer means: success, an address that is no longer good, or an error.
    fn settle(&self, answer: Response) -> Result<std::result::Result<Response, Response>> {
        match answer.status() {
            s if EXPIRED.contains(&s) => Ok(Err(answer)),
            s if DAMAGED.contains(&s) => Err(damaged(&self.error(answer))),
            _ => Ok(Ok(answer)),
        }
    }

    /// The server's own check.
    fn check(&self, verify: &Action) -> Result<()> {
        let body = json!({ "oid": self.object.sha256, "size": self.object.size });
        let answer = self.wire.post(self.wire.given(&verify.href)?, &body, &[400, 404, 409, 412, 422])?;
        match answer.status() {
            200..300 => Ok(()),
            _ => Err(damaged(&self.error(answer))),
        }
    }
}

/// What arrived is not what was announced.
fn damaged(said: &Error) -> Error {
    Error::failed(format!("the server received other bytes than were announced ({})", said.message()))
        .hint("the file changed, or was damaged on its way: run the same command again")
}

/// A number that may come as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

//! Large files on their way in: Git LFS' batch API, one `PUT` or several, and the check that comes after.
//!
//! The content network behaves as a storage with signed addresses does: it wants a length, no access token, an address whose
//! signature is still good, and bytes that are what the address says.

use super::write::{document, may_write};
use crate::{
    http::{Reply, Request},
    repo::{Content, File, hex},
    state::State,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

fn bad(what: &str) -> Reply {
    Reply::error(400, "", what)
}

/// The bytes that a hash stands for, where they are here.
pub fn stored(state: &State, sha256: &str) -> Option<Content> {
    let uploaded = state.writing().objects.get(sha256).map(|b| Content::Memory(Arc::clone(b)));
    uploaded.or_else(|| {
        let repos = state.repos();
        let mut files = repos.values().flat_map(|r| r.commits.values()).flat_map(|c| c.files.values());
        files.find(|f: &&File| f.sha256.as_deref() == Some(sha256)).map(|f| f.content.clone())
    })
}

/// `objects/batch` and `objects/verify`.
pub fn route(state: &State, request: &Request, id: &str, what: &str) -> Result<Reply, Reply> {
    may_write(state, request, id)?;
    let body = document(request)?;
    match what {
        "batch" => batch(state, id, &body),
        "verify" => {
            let oid = body["oid"].as_str().unwrap_or_default();
            match stored(state, oid) {
                Some(content) if Some(content.len()) == body["size"].as_u64() => {
                    Ok(Reply::json(200, &json!({})))
                }
                Some(_) => Err(Reply::error(422, "", "the object has another size")),
                None => Err(Reply::error(404, "", "the object is not here")),
            }
        }
        _ => Err(Reply::error(404, "", "Not Found")),
    }
}

fn batch(state: &State, id: &str, body: &Value) -> Result<Reply, Reply> {
    if body["operation"] != "upload" || body["hash_algo"] != "sha256" {
        return Err(bad("only uploads of SHA-256 objects"));
    }
    let asked = body["objects"].as_array().ok_or_else(|| bad("no objects"))?;
    let offers = |t: &str| body["transfers"].as_array().is_some_and(|all| all.iter().any(|o| o == t));
    let (parts_of, signature, xet) = {
        let writing = state.writing();
        (writing.part_bytes, format!("sig={}", writing.expired + 1), writing.xet_only)
    };
    if xet {
        return Ok(media(&json!({ "transfer": "xet", "objects": asked })));
    }
    let mut multipart = false;
    let one = |object: &Value| {
        let (oid, size) = (object["oid"].as_str().unwrap_or_default(), object["size"].as_u64().unwrap_or(0));
        let mut answer = json!({ "oid": oid, "size": size, "authenticated": true });
        if size == 0 {
            answer["error"] = json!({ "code": 422, "message": "objects without bytes cannot be stored" });
        } else if stored(state, oid).is_none() {
            let verify = json!({ "href": format!("{}/{id}.git/info/lfs/objects/verify", state.hub()) });
            let address = format!("{}/uploads/{oid}", state.cdn());
            let upload = match parts_of.filter(|n| size > *n && offers("multipart")) {
                Some(n) => {
                    multipart = true;
                    let mut header = json!({ "chunk_size": n.to_string() });
                    for i in 1..=size.div_ceil(n) {
                        header[format!("{i}")] = format!("{address}/{i}?{signature}").into();
                    }
                    json!({ "href": format!("{}/api/complete/{oid}", state.hub()), "header": header })
                }
                None => json!({ "href": format!("{address}?{signature}") }),
            };
            answer["actions"] = json!({ "upload": upload, "verify": verify });
        }
        answer
    };
    let objects: Vec<Value> = asked.iter().map(one).collect();
    let transfer = if multipart { "multipart" } else { "basic" };
    Ok(media(&json!({ "transfer": transfer, "objects": objects })))
}

fn media(value: &Value) -> Reply {
    let mut reply = Reply::json(200, value);
    reply.headers.retain(|(k, _)| k != "content-type");
    reply.header("content-type", "application/vnd.git-lfs+json")
}

/// `PUT /uploads/{sha256}[/{part}]`
pub fn receive(state: &State, request: &Request) -> Result<Reply, Reply> {
    state.writing().received.push((request.path.clone(), request.body.clone()));
    let segments = request.segments();
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["uploads", oid, ref part @ ..] = parts[..] else { return Err(Reply::error(404, "", "Not Found")) };
    if request.header("content-length").is_none() {
        return Err(Reply::error(501, "", "a header implies functionality that is not implemented"));
    }
    if request.header("authorization").is_some() {
        return Err(bad("only one way of signing in is allowed"));
    }
    let signature: u64 = request.param("sig").and_then(|s| s.parse().ok()).unwrap_or(0);
    if signature <= state.writing().expired {
        return Err(Reply::error(403, "", "Request has expired"));
    }
    match part {
        [] => store(state, oid, request.body.clone())?,
        [number] => {
            let number = number.parse().map_err(|_| bad("no number"))?;
            state.writing().parts.insert((oid.to_owned(), number), request.body.clone());
        }
        _ => return Err(bad("no such object")),
    }
    Ok(Reply::new(200).header("etag", format!("\"{}\"", etag(&request.body))))
}

fn etag(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))[..32].to_owned()
}

fn store(state: &State, oid: &str, mut bytes: Vec<u8>) -> Result<(), Reply> {
    let mut writing = state.writing();
    if std::mem::take(&mut writing.damage) {
        bytes[0] ^= 1;
    }
    if hex(&Sha256::digest(&bytes)) != oid {
        return Err(bad("BadDigest: the bytes are not what was announced"));
    }
    writing.objects.insert(oid.to_owned(), Arc::new(bytes));
    Ok(())
}

/// `POST /api/complete/{sha256}`: parts become an object.
pub fn complete(state: &State, request: &Request) -> Result<Reply, Reply> {
    let body = document(request)?;
    let oid = body["oid"].as_str().unwrap_or_default().to_owned();
    let mut whole = Vec::new();
    for (i, part) in (1..).zip(body["parts"].as_array().into_iter().flatten()) {
        let writing = state.writing();
        let bytes = writing.parts.get(&(oid.clone(), i)).ok_or_else(|| bad("InvalidPart"))?;
        if part["partNumber"] != i || part["etag"] != format!("\"{}\"", etag(bytes)) {
            return Err(bad("InvalidPartOrder"));
        }
        whole.extend(bytes);
    }
    store(state, &oid, whole)?;
    state.writing().parts.retain(|(of, _), _| *of != oid);
    Ok(Reply::json(200, &json!({})))
}

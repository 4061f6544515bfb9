//! Requests about one repository, as publishing needs them: what is sent, and answers that are no success but mean
//! something here.

use crate::{
    Address, Hub, Subject,
    client::{JSON_BYTES, Payload, Request, Response},
    json,
    settings::DEFAULT_ENDPOINT,
    status,
    url::{Url, encode, encode_path},
};
use serde_json::Value;
use std::time::Duration;
use tensormill_model::{Error, Result};

/// What request bodies are written in.
pub const JSON: &str = "application/json";

/// How long a server may think about what it was sent: commits of many files take long.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// One repository on the Hub.
#[derive(Clone, Copy)]
pub struct Wire<'a> {
    pub hub: &'a Hub,
    pub address: &'a Address,
}

impl<'a> Wire<'a> {
    /// `org/name`
    pub fn repo(self) -> &'a str {
        &self.address.repo
    }

    /// An address of the server: `path` begins with a slash.
    pub fn url(self, path: &str) -> Result<Url> {
        self.hub.client().url(path)
    }

    /// An address of the repository's interface.
    pub fn api(self, rest: &str) -> Result<Url> {
        self.url(&format!("/api/models/{}{rest}", encode_path(self.repo())))
    }

    /// The same, of a branch, tag or commit.
    pub fn api_at(self, what: &str, revision: &str) -> Result<Url> {
        self.api(&format!("/{what}/{}", encode(revision)))
    }

    /// An address that the server gave. Mirrors repeat those of the Hub; it is the mirror that is meant.
    pub fn given(self, href: &str) -> Result<Url> {
        let own = self.hub.settings().endpoint.to_string();
        let moved = href.strip_prefix(DEFAULT_ENDPOINT).filter(|rest| rest.starts_with('/'));
        let text = moved.map_or_else(|| href.to_owned(), |rest| format!("{own}{rest}"));
        Url::parse(&text).map_err(|_| Error::malformed("the server gave an address for uploads that is none"))
    }

    /// For messages.
    pub fn about(self) -> Subject<'a> {
        Subject::repo(self.repo(), self.address.revision())
    }

    /// Asks. `accepted` are answers, besides success, that are returned.
    pub fn get(self, url: Url, accepted: &[u16]) -> Result<Response> {
        self.hub.client().send(&Request::get(url).about(self.about()).accept(accepted))
    }

    /// Sends a document.
    pub fn post(self, url: Url, body: &Value, accepted: &[u16]) -> Result<Response> {
        self.post_as(url, body, JSON, accepted)
    }

    /// Sends a document of another kind, which the answer is to be of, too.
    pub fn post_as(self, url: Url, body: &Value, kind: &'static str, accepted: &[u16]) -> Result<Response> {
        let bytes = body.to_string().into_bytes();
        let request = Request::post(url, Payload::Bytes(&bytes, kind)).header("accept", kind);
        self.hub.client().send(&request.patience(PATIENCE).about(self.about()).accept(accepted))
    }

    /// Sends a document in place of another.
    pub fn put(self, url: Url, body: &Value) -> Result<Response> {
        let bytes = body.to_string().into_bytes();
        self.hub.client().send(&Request::put(url, Payload::Bytes(&bytes, JSON)).about(self.about()))
    }

    /// The error that an accepted answer is after all.
    pub fn error(self, response: Response) -> Error {
        self.error_of(response, self.about())
    }

    /// The same, of something in the repository.
    pub fn error_of(self, response: Response, about: Subject<'_>) -> Error {
        status::failure(response, &about, self.hub.client().token()).error
    }
}

/// The document that an answer is.
pub fn value(mut response: Response) -> Result<Value> {
    let bytes = response.bytes(JSON_BYTES).map_err(|e| status::broken(&e, response.url()))?;
    json::read(&bytes, json::VALUES).map_err(|e| {
        e.context("the server's answer is no JSON that can be taken")
            .file(response.url())
            .hint("is HF_ENDPOINT the address of a Hub?")
    })
}

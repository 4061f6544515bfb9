//! A thin HTTP client for the Hub: one request with redirects, retries and errors that say what to do.
//!
//! - The token goes to the endpoint's own origin (scheme, host, port) and nowhere else, redirects included.
//! - A server that is busy, a connection that breaks and an answer that does not come are tried again as [`Retry`] says; what must
//!   not happen twice is repeated only where the server certainly did nothing ([`Request::once`]).
//! - Nothing is sent while [`Settings::offline`] is set: that is decided here, in one place.
//!
//! It must not know caches, files or models.

use crate::{
    agents::Agents,
    json,
    retry::{Attempts, Retry},
    settings::{Endpoint, Settings, Token},
    status::{self, Subject},
    url::Url,
};
use serde::de::DeserializeOwned;
use std::{
    io::{self, Read},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tensormill_model::{Error, Result};
use ureq::{
    Agent, SendBody,
    http::{self, HeaderMap, Method},
};

/// Largest JSON document that is read. The file list of a repository with 10 000 files has about 3 MB a page.
pub const JSON_BYTES: u64 = 64 << 20;

/// Redirects that are followed, at most.
const REDIRECTS: usize = 10;

/// What a request carries. A body can be sent again after a failure, so a stream is something that can be opened.
pub enum Payload<'a> {
    /// Nothing.
    None,
    /// Bytes with their content type.
    Bytes(&'a [u8], &'static str),
    /// As many bytes as a reader gives, opened anew for every attempt; with their content type.
    Stream {
        /// How many bytes there will be.
        len: u64,
        /// Opens them at the first byte.
        open: &'a dyn Fn() -> Result<Box<dyn Read + 'a>>,
        /// Content type; none is sent where it is empty.
        kind: &'static str,
    },
}

/// Which redirects are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// All of them; the token stays behind where they lead elsewhere.
    All,
    /// Those within the origin: a redirect to another host is the answer (metadata of files is on it).
    SameOrigin,
}

/// One request.
pub struct Request<'a> {
    method: Method,
    url: Url,
    headers: Vec<(&'static str, String)>,
    payload: Payload<'a>,
    follow: Follow,
    once: bool,
    accepted: &'a [u16],
    patience: Option<Duration>,
    subject: Subject<'a>,
}

impl<'a> Request<'a> {
    /// `GET`.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url)
    }
    /// `HEAD`.
    pub fn head(url: Url) -> Self {
        Self::new(Method::HEAD, url)
    }
    /// `POST`.
    pub fn post(url: Url, payload: Payload<'a>) -> Self {
        Self { payload, ..Self::new(Method::POST, url) }
    }
    /// `PUT`.
    pub fn put(url: Url, payload: Payload<'a>) -> Self {
        Self { payload, ..Self::new(Method::PUT, url) }
    }
    /// `DELETE`.
    pub fn delete(url: Url, payload: Payload<'a>) -> Self {
        Self { payload, ..Self::new(Method::DELETE, url) }
    }

    fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            payload: Payload::None,
            follow: Follow::All,
            once: false,
            accepted: &[],
            patience: None,
            subject: Subject::default(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    /// Asks for bytes `start..end`.
    #[must_use]
    pub fn range(self, start: u64, end: u64) -> Self {
        self.header("range", format!("bytes={start}-{}", end.saturating_sub(1)))
    }
    /// Which redirects to follow.
    #[must_use]
    pub fn follow(self, follow: Follow) -> Self {
        Self { follow, ..self }
    }
    /// What must not happen twice: an attempt whose outcome is unknown is not repeated.
    #[must_use]
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }
    /// Statuses, besides success, that are answers and no errors.
    #[must_use]
    pub fn accept(self, statuses: &'a [u16]) -> Self {
        Self { accepted: statuses, ..self }
    }
    /// How long the server may take to begin its answer.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }
    /// What the request is about, for messages.
    #[must_use]
    pub fn about(self, subject: Subject<'a>) -> Self {
        Self { subject, ..self }
    }
}

/// An answer whose head is read; the body follows.
pub struct Response {
    status: u16,
    url: Url,
    headers: HeaderMap,
    body: ureq::Body,
}

impl Response {
    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }
    /// Where it came from, after redirects.
    pub fn url(&self) -> &Url {
        &self.url
    }
    /// A header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
    /// Where a redirect that was not followed leads.
    ///
    /// # Errors
    /// `Malformed` where that is no URL.
    pub fn location(&self) -> Result<Option<Url>> {
        self.header("location").filter(|_| self.status / 100 == 3).map(|l| self.url.join(l)).transpose()
    }
    /// Bytes of the body, where the server says.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length").and_then(|v| v.parse().ok())
    }
    /// First byte, end, and length of the whole file of an answer that is a range.
    pub fn content_range(&self) -> Option<(u64, u64, Option<u64>)> {
        let (range, total) = self.header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        let (start, last) = range.split_once('-')?;
        let end = last.trim().parse::<u64>().ok()?.checked_add(1)?;
        Some((start.trim().parse().ok()?, end, total.trim().parse().ok()))
    }
    /// The body, as it arrives.
    pub fn reader(&mut self) -> impl Read + '_ {
        self.body.with_config().limit(u64::MAX).reader()
    }
    /// The whole body.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` where it has more than `limit` bytes.
    pub fn bytes(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {limit} bytes")));
        }
        Ok(bytes)
    }
}

/// The client. Shareable between threads; connections are kept and used again.
pub struct Client {
    agents: Agents,
    settings: Settings,
    requests: AtomicU64,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Client {
    /// A client with these settings.
    ///
    /// # Errors
    /// `Usage` or `Unsupported` for a proxy that is none; `Io` or `Malformed` for certificates that cannot be read.
    pub fn new(settings: Settings) -> Result<Self> {
        let agents = Agents::new(&settings)?;
        Ok(Self { agents, settings, requests: AtomicU64::new(0) })
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many requests were sent, redirects and repetitions included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A URL on the endpoint; `path` begins with a slash and is encoded already.
    ///
    /// # Errors
    /// `Usage` where the endpoint is a folder.
    pub fn url(&self, path: &str) -> Result<Url> {
        match &self.settings.endpoint {
            Endpoint::Web(url) => Ok(url.with(path)),
            Endpoint::Mirror(folder) => {
                Err(Error::usage("this folder is the endpoint, and what is asked needs a server")
                    .file(folder.display())
                    .hint("set HF_ENDPOINT to the Hub's URL, or unset it"))
            }
        }
    }

    /// Sends a request and gives the answer once its head is there.
    ///
    /// # Errors
    /// `Usage` for what does not exist, `Io` for what is not permitted or not reachable (transient where it is worth a later try).
    pub fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut attempts = self.settings.retry.start();
        self.send_counting(request, &mut attempts)
    }

    /// As [`Self::send`], with attempts that the caller counts: for bodies that are continued where they broke off.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_counting(&self, request: &Request<'_>, attempts: &mut Attempts<'_>) -> Result<Response> {
        loop {
            let failure = match self.follow(request) {
                Ok(response) => {
                    let status = response.status;
                    if matches!(status, 200..=399) || request.accepted.contains(&status) {
                        return Ok(response);
                    }
                    status::failure(response, &request.subject, self.settings.token.as_ref())
                }
                Err(failure) => failure,
            };
            // "Busy" is said before anything happens; what a broken connection did is unknown.
            let may = failure.repeat && (!request.once || failure.untouched);
            if !may || !attempts.again(failure.wait) {
                return Err(self.finish(failure.error));
            }
            tracing::info!(url = %request.url, error = %failure.error, "trying again");
        }
    }

    /// Sends a request and reads its whole answer, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn read(&self, request: &Request<'_>, limit: u64) -> Result<(Response, Vec<u8>)> {
        let mut attempts = self.settings.retry.start();
        loop {
            let mut response = self.send_counting(request, &mut attempts)?;
            match response.bytes(limit) {
                Ok(bytes) => return Ok((response, bytes)),
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    return Err(status::broken(&e, &response.url));
                }
                Err(e) => {
                    let error = status::broken(&e, &response.url);
                    if request.once || !attempts.again(None) {
                        return Err(self.finish(error));
                    }
                }
            }
        }
    }

    /// Sends a request whose answer is JSON.
    ///
    /// # Errors
    /// As [`Self::send`], and `Malformed` where the answer is something else.
    pub fn json<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<T> {
        self.json_and_next(request).map(|(value, _)| value)
    }

    /// As [`Self::json`], with the URL of the next page.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn json_and_next<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<(T, Option<Url>)> {
        let (response, bytes) = self.read(request, JSON_BYTES)?;
        let value = json::read(&bytes, json::VALUES).map_err(|e| {
            e.context("the server's answer is not what the Hub would say")
                .file(&response.url)
                .hint("check HF_ENDPOINT, and whether a proxy or a login page answers in the Hub's place")
        })?;
        let next = match response.header("link").and_then(next_link) {
            Some(link) => Some(response.url.join(link)?),
            None => None,
        };
        Ok((value, next))
    }

    /// The token's text must not come back in a message that a server or library wrote.
    fn finish(&self, error: Error) -> Error {
        match &self.settings.token {
            Some(token) if format!("{error:?}").contains(token.secret()) => {
                Error::new(error.kind(), token.redact(error.message()))
                    .hint("what the server said held the access token")
            }
            _ => error,
        }
    }

    fn follow(&self, request: &Request<'_>) -> std::result::Result<Response, Failure> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.once(request, &url)?;
            let Some(next) = response.location().map_err(Failure::last)? else { return Ok(response) };
            let asks = matches!(request.method, Method::GET | Method::HEAD);
            let stays = next.same_origin(&url);
            if !(asks || matches!(response.status, 307 | 308))
                || (request.follow == Follow::SameOrigin && !stays)
            {
                return Ok(response);
            }
            url = next;
        }
        Err(Failure::last(Error::malformed(format!("more than {REDIRECTS} redirects")).file(&request.url)))
    }

    /// One request, one answer.
    fn once(&self, request: &Request<'_>, url: &Url) -> std::result::Result<Response, Failure> {
        if self.settings.offline {
            return Err(Failure::last(
                Error::usage("this needs a request, and requests are switched off")
                    .file(url)
                    .hint("leave out --offline, or unset HF_HUB_OFFLINE"),
            ));
        }
        let last = |e: http::Error| {
            Failure::last(Error::malformed(format!("this request cannot be made: {e}")).file(url))
        };
        let mut builder = http::Request::builder().method(&request.method).uri(url.full());
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let (Some(token), Endpoint::Web(endpoint)) = (&self.settings.token, &self.settings.endpoint)
            && endpoint.same_origin(url)
        {
            let mut value = http::HeaderValue::from_str(&format!("Bearer {}", token.secret()))
                .map_err(|_| Failure::last(Error::usage("the access token cannot stand in a header")))?;
            value.set_sensitive(true);
            builder = builder.header("authorization", value);
        }
        let mut stream: Option<Box<dyn Read + '_>> = match &request.payload {
            Payload::None => None,
            Payload::Bytes(bytes, kind) => {
                builder = builder.header("content-type", *kind).header("content-length", bytes.len());
                Some(Box::new(*bytes))
            }
            Payload::Stream { len, open, kind } => {
                if !kind.is_empty() {
                    builder = builder.header("content-type", *kind);
                }
                builder = builder.header("content-length", *len);
                Some(open().map_err(Failure::last)?)
            }
        };
        let (agent, for_proxy) = self.agents.of(&self.settings, url);
        if let Some(value) = for_proxy {
            builder = builder.header("proxy-authorization", value);
        }
        let patience = request.patience.unwrap_or(self.settings.answer_timeout);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = match &mut stream {
            None => run(agent, builder.body(SendBody::none()).map_err(last)?, patience),
            Some(s) => run(agent, builder.body(SendBody::from_reader(s)).map_err(last)?, patience),
        };
        match answer {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                Ok(Response { status: head.status.as_u16(), url: url.clone(), headers: head.headers, body })
            }
            Err(e) => Err(status::transport(e, url)),
        }
    }

    /// How often and how patiently things are tried.
    pub fn retry(&self) -> &Retry {
        &self.settings.retry
    }

    /// Who asks.
    pub fn token(&self) -> Option<&Token> {
        self.settings.token.as_ref()
    }
}

fn run(
    agent: &Agent,
    request: http::Request<SendBody<'_>>,
    patience: Duration,
) -> std::result::Result<http::Response<ureq::Body>, ureq::Error> {
    agent.run(agent.configure_request(request).timeout_recv_response(Some(patience)).build())
}

/// One attempt that came to nothing.
pub(crate) struct Failure {
    /// What to say when it was the last.
    pub error: Error,
    /// Whether another attempt may help.
    pub repeat: bool,
    /// Whether the server certainly did nothing.
    pub untouched: bool,
    /// How long the server asks to wait.
    pub wait: Option<Duration>,
}

impl Failure {
    /// One that no repetition mends.
    pub fn last(error: Error) -> Self {
        Self { error, repeat: false, untouched: true, wait: None }
    }
}

/// The URL of `rel="next"` in a `Link` header (RFC 8288).
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, tail) = rest.split_once('<')?;
        let (url, tail) = tail.split_once('>')?;
        let end = tail.find(",<").or_else(|| tail.find(", <")).unwrap_or(tail.len());
        let is_next = |p: &str| matches!(p.trim().to_ascii_lowercase().as_str(), "rel=\"next\"" | "rel=next");
        if tail[..end].split(';').any(is_next) {
            return Some(url);
        }
        rest = &tail[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        assert_eq!(next_link(r#"<https://h/a?cursor=x,y>; rel="next""#), Some("https://h/a?cursor=x,y"));
        assert_eq!(next_link(r#"</first>; rel="first", </n>; rel="next"; title="t""#), Some("/n"));
        assert_eq!(next_link(r#"</first>; rel="first""#), None);
        assert_eq!(next_link("garbage"), None);
    }
}

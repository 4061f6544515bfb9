//! HTTP/1.1 as far as clients of the Hub speak it: requests in, replies out, connections kept.

use crate::repo::Content;
use std::io::{self, BufRead, Read, Write};

/// Largest body that is taken.
const BODY: u64 = 1 << 31;

/// Which of the two ports was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The Hub itself.
    Hub,
    /// The content network that large files are redirected to.
    Cdn,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The port.
    pub side: Side,
    /// Method in capitals.
    pub method: String,
    /// Path as it was sent, without query.
    pub path: String,
    /// Decoded parameters, in order.
    pub query: Vec<(String, String)>,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    /// A parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    /// All values of a parameter.
    pub fn params(&self, name: &str) -> Vec<&str> {
        self.query.iter().filter(|(k, _)| k == name).map(|(_, v)| v.as_str()).collect()
    }
    /// Whether a parameter says yes.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.param(name), Some("true" | "True" | "1"))
    }
    /// Segments of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        self.path.trim_matches('/').split('/').map(decode).collect()
    }
    /// The access token.
    pub fn token(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// Reads one; `None` where the connection was closed in between.
    ///
    /// # Errors
    /// I/O errors and `InvalidData` for what is no request.
    pub fn read(from: &mut impl BufRead, side: Side) -> io::Result<Option<Self>> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut parts = line.split_whitespace();
        let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
            return Err(bad("no request"));
        };
        // A proxy is asked for whole URLs.
        let target =
            target.strip_prefix("http://").map_or(target, |t| t.find('/').map_or("/", |at| &t[at..]));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self {
            side,
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.split('&').filter(|p| !p.is_empty()).map(pair).collect(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Err(bad("no end of headers"));
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("no header"))?;
            request.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        if request.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            request.body = chunked(from)?;
        } else if let Some(len) = request.header("content-length") {
            let len: u64 = len.parse().map_err(|_| bad("no length"))?;
            if len > BODY {
                return Err(bad("too long"));
            }
            from.take(len).read_to_end(&mut request.body)?;
            if request.body.len() as u64 != len {
                return Err(bad("the body ends early"));
            }
        }
        Ok(Some(request))
    }
}

fn chunked(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        from.take(size).read_to_end(&mut body)?;
        line.clear();
        from.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn pair(text: &str) -> (String, String) {
    let (k, v) = text.split_once('=').unwrap_or((text, ""));
    (decode(&k.replace('+', " ")), decode(&v.replace('+', " ")))
}

/// Undoes percent encoding.
pub fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&b) = bytes.next() {
        let rest = bytes.as_slice();
        let code = rest.get(..2).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (b, code) {
            (b'%', Some(code)) => {
                out.push(code);
                bytes.nth(1);
            }
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Percent encoding of what is a value in a query.
pub fn encode(text: &str) -> String {
    let one = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}

/// What a reply carries.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes.
    Bytes(Vec<u8>),
    /// A part of a file, from its first byte to its end.
    Part(Content, u64, u64),
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Headers; length and connection are added when it is sent.
    pub headers: Vec<(String, String)>,
    /// Body; not sent in answer to `HEAD`.
    pub body: Body,
}

impl Reply {
    /// A status without a body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Bytes(Vec::new()) }
    }
    /// JSON.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let body = Body::Bytes(value.to_string().into_bytes());
        Self { body, ..Self::new(status) }.header("content-type", "application/json; charset=utf-8")
    }
    /// An error as the Hub says it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let reply =
            Self::json(status, &serde_json::json!({ "error": message })).header("x-error-message", message);
        if code.is_empty() { reply } else { reply.header("x-error-code", code) }
    }
    /// A redirect.
    pub fn redirect(status: u16, to: &str) -> Self {
        Self::new(status).header("location", to)
    }
    /// A file, or the part of it that was asked for.
    pub fn file(request: &Request, content: &Content) -> Self {
        let len = content.len();
        let reply = Self::new(200).header("accept-ranges", "bytes");
        let Some(asked) = request.header("range") else {
            return Self { body: Body::Part(content.clone(), 0, len), ..reply };
        };
        match range(asked, len) {
            Some((start, end)) => {
                Self { status: 206, body: Body::Part(content.clone(), start, end), ..reply }
                    .header("content-range", format!("bytes {start}-{}/{len}", end - 1))
            }
            None => Self::new(416).header("content-range", format!("bytes */{len}")),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Length of the body.
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Bytes(b) => b.len() as u64,
            Body::Part(_, start, end) => end - start,
        }
    }
    /// Whether there is no body.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The head, up to the empty line.
    pub(crate) fn head(&self) -> String {
        use std::fmt::Write as _;
        let mut out =
            format!("HTTP/1.1 {} {}\r\ncontent-length: {}\r\n", self.status, reason(self.status), self.len());
        for (k, v) in &self.headers {
            let _ = write!(out, "{k}: {v}\r\n");
        }
        out + "\r\n"
    }

    /// Sends the body in pieces, each of which `each` may look at, change or end the transfer at.
    ///
    /// # Errors
    /// I/O errors of either side.
    pub(crate) fn send_body(
        &self,
        to: &mut impl Write,
        piece: usize,
        mut each: impl FnMut(u64, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let (len, mut sent) = (self.len(), 0);
        while sent < len {
            let n = (len - sent).min(piece as u64);
            let mut bytes = match &self.body {
                Body::Bytes(all) => all[sent as usize..(sent + n) as usize].to_vec(),
                Body::Part(content, start, _) => content.read(start + sent, n as usize)?,
            };
            let result = each(sent, &mut bytes);
            to.write_all(&bytes)?;
            sent += bytes.len() as u64;
            if result.is_err() {
                to.flush()?;
                return result.map(|()| sent);
            }
        }
        Ok(sent)
    }
}

/// `bytes=a-b`, `bytes=a-`, `bytes=-n` within a length.
fn range(text: &str, len: u64) -> Option<(u64, u64)> {
    let (a, b) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (a, b) {
        ("", n) => (len.saturating_sub(n.parse().ok()?), len),
        (a, "") => (a.parse().ok()?, len),
        (a, b) => (a.parse().ok()?, b.parse::<u64>().ok()?.checked_add(1)?.min(len)),
    };
    (start < end && end <= len).then_some((start, end))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        206 => "Partial Content",
        302 => "Found",
        307 => "Temporary Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

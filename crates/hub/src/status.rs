//! What went wrong, from what a server answered: told apart by the Hub's own error codes, with the next step.
//!
//! The Hub answers 401 for what is private, gated or absent alike when nobody is logged in; `X-Error-Code` and `X-Error-Message`
//! say more, and are the same that its own clients read.

use crate::{
    client::{Failure, Response},
    json::shown,
    settings::Token,
    tls,
    url::Url,
};
use std::{
    io,
    time::{Duration, SystemTime},
};
use tensormill_model::Error;

/// What a request is about, for messages.
#[derive(Clone, Copy, Default, Debug)]
pub struct Subject<'a> {
    /// The repository.
    pub repo: Option<&'a str>,
    /// The revision.
    pub revision: Option<&'a str>,
    /// The file.
    pub path: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// A repository at a revision.
    pub fn repo(repo: &'a str, revision: &'a str) -> Self {
        Self { repo: Some(repo), revision: Some(revision), path: None }
    }
    /// A file of it.
    #[must_use]
    pub fn file(self, path: &'a str) -> Self {
        Self { path: Some(path), ..self }
    }
}

/// The failure that an answer with an error's status is.
pub(crate) fn failure(mut response: Response, about: &Subject<'_>, token: Option<&Token>) -> Failure {
    let status = response.status();
    let url = response.url().clone();
    let code = response.header("x-error-code").unwrap_or_default().to_owned();
    let wait = wait(&response);
    let said = said(&mut response, token);
    let repo = about.repo.unwrap_or("the repository");
    let page = url.join(&format!("/{repo}")).map_or_else(|_| repo.to_owned(), |u| u.to_string());
    let quote = if said.is_empty() { String::new() } else { format!(" (the server says: {said})") };
    let known = token.is_some();
    let refused = |message: String, hint: String| {
        let error = Error::io("get access", io::Error::new(io::ErrorKind::PermissionDenied, message));
        Failure::last(error.file(named(about, &url)).hint(hint))
    };
    let absent = |message: String, hint: String| {
        Failure::last(Error::usage(message).file(named(about, &url)).hint(hint))
    };
    let log_in = "set HF_TOKEN to a token that may read it (https://huggingface.co/settings/tokens), or log in with `hf auth login`";
    match (status, code.as_str()) {
        (_, "GatedRepo") if known => refused(
            format!("{repo} is gated, and this account has not been let in{quote}"),
            format!("accept its terms at {page} with the account whose token is used, then run this again"),
        ),
        (_, "GatedRepo") => refused(
            format!("{repo} is gated: its terms have to be accepted{quote}"),
            format!("accept its terms at {page}, then {log_in}"),
        ),
        (_, "RevisionNotFound") => absent(
            format!("{repo} has no revision {:?}", about.revision.unwrap_or_default()),
            format!("branches and tags are listed at {page}/tree/main"),
        ),
        (_, "EntryNotFound") => absent(
            format!("{repo} has no such file at this revision"),
            format!("files are listed at {page}/tree/{}", about.revision.unwrap_or("main")),
        ),
        (_, "RepoNotFound") | (404, _) if about.path.is_none() || code == "RepoNotFound" => absent(
            format!("there is no repository {repo}, or it is private{quote}"),
            if known {
                "check the name (capitals count), and whether this token's account may read it".to_owned()
            } else {
                format!("check the name (capitals count); if it is private, {log_in}")
            },
        ),
        (404, _) => absent(format!("the server has no such file{quote}"), format!("see {page}")),
        (401, _) if said.contains("Invalid credentials") || known => refused(
            format!("the server does not accept the access token{quote}"),
            "make a new token at https://huggingface.co/settings/tokens; it is read from HF_TOKEN, then from the token file".to_owned(),
        ),
        (401, _) => refused(
            format!("{repo} does not exist, or is private or gated{quote}"),
            format!("check the name (capitals count); otherwise {log_in}"),
        ),
        (403, _) => refused(
            format!("access is not permitted{quote}"),
            if known {
                format!("the token may lack the permission: see https://huggingface.co/settings/tokens and {page}")
            } else {
                log_in.to_owned()
            },
        ),
        (407, _) => proxy_wants_password(&url),
        (429, _) => Failure {
            error: busy(format!("too many requests{quote}"), &url)
                .hint("wait some minutes; with a token (HF_TOKEN) the Hub permits more"),
            repeat: true,
            untouched: true,
            wait,
        },
        (503, _) => Failure {
            error: busy(format!("the server is not available at the moment{quote}"), &url).hint("try again later"),
            repeat: true,
            untouched: true,
            wait,
        },
        (408 | 500 | 502 | 504, _) => Failure {
            error: busy(format!("the server failed with status {status}{quote}"), &url).hint("try again later"),
            repeat: true,
            untouched: false,
            wait,
        },
        _ => Failure::last(
            Error::io("complete the request", io::Error::other(format!("the server answers with status {status}{quote}")))
                .file(named(about, &url)),
        ),
    }
}

fn busy(message: String, url: &Url) -> Error {
    Error::io("complete the request", io::Error::new(io::ErrorKind::ResourceBusy, message)).file(url)
}

/// The thing as a user knows it.
fn named(about: &Subject<'_>, url: &Url) -> String {
    match (about.repo, about.path) {
        (Some(repo), Some(path)) => format!("{repo}/{path}"),
        (Some(repo), None) => repo.to_owned(),
        _ => url.shown(),
    }
}

/// What the server itself says, in one short line without control characters.
fn said(response: &mut Response, token: Option<&Token>) -> String {
    let mut text = response.header("x-error-message").unwrap_or_default().to_owned();
    let json = response.header("content-type").is_some_and(|t| t.contains("json"));
    if text.is_empty() && json {
        let body = response.bytes(1 << 16).unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        text.push_str(value.get("error").and_then(|e| e.as_str()).unwrap_or_default());
    }
    // The token goes first: of one that is cut, the rest would stay.
    shown(&token.map_or(text.clone(), |token| token.redact(&text)))
}

/// How long the server asks to wait: `Retry-After` in seconds or as a date, else the reset time of the Hub's rate limits.
fn wait(response: &Response) -> Option<Duration> {
    if let Some(text) = response.header("retry-after") {
        let text = text.trim();
        return match text.parse::<u64>() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => http_date(text)?.duration_since(SystemTime::now()).ok(),
        };
    }
    // `RateLimit: "api";r=0;t=55`: nothing remains for 55 seconds.
    let limit = response.header("ratelimit")?;
    let value = |name: &str| {
        limit
            .split(';')
            .find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('=')?.trim().parse::<u64>().ok())
    };
    (value("r") == Some(0)).then(|| value("t")).flatten().map(Duration::from_secs)
}

/// The preferred form of dates in HTTP: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let month = parts.next().and_then(|m| MONTHS.iter().position(|&n| n == m))? as u64;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|n| n.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let in_range = (1970..=9999).contains(&year) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from civil: years begin in March, so that the leap day is the last (Hinnant, "chrono-compatible date algorithms").
    let (y, m) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let seconds = (days.checked_sub(719_468)?) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The failure that a proxy is which asks who is there.
fn proxy_wants_password(url: &Url) -> Failure {
    let text = "the proxy wants a user name and a password, or others than these (status 407)";
    Failure::last(
        Error::io("pass the proxy", io::Error::new(io::ErrorKind::PermissionDenied, text)).file(url).hint(
            "HTTPS_PROXY and HTTP_PROXY hold them as http://user:password@host:port; characters like @ and : are written %40 and %3A",
        ),
    )
}

/// The failure that a tunnel is which a proxy does not make; its status is at the end of what is said of it.
fn no_tunnel(said: &str, url: &Url, network: &str) -> Failure {
    let status = said.rsplit(|c: char| !c.is_ascii_digit()).find_map(|n| n.parse::<u16>().ok());
    match status {
        Some(407) => proxy_wants_password(url),
        Some(403 | 405) => {
            let text =
                format!("the proxy does not permit this connection (status {})", status.unwrap_or_default());
            let e = Error::io("pass the proxy", io::Error::new(io::ErrorKind::PermissionDenied, text));
            Failure::last(e.file(url).hint(
                "ask whoever runs the proxy to permit this host, or name it in NO_PROXY if it can be reached without",
            ))
        }
        // What was asked for never reached the server.
        _ => Failure {
            error: busy(format!("the proxy could not connect ({said})"), url).hint(network),
            repeat: true,
            untouched: true,
            wait: None,
        },
    }
}

/// The failure that a connection is which does not come about or breaks before the answer's head.
pub(crate) fn transport(error: ureq::Error, url: &Url) -> Failure {
    use ureq::Error as E;
    let again = |kind, text: String, hint: &str| Failure {
        error: Error::io("reach the server", io::Error::new(kind, text)).file(url).hint(hint),
        repeat: true,
        untouched: false,
        wait: None,
    };
    let network = "check the network, HTTPS_PROXY and HF_ENDPOINT; --offline uses what is in the cache";
    match error {
        E::HostNotFound => Failure {
            untouched: true,
            ..again(io::ErrorKind::HostUnreachable, "no such host".to_owned(), network)
        },
        E::ConnectionFailed => Failure {
            untouched: true,
            ..again(io::ErrorKind::HostUnreachable, "no connection".to_owned(), network)
        },
        E::Timeout(what) => again(io::ErrorKind::TimedOut, format!("no answer in time ({what})"), network),
        E::ConnectProxyFailed(said) => no_tunnel(&said, url, network),
        E::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => Failure {
            untouched: true,
            ..again(io::ErrorKind::HostUnreachable, "the connection was refused".to_owned(), network)
        },
        E::Io(e) => {
            tls::refused(&e, url).unwrap_or_else(|| again(transient(e.kind()), e.to_string(), network))
        }
        E::Protocol(e) => again(io::ErrorKind::ConnectionReset, e.to_string(), network),
        other => Failure::last(
            Error::io("reach the server", io::Error::other(other.to_string())).file(url).hint(network),
        ),
    }
}

/// The error of a body that broke off, or is longer than is taken.
pub(crate) fn broken(error: &io::Error, url: &Url) -> Error {
    if error.kind() == io::ErrorKind::InvalidData {
        return Error::over_limit(format!("the answer has {error}"))
            .file(url)
            .hint("is HF_ENDPOINT the address of a Hub?");
    }
    let kind = transient(error.kind());
    Error::io("read the server's answer", io::Error::new(kind, error.to_string()))
        .file(url)
        .hint("the connection broke several times: try again later; what arrived is kept")
}

/// Breaking connections have many kinds of errors, of which some do not look as if a repetition could help.
fn transient(kind: io::ErrorKind) -> io::ErrorKind {
    match kind {
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => kind,
        _ => io::ErrorKind::ConnectionReset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_headers_are_read() {
        let at = |s: &str| http_date(s).map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(at("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(at("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(at("tomorrow"), None);
        let huge = u64::MAX;
        for late in [format!("{huge}:00:00"), format!("00:{huge}:00"), format!("00:00:{huge}")] {
            assert_eq!(at(&format!("Sun, 06 Nov 1994 {late} GMT")), None);
        }
    }
}

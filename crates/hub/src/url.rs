//! URLs as far as this crate needs them: origins, redirects, encoding of what users and servers say.

use std::fmt::{self, Write};
use tensormill_model::{Error, Result};

/// An absolute `http` or `https` URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    https: bool,
    /// Host in lower case, with port and user info where they were given.
    authority: String,
    /// Path and query: empty, or from the first slash on.
    rest: String,
}

impl Url {
    /// Reads an absolute URL; a fragment is dropped.
    ///
    /// # Errors
    /// `Usage` where it is none, or of another scheme. The message does not repeat a URL with user info.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::usage(format!("{why}: expected https://host or http://host"));
        let (scheme, tail) = text.split_once("://").ok_or_else(|| bad("this is no URL"))?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(bad("this URL is of another scheme")),
        };
        let tail = tail.split('#').next().unwrap_or_default();
        let end = tail.find(['/', '?']).unwrap_or(tail.len());
        let (authority, rest) = tail.split_at(end);
        let plain = |b: u8| {
            b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'}')
        };
        if authority.is_empty() || !text.bytes().all(plain) {
            return Err(bad("this URL has no host, or characters that no URL has"));
        }
        let rest = if rest.starts_with('?') { format!("/{rest}") } else { rest.to_owned() };
        Ok(Self { https, authority: authority.to_ascii_lowercase(), rest })
    }

    /// This URL with more path (and query) behind it.
    #[must_use]
    pub fn with(&self, more: &str) -> Self {
        Self { rest: format!("{}{more}", self.rest), ..self.clone() }
    }

    /// Where a `Location` leads from here.
    ///
    /// # Errors
    /// `Malformed` where it is no URL, or of another scheme.
    pub fn join(&self, location: &str) -> Result<Self> {
        let bad = |_| Error::malformed("the server redirects to something that is no URL").file(self.shown());
        let location = location.trim();
        let absolute = location.find("://").is_some_and(|at| !location[..at].contains(['/', '?', '#']));
        if absolute {
            return Self::parse(location).map_err(bad);
        }
        let scheme = if self.https { "https" } else { "http" };
        if let Some(tail) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{tail}")).map_err(bad);
        }
        let path = self.rest.split('?').next().unwrap_or_default();
        let rest = match location.as_bytes().first() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{path}{location}"),
            _ => format!("{}/{location}", path.rsplit_once('/').map_or("", |(front, _)| front)),
        };
        Self::parse(&format!("{scheme}://{}{rest}", self.authority)).map_err(bad)
    }

    /// Whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Whether a user name or password stands before the host.
    pub fn has_userinfo(&self) -> bool {
        self.authority.contains('@')
    }

    /// The host, in lower case, without port.
    pub fn host(&self) -> &str {
        let host = self.authority.rsplit_once('@').map_or(&*self.authority, |(_, host)| host);
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        }
    }

    /// The port, the scheme's own where none is given.
    pub fn port(&self) -> u16 {
        let given = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        given.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// Whether both are of one scheme, host and port: then, and only then, what is for one may be told to the other.
    pub fn same_origin(&self, other: &Self) -> bool {
        (self.https, self.host(), self.port()) == (other.https, other.host(), other.port())
    }

    /// For messages: without user info and without the query, which may be a signature.
    pub fn shown(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        let host = self.authority.rsplit_once('@').map_or(&*self.authority, |(_, host)| host);
        format!("{scheme}://{host}{}", self.rest.split('?').next().unwrap_or_default())
    }

    /// All of it, for the request.
    pub fn full(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.rest)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

/// A name as one segment of a path or one value of a query: everything but letters, digits and `-._~` is encoded.
pub fn encode(text: &str) -> String {
    encode_but(text, "")
}

/// A path of several segments: slashes stay.
pub fn encode_path(text: &str) -> String {
    encode_but(text, "/")
}

fn encode_but(text: &str, kept: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || kept.as_bytes().contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

/// `?a=b&c=d`; empty where there are no pairs.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let one = |(k, v): &(&str, &str)| format!("{}={}", encode(k), encode(v));
    match pairs {
        [] => String::new(),
        _ => format!("?{}", pairs.iter().map(one).collect::<Vec<_>>().join("&")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn redirects_lead_where_browsers_would_go() {
        let from = url("https://Hub.example/org/m/resolve/main/a%20b.bin?x=1");
        let to = |l: &str| from.join(l).unwrap().full();
        assert_eq!(to("https://cdn.example/f?sig=1"), "https://cdn.example/f?sig=1");
        assert_eq!(to("//cdn.example/f"), "https://cdn.example/f");
        assert_eq!(to("/new/m/resolve/main/a"), "https://hub.example/new/m/resolve/main/a");
        assert_eq!(to("c.bin"), "https://hub.example/org/m/resolve/main/c.bin");
        assert_eq!(to("?y=2"), "https://hub.example/org/m/resolve/main/a%20b.bin?y=2");
        assert_eq!(
            to("/login?next=https://elsewhere/x"),
            "https://hub.example/login?next=https://elsewhere/x"
        );
        for bad in ["ftp://cdn/f", "http://", "https:// space/"] {
            assert!(from.join(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let hub = url("https://hub.example");
        for same in ["https://HUB.example/x", "https://hub.example:443/", "https://u:p@hub.example/"] {
            assert!(hub.same_origin(&url(same)), "{same}");
        }
        for other in [
            "http://hub.example/",
            "https://hub.example:444/",
            "https://hub.example.evil/",
            "https://hub.example@evil/",
        ] {
            assert!(!hub.same_origin(&url(other)), "{other}");
        }
        assert_eq!(url("http://[::1]:80/").host(), "[::1]");
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let shown = url("https://me:pass@cdn.example/f?X-Signature=abc").to_string();
        assert_eq!(shown, "https://cdn.example/f");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encode_path("a b/ü#?.bin"), "a%20b/%C3%BC%23%3F.bin");
        assert_eq!(query(&[("filter", "license:mit"), ("q", "a&b")]), "?filter=license%3Amit&q=a%26b");
    }
}

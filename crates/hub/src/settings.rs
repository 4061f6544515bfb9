//! Where the Hub is and how it is talked to: endpoint, token, cache folder, offline, proxies, patience.
//!
//! [`Settings::from_env`] reads what every tool around the Hub reads, with the same precedence. Nothing else in this crate looks
//! at the environment. What is secret (the token, a proxy's password) has no way into text: `Debug` leaves it out.

use crate::{cache::read_small, retry::Retry, url::Url};
use std::{
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tensormill_model::{Error, Result};

/// Where models come from when nobody says otherwise.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Largest file with a token that is read.
const TOKEN_FILE: u64 = 64 << 10;

/// An access token. It has neither `Display` nor a `Debug` that shows it, and only the client asks for its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token from text as people paste it: spaces and line ends around it do not count. `None` where nothing is left.
    ///
    /// # Errors
    /// `Usage` where it holds characters that cannot stand in a header, without repeating any of it.
    pub fn new(text: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::usage("the access token holds characters that no token has")
                .hint("check HF_TOKEN, or the token file, for quotation marks, spaces and line ends"));
        }
        Ok(Some(Self(text.to_owned())))
    }

    /// The text, for the header that carries it and for nothing else.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// `text` without the token, for messages that come from elsewhere.
    pub fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "(token)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where repositories are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A server that speaks the Hub's HTTP interface.
    Web(Url),
    /// A folder with one folder for each repository, `DIR/org/model`: a mirror. Nothing is asked of any server.
    Mirror(PathBuf),
}

impl Endpoint {
    /// `https://...`, or a folder: a path, or `file://` and a path.
    ///
    /// # Errors
    /// `Usage` for other schemes and for URLs without a host.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Self::Mirror(PathBuf::from(path)));
        }
        if text.contains("://") {
            let url = Url::parse(text.trim_end_matches('/'))?;
            if url.has_userinfo() {
                return Err(Error::usage("the endpoint's URL carries a user name or password")
                    .hint("put the token into HF_TOKEN, and give the URL without it"));
            }
            return Ok(Self::Web(url));
        }
        if text.is_empty() {
            return Err(
                Error::usage("the endpoint is empty").hint(format!("the default is {DEFAULT_ENDPOINT}"))
            );
        }
        Ok(Self::Mirror(PathBuf::from(text)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => url.fmt(f),
            Self::Mirror(path) => path.display().fmt(f),
        }
    }
}

/// Proxies by the scheme of what is asked for, as curl and Python's clients read them.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// Hosts that are asked directly: names, `.suffixes`, addresses, networks (`10.0.0.0/8`), `*`; separated by commas.
    pub no_proxy: String,
}

impl Proxies {
    /// The proxy for a URL, if it has one.
    pub(crate) fn of(&self, url: &Url) -> Option<&str> {
        let proxy = if url.is_https() { &self.https } else { &self.http };
        proxy.as_deref().filter(|_| !self.excepts(url))
    }

    fn excepts(&self, url: &Url) -> bool {
        let host = url.host();
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        self.no_proxy.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
            if let Some(network) = network(entry) {
                return address.is_some_and(|address| within(address, network));
            }
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port.parse().ok()),
                _ => (entry, None),
            };
            let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
            let same = name == "*"
                || host == name
                || host.strip_suffix(&*name).is_some_and(|front| front.ends_with('.'));
            same && port.is_none_or(|p: u16| p == url.port())
        })
    }
}

/// An address, or a network as `10.0.0.0/8`: its first address and how many bits all have in common.
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = entry.split_once('/').map_or((entry, None), |(a, bits)| (a, Some(bits)));
    let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    Some((address, bits.map_or(Some(128), |b| b.parse().ok())?))
}

fn within(address: IpAddr, (first, bits): (IpAddr, u32)) -> bool {
    // As numbers of which the first bits count; shifting all of them away leaves nothing to compare.
    let same =
        |a: u128, b: u128, len: u32| (a ^ b).checked_shr(len - bits.min(len)).is_none_or(|rest| rest == 0);
    match (address, first) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

impl fmt::Debug for Proxies {
    /// Proxies' URLs may hold passwords: what is shown is whether there are any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// How the Hub is used. Every field may be set; [`Settings::from_env`] is where programs start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where repositories are.
    pub endpoint: Endpoint,
    /// Who asks; sent to the endpoint's own host and to no other.
    pub token: Option<Token>,
    /// The folder with `models--org--name`, shared with every other tool that uses the Hub's cache.
    pub cache: PathBuf,
    /// Whether only the cache (or a mirror) may be used: no request leaves the machine.
    pub offline: bool,
    /// Proxies.
    pub proxies: Proxies,
    /// Certificates to trust beside the built-in ones, as a PEM file: for networks that inspect what passes.
    pub certificates: Option<PathBuf>,
    /// What is done again, how often, and how long is waited.
    pub retry: Retry,
    /// How long a server may take to accept a connection and to begin an answer.
    pub answer_timeout: Duration,
    /// How long an answer may stand still.
    pub stall_timeout: Duration,
    /// Files that are downloaded at the same time.
    pub jobs: usize,
    /// Files larger than this are fetched in ranges of this many bytes by several connections.
    pub range_bytes: u64,
    /// Symbolic links in the cache; where a file system has none, copies are made anyway.
    pub symlinks: bool,
}

impl Default for Settings {
    /// The public Hub, nobody's token, and a cache below the current folder: what tests start from. Programs use
    /// [`Settings::from_env`].
    fn default() -> Self {
        Self {
            endpoint: Endpoint::parse(DEFAULT_ENDPOINT).expect("the constant is a URL"),
            token: None,
            cache: PathBuf::from("hub"),
            offline: false,
            proxies: Proxies::default(),
            certificates: None,
            retry: Retry::default(),
            answer_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_mins(1),
            jobs: 4,
            range_bytes: 64 << 20,
            symlinks: true,
        }
    }
}

impl Settings {
    /// The settings that this process's environment asks for.
    ///
    /// # Errors
    /// `Usage` for values that make no sense, naming the variable.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(&|name| std::env::var(name).ok())
    }

    /// The settings that variables ask for; an empty variable is as good as none.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `HF_ENDPOINT` | URL of the Hub, or the folder of a mirror |
    /// | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` | access token |
    /// | `HF_TOKEN_PATH` | file with the token; `$HF_HOME/token` where not set |
    /// | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | no token |
    /// | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` | cache folder; `$HF_HOME/hub` where not set |
    /// | `HF_HOME` | `$XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface` where not set |
    /// | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | nothing is asked of any server |
    /// | `HF_HUB_ETAG_TIMEOUT`, `HF_HUB_DOWNLOAD_TIMEOUT` | seconds until an answer begins, and between its bytes |
    /// | `HF_HUB_DISABLE_SYMLINKS` | copies instead of links in the cache |
    /// | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies; lower case, too |
    /// | `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` | certificates to trust, too; the first that is set counts |
    ///
    /// # Errors
    /// As [`Self::from_env`].
    pub fn from_vars(var: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| var(name).filter(|v| !v.trim().is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let path = |text: String| expand(&text, var);
        let home = home(var);
        let cache = first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| home.join("hub"), path);
        let endpoint = match get("HF_ENDPOINT") {
            Some(text) => Endpoint::parse(&text).map_err(|e| e.context("HF_ENDPOINT"))?,
            None => Endpoint::parse(DEFAULT_ENDPOINT)?,
        };
        let on = |name: &str| get(name).is_some_and(|v| truth(&v));
        let token = if on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else if let Some(text) = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]) {
            Token::new(&text)?
        } else {
            token_file(&token_path(var))?
        };
        let default = Self::default();
        let seconds = |name: &str, otherwise: Duration| match get(name) {
            None => Ok(otherwise),
            Some(text) => match text.trim().parse::<u32>() {
                Ok(n) if n > 0 => Ok(Duration::from_secs(n.into())),
                _ => Err(Error::usage(format!("{name} is no number of seconds: {text:?}"))),
            },
        };
        let all = first(&["ALL_PROXY", "all_proxy"]);
        Ok(Self {
            endpoint,
            token,
            cache,
            offline: on("HF_HUB_OFFLINE") || (get("HF_HUB_OFFLINE").is_none() && on("TRANSFORMERS_OFFLINE")),
            proxies: Proxies {
                // Upper case is what a CGI request can set (CVE-2016-5385), which is no danger to a command.
                http: first(&["http_proxy", "HTTP_PROXY"]).or_else(|| all.clone()),
                https: first(&["https_proxy", "HTTPS_PROXY"]).or(all),
                no_proxy: first(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
            },
            certificates: first(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
                .map(PathBuf::from),
            answer_timeout: seconds("HF_HUB_ETAG_TIMEOUT", default.answer_timeout)?,
            stall_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", default.stall_timeout)?,
            symlinks: !on("HF_HUB_DISABLE_SYMLINKS"),
            ..default
        })
    }

    /// The folder of a mirror, where the endpoint is one.
    pub fn mirror(&self) -> Option<&Path> {
        match &self.endpoint {
            Endpoint::Mirror(path) => Some(path),
            Endpoint::Web(_) => None,
        }
    }
}

/// What counts as yes, in every tool around the Hub.
fn truth(value: &str) -> bool {
    matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// `~` at the start, and variables (`$NAME`, `${NAME}`) anywhere; variables that are not set stay as they are.
fn expand(text: &str, var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let end = || tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
        let braced = tail.strip_prefix('{').and_then(|t| t.split_once('}'));
        let (name, after) = braced.unwrap_or_else(|| tail.split_at(end()));
        match var(name).filter(|_| !name.is_empty()) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&rest[at..rest.len() - after.len()]),
        }
        rest = after;
    }
    out.push_str(rest);
    match (out.strip_prefix('~'), var("HOME")) {
        (Some(tail), Some(home)) if tail.is_empty() || tail.starts_with('/') => PathBuf::from(home + tail),
        _ => PathBuf::from(out),
    }
}

/// Where Hugging Face's tools keep what they have.
fn home(var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let get = |name: &str| var(name).filter(|v| !v.trim().is_empty());
    match (get("HF_HOME"), get("XDG_CACHE_HOME")) {
        (Some(text), _) => expand(&text, var),
        (None, Some(text)) => PathBuf::from(text).join("huggingface"),
        (None, None) => expand("~/.cache/huggingface", var),
    }
}

/// The file in which a token is stored, whether or not it is there, by environment variables that `var` gives.
pub fn token_path(var: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let given = var("HF_TOKEN_PATH").filter(|v| !v.trim().is_empty());
    given.map_or_else(|| home(var).join("token"), |text| expand(&text, var))
}

/// The token in a file; none where the file is not there.
fn token_file(path: &Path) -> Result<Option<Token>> {
    match read_small(path, TOKEN_FILE) {
        Ok(text) => Token::new(&String::from_utf8_lossy(&text)).map_err(|e| e.file(path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read the access token", e).file(path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Settings {
        try_settings(vars).unwrap()
    }

    fn try_settings(vars: &[(&str, &str)]) -> Result<Settings> {
        let vars: Vec<(String, String)> =
            vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::from_vars(&move |name| vars.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn folders_follow_the_variables_in_their_order() {
        let cache = |vars: &[(&str, &str)]| settings(vars).cache.display().to_string();
        assert_eq!(cache(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/hf")]), "/h/hf/hub");
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")]), "/old");
        assert_eq!(cache(&[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")]), "/new");
        assert_eq!(cache(&[("HF_HUB_CACHE", "$D/${E}x/$F"), ("D", "/d"), ("E", "e")]), "/d/ex/$F");
        assert_eq!(cache(&[("HF_HUB_CACHE", ""), ("HF_HOME", "/hf")]), "/hf/hub", "empty is as good as none");
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, " hf_fromfile\n").unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token.unwrap().secret(), "hf_fromfile");
        assert_eq!(settings(&[("HF_HOME", home), ("HF_TOKEN", "hf_x\n")]).token.unwrap().secret(), "hf_x");
        let path = file.to_str().unwrap();
        assert_eq!(settings(&[("HF_TOKEN_PATH", path)]).token.unwrap().secret(), "hf_fromfile");
        assert!(settings(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token.is_none());
        assert!(settings(&[("HF_HOME", "/nowhere")]).token.is_none());
    }

    #[test]
    fn secrets_have_no_way_into_text() {
        let s = settings(&[
            ("HF_TOKEN", "hf_secret"),
            ("HTTPS_PROXY", "http://me:pass@proxy:3128"),
            ("HF_HOME", "/hf"),
        ]);
        let shown = format!("{s:?} {s:#?}");
        assert!(!shown.contains("hf_secret") && !shown.contains("pass"), "{shown}");
        let e = try_settings(&[("HF_TOKEN", "hf_sec ret")]).unwrap_err();
        let text = format!("{e} {e:?} {:?}", e.hint_text());
        assert!(!text.contains("hf_sec"), "{text}");
        let e = try_settings(&[("HF_ENDPOINT", "https://u:hf_secret@host")]).unwrap_err();
        assert!(!format!("{e:?}").contains("hf_secret"));
    }

    #[test]
    fn offline_and_timeouts_are_read() {
        for (value, offline) in [("1", true), ("true", true), ("Yes", true), ("0", false), ("off", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).offline);
        assert!(!settings(&[("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "7")]).stall_timeout, Duration::from_secs(7));
        assert!(try_settings(&[("HF_HUB_ETAG_TIMEOUT", "soon")]).unwrap_err().message().contains("ETAG"));
    }

    #[test]
    fn proxies_go_by_scheme_and_exceptions() {
        let p = settings(&[
            ("HTTPS_PROXY", "http://s"),
            ("ALL_PROXY", "http://a"),
            ("NO_PROXY", "localhost, .corp.example,127.0.0.1:99"),
        ])
        .proxies;
        let of = |url: &str| p.of(&Url::parse(url).unwrap());
        assert_eq!(of("https://huggingface.co/x"), Some("http://s"));
        assert_eq!(of("http://huggingface.co/x"), Some("http://a"));
        assert_eq!(of("https://localhost/x"), None);
        assert_eq!(of("https://hub.corp.example/x"), None);
        assert_eq!(of("https://hubcorp.example/x"), Some("http://s"));
        assert_eq!(of("http://127.0.0.1:99/"), None);
        assert_eq!(of("http://127.0.0.1:98/"), Some("http://a"));
        let excepted = |no_proxy: &str, url: &str| {
            let p =
                Proxies { http: Some("http://a".into()), no_proxy: no_proxy.into(), ..Proxies::default() };
            p.of(&Url::parse(url).unwrap()).is_none()
        };
        assert!(excepted("10.0.0.0/8, 192.168.1.1", "http://10.200.3.4:80/"));
        assert!(excepted("10.0.0.0/8, 192.168.1.1", "http://192.168.1.1/"));
        assert!(!excepted("10.0.0.0/8, 192.168.1.1", "http://11.0.0.1/"));
        assert!(!excepted("10.0.0.0/8", "http://10.example/"), "a name is no address");
        assert!(excepted("::1,fd00::/8", "http://[::1]:80/") && excepted("[fd00::]/8", "http://[fd12::1]/"));
        assert!(!excepted("fd00::/8", "http://[fe80::1]/") && !excepted("::1", "http://[::2]/"));
        assert!(excepted("0.0.0.0/0", "http://1.2.3.4/") && !excepted("0.0.0.0/0", "http://[::1]/"));
        assert!(!excepted("10.0.0.0/x", "http://10.0.0.1/"));
    }

    #[test]
    fn certificates_come_from_the_first_variable_that_is_set() {
        let of = |vars: &[(&str, &str)]| settings(vars).certificates.map(|p| p.display().to_string());
        let (ssl, requests, curl) =
            (("SSL_CERT_FILE", "/ssl"), ("REQUESTS_CA_BUNDLE", "/requests"), ("CURL_CA_BUNDLE", "/curl"));
        assert_eq!(of(&[curl, requests, ssl]).as_deref(), Some("/ssl"));
        assert_eq!(of(&[curl, requests]).as_deref(), Some("/requests"));
        assert_eq!(of(&[curl, ("SSL_CERT_FILE", "")]).as_deref(), Some("/curl"));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn endpoints_are_servers_or_folders() {
        assert_eq!(Endpoint::parse("http://127.0.0.1:8000/").unwrap().to_string(), "http://127.0.0.1:8000");
        assert_eq!(Endpoint::parse("/mnt/mirror").unwrap(), Endpoint::Mirror("/mnt/mirror".into()));
        assert_eq!(Endpoint::parse("file:///mnt/m").unwrap(), Endpoint::Mirror("/mnt/m".into()));
        assert!(Endpoint::parse("ftp://host").is_err());
    }
}

//! Secrets in text, read in stretches. What is told is where, and how a secret begins, never the secret.

use crate::{
    finding::{Place, Sink},
    rules::{self, Rule},
};
use regex::bytes::Regex;
use std::sync::LazyLock;
use tensormill_model::Store;

/// Bytes looked at of one file.
const MOST: u64 = 64 << 20;
const STRETCH: usize = 256 << 10;
/// The longest secret that may lie across two stretches.
const OVERLAP: usize = 4 << 10;

/// Secrets whose form says what they are. One group each, in the order of [`KINDS`]: one pass finds all of them.
static SECRETS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?-u)",
        r"((?:hf|api_org)_[A-Za-z0-9]{34,40})",
        r"|((?:AKIA|ASIA)[A-Z2-7]{16})",
        r"|(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255})",
        r"|(sk-(?:ant|proj|or|svcacct|admin)-[A-Za-z0-9_-]{32,255}|sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}|sk-[A-Za-z0-9]{48}|gsk_[A-Za-z0-9]{50,60})",
        r"|(xox[abposr]-[0-9A-Za-z-]{20,250}|https://hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,})",
        r"|(AIza[0-9A-Za-z_-]{35})",
        r"|(-----BEGIN (?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----)",
        r"|(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,})",
        r"|((?:https?|ftp|ssh|postgres(?:ql)?|mysql|mongodb(?:\+srv)?|redis|amqp)://[A-Za-z0-9._%+-]{1,64}:[^\s:/@'\x22<>{}$\[\]*]{3,128}@[A-Za-z0-9.-]+)",
    ))
    .ok()
});

static KINDS: [&Rule; 9] = [
    &rules::SECRET_HF,
    &rules::SECRET_AWS,
    &rules::SECRET_GITHUB,
    &rules::SECRET_AI,
    &rules::SECRET_SLACK,
    &rules::SECRET_GOOGLE,
    &rules::SECRET_PRIVATE,
    &rules::SECRET_JWT,
    &rules::SECRET_URL,
];

/// `key: value` and `KEY=value` in configurations that are no JSON.
static PASSWORD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?-u)(?i)(?m)^[ \t]*(?:export[ \t]+|-[ \t]+)?["']?([a-z0-9_.-]{0,40}(?:password|passwd|secret|api_?key|access_?token|auth_?token|private_?key))["']?[ \t]*[:=][ \t]*["']?([^\s"'#]{6,200})"#,
    )
    .ok()
});

/// The line, counted from one, that a place is in.
pub(crate) fn line_of(text: &[u8], at: usize) -> u64 {
    text[..at].split(|b| *b == b'\n').count() as u64
}

/// Lines of places that are asked for in order: nothing is counted twice, however many there are.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8], first: u64) -> Self {
        Self { text, at: 0, line: first }
    }
    fn of(&mut self, at: usize) -> u64 {
        self.line += line_of(&self.text[self.at..at], at - self.at) - 1;
        self.at = at;
        self.line
    }
}

/// Whether a file's beginning is text.
pub(crate) fn is_text(head: &[u8]) -> bool {
    let odd = |b: &u8| *b < 9 || (*b > 13 && *b < 32 && *b != 27) || *b == 127;
    !head.is_empty() && !head.contains(&0) && head.iter().filter(|b| odd(b)).count() * 50 < head.len()
}

/// Looks through a text file; `is_config` where keys that are called like a secret's are told of.
pub(crate) fn scan(store: &dyn Store, is_config: bool, sink: &mut Sink<'_>) {
    let mut buf = vec![0; STRETCH + OVERLAP];
    let (mut at, mut line) = (0, 1);
    let end = store.len().min(MOST);
    while at < end {
        let n = (end - at).min(buf.len() as u64) as usize;
        let part = &mut buf[..n];
        if let Err(e) = store.read_at(at, part) {
            sink.add(&rules::FILE_UNREADABLE, Place::at(at), e.message());
            return;
        }
        // What starts in the overlap is found from the next stretch on.
        let own = if at + (n as u64) < end { STRETCH } else { n };
        let mut lines = Lines::new(part, line);
        for (rule, start, found) in secrets(part).take_while(|(_, start, _)| *start < own) {
            sink.add(rule, Place::line(lines.of(start)), found);
        }
        if is_config {
            let mut lines = Lines::new(part, line);
            for m in PASSWORD.iter().flat_map(|r| r.captures_iter(part)) {
                let (Some(key), Some(value)) = (m.get(1), m.get(2)) else { continue };
                let (name, value) = (lossy(key.as_bytes()), lossy(value.as_bytes()));
                if key.start() < own && is_password(&name, &value) {
                    sink.add(&rules::SECRET_PASSWORD, Place::line(lines.of(key.start())), name);
                }
            }
        }
        line += line_of(&part[..own], own) - 1;
        at += own as u64;
    }
    if store.len() > MOST {
        sink.add(&rules::SCAN_LIMIT, Place::at(MOST), format!("a text of {} bytes", store.len()));
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Secrets in a short text with a name.
pub(crate) fn secrets_in(text: &str, path: &str, sink: &mut Sink<'_>) {
    for (rule, _, found) in secrets(text.as_bytes()) {
        sink.add(rule, Place::path(path), found);
    }
}

fn secrets(text: &[u8]) -> impl Iterator<Item = (&'static Rule, usize, String)> {
    SECRETS.iter().flat_map(move |r| r.captures_iter(text)).filter_map(move |c| {
        let (n, m) = (1..=KINDS.len()).find_map(|n| c.get(n).map(|m| (n, m)))?;
        let word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        // Within a longer word it is part of something else: hashes, base64.
        let whole =
            !word(m.start().checked_sub(1).and_then(|i| text.get(i))) && (n == 9 || !word(text.get(m.end())));
        (whole && !is_placeholder(m.as_bytes())).then(|| (KINDS[n - 1], m.start(), masked(n, m.as_bytes())))
    })
}

/// The beginning of a secret, and its length.
fn masked(kind: usize, secret: &[u8]) -> String {
    match kind {
        7 => lossy(secret),
        9 => {
            let end = secret.iter().rposition(|b| *b == b':').unwrap_or(0);
            let host = secret.iter().rposition(|b| *b == b'@').unwrap_or(end);
            format!("{}:***{}", lossy(&secret[..end]), lossy(&secret[host..]))
        }
        _ => format!("{}... ({} characters)", lossy(&secret[..secret.len().min(7)]), secret.len()),
    }
}

/// `hf_xxxxxxxx` and the like in documentation.
fn is_placeholder(secret: &[u8]) -> bool {
    let tail = &secret[secret.len() - secret.len().min(16)..];
    let mut kinds = tail.to_ascii_lowercase();
    kinds.sort_unstable();
    kinds.dedup();
    let text = String::from_utf8_lossy(secret);
    let documented = [":password@", ":passwd@", ":pass@", ":secret@", ":token@", ":pwd@"];
    if documented.iter().any(|p| text.contains(p)) {
        return true;
    }
    // Tokens are random: of sixteen characters many differ. Headers of keys have no tail of their own.
    kinds.len() < 5 || secret.windows(7).any(|w| w.eq_ignore_ascii_case(b"EXAMPLE"))
}

/// Whether a key and its value look like a password that somebody left there.
pub(crate) fn is_password(key: &str, value: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let named = [
        "password",
        "passwd",
        "secret",
        "api_key",
        "apikey",
        "access_token",
        "auth_token",
        "private_key",
        "secret_key",
    ]
    .iter()
    .any(|k| key == *k || key.strip_suffix(k).is_some_and(|rest| rest.ends_with(['_', '-', '.'])));
    let lower = value.to_ascii_lowercase();
    let placeholder = value.len() < 6
        || value.starts_with(['<', '$', '{', '*', '%'])
        || [
            "your",
            "xxx",
            "null",
            "none",
            "true",
            "false",
            "changeme",
            "placeholder",
            "example",
            "env",
            "os.",
            "...",
        ]
        .iter()
        .any(|p| lower.starts_with(p));
    named && !placeholder
}

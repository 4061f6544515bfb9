//! What must not be in a card: where files lay on a machine, who used it, its name, and secrets.
//!
//! A card is read by everybody, and much of what it is made of was written by machines for themselves. Whoever makes a
//! card says what is private on this machine; paths of other machines and tokens are known by their shape.

use regex::{Captures, Regex};
use std::sync::LazyLock;

/// What stands in place of a secret.
pub const REMOVED: &str = "<removed>";

/// Replaces what is private.
#[derive(Clone, Debug, Default)]
pub struct Scrub {
    /// Texts to remove wherever they are: values of tokens.
    secrets: Vec<String>,
    /// Folders whose names are to go: the home folder, the folder of the source.
    folders: Vec<String>,
    /// Names of this machine.
    hosts: Vec<Regex>,
}

/// A private thing in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A path of somebody's machine.
    Path,
    /// Something that grants access.
    Secret,
}

/// Names that say nothing about whose machine it is, or are words.
const COMMON_HOSTS: [&str; 6] = ["localhost", "host", "linux", "ubuntu", "debian", "docker"];

static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"\b(?:hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}",
        r"|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}",
        r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})",
    ))
    .expect("a constant pattern")
});

/// Absolute paths below folders that hold people's files, with what precedes them: not as a part of a URL or a word.
static PATH: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?P<before>^|[\s"'`(<>=:,;\[\]{}|])(?:file://[A-Za-z0-9.-]*)?(?P<path>"#,
        r#"(?:/(?:home|Users|root|mnt|media|data|scratch|tmp|var|private|srv|opt|workspace|work|nfs|lustre|gpfs|storage|export|run)"#,
        r#"(?:/[^\s"'`()<>\[\]{}|,;:]+)+"#,
        r#"|~/[^\s"'`()<>\[\]{}|,;:]+"#,
        r#"|[A-Za-z]:\\[^\s"'`()<>\[\]{}|,;:]+|\\\\[^\s"'`()<>\[\]{}|,;:\\]+\\[^\s"'`()<>\[\]{}|,;:]+))"#,
    ))
    .expect("a constant pattern")
});

impl Scrub {
    /// Knows secrets by value, folders by path and machines by name; short secrets and common names are not looked for.
    pub fn new(
        secrets: impl IntoIterator<Item = String>,
        folders: impl IntoIterator<Item = String>,
        hosts: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut folders: Vec<String> = folders
            .into_iter()
            .map(|f| f.trim_end_matches(['/', '\\']).to_owned())
            .filter(|f| f.len() > 1 && (f.starts_with('/') || f.contains(":\\")))
            .collect();
        // The longest first: what is below a folder is also below its parent.
        folders.sort_by_key(|f| std::cmp::Reverse(f.len()));
        let is_name = |h: &String| h.len() > 3 && !COMMON_HOSTS.contains(&h.to_ascii_lowercase().as_str());
        let word = |h: String| Regex::new(&format!(r"(?i)\b{}\b", regex::escape(&h))).ok();
        Self {
            secrets: secrets.into_iter().map(|s| s.trim().to_owned()).filter(|s| s.len() >= 8).collect(),
            folders,
            hosts: hosts.into_iter().filter(is_name).filter_map(word).collect(),
        }
    }

    /// A text without what is private: paths become their last component.
    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for secret in &self.secrets {
            out = out.replace(secret, REMOVED);
        }
        out = TOKEN.replace_all(&out, REMOVED).into_owned();
        for folder in &self.folders {
            out = without_folder(&out, folder);
        }
        let last = |c: &Captures<'_>| format!("{}{}", &c["before"], last_component(&c["path"]));
        out = PATH.replace_all(&out, last).into_owned();
        for host in &self.hosts {
            out = host.replace_all(&out, "<host>").into_owned();
        }
        out
    }
}

/// Paths below a folder as their last component; the folder itself as its own.
fn without_folder(text: &str, folder: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(folder) {
        let (before, found) = rest.split_at(at);
        let after = &found[folder.len()..];
        out.push_str(before);
        let whole = !after.starts_with(|c: char| c.is_alphanumeric() || "_-.".contains(c));
        // A folder that a URL or a longer path happens to contain is none of ours.
        if !whole || before.ends_with(|c: char| c.is_alphanumeric() || "_-./".contains(c)) {
            out.push_str(folder);
            rest = after;
            continue;
        }
        let ends = |c: char| c.is_whitespace() || "\"'`()<>[]{}|,;".contains(c);
        let end = after.find(ends).unwrap_or(after.len());
        let path = &found[..folder.len() + end];
        out.push_str(last_component(path));
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// What is private in a text by its shape, with the byte where each begins.
pub fn find(text: &str) -> Vec<(usize, Kind)> {
    let secrets = TOKEN.find_iter(text).map(|m| (m.start(), Kind::Secret));
    let paths = PATH.captures_iter(text).filter_map(|c| Some((c.name("path")?.start(), Kind::Path)));
    let mut all: Vec<_> = secrets.chain(paths).collect();
    all.sort_by_key(|(at, _)| *at);
    all
}

/// The last component of a path, of either kind of system.
pub fn last_component(path: &str) -> &str {
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default()
}

/// A Hub id (`org/name`, or the bare name of an old model), and nothing that looks like a place on somebody's disk.
pub fn hub_id(text: &str) -> Option<&str> {
    const FOLDERS: [&str; 24] = [
        "model",
        "models",
        "checkpoint",
        "checkpoints",
        "ckpt",
        "ckpts",
        "output",
        "outputs",
        "out",
        "run",
        "runs",
        "result",
        "results",
        "data",
        "tmp",
        "temp",
        "home",
        "mnt",
        "workspace",
        "content",
        "saved",
        "src",
        "logs",
        "weights",
    ];
    static STEP: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:checkpoint|epoch|step|global_step|ckpt)[-_]?\d+$").expect("a constant pattern")
    });
    let (org, name) = text.split_once('/').map_or((None, text), |(org, name)| (Some(org), name));
    let is_part = |s: &str| {
        !s.is_empty()
            && s.len() <= 96
            && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && s.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && !s.contains("..")
            && !s.contains("--")
    };
    let looks_local = |s: &str| FOLDERS.contains(&s.to_ascii_lowercase().as_str()) || STEP.is_match(s);
    let ok =
        is_part(name) && org.is_none_or(is_part) && !org.is_some_and(looks_local) && !STEP.is_match(name);
    // A bare word is a Hub id for a handful of old models only.
    (ok && (org.is_some() || !looks_local(name))).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_things_go_and_others_stay() {
        let scrub = Scrub::new(
            ["s3cr3t-value-1".to_owned(), "x".to_owned()],
            ["/data/alice".to_owned(), "/".to_owned()],
            ["mill-07".to_owned(), "linux".to_owned()],
        );
        for (text, expected) in [
            ("run /home/alice/models/m.gguf now", "run m.gguf now"),
            ("`/data/alice/a b`", "`a b`"),
            ("out=/data/alice", "out=alice"),
            ("C:\\Users\\alice\\m.gguf", "m.gguf"),
            ("~/models/x/", "x"),
            ("file:///home/alice/x.json", "x.json"),
            ("hf_abcdefghijklmnopqrstuvwxyz and s3cr3t-value-1", "<removed> and <removed>"),
            ("trained on mill-07, on linux", "trained on <host>, on linux"),
            ("https://example.org/home/alice/x", "https://example.org/home/alice/x"),
            ("POST /v1/chat/completions", "POST /v1/chat/completions"),
            ("the data/home split", "the data/home split"),
        ] {
            assert_eq!(scrub.text(text), expected);
        }
        assert_eq!(find("see /home/a/b and hf_abcdefghijklmnopqrstuvwxyz").len(), 2);
    }

    #[test]
    fn hub_ids_are_told_from_paths() {
        for id in ["org/name", "meta-llama/Llama-3.2-1B", "gpt2", "bert-base-uncased"] {
            assert_eq!(hub_id(id), Some(id));
        }
        for path in [
            "/home/a/b",
            "./model",
            "models/llama",
            "a/b/c",
            "outputs/checkpoint-500",
            "..",
            "",
            "org/",
            "org/checkpoint-12",
            "C:\\m",
            "~/x",
            "model",
            "a b/c",
            "out",
        ] {
            assert_eq!(hub_id(path), None, "{path}");
        }
    }
}

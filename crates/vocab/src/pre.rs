//! The pre-tokenizer's name: the peer recognises a byte-level BPE by the ids of one fixed text.
//!
//! `data/check_text.txt` is that text and `data/pre_tokenizers.tsv` its table, both extracted by
//! `data/extract.py`. The digest is the sha256 of the ids printed as Python prints a list.
//!
//! Must not know how the ids are computed.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use tensormill_model::{Error, Result};

const TABLE: &str = include_str!("../data/pre_tokenizers.tsv");
const TEXT: &str = include_str!("../data/check_text.txt");

/// The text whose ids name a pre-tokenizer.
pub fn check_text() -> &'static str {
    TEXT
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().filter_map(|l| l.split_once('\t'))
}

/// Every name `--pre` accepts, sorted.
pub fn pre_names() -> impl Iterator<Item = &'static str> {
    let mut names: Vec<_> = rows().map(|(_, name)| name).chain(["default"]).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// The digest of a list of ids, in hexadecimal.
pub fn digest(ids: &[u32]) -> String {
    let mut list = String::with_capacity(ids.len() * 8);
    for (i, id) in ids.iter().enumerate() {
        let _ = write!(list, "{}{id}", if i == 0 { "[" } else { ", " });
    }
    list.push_str(if ids.is_empty() { "[]" } else { "]" });
    Sha256::digest(list.as_bytes()).iter().fold(String::with_capacity(64), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// The name for the ids of [`check_text`].
pub fn resolve(ids: &[u32]) -> Result<&'static str> {
    let digest = digest(ids);
    match rows().find(|(d, _)| *d == digest) {
        Some((_, name)) => Ok(name),
        None => Err(Error::unsupported(format!(
            "the BPE pre-tokenizer is not in the table (check hash {digest})"
        ))
        .file("tokenizer.json")
        .hint(format!(
            "name it yourself with --pre NAME if you know which it is; names: {}",
            pre_names().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The error for a `--pre` that is not a name.
pub fn unknown_name(name: &str) -> Error {
    Error::usage(format!("unknown pre-tokenizer {name:?}"))
        .hint(format!("use one of: {}", pre_names().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_of_pythons_list() {
        // hashlib.sha256(str([1, 22, 333]).encode()).hexdigest()
        assert_eq!(digest(&[1, 22, 333]), "276d8737d9d5a80805e0731e8d5ae18972a8e3ba721f4988f67151c6e9159068");
    }

    #[test]
    fn table_is_whole() {
        assert!(rows().all(|(d, n)| d.len() == 64 && !n.is_empty()));
        assert!(["llama-bpe", "qwen2", "gpt-2", "jina-v2-en"].iter().all(|n| pre_names().any(|p| p == *n)));
        assert!(TEXT.starts_with("\n \n\n") && TEXT.ends_with("We'Ve a'lL"));
    }
}

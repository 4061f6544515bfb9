//! JSON of servers, and of other programs that share the cache: read within a bound on memory.
//!
//! How long a document may be is said where its bytes come from. A value takes many times the two bytes that it may be written
//! in, so values are counted before any is made.

use serde::de::DeserializeOwned;
use tensormill_model::{Error, Result};

/// Values of one document, at most: a hundred megabytes of them. The longest that servers have reason to send, the list of ten
/// thousand files, has a tenth of it.
pub(crate) const VALUES: usize = 1 << 20;

/// Longest part of what others say that is repeated, in characters.
const SHOWN: usize = 300;

/// The value that a document is.
///
/// # Errors
/// `OverLimit` where it has more values than that; `Malformed` where it is no JSON, or means something else.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], values: usize) -> Result<T> {
    if count(bytes) > values {
        return Err(Error::over_limit(format!("more than {values} values in one JSON document")));
    }
    serde_json::from_slice(bytes).map_err(|e| Error::malformed(shown(&e.to_string())))
}

/// How many values there are, at most: a comma or a bracket stands before each but the first.
fn count(bytes: &[u8]) -> usize {
    let (mut values, mut text, mut escaped) = (1usize, false, false);
    for b in bytes {
        match b {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b',' | b'[' | b'{' if !text => values += 1,
            _ => {}
        }
    }
    values
}

/// What others say, in one short line without control characters: for messages.
pub(crate) fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.trim().chars().map(plain).take(SHOWN).collect();
    if short.len() < text.trim().len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tensormill_model::ErrorKind;

    #[test]
    fn values_are_counted_before_they_are_made() {
        for (text, values) in [
            ("1", 1),
            ("[]", 2),
            ("[1,2,3]", 4),
            (r#"{"a":[1,{"b":null}],"c":"x,y[z{"}"#, 6),
            (r#"["a\",b","\\",1]"#, 4),
        ] {
            assert_eq!(count(text.as_bytes()), values, "{text}");
            assert!(read::<Value>(text.as_bytes(), values).is_ok(), "{text}");
            let e = read::<Value>(text.as_bytes(), values - 1).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::OverLimit, "{text}");
        }
        let text = format!("[{}1]", "0,".repeat(100));
        assert!(read::<Value>(text.as_bytes(), 100).is_err());
    }

    #[test]
    fn errors_are_short_whatever_they_are_about() {
        let text = format!("\"{}\u{7f}\"", "\\u001b".repeat(10_000));
        let e = read::<u64>(text.as_bytes(), VALUES).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed);
        assert!(e.message().len() < 1000 && !e.message().contains(char::is_control), "{e}");
        for deep in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
            assert_eq!(read::<Value>(deep.as_bytes(), VALUES).unwrap_err().kind(), ErrorKind::Malformed);
        }
    }
}

//! What a scalar is: YAML 1.1's implicit types as PyYAML resolves them (yaml/resolver.py, yaml/constructor.py).

use super::Value;
use regex::Regex;
use saphyr_parser::{ScalarStyle, Tag};
use std::sync::LazyLock;

/// Stands for a plain `<<`: no text can be equal to it, since a card holds no NUL.
pub(super) const MERGE: &str = "\0<<";

static BOOL: LazyLock<Regex> =
    LazyLock::new(|| re("yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF"));
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    re(
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    )
});
static INT: LazyLock<Regex> = LazyLock::new(|| {
    re(
        r"[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
    )
});
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    re(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?",
    )
});

fn re(alternatives: &str) -> Regex {
    Regex::new(&format!(r"\A(?:{alternatives})\z")).expect("a constant pattern")
}

pub(super) fn resolve(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let forced = tag.is_some_and(|t| t.suffix == "str" || t.handle.is_empty());
    if forced || style != ScalarStyle::Plain {
        return Value::Str(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "<<" => Value::Str(MERGE.into()),
        t if BOOL.is_match(t) => {
            Value::Bool(matches!(t.to_ascii_lowercase().as_str(), "yes" | "true" | "on"))
        }
        t if INT.is_match(t) => Value::Int(int(t), text),
        t if FLOAT.is_match(t) => Value::Float(float(t), text),
        t if TIME.is_match(t) => Value::Time(text),
        _ => Value::Str(text),
    }
}

/// The value of a YAML 1.1 integer, `None` beyond 64 bits.
fn int(text: &str) -> Option<i64> {
    let t = text.replace('_', "");
    let (negative, digits) = match t.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, t.strip_prefix('+').unwrap_or(&t)),
    };
    let value = if let Some(b) = digits.strip_prefix("0b") {
        i64::from_str_radix(b, 2).ok()?
    } else if let Some(x) = digits.strip_prefix("0x") {
        i64::from_str_radix(x, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8).ok()?
    } else {
        // A number may be written in base 60, as in 1:30.
        digits.split(':').try_fold(0i64, |a, d| a.checked_mul(60)?.checked_add(d.parse().ok()?))?
    };
    Some(if negative { -value } else { value })
}

fn float(text: &str) -> f64 {
    let t = text.replace('_', "").to_ascii_lowercase();
    match t.as_str() {
        ".nan" => f64::NAN,
        ".inf" | "+.inf" => f64::INFINITY,
        "-.inf" => f64::NEG_INFINITY,
        _ if t.contains(':') => {
            let negative = t.starts_with('-');
            let value = t
                .trim_start_matches(['-', '+'])
                .split(':')
                .fold(0.0, |a, d| a * 60.0 + d.parse().unwrap_or(0.0));
            if negative { -value } else { value }
        }
        _ => t.parse().unwrap_or(0.0),
    }
}

/// Whether a reader by YAML 1.2's core schema (the Hub's own, js-yaml) takes a plain word for something else than text,
/// or one of the words that YAML 1.1 lists and PyYAML does not.
pub(super) fn is_ambiguous(word: &str) -> bool {
    static CORE: LazyLock<Regex> = LazyLock::new(|| {
        re(
            r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[yYnN=]",
        )
    });
    CORE.is_match(word)
}

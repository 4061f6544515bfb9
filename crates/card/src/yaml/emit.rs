//! A tree as YAML that PyYAML, js-yaml and this house's own parser read as the same data.
//!
//! Lists stand at their key's indentation, as the Hub's own tools write them. Text is plain where no reader could take it
//! for something else, a literal block where it has lines, and quoted with escapes where neither is sure.

use super::{
    Tree, Value,
    scalar::{is_ambiguous, resolve},
};
use saphyr_parser::ScalarStyle;
use std::fmt::Write;

/// One key and its value, with a line feed at the end.
pub fn emit(key: &Tree, value: &Tree) -> String {
    let mut out = String::new();
    entry(&mut out, 0, key, value);
    out
}

fn indent(out: &mut String, by: usize) {
    out.extend(std::iter::repeat_n(' ', by));
}

/// Characters after which readers take no text for a key that its colon alone makes one (YAML 1.2, 7.4).
const LONGEST_KEY: usize = 1024;

fn entry(out: &mut String, at: usize, key: &Tree, value: &Tree) {
    let start = out.len();
    // No reader of cards takes lists and maps as keys: PyYAML stops at them.
    scalar(out, key, at, true);
    if out[start..].chars().count() >= LONGEST_KEY {
        out.insert_str(start, "? ");
        out.push('\n');
        indent(out, at);
    }
    out.push(':');
    match &value.value {
        Value::Map(m) if !m.is_empty() => {
            out.push('\n');
            map(out, value, at + 2, false);
        }
        Value::Seq(v) if !v.is_empty() => {
            out.push('\n');
            list(out, v, at);
        }
        _ => {
            out.push(' ');
            scalar(out, value, at, false);
            out.push('\n');
        }
    }
}

/// The entries of a map, each indented but the first where it stands behind something.
fn map(out: &mut String, tree: &Tree, at: usize, behind: bool) {
    for (i, (key, value)) in tree.distinct().into_iter().enumerate() {
        if i > 0 || !behind {
            indent(out, at);
        }
        entry(out, at, key, value);
    }
}

fn list(out: &mut String, items: &[Tree], at: usize) {
    for item in items {
        indent(out, at);
        out.push('-');
        match &item.value {
            Value::Map(m) if !m.is_empty() => {
                out.push(' ');
                map(out, item, at + 2, true);
            }
            Value::Seq(v) if !v.is_empty() => {
                out.push('\n');
                list(out, v, at + 2);
            }
            _ => {
                out.push(' ');
                scalar(out, item, at, false);
                out.push('\n');
            }
        }
    }
}

fn scalar(out: &mut String, tree: &Tree, at: usize, is_key: bool) {
    match &tree.value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(_, s) | Value::Float(_, s) | Value::Time(s) => out.push_str(s),
        Value::Str(s) if is_plain(s) => out.push_str(s),
        Value::Str(s) if !is_key && is_block(s) => {
            out.push_str("|-");
            for line in s.split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    indent(out, at + 2);
                    out.push_str(line);
                }
            }
        }
        Value::Str(s) => quoted(out, s),
        Value::Seq(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
    }
}

/// Whether a text can stand as it is, for readers of YAML 1.1 and 1.2.
fn is_plain(s: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || "_./+-@()=,;'&%$~^*!?<> ".contains(c);
    let starts = s.starts_with(|c: char| c.is_alphanumeric() || "_./+(".contains(c));
    starts
        && !s.ends_with(' ')
        && s.char_indices().all(|(i, c)| {
            // A colon is part of a word where it neither ends nor separates one: `https://`, `10:30`.
            inner(c) || (c == ':' && s[i + 1..].starts_with(|next: char| !next.is_whitespace()))
        })
        && !is_ambiguous(s)
        && matches!(resolve(s.to_owned(), ScalarStyle::Plain, None), Value::Str(t) if t == s)
}

/// Whether a text of lines can stand as a literal block that ends without a line feed.
fn is_block(s: &str) -> bool {
    let printable = |c: char| c == '\n' || (is_printable(c) && c != '\t');
    s.contains('\n')
        && !s.ends_with('\n')
        // The first line sets the indentation.
        && !s.starts_with([' ', '\n'])
        && !s.lines().any(|l| !l.is_empty() && l.trim().is_empty())
        && s.chars().all(printable)
        && s.lines().all(|l| l != "---")
}

/// What PyYAML's reader lets pass and no reader takes for the end of a line.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && c != '\u{feff}'
}

fn quoted(out: &mut String, s: &str) {
    // Single quotes where nothing needs escapes: backslashes stay what they are.
    if !s.contains('\'') && s.chars().all(|c| is_printable(c) && c != '\t') {
        let _ = write!(out, "'{s}'");
        return;
    }
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::{super::parse_tree, *};

    #[test]
    fn every_text_comes_back_as_it_was() {
        let texts = [
            "en",
            "no",
            "y",
            "1.10",
            "1e5",
            "0x10",
            "0o17",
            "=",
            "<<",
            "~",
            "null",
            "",
            " a",
            "a ",
            "a: b",
            "a #b",
            "#b",
            "- a",
            "a\nb",
            "a\n\n b",
            "a\n",
            "\na",
            " \na",
            "a\n \nb",
            "2024-01-02",
            "apache-2.0",
            "c++",
            "it's",
            "\"q\"",
            "a\\b",
            "tab\there",
            "bell\u{7}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}x",
            "日本語",
            "é: ü",
            "{a}",
            "[a]",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "|",
            ">",
            "?",
            "-",
            "---",
            "a\n---\nb",
            "x:y",
            "x:",
            "12:30",
            "1_000",
            "http://a.b/c?d=e#f",
            ".inf",
            ".5",
            "+1",
            "a,b",
            "\r\n",
            "a\r\nb",
            "null ",
            "True",
            &"long ".repeat(300),
            // Escapes are longer than what they stand for.
            &"\u{17}".repeat(300),
        ];
        for text in texts {
            let value = Tree::map([("k", Tree::list([Tree::text(text)])), (text, Tree::text(text))]);
            let yaml = emit(&Tree::text("top"), &value);
            let back = parse_tree(&yaml).unwrap_or_else(|e| panic!("{text:?}: {e:?}\n{yaml}"));
            assert!(back.root.get("top").is_some_and(|t| t.same(&value)), "{text:?}\n{yaml}");
        }
    }

    #[test]
    fn numbers_are_written_as_every_reader_takes_them() {
        for (x, text) in
            [(0.5, "0.5"), (1e-7, "1.0e-7"), (1e22, "1.0e+22"), (3.0, "3.0"), (f64::INFINITY, ".inf")]
        {
            let Value::Float(_, written) = Tree::float(x).value else { panic!() };
            assert_eq!(written, text);
            assert!(matches!(resolve(written, ScalarStyle::Plain, None), Value::Float(y, _) if y == x));
        }
    }
}

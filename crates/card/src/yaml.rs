//! YAML as PyYAML's `safe_load` sees it: the tree of a document, with YAML 1.1's idea of which plain words are text.
//!
//! The peer reads cards with PyYAML, for which `no`, `1.10` and `2024-01-01` are not text. The parser here gives events
//! with each scalar's style, so the same rules can be applied; a deserializer with rules of its own cannot do that.
//!
//! Nesting and the size after expanding aliases are limited, so that a hostile card costs nothing.

use regex::Regex;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Deepest nesting of lists and maps.
const MAX_DEPTH: usize = 64;
/// Most nodes in a document, aliases expanded. Cards with evaluation results have some thousands.
const MAX_NODES: usize = 200_000;

/// A node of the document.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `null`, `~` or nothing.
    Null,
    /// Text.
    Str(String),
    /// A truth value.
    Bool(bool),
    /// A whole number, with its text.
    Int(Option<i64>, String),
    /// A floating-point number, with its text.
    Float(f64, String),
    /// A date or time, which PyYAML makes an object of.
    Time(String),
    /// A list.
    Seq(Vec<Node>),
    /// Keys and values in order, keys that are not scalars dropped.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value of a key; the last one where there are several. `None` where this is no map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Self::Map(m) => m.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }
    /// What Python's `not` says.
    pub fn is_falsy(&self) -> bool {
        match self {
            Self::Null | Self::Bool(false) => true,
            Self::Str(s) => s.is_empty(),
            Self::Int(n, _) => *n == Some(0),
            Self::Float(x, _) => *x == 0.0,
            Self::Seq(v) => v.is_empty(),
            Self::Map(m) => m.is_empty(),
            Self::Bool(true) | Self::Time(_) => false,
        }
    }
    /// The text of a scalar as it was written; `None` for null, lists and maps.
    pub fn scalar_text(&self) -> Option<&str> {
        match self {
            Self::Str(s) | Self::Int(_, s) | Self::Float(_, s) | Self::Time(s) => Some(s),
            Self::Bool(b) => Some(if *b { "true" } else { "false" }),
            Self::Null | Self::Seq(_) | Self::Map(_) => None,
        }
    }
}

/// An unfinished list or map.
enum Open {
    Seq(Vec<Node>),
    Map { done: Vec<(String, Node)>, merged: Vec<(String, Node)>, key: Option<Node> },
}

struct Builder {
    open: Vec<(Open, usize)>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
}

/// Parses the first document.
///
/// # Errors
/// What the parser says, and documents beyond the limits.
pub fn parse(text: &str) -> Result<Node, String> {
    let mut b = Builder { open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    for event in Parser::new_from_str(text) {
        match event.map_err(|e| e.to_string())?.0 {
            Event::Scalar(text, style, anchor, tag) => {
                b.add(scalar(text.into_owned(), style, tag.as_deref()), anchor, 1)?;
            }
            Event::Alias(id) => {
                let (node, size) = b.anchors.get(&id).ok_or("an alias without its anchor")?.clone();
                b.add(node, 0, size)?;
            }
            Event::SequenceStart(anchor, _) => b.push(Open::Seq(Vec::new()), anchor)?,
            Event::MappingStart(anchor, _) => {
                b.push(Open::Map { done: Vec::new(), merged: Vec::new(), key: None }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => b.pop()?,
            Event::DocumentEnd => break,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
    }
    Ok(b.root.unwrap_or(Node::Null))
}

impl Builder {
    fn push(&mut self, open: Open, anchor: usize) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push((open, anchor));
        Ok(())
    }

    fn pop(&mut self) -> Result<(), String> {
        let (node, anchor) = match self.open.pop() {
            Some((Open::Seq(v), a)) => (Node::Seq(v), a),
            // Explicit keys win over merged ones; the last of equal keys wins.
            Some((Open::Map { done, mut merged, .. }, a)) => {
                merged.extend(done);
                (Node::Map(merged), a)
            }
            None => return Err("unbalanced lists or maps".into()),
        };
        self.add(node, anchor, 1)
    }

    /// Puts a finished node where it belongs. `size` is what it adds to the count of nodes.
    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
            self.nodes = self.nodes.saturating_add(size);
        }
        // Only as a key does `<<` mean a merge.
        let as_key = matches!(self.open.last(), Some((Open::Map { key: None, .. }, _)));
        let node = match node {
            Node::Str(s) if s == MERGE && !as_key => Node::Str("<<".into()),
            other => other,
        };
        match self.open.last_mut() {
            None => {
                self.root.get_or_insert(node);
            }
            Some((Open::Seq(v), _)) => v.push(node),
            Some((Open::Map { key, .. }, _)) if key.is_none() => *key = Some(node),
            Some((Open::Map { done, merged, key }, _)) => match (key.take(), node) {
                (Some(Node::Str(k)), value) if k == MERGE => match value {
                    Node::Map(m) => merged.extend(m),
                    // Of several maps, the first has precedence.
                    Node::Seq(maps) => {
                        for m in maps.into_iter().rev() {
                            if let Node::Map(m) = m {
                                merged.extend(m);
                            }
                        }
                    }
                    _ => return Err("a merge key without a map".into()),
                },
                (Some(Node::Str(k)), value) => done.push((k, value)),
                _ => {} // Numbers and lists as keys name nothing that we look up.
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    1 + match node {
        Node::Seq(v) => v.iter().map(count).sum(),
        Node::Map(m) => m.iter().map(|(_, v)| 1 + count(v)).sum(),
        _ => 0,
    }
}

/// Stands for a plain `<<`: no text can be equal to it, since a card holds no NUL.
const MERGE: &str = "\0<<";

// YAML 1.1's implicit types as PyYAML resolves them (yaml/resolver.py).
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

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>) -> Node {
    let forced = tag.is_some_and(|t| t.suffix == "str" || t.handle.is_empty());
    if forced || style != ScalarStyle::Plain {
        return Node::Str(text);
    }
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Node::Null,
        "<<" => Node::Str(MERGE.into()),
        t if BOOL.is_match(t) => Node::Bool(matches!(t.to_ascii_lowercase().as_str(), "yes" | "true" | "on")),
        t if INT.is_match(t) => Node::Int(int(t), text),
        t if FLOAT.is_match(t) => Node::Float(float(t), text),
        t if TIME.is_match(t) => Node::Time(text),
        _ => Node::Str(text),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_are_resolved_as_pyyaml_does() {
        let n = parse("a: no\nb: 'no'\nc: 1.10\nd: 1e5\ne: 017\nf: ~\ng: 2024-01-02\nh: 0x1F\ni: 1:30\nj: apache-2.0\nk: !!str 5\n")
            .unwrap();
        assert_eq!(n.get("a"), Some(&Node::Bool(false)));
        assert_eq!(n.get("b"), Some(&Node::Str("no".into())));
        assert_eq!(n.get("c"), Some(&Node::Float(1.1, "1.10".into())));
        assert_eq!(n.get("d"), Some(&Node::Str("1e5".into())));
        assert_eq!(n.get("e"), Some(&Node::Int(Some(15), "017".into())));
        assert_eq!(n.get("f"), Some(&Node::Null));
        assert_eq!(n.get("g"), Some(&Node::Time("2024-01-02".into())));
        assert_eq!(n.get("h"), Some(&Node::Int(Some(31), "0x1F".into())));
        assert_eq!(n.get("i"), Some(&Node::Int(Some(90), "1:30".into())));
        assert_eq!(n.get("j"), Some(&Node::Str("apache-2.0".into())));
        assert_eq!(n.get("k"), Some(&Node::Str("5".into())));
    }

    #[test]
    fn merges_and_aliases() {
        let n = parse("base: &b {x: 1, y: z}\nd:\n  <<: *b\n  y: w\n").unwrap();
        let d = n.get("d").unwrap();
        assert_eq!(d.get("y"), Some(&Node::Str("w".into())));
        assert_eq!(d.get("x"), Some(&Node::Int(Some(1), "1".into())));
        assert_eq!(parse("a: <<\n").unwrap().get("a"), Some(&Node::Str("<<".into())));
    }

    #[test]
    fn hostile_documents_are_refused() {
        assert!(parse(&"[".repeat(10_000)).is_err());
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let row = vec![format!("*a{}", i - 1); 10].join(",");
            bomb = format!("{bomb}a{i}: &a{i} [{row}]\n");
        }
        assert!(parse(&bomb).unwrap_err().contains("values"));
        assert!(parse("a: [1, 2\nb: }").is_err());
        assert!(parse("a: *nowhere").is_err());
    }
}

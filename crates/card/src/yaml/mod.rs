//! YAML as PyYAML's `safe_load` sees it: the tree of a document, with YAML 1.1's idea of which plain words are text.
//!
//! The peer reads cards with PyYAML, for which `no`, `1.10` and `2024-01-01` are not text. The parser here gives events
//! with each scalar's style, so the same rules can be applied; a deserializer with rules of its own cannot do that.
//! A [`Tree`] knows where everything stands, for messages and for writing back what did not change; a [`Node`] is the
//! same without, for those who only look values up.
//!
//! Nesting and the size after expanding aliases are limited, so that a hostile card costs nothing.

mod build;
mod emit;
mod scalar;

pub use build::{Parsed, parse_tree};
pub use emit::emit;

use serde_json::{Map, Value as Json};

/// A place in a text, both counted from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Mark,
    /// What.
    pub message: String,
}

/// A value of a document and its place.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where it begins.
    pub at: Mark,
    /// What it is.
    pub value: Value,
}

/// A key of a map and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key; text in all that cards use.
    pub key: Tree,
    /// The value.
    pub value: Tree,
    /// Whether a merge key (`<<`) brought it.
    pub merged: bool,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Value {
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
    Seq(Vec<Tree>),
    /// Keys and values in order, with all that are there twice.
    Map(Vec<Entry>),
}

impl From<Value> for Tree {
    fn from(value: Value) -> Self {
        Self { at: Mark::default(), value }
    }
}

impl Tree {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Value::Str(text.into()).into()
    }
    /// A list.
    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Value::Seq(items.into_iter().collect()).into()
    }
    /// A map.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        let entry = |(key, value): (K, Self)| Entry { key: Self::text(key), value, merged: false };
        Value::Map(entries.into_iter().map(entry).collect()).into()
    }
    /// The text, where it is text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }
    /// The items, where it is a list.
    pub fn items(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Seq(v) => Some(v),
            _ => None,
        }
    }
    /// The entries, where it is a map.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(m) => Some(m),
            _ => None,
        }
    }
    /// The value of a key; the last one where there are several.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries()?.iter().rev().find(|e| e.key.as_str() == Some(key)).map(|e| &e.value)
    }
    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
    /// A list as it is, anything else but null as a list of one.
    pub fn each(&self) -> &[Self] {
        match &self.value {
            Value::Seq(v) => v,
            Value::Null => &[],
            _ => std::slice::from_ref(self),
        }
    }

    /// The same without places; keys that are not text are dropped.
    pub fn node(&self) -> Node {
        match &self.value {
            Value::Null => Node::Null,
            Value::Str(s) => Node::Str(s.clone()),
            Value::Bool(b) => Node::Bool(*b),
            Value::Int(n, s) => Node::Int(*n, s.clone()),
            Value::Float(x, s) => Node::Float(*x, s.clone()),
            Value::Time(s) => Node::Time(s.clone()),
            Value::Seq(v) => Node::Seq(v.iter().map(Self::node).collect()),
            Value::Map(m) => Node::Map(
                m.iter().filter_map(|e| Some((e.key.as_str()?.to_owned(), e.value.node()))).collect(),
            ),
        }
    }

    /// As JSON. Numbers that JSON has not, and times, are their text; of keys that are there twice, the last counts.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Str(s) | Value::Time(s) | Value::Int(None, s) => Json::String(s.clone()),
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(Some(n), _) => Json::from(*n),
            Value::Float(x, s) => {
                serde_json::Number::from_f64(*x).map_or_else(|| Json::String(s.clone()), Json::Number)
            }
            Value::Seq(v) => v.iter().map(Self::to_json).collect(),
            Value::Map(m) => {
                let key = |k: &Self| match k.to_json() {
                    Json::String(s) => s,
                    other => other.to_string(),
                };
                Json::Object(m.iter().map(|e| (key(&e.key), e.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// From JSON.
    pub fn from_json(json: &Json) -> Self {
        match json {
            Json::Null => Value::Null.into(),
            Json::Bool(b) => Value::Bool(*b).into(),
            Json::Number(n) => match n.as_i64() {
                Some(i) => Value::Int(Some(i), i.to_string()).into(),
                None => Self::float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => Self::text(s),
            Json::Array(v) => Self::list(v.iter().map(Self::from_json)),
            Json::Object(m) => Self::map(m.iter().map(|(k, v)| (k, Self::from_json(v)))),
        }
    }

    /// A number, in the shortest text that every reader takes for the same number.
    pub fn float(x: f64) -> Self {
        let text = match x {
            x if x.is_nan() => ".nan".to_owned(),
            f64::INFINITY => ".inf".to_owned(),
            f64::NEG_INFINITY => "-.inf".to_owned(),
            x => {
                // YAML 1.1 wants a point, and a sign in the exponent.
                let plain = format!("{x:?}");
                match plain.split_once('e') {
                    None => plain,
                    Some((digits, exponent)) => {
                        let point = if digits.contains('.') { "" } else { ".0" };
                        let sign = if exponent.starts_with('-') { "" } else { "+" };
                        format!("{digits}{point}e{sign}{exponent}")
                    }
                }
            }
        };
        Value::Float(x, text).into()
    }

    /// The first key that is a list or a map: YAML has such keys, no reader of cards has.
    pub fn odd_key(&self) -> Option<Mark> {
        let of = |e: &Entry| match &e.key.value {
            Value::Seq(_) | Value::Map(_) => Some(e.key.at),
            _ => e.value.odd_key(),
        };
        match &self.value {
            Value::Map(m) => m.iter().find_map(of),
            Value::Seq(v) => v.iter().find_map(Self::odd_key),
            _ => None,
        }
    }

    /// Every text in it, keys too, changed.
    #[must_use]
    pub fn map_texts(&self, change: &dyn Fn(&str) -> String) -> Self {
        let value = match &self.value {
            Value::Str(s) => Value::Str(change(s)),
            Value::Seq(v) => Value::Seq(v.iter().map(|t| t.map_texts(change)).collect()),
            Value::Map(m) => Value::Map(
                m.iter()
                    .map(|e| Entry {
                        key: e.key.map_texts(change),
                        value: e.value.map_texts(change),
                        merged: e.merged,
                    })
                    .collect(),
            ),
            other => other.clone(),
        };
        Self { at: self.at, value }
    }

    /// Whether both stand for the same data, wherever they stand and however they are written.
    pub fn same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Map(_), Value::Map(_)) => {
                let (a, b) = (self.distinct(), other.distinct());
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.0.same(b.0) && a.1.same(b.1))
            }
            (Value::Seq(a), Value::Seq(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Value::Null, Value::Null) => true,
            (Value::Str(a), Value::Str(b))
            | (Value::Time(a), Value::Time(b))
            | (Value::Int(None, a), Value::Int(None, b)) => a == b,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(Some(a), _), Value::Int(Some(b), _)) => a == b,
            (Value::Float(a, _), Value::Float(b, _)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }

    /// Keys and values of a map, each key once: where it stood first, with what it had last. That is a Python dictionary's
    /// order.
    pub(crate) fn distinct(&self) -> Vec<(&Self, &Self)> {
        let mut out: Vec<(&Self, &Self)> = Vec::new();
        let mut places: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
        for e in self.entries().unwrap_or_default() {
            let place = *places.entry(format!("{:?}", e.key.node())).or_insert(out.len());
            match out.get_mut(place) {
                Some(known) => known.1 = &e.value,
                None => out.push((&e.key, &e.value)),
            }
        }
        out
    }
}

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
    /// Keys and values in order, keys that are not text dropped.
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

/// Parses the first document.
///
/// # Errors
/// What the parser says, and documents beyond the limits.
pub fn parse(text: &str) -> Result<Node, String> {
    let parsed = parse_tree(text)
        .map_err(|p| format!("{} at line {} column {}", p.message, p.at.line, p.at.column))?;
    Ok(parsed.root.node())
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

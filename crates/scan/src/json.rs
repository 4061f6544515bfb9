//! A JSON document walked without being built: every scalar with its path. Memory does not grow with the document.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// One step of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A value without parts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scalar<'a> {
    Text(&'a str),
    Bool(bool),
    /// Numbers and null.
    Other,
}

/// `$.auto_map.AutoModel[0]`
pub(crate) fn path(steps: &[Step]) -> String {
    let mut out = "$".to_owned();
    for s in steps {
        match s {
            Step::Key(k) => out.extend([".", k]),
            Step::Index(n) => out.extend(["[", &n.to_string(), "]"]),
        }
    }
    out
}

/// Keys of a path, innermost first.
pub(crate) fn keys(steps: &[Step]) -> impl Iterator<Item = &str> {
    steps.iter().rev().filter_map(|s| match s {
        Step::Key(k) => Some(k.as_str()),
        Step::Index(_) => None,
    })
}

/// Calls `each` for every scalar.
pub(crate) fn walk(text: &[u8], mut each: impl FnMut(&[Step], Scalar<'_>)) -> serde_json::Result<()> {
    let mut path = Vec::new();
    let mut de = serde_json::Deserializer::from_slice(text);
    Node { path: &mut path, each: &mut each }.deserialize(&mut de)?;
    de.end()
}

struct Node<'a> {
    path: &'a mut Vec<Step>,
    each: &'a mut dyn FnMut(&[Step], Scalar<'_>),
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        (self.each)(self.path, Scalar::Bool(v));
        Ok(())
    }
    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        (self.each)(self.path, Scalar::Text(v));
        Ok(())
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.visit_unit()
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.visit_unit()
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.visit_unit()
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        (self.each)(self.path, Scalar::Other);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut n = 0;
        loop {
            self.path.push(Step::Index(n));
            let more = seq.next_element_seed(Node { path: self.path, each: self.each })?;
            self.path.pop();
            if more.is_none() {
                return Ok(());
            }
            n += 1;
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key.len() > 1 << 20 {
                return Err(A::Error::custom("a key of more than a megabyte"));
            }
            self.path.push(Step::Key(key));
            map.next_value_seed(Node { path: self.path, each: self.each })?;
            self.path.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scalar_has_its_path() {
        let mut seen = Vec::new();
        let text = br#"{"a":[1,"x",{"b":true}],"c":null,"a":"twice"}"#;
        walk(text, |p, s| seen.push(format!("{} {s:?}", path(p)))).unwrap();
        assert_eq!(
            seen,
            ["$.a[0] Other", "$.a[1] Text(\"x\")", "$.a[2].b Bool(true)", "$.c Other", "$.a Text(\"twice\")"]
        );
        for bad in ["", "{", "{}x", &"[".repeat(100_000), "{\"a\":}"] {
            assert!(walk(bad.as_bytes(), |_, _| {}).is_err(), "{bad:.9}");
        }
    }
}

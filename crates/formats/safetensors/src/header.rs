//! The header's JSON, parsed so that nothing in it goes unnoticed: `serde_json` by itself keeps the last of two
//! equal keys, which would let two readers see two different files.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::{cell::Cell, collections::HashSet, fmt, marker::PhantomData};
use tensormill_model::{Error, Limits, Result};

/// A JSON object with its order kept and without duplicate keys.
#[derive(Debug)]
pub(crate) struct Ordered<V>(pub Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct OrderedVisitor<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for OrderedVisitor<V> {
            type Value = Ordered<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some(key) = map.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format_args!("the key {key:?} occurs twice")));
                    }
                    entries.push((key, map.next_value()?));
                }
                Ok(Ordered(entries))
            }
        }
        d.deserialize_map(OrderedVisitor(PhantomData))
    }
}

/// One tensor as the header tells it. Nothing is checked against anything yet.
#[derive(Debug)]
pub(crate) struct Entry {
    pub dtype: String,
    pub shape: Vec<u64>,
    /// First byte and one past the last, relative to the end of the header.
    pub span: (u64, u64),
}

/// A parsed header.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub metadata: Vec<(String, String)>,
    pub tensors: Vec<(String, Entry)>,
}

/// Parses the JSON of a header.
pub(crate) fn parse(json: &[u8], limits: &Limits) -> Result<Header> {
    if json.first() != Some(&b'{') {
        return Err(Error::malformed("the header is not a JSON object").at(8));
    }
    let over = Cell::new(false);
    let mut de = serde_json::Deserializer::from_slice(json);
    let header = HeaderSeed { limits, over: &over }.deserialize(&mut de).and_then(|h| de.end().map(|()| h));
    header.map_err(|e| {
        let message = format!("the header: {e}");
        if over.get() { Error::over_limit(message) } else { Error::malformed(message) }
    })
}

/// Limits on their way through the parser; `over` tells a limit from nonsense afterwards.
#[derive(Clone, Copy)]
struct HeaderSeed<'a> {
    limits: &'a Limits,
    over: &'a Cell<bool>,
}

impl HeaderSeed<'_> {
    fn over<E: serde::de::Error>(self, limit: impl fmt::Display, what: &str) -> E {
        self.over.set(true);
        E::custom(format_args!("more than {limit} {what}"))
    }
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = Header;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Header, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = Header;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
        let (mut header, mut seen) = (Header::default(), HashSet::new());
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("the key {key:?} occurs twice")));
            }
            if key == "__metadata__" {
                header.metadata = map.next_value::<Ordered<String>>()?.0;
                if header.metadata.len() as u64 > self.limits.metadata {
                    return Err(self.over(self.limits.metadata, "metadata entries"));
                }
                continue;
            }
            if header.tensors.len() as u64 >= self.limits.tensors {
                return Err(self.over(self.limits.tensors, "tensors"));
            }
            let entry = map.next_value_seed(EntrySeed { header: self, name: &key })?;
            header.tensors.push((key, entry));
        }
        Ok(header)
    }
}

struct EntrySeed<'a> {
    header: HeaderSeed<'a>,
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Entry;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Entry, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = Entry;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with dtype, shape and data_offsets for tensor {:?}", self.name)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entry, A::Error> {
        let (mut dtype, mut shape, mut span) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "dtype" => dtype.replace(map.next_value()?).is_some(),
                "shape" => shape.replace(map.next_value_seed(DimsSeed(self.header))?).is_some(),
                "data_offsets" => span.replace(map.next_value()?).is_some(),
                // The reference library ignores further fields, so files with them are in use.
                _ => map.next_value::<IgnoredAny>().map(|_| false)?,
            };
            if twice {
                return Err(A::Error::custom(format_args!("tensor {:?} has {key:?} twice", self.name)));
            }
        }
        let missing = |what| A::Error::custom(format_args!("tensor {:?} has no {what}", self.name));
        Ok(Entry {
            dtype: dtype.ok_or_else(|| missing("dtype"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            span: span.ok_or_else(|| missing("data_offsets"))?,
        })
    }
}

/// Dimensions, at most as many as the limit: two bytes of JSON must not become eight of memory without bound.
struct DimsSeed<'a>(HeaderSeed<'a>);

impl<'de> DeserializeSeed<'de> for DimsSeed<'_> {
    type Value = Vec<u64>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Vec<u64>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for DimsSeed<'_> {
    type Value = Vec<u64>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of dimensions")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<u64>, A::Error> {
        let mut dims = Vec::new();
        while let Some(d) = seq.next_element()? {
            if dims.len() as u64 >= u64::from(self.0.limits.rank) {
                return Err(self.0.over(self.0.limits.rank, "dimensions"));
            }
            dims.push(d);
        }
        Ok(dims)
    }
}

//! `tokenizer.json`, read without a tree for its two large parts.
//!
//! A vocabulary of 128k tokens with 280k merges would be some 100 MB as a generic JSON tree. Here the vocabulary
//! and the merges go straight into flat vectors; everything else (a few kilobytes, or a few hundred for thousands
//! of added tokens) stays a tree, because the rules of `special` and `hf` look into it freely.
//!
//! Must not know what a tokenizer does with any of it.

use crate::MAX_TOKENS;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value as Json};
use std::fmt;
use tensormill_model::{Error, Result};

/// The parts of a `tokenizer.json`.
#[derive(Default, Debug)]
pub struct TokenizerJson {
    /// Top-level keys except `model`.
    pub rest: Map<String, Json>,
    /// Keys of `model` except `vocab` and `merges`.
    pub model: Map<String, Json>,
    /// `model.vocab` where it is an object: texts and ids in file order. Taken by whoever builds the tokenizer.
    pub vocab: Option<Vec<(String, u32)>>,
    /// `model.merges`.
    pub merges: Option<Vec<(String, String)>>,
    /// Whether some component is called `ByteLevel` anywhere in the file's text.
    pub mentions_byte_level: bool,
}

impl TokenizerJson {
    /// Parses the file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| Error::malformed("not valid UTF-8").at(e.valid_up_to() as u64))?;
        let mut t: Self =
            serde_json::from_str(text).map_err(|e| Error::malformed(format!("not a tokenizer file: {e}")))?;
        t.mentions_byte_level = text.contains("\"ByteLevel\"");
        if let Some(a) = t.rest.get("added_tokens").filter(|a| !a.is_null()) {
            let ok = a.as_array().is_some_and(|l| {
                l.iter().all(|t| {
                    t.get("content").is_some_and(Json::is_string)
                        && t.get("id").and_then(Json::as_u64).is_some_and(|id| id < MAX_TOKENS)
                })
            });
            if !ok {
                return Err(Error::malformed(format!(
                    "added_tokens is not a list of tokens with a content and an id below {MAX_TOKENS}"
                )));
            }
        }
        Ok(t)
    }

    /// A top-level part; `null` counts as absent.
    pub fn part(&self, key: &str) -> Option<&Json> {
        self.rest.get(key).filter(|v| !v.is_null())
    }

    /// `added_tokens`.
    pub fn added_tokens(&self) -> &[Json] {
        self.part("added_tokens").and_then(Json::as_array).map_or(&[], Vec::as_slice)
    }

    /// `model.type`, or what it must be where old files leave it out.
    pub fn model_type(&self) -> Option<&str> {
        match self.model.get("type").and_then(Json::as_str) {
            Some(t) => Some(t),
            None if self.merges.is_some() => Some("BPE"),
            None if self.model.contains_key("max_input_chars_per_word") => Some("WordPiece"),
            None => None,
        }
    }

    /// A boolean of `model`.
    pub fn model_flag(&self, key: &str) -> Option<bool> {
        self.model.get(key).and_then(Json::as_bool)
    }

    /// Whether there are merges.
    pub fn has_merges(&self) -> bool {
        self.merges.as_ref().is_some_and(|m| !m.is_empty())
    }
}

impl<'de> Deserialize<'de> for TokenizerJson {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Top;
        impl<'de> Visitor<'de> for Top {
            type Value = TokenizerJson;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<TokenizerJson, A::Error> {
                let mut t = TokenizerJson::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "model" {
                        map.next_value_seed(Model(&mut t))?;
                    } else {
                        t.rest.insert(key, map.next_value()?);
                    }
                }
                Ok(t)
            }
        }
        d.deserialize_map(Top)
    }
}

struct Model<'t>(&'t mut TokenizerJson);

impl<'de> DeserializeSeed<'de> for Model<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Model<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the model as a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "vocab" => self.0.vocab = map.next_value::<VocabMap>()?.0,
                "merges" => self.0.merges = Some(map.next_value::<MergeList>()?.0),
                _ => {
                    self.0.model.insert(key, map.next_value()?);
                }
            }
        }
        Ok(())
    }
}

/// An object of ids; a list (Unigram's form) is skipped.
struct VocabMap(Option<Vec<(String, u32)>>);

impl<'de> Deserialize<'de> for VocabMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = VocabMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<VocabMap, A::Error> {
                let mut list = Vec::new();
                while let Some((text, id)) = map.next_entry::<String, u32>()? {
                    if u64::from(id) >= MAX_TOKENS {
                        return Err(A::Error::custom(format!(
                            "token {text:?} has id {id}; ids must be below {MAX_TOKENS}"
                        )));
                    }
                    list.push((text, id));
                }
                Ok(VocabMap(Some(list)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<VocabMap, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(VocabMap(None))
            }
        }
        d.deserialize_any(V)
    }
}

/// Merges in either form: `"a b"`, or `["a", "b"]` (since tokens may contain spaces).
struct MergeList(Vec<(String, String)>);

impl<'de> Deserialize<'de> for MergeList {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Pair((String, String));
        impl<'de> Deserialize<'de> for Pair {
            fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
                struct V;
                impl<'de> Visitor<'de> for V {
                    type Value = Pair;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a merge: \"a b\" or [\"a\", \"b\"]")
                    }
                    fn visit_str<E: serde::de::Error>(self, s: &str) -> std::result::Result<Pair, E> {
                        match s.split_once(' ') {
                            Some((a, b)) if !b.contains(' ') => Ok(Pair((a.to_owned(), b.to_owned()))),
                            _ => {
                                Err(E::custom(format!("merge {s:?} is not two parts with one space between")))
                            }
                        }
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Pair, A::Error> {
                        let (a, b) = (seq.next_element::<String>()?, seq.next_element::<String>()?);
                        match (a, b, seq.next_element::<IgnoredAny>()?) {
                            (Some(a), Some(b), None) => Ok(Pair((a, b))),
                            _ => Err(A::Error::custom("a merge must have two parts")),
                        }
                    }
                }
                d.deserialize_any(V)
            }
        }
        struct L;
        impl<'de> Visitor<'de> for L {
            type Value = MergeList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<MergeList, A::Error> {
                let mut list = Vec::new();
                while let Some(Pair(p)) = seq.next_element()? {
                    list.push(p);
                }
                Ok(MergeList(list))
            }
        }
        d.deserialize_seq(L)
    }
}

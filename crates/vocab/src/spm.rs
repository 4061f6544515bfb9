//! SentencePiece's `tokenizer.model`: the few fields of its protobuf message that matter here.
//!
//! `ModelProto` (sentencepiece_model.proto): field 1, repeated, is a piece: 1 = text, 2 = score (float),
//! 3 = type (enum, default NORMAL). All other fields are skipped, except field 2, the trainer's settings, of which
//! field 35 says whether there are byte pieces. The checks are those the library makes on loading.
//!
//! Must not know GGUF, or what pieces are used for.

use crate::{MAX_TOKENS, token_type};
use std::collections::HashSet;
use tensormill_model::{Error, Result};

/// One piece of the vocabulary; its id is its place.
#[derive(Debug, PartialEq)]
pub struct Piece {
    /// Text, spaces as U+2581.
    pub text: String,
    /// Log probability, or negated merge rank.
    pub score: f32,
    /// Type, numbered as in `token_type`.
    pub kind: i32,
}

/// A position in a message.
struct Wire<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Offset of `bytes` in the file, for errors.
    base: usize,
}

enum Field<'b> {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(Wire<'b>),
}

impl<'b> Wire<'b> {
    fn fail(&self, what: &str) -> Error {
        Error::malformed(format!("not a SentencePiece model: {what}"))
            .at((self.base + self.at) as u64)
            .hint("the file may be truncated, a Git-LFS pointer, or a tiktoken vocabulary")
    }

    fn varint(&mut self) -> Result<u64> {
        let mut v = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&b) = self.bytes.get(self.at) else { return Err(self.fail("it ends inside a number")) };
            self.at += 1;
            v |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(v);
            }
        }
        Err(self.fail("a number has more than 64 bits"))
    }

    fn take(&mut self, n: u64) -> Result<Wire<'b>> {
        let rest = &self.bytes[self.at..];
        let Some(part) = usize::try_from(n).ok().and_then(|n| rest.get(..n)) else {
            return Err(self.fail("a field runs past the end"));
        };
        let w = Wire { bytes: part, at: 0, base: self.base + self.at };
        self.at += part.len();
        Ok(w)
    }

    /// The next field's number and value.
    fn next(&mut self) -> Result<Option<(u64, Field<'b>)>> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let n = self.varint()?;
                Field::Bytes(self.take(n)?)
            }
            5 => {
                let w = self.take(4)?;
                Field::Fixed32(u32::from_le_bytes([w.bytes[0], w.bytes[1], w.bytes[2], w.bytes[3]]))
            }
            _ => return Err(self.fail("unknown wire type")),
        };
        if tag >> 3 == 0 {
            return Err(self.fail("field number 0"));
        }
        Ok(Some((tag >> 3, field)))
    }
}

/// The pieces of a model file.
///
/// # Errors
/// Bytes that are not such a message; empty, repeated or non-UTF-8 pieces; two unknown tokens; more than
/// [`MAX_TOKENS`] pieces.
pub fn pieces(bytes: &[u8]) -> Result<Vec<Piece>> {
    let mut top = Wire { bytes, at: 0, base: 0 };
    let mut list = Vec::new();
    let mut byte_fallback = false;
    while let Some((number, field)) = top.next()? {
        match (number, field) {
            (1, Field::Bytes(_)) if list.len() as u64 == MAX_TOKENS => {
                return Err(Error::over_limit(format!("more than {MAX_TOKENS} pieces")));
            }
            (1, Field::Bytes(w)) => list.push(piece(w, list.len())?),
            (2, Field::Bytes(mut w)) => {
                while let Some((number, field)) = w.next()? {
                    if let (35, Field::Varint(v)) = (number, field) {
                        byte_fallback = v != 0;
                    }
                }
            }
            (1 | 2, _) => return Err(top.fail("a field has the wrong wire type")),
            _ => {}
        }
    }
    if list.is_empty() {
        return Err(top.fail("no pieces"));
    }
    let mut seen = HashSet::with_capacity(list.len());
    for p in &list {
        if !seen.insert(p.text.as_str()) {
            return Err(Error::malformed(format!("piece {:?} occurs twice", p.text)));
        }
    }
    match list.iter().filter(|p| p.kind == token_type::BYTE).count() {
        256 if byte_fallback => {}
        0 if !byte_fallback => {}
        n => {
            return Err(Error::malformed(format!(
                "byte_fallback is {byte_fallback}, but there are {n} byte pieces"
            )));
        }
    }
    match list.iter().filter(|p| p.kind == token_type::UNKNOWN).count() {
        // The library loads models without one (Phi-3's special tokens are all control or user-defined).
        0 | 1 => Ok(list),
        n => Err(Error::malformed(format!("{n} unknown tokens; there may be one"))),
    }
}

fn piece(mut w: Wire<'_>, id: usize) -> Result<Piece> {
    let mut p = Piece { text: String::new(), score: 0.0, kind: token_type::NORMAL };
    while let Some((number, field)) = w.next()? {
        match (number, field) {
            (1, Field::Bytes(t)) => {
                p.text = String::from_utf8(t.bytes.to_vec())
                    .map_err(|_| w.fail(&format!("the text of piece {id} is not UTF-8")))?;
            }
            (2, Field::Fixed32(bits)) => p.score = f32::from_bits(bits),
            (3, Field::Varint(v)) => {
                p.kind = i32::try_from(v)
                    .ok()
                    .filter(|k| (1..=6).contains(k))
                    .ok_or_else(|| w.fail(&format!("piece {id} has the unknown type {v}")))?;
            }
            (1..=3, _) => return Err(w.fail(&format!("a field of piece {id} has the wrong wire type"))),
            (_, Field::Varint(_) | Field::Fixed32(_) | Field::Fixed64 | Field::Bytes(_)) => {}
        }
    }
    if p.text.is_empty() {
        return Err(w.fail(&format!("piece {id} is empty")));
    }
    Ok(p)
}

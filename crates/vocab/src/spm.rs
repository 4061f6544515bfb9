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

/// A model file of these pieces. `specials` are the ids of unknown, beginning, end and padding.
///
/// Trainer's settings: 3 = kind of model (2: BPE), 4 = number of pieces, 35 = byte fallback, 40 to 43 = special ids.
/// Normalizer's: 1 = name, 3 = a space before the text, 4 = runs of spaces become one, 5 = spaces become U+2581.
pub fn encode(
    texts: &[String],
    scores: Option<&[f32]>,
    types: &[i32],
    space_first: bool,
    specials: [Option<u64>; 4],
) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, (text, kind)) in texts.iter().zip(types).enumerate() {
        let mut piece = Vec::new();
        let spaced = text.replace(' ', "\u{2581}");
        put_bytes(
            &mut piece,
            1,
            if *kind == token_type::USER_DEFINED { spaced.as_bytes() } else { text.as_bytes() },
        );
        put_varint(&mut piece, 2 << 3 | 5);
        piece.extend(scores.map_or(0.0, |s| s[i]).to_le_bytes());
        put_varint(&mut piece, 3 << 3);
        put_varint(&mut piece, u64::from(kind.unsigned_abs()));
        put_bytes(&mut out, 1, &piece);
    }
    let mut trainer = Vec::new();
    let fallback = types.contains(&token_type::BYTE);
    let mut numbers = vec![(3, 2), (4, texts.len() as u64), (35, u64::from(fallback))];
    // A missing special token is minus one there, in ten bytes.
    numbers.extend((40..).zip(specials.map(|id| id.unwrap_or(u64::MAX))));
    for (field, value) in numbers {
        put_varint(&mut trainer, field << 3);
        put_varint(&mut trainer, value);
    }
    put_bytes(&mut out, 2, &trainer);
    let mut normalizer = Vec::new();
    put_bytes(&mut normalizer, 1, b"identity");
    for (field, value) in [(3, space_first), (4, false), (5, true)] {
        put_varint(&mut normalizer, field << 3);
        put_varint(&mut normalizer, u64::from(value));
    }
    put_bytes(&mut out, 3, &normalizer);
    out
}

fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back() {
        let texts = ["<unk>", "<s>", "\u{2581}a", "added token"].map(str::to_owned);
        let types = [token_type::UNKNOWN, token_type::CONTROL, token_type::NORMAL, token_type::USER_DEFINED];
        let scores = [0.0, 0.0, -1.5, -1000.0];
        let bytes = encode(&texts, Some(&scores), &types, true, [Some(0), Some(1), None, None]);
        let back = pieces(&bytes).unwrap();
        assert_eq!(back.len(), 4);
        assert_eq!(back[2], Piece { text: texts[2].clone(), score: -1.5, kind: token_type::NORMAL });
        assert_eq!(back[3].text, "added\u{2581}token");
        assert_eq!(back[3].kind, token_type::USER_DEFINED);
    }
}

//! The wire format of protocol buffers, walked by position: fields that nobody wants are stepped over without being read.

use crate::bytes::Cursor;
use tensormill_model::{Error, Result};

/// Messages within messages. Graphs nest through attributes of nodes; real ones stay below ten.
pub(crate) const MAX_DEPTH: u32 = 48;
/// Fields read of one file.
const MAX_FIELDS: u64 = 1 << 26;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field {
    Number(u64),
    /// Where it starts, and its length.
    Bytes(u64, u64),
}

/// Reads messages.
pub(crate) struct Walker<'a> {
    pub cursor: Cursor<'a>,
    fields: u64,
}

impl<'a> Walker<'a> {
    pub fn new(cursor: Cursor<'a>) -> Self {
        Self { cursor, fields: 0 }
    }

    fn varint(&mut self) -> Result<u64> {
        let mut n = 0;
        for shift in (0..70).step_by(7) {
            let b = self.cursor.u8()?;
            n |= u64::from(b & 0x7f).checked_shl(shift).unwrap_or(0);
            if b & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Error::malformed("a number of more than ten bytes").at(self.cursor.at))
    }

    /// Calls `each` for every field of the message in this range.
    pub fn message(
        &mut self,
        (start, len): (u64, u64),
        depth: u32,
        mut each: impl FnMut(&mut Self, u64, Field) -> Result<()>,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::malformed(format!("messages nested deeper than {MAX_DEPTH}")).at(start));
        }
        let outer = self.cursor.end;
        let end = start.saturating_add(len);
        if end > outer {
            return Err(Error::malformed("a message ends after what holds it").at(start));
        }
        let mut at = start;
        while at < end {
            (self.cursor.at, self.cursor.end) = (at, end);
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                return Err(Error::over_limit("more fields than any model has").at(at));
            }
            let tag = self.varint()?;
            let field = match tag & 7 {
                0 => Field::Number(self.varint()?),
                1 => Field::Number(u64::from_le_bytes(self.cursor.array()?)),
                2 => {
                    let n = self.varint()?;
                    let from = self.cursor.at;
                    self.cursor.skip(n)?;
                    Field::Bytes(from, n)
                }
                5 => Field::Number(self.cursor.u32()?.into()),
                w => return Err(Error::malformed(format!("a field of the unknown wire type {w}")).at(at)),
            };
            at = self.cursor.at;
            each(self, tag >> 3, field)?;
        }
        self.cursor.end = outer;
        Ok(())
    }

    /// A field's text, cut at 1000 bytes.
    pub fn text(&mut self, (start, len): (u64, u64)) -> Result<String> {
        self.cursor.at = start;
        self.cursor.text(len, 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::MemoryStore;

    fn nested(n: u32, mut inner: Vec<u8>) -> Vec<u8> {
        for _ in 0..n {
            let mut out = vec![0x0a];
            let mut len = inner.len();
            while len > 127 {
                out.push(len as u8 | 0x80);
                len >>= 7;
            }
            out.push(len as u8);
            out.extend(inner);
            inner = out;
        }
        inner
    }

    fn depth(w: &mut Walker<'_>, range: (u64, u64), at: u32) -> Result<u32> {
        let mut most = at;
        w.message(range, at, |w, _, f| {
            if let Field::Bytes(start, len) = f {
                most = most.max(depth(w, (start, len), at + 1)?);
            }
            Ok(())
        })?;
        Ok(most)
    }

    #[test]
    fn fields_are_walked_and_nesting_is_bounded() {
        let run = |bytes: Vec<u8>| {
            let store = MemoryStore { name: "x".into(), bytes };
            let mut w = Walker::new(Cursor::new(&store));
            depth(&mut w, (0, store.bytes.len() as u64), 0)
        };
        assert_eq!(run(nested(10, vec![])).unwrap(), 10);
        assert_eq!(run(nested(40, vec![0x08, 1, 0x0d, 0, 0, 0, 0])).unwrap(), 40);
        assert!(run(nested(100, vec![])).unwrap_err().message().contains("nested"));
        for bad in [
            &[0x0a, 5, 1][..],
            &[0x0b],
            &[0x08],
            &[0x80; 12],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(run(bad.to_vec()).is_err(), "{bad:?}");
        }
    }
}

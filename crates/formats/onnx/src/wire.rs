//! The wire format of protocol buffers, both ways. Must not know what any message means.
//!
//! Reading goes by position, so that bytes that nobody wants are stepped over: a file may be a hundred times larger than
//! memory. What is read is counted, since a message of two bytes becomes a structure of hundreds.

use tensormill_model::{Error, Limits, Result, Store};

/// Messages within messages. Graphs nest through attributes of nodes; real ones stay below thirty.
const MAX_DEPTH: u32 = 100;
/// Bytes read at a time.
const WINDOW: u64 = 64 << 10;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Field {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(Span),
    /// What begins and ends with a tag: no message of ONNX has any, other writers' fields may.
    Group,
}

/// Some bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u64,
    pub len: u64,
}

/// Reads one file's messages.
pub(crate) struct Input<'a> {
    store: &'a dyn Store,
    limits: &'a Limits,
    window: Vec<u8>,
    /// Where the window begins.
    base: u64,
    at: u64,
    /// Bytes of memory that what is read may still take.
    left: u64,
    depth: u32,
}

impl<'a> Input<'a> {
    pub fn new(store: &'a dyn Store, limits: &'a Limits) -> Self {
        let left = limits.header_bytes;
        Self { store, limits, window: Vec::new(), base: 0, at: 0, left, depth: 0 }
    }

    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    pub fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Takes note of memory that what is read takes.
    pub fn charge(&mut self, bytes: u64) -> Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Error::over_limit(format!("what it says takes more than {} bytes", self.limits.header_bytes))
                .at(self.at)
        })?;
        Ok(())
    }

    /// The window with the byte at `at` in it, and where in it that is.
    fn window(&mut self, at: u64) -> Result<usize> {
        if at < self.base || at >= self.base + self.window.len() as u64 {
            let len = WINDOW.min(self.store.len().saturating_sub(at));
            if len == 0 {
                return Err(Error::malformed("the file ends inside a message").at(at));
            }
            self.window.resize(len as usize, 0);
            self.base = at;
            self.store.read_at(at, &mut self.window)?;
        }
        Ok((at - self.base) as usize)
    }

    fn byte(&mut self, end: u64) -> Result<u8> {
        if self.at >= end {
            return Err(Error::malformed("a message ends inside a field").at(self.at));
        }
        let i = self.window(self.at)?;
        self.at += 1;
        Ok(self.window[i])
    }

    fn fixed<const N: usize>(&mut self, end: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        for b in &mut bytes {
            *b = self.byte(end)?;
        }
        Ok(bytes)
    }

    fn varint(&mut self, end: u64) -> Result<u64> {
        let mut n = 0;
        for shift in (0..70).step_by(7) {
            let b = self.byte(end)?;
            if shift == 63 && b > 1 {
                return Err(Error::malformed("a number beyond 64 bits").at(self.at));
            }
            n |= u64::from(b & 0x7f) << shift;
            if b & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(Error::malformed("a number of more than ten bytes").at(self.at))
    }

    /// Calls `each` with the number and value of every field of the message in `span`, and where the field begins.
    pub fn message(
        &mut self,
        span: Span,
        mut each: impl FnMut(&mut Self, u64, Field, Span) -> Result<()>,
    ) -> Result<()> {
        if self.depth > MAX_DEPTH {
            return Err(Error::over_limit(format!("messages nested deeper than {MAX_DEPTH}")).at(span.start));
        }
        let end = span.start + span.len;
        self.at = span.start;
        while self.at < end {
            let start = self.at;
            let tag = self.varint(end)?;
            let field = match tag & 7 {
                0 => Field::Varint(self.varint(end)?),
                1 => Field::Fixed64(u64::from_le_bytes(self.fixed(end)?)),
                2 => {
                    let len = self.varint(end)?;
                    if len > end - self.at {
                        return Err(Error::malformed(format!(
                            "a field of {len} bytes, where {} are left",
                            end - self.at
                        ))
                        .at(start));
                    }
                    Field::Bytes(Span { start: self.at, len })
                }
                3 => {
                    self.skip_group(tag >> 3, end)?;
                    Field::Group
                }
                4 => return Err(Error::malformed("the end of a group that has not begun").at(start)),
                5 => Field::Fixed32(u32::from_le_bytes(self.fixed(end)?)),
                w => {
                    return Err(Error::malformed(format!("a field of the unknown wire type {w}")).at(start));
                }
            };
            if tag >> 3 == 0 || tag >> 32 != 0 {
                return Err(Error::malformed("a field of a number that none can have").at(start));
            }
            let next = match field {
                Field::Bytes(s) => s.start + s.len,
                _ => self.at,
            };
            self.depth += 1;
            let done = each(self, tag >> 3, field, Span { start, len: next - start });
            self.depth -= 1;
            done?;
            self.at = next;
        }
        Ok(())
    }

    /// Goes behind the end of a group that has begun.
    fn skip_group(&mut self, number: u64, end: u64) -> Result<()> {
        let mut open = vec![number];
        while let Some(inner) = open.last() {
            let start = self.at;
            let tag = self.varint(end)?;
            match tag & 7 {
                0 => drop(self.varint(end)?),
                1 => drop(self.fixed::<8>(end)?),
                2 => {
                    let len = self.varint(end)?;
                    if len > end - self.at {
                        return Err(Error::malformed("a field that is longer than what it is in").at(start));
                    }
                    self.at += len;
                }
                3 if open.len() > MAX_DEPTH as usize => {
                    return Err(Error::over_limit(format!("groups nested deeper than {MAX_DEPTH}")).at(start));
                }
                3 => open.push(tag >> 3),
                4 if tag >> 3 == *inner => drop(open.pop()),
                5 => drop(self.fixed::<4>(end)?),
                _ => return Err(Error::malformed("a group that does not end as it begins").at(start)),
            }
        }
        Ok(())
    }

    /// Some bytes of the file, counted.
    pub fn bytes(&mut self, span: Span) -> Result<Vec<u8>> {
        if span.len > self.limits.string_bytes {
            return Err(Error::over_limit(format!(
                "{} bytes in one field; the limit is {}",
                span.len, self.limits.string_bytes
            ))
            .at(span.start));
        }
        self.charge(span.len)?;
        let mut bytes = vec![0; span.len as usize];
        if span.len > WINDOW {
            self.store.read_at(span.start, &mut bytes)?;
            return Ok(bytes);
        }
        let mut done = 0;
        while done < bytes.len() {
            let i = self.window(span.start + done as u64)?;
            let n = (bytes.len() - done).min(self.window.len() - i);
            bytes[done..done + n].copy_from_slice(&self.window[i..i + n]);
            done += n;
        }
        Ok(bytes)
    }

    pub fn text(&mut self, span: Span) -> Result<String> {
        String::from_utf8(self.bytes(span)?)
            .map_err(|_| Error::malformed("a text that is not valid UTF-8").at(span.start))
    }

    /// Calls `each` with the numbers of a packed field, and where each ends.
    pub fn varints(&mut self, span: Span, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        self.at = span.start;
        let end = span.start + span.len;
        while self.at < end {
            let n = self.varint(end)?;
            each(n, self.at)?;
        }
        Ok(())
    }
}

/// Bytes that are written, with holes where others go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Out {
    pub bytes: Vec<u8>,
    /// Position in `bytes`, length, and what goes there.
    pub holes: Vec<Hole>,
}

/// Room for a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// How many of the bytes are before it.
    pub at: usize,
    pub len: u64,
    pub slot: usize,
}

impl Out {
    /// Bytes with the holes.
    pub fn len(&self) -> u64 {
        self.holes.iter().fold(self.bytes.len() as u64, |n, h| n.saturating_add(h.len))
    }

    pub fn varint(&mut self, mut n: u64) {
        while n > 0x7f {
            self.bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.bytes.push(n as u8);
    }

    fn tag(&mut self, number: u32, wire: u32) {
        self.varint(u64::from(number << 3 | wire));
    }

    pub fn number(&mut self, field: u32, n: i64) {
        self.tag(field, 0);
        self.varint(n as u64);
    }

    pub fn fixed32(&mut self, field: u32, n: u32) {
        self.tag(field, 5);
        self.bytes.extend(n.to_le_bytes());
    }

    pub fn blob(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub fn hole(&mut self, field: u32, len: u64, slot: usize) {
        self.tag(field, 2);
        self.varint(len);
        self.holes.push(Hole { at: self.bytes.len(), len, slot });
    }

    pub fn nested(&mut self, field: u32, inner: Self) {
        self.tag(field, 2);
        self.varint(inner.len());
        let by = self.bytes.len();
        self.holes.extend(inner.holes.into_iter().map(|h| Hole { at: h.at + by, ..h }));
        self.bytes.extend(inner.bytes);
    }
}

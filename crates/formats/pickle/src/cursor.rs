//! A forward cursor over a store: one read per 64 KiB rather than per field, never past the end.

use tensormill_model::{Error, Result, Store};

/// Bytes read at once, and the most that [`Cursor::take`] gives.
pub(crate) const CHUNK: usize = 1 << 16;

pub(crate) struct Cursor<'a> {
    store: &'a dyn Store,
    /// Position in the store of `buf[0]`.
    base: u64,
    buf: Vec<u8>,
    at: usize,
    end: u64,
}

impl<'a> Cursor<'a> {
    pub fn new(store: &'a dyn Store, start: u64) -> Self {
        Self::within(store, start, store.len())
    }

    /// Sees bytes `start..end` of the store, no further than the store goes.
    pub fn within(store: &'a dyn Store, start: u64, end: u64) -> Self {
        let end = end.min(store.len());
        Self { store, base: start.min(end), buf: Vec::new(), at: 0, end }
    }

    /// Position in the store of the next byte.
    pub fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    pub fn remaining(&self) -> u64 {
        self.end - self.position()
    }

    fn demand(&self, n: u64) -> Result<()> {
        if n > self.remaining() {
            return Err(Error::malformed(format!(
                "the data ends too early: {n} bytes are needed, {} are left",
                self.remaining()
            ))
            .at(self.position()));
        }
        Ok(())
    }

    /// Makes sure that `buf[at..at + n]` is there; `n` is at most [`CHUNK`].
    fn fill(&mut self, n: usize) -> Result<()> {
        if self.buf.len() - self.at >= n {
            return Ok(());
        }
        self.demand(n as u64)?;
        self.base += self.at as u64;
        self.buf.drain(..self.at);
        self.at = 0;
        let held = self.buf.len();
        let more = (self.end - self.base - held as u64).min(CHUNK as u64) as usize;
        self.buf.resize(held + more, 0);
        let read = self.store.read_at(self.base + held as u64, &mut self.buf[held..]);
        if read.is_err() {
            self.buf.truncate(held);
        }
        read
    }

    /// The next `n` bytes, at most [`CHUNK`].
    pub fn take(&mut self, n: usize) -> Result<&[u8]> {
        self.fill(n)?;
        self.at += n;
        Ok(&self.buf[self.at - n..self.at])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn skip(&mut self, n: u64) -> Result<()> {
        self.demand(n)?;
        let held = (self.buf.len() - self.at) as u64;
        if n <= held {
            self.at += n as usize;
        } else {
            self.base = self.position() + n;
            self.buf.clear();
            self.at = 0;
        }
        Ok(())
    }

    /// Appends the bytes up to the next line feed, which is consumed; at most `max` of them.
    pub fn line(&mut self, out: &mut Vec<u8>, max: u64) -> Result<()> {
        let start = self.position();
        let mut taken = 0;
        loop {
            if self.buf.len() == self.at {
                self.fill(1)?;
            }
            let held = &self.buf[self.at..];
            let n = held.iter().position(|b| *b == b'\n');
            let piece = &held[..n.unwrap_or(held.len())];
            taken += piece.len() as u64;
            if taken > max {
                return Err(Error::over_limit(format!("a line of more than {max} bytes")).at(start));
            }
            out.extend_from_slice(piece);
            self.at += piece.len() + usize::from(n.is_some());
            if n.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::MemoryStore;

    #[test]
    fn chunks_do_not_show() {
        let bytes: Vec<u8> =
            (0..3 * CHUNK + 100).map(|i| if i % 50_000 == 49_999 { b'\n' } else { i as u8 | 0x80 }).collect();
        let store = MemoryStore { name: "x".into(), bytes: bytes.clone() };
        let mut c = Cursor::new(&store, 10);
        assert_eq!(c.take(CHUNK - 3).unwrap(), &bytes[10..10 + CHUNK - 3]);
        assert_eq!(c.take(CHUNK).unwrap(), &bytes[CHUNK + 7..2 * CHUNK + 7]);
        let mut line = Vec::new();
        c.line(&mut line, u64::MAX).unwrap();
        assert_eq!(line, &bytes[2 * CHUNK + 7..149_999]);
        assert_eq!(c.position(), 150_000);
        c.skip(40_000).unwrap();
        assert_eq!(c.u8().unwrap(), bytes[190_000]);
        let left = c.remaining();
        assert!(c.skip(left + 1).is_err());
        assert!(c.line(&mut line, 5).is_err());
        assert!(Cursor::new(&store, u64::MAX).u8().is_err());
    }
}

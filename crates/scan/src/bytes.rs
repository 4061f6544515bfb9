//! Reading headers by position: a cursor with a small window, for walkers that skip more than they read.

use miniz_oxide::{
    DataFormat, MZFlush, MZStatus,
    inflate::stream::{InflateState, inflate},
};
use tensormill_model::{Error, MemoryStore, Result, Store};

/// Bytes fetched at a time: walkers jump over weights, so more would be read in vain.
const WINDOW: u64 = 4096;

/// A place in a store, and where it must stop.
pub(crate) struct Cursor<'a> {
    pub store: &'a dyn Store,
    /// Next byte.
    pub at: u64,
    /// Byte behind the last one that may be read.
    pub end: u64,
    base: u64,
    window: Vec<u8>,
}

impl<'a> Cursor<'a> {
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, at: 0, end: store.len(), base: 0, window: Vec::new() }
    }

    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    fn need(&self, n: u64) -> Result<()> {
        if n > self.left() {
            return Err(
                Error::malformed(format!("{n} bytes are needed, {} are left", self.left())).at(self.at)
            );
        }
        Ok(())
    }

    /// The next `n` bytes, in the window: at most [`WINDOW`].
    fn small(&mut self, n: u64) -> Result<&[u8]> {
        self.need(n)?;
        let held = self.at >= self.base && self.at + n <= self.base + self.window.len() as u64;
        if !held {
            let fetch = WINDOW.min(self.store.len() - self.at);
            self.window.resize(fetch as usize, 0);
            self.store.read_at(self.at, &mut self.window)?;
            self.base = self.at;
        }
        let from = (self.at - self.base) as usize;
        self.at += n;
        Ok(&self.window[from..from + n as usize])
    }

    /// `N` bytes; a few.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.small(N as u64)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn skip(&mut self, n: u64) -> Result<()> {
        self.need(n)?;
        self.at += n;
        Ok(())
    }

    /// `n` bytes, of which the first `most` are kept.
    pub fn bytes(&mut self, n: u64, most: u64) -> Result<Vec<u8>> {
        self.need(n)?;
        if n <= WINDOW / 16 {
            return Ok(self.small(n)?[..n.min(most) as usize].to_vec());
        }
        let mut out = vec![0; n.min(most) as usize];
        self.store.read_at(self.at, &mut out)?;
        self.at += n;
        Ok(out)
    }

    /// The same as text.
    pub fn text(&mut self, n: u64, most: u64) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(n, most)?).into_owned())
    }
}

/// The first `most` bytes of a store.
pub(crate) fn head(store: &dyn Store, most: u64) -> Result<Vec<u8>> {
    let mut out = vec![0; store.len().min(most) as usize];
    store.read_at(0, &mut out)?;
    Ok(out)
}

/// A range of a store, seen as a store of its own. Weights in it stay where they are.
pub(crate) struct Window<'a> {
    pub store: &'a dyn Store,
    pub start: u64,
    pub len: u64,
}

impl Store for Window<'_> {
    fn len(&self) -> u64 {
        self.len
    }
    fn name(&self) -> &str {
        self.store.name()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match offset.checked_add(buf.len() as u64) {
            Some(end) if end <= self.len => self.store.read_at(self.start + offset, buf),
            _ => Err(Error::malformed("the data ends early").file(self.store.name()).at(offset)),
        }
    }
}

/// How deflated bytes are wrapped.
#[derive(Clone, Copy)]
pub(crate) enum Wrap {
    /// In zip archives: not at all.
    Raw,
    /// As `zlib.compress` does it.
    Zlib,
}

/// What deflated bytes give, up to `most` bytes, and whether that is all. What breaks off gives what came before.
pub(crate) fn inflated(
    store: &dyn Store,
    (start, len): (u64, u64),
    wrap: Wrap,
    most: usize,
) -> Result<(MemoryStore, bool)> {
    let mut state = InflateState::new_boxed(match wrap {
        Wrap::Raw => DataFormat::Raw,
        Wrap::Zlib => DataFormat::Zlib,
    });
    let mut out = Vec::new();
    let mut input = Vec::new();
    let mut used = 0;
    let (mut next, end) = (start, start.saturating_add(len).min(store.len()));
    let mut piece = vec![0; 32 << 10];
    let whole = loop {
        if used == input.len() && next < end {
            input.resize((end - next).min(16 << 10) as usize, 0);
            store.read_at(next, &mut input)?;
            next += input.len() as u64;
            used = 0;
        }
        let r = inflate(&mut state, &input[used..], &mut piece, MZFlush::None);
        used += r.bytes_consumed;
        out.extend_from_slice(&piece[..r.bytes_written.min(most - out.len())]);
        match r.status {
            Ok(MZStatus::StreamEnd) => break true,
            Ok(_) | Err(miniz_oxide::MZError::Buf) if out.len() < most => {
                if r.bytes_written == 0 && r.bytes_consumed == 0 && (used < input.len() || next == end) {
                    break false;
                }
            }
            _ => break false,
        }
    };
    Ok((MemoryStore { name: store.name().to_owned(), bytes: out }, whole))
}

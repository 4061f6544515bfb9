//! Records that can only be decoded from their start on (deflated ones; bytes written as text), read by position.
//!
//! A few decoders are kept where they stopped: reading forward goes on from there, reading backward starts again. So a
//! record read in order is decoded about once, also by several threads; reading it backward tile by tile costs its
//! length per tile. Memory: at most [`IDLE`] decoders of about 80 KiB each for a file, however many records it has.

use crate::cursor::{CHUNK, Cursor};
use miniz_oxide::{
    DataFormat, MZFlush, MZStatus,
    inflate::stream::{InflateState, inflate},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tensormill_model::{Error, Result, Store};

/// Decoders kept for later reads.
const IDLE: usize = 16;

/// The decoders of a file that nobody uses at the moment, least recently used first.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Decoder>>);

impl Pool {
    /// The decoder of this record that has the least to skip before it gives byte `offset`.
    fn take(&self, record: &Sequential, offset: u64) -> Decoder {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |d: &Decoder| d.record == record.range.0 && d.given <= offset;
        let best = (0..idle.len()).filter(|i| fits(&idle[*i])).max_by_key(|i| idle[*i].given);
        match best {
            Some(i) => idle.remove(i),
            None => Decoder::new(record.packing, record.range),
        }
    }

    fn keep(&self, decoder: Decoder) {
        if matches!(decoder.state, State::Ended) {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() == IDLE {
            idle.remove(0);
        }
        idle.push(decoder);
    }
}

/// How bytes are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Packing {
    /// RFC 1951.
    Deflate,
    /// UTF-8 text of the code points 0 to 255, one per byte.
    Latin1,
}

/// A packed range of a store, seen unpacked.
pub(crate) struct Sequential {
    store: Arc<dyn Store>,
    packing: Packing,
    range: (u64, u64),
    len: u64,
    pool: Arc<Pool>,
}

impl Sequential {
    /// Bytes `start..end` of `store`, which unpack to `len` bytes. Records of one pool are told apart by where they start.
    pub fn new(
        store: Arc<dyn Store>,
        packing: Packing,
        range: (u64, u64),
        len: u64,
        pool: &Arc<Pool>,
    ) -> Self {
        Self { store, packing, range, len, pool: Arc::clone(pool) }
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} of {} ({} bytes)", self.packing, self.range, self.store.name(), self.len)
    }
}

impl Store for Sequential {
    fn len(&self) -> u64 {
        self.len
    }
    fn name(&self) -> &str {
        self.store.name()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let fail = |e: Error| e.file(self.store.name());
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(fail(Error::malformed(format!(
                "bytes {offset}+{} of a record of {}",
                buf.len(),
                self.len
            ))));
        }
        let mut d = self.pool.take(self, offset);
        d.skip(&*self.store, offset).map_err(fail)?;
        d.fill(&*self.store, buf).map_err(fail)?;
        self.pool.keep(d);
        Ok(())
    }
}

/// How many bytes a text of Latin-1 code points stands for.
pub(crate) fn latin1_len(store: &dyn Store, start: u64, end: u64) -> Result<u64> {
    let mut d = Decoder::new(Packing::Latin1, (start, end));
    let mut buf = vec![0; CHUNK];
    while d.read(store, &mut buf)? > 0 {}
    Ok(d.given)
}

/// Unpacks a whole record that says that it has `len` bytes, and checks that it has.
pub(crate) fn inflate_all(store: &dyn Store, range: (u64, u64), len: u64) -> Result<Vec<u8>> {
    let mut d = Decoder::new(Packing::Deflate, range);
    let mut out = vec![0; len as usize];
    d.fill(store, &mut out)?;
    if d.read(store, &mut [0])? != 0 {
        return Err(Error::malformed(format!("a record unpacks to more than the {len} bytes it claims")));
    }
    Ok(out)
}

/// A decoder and how far it is.
pub(crate) struct Decoder {
    /// Where its record starts.
    record: u64,
    /// Position of the next packed byte, and the end.
    next: u64,
    end: u64,
    /// Bytes given so far.
    given: u64,
    input: Vec<u8>,
    used: usize,
    state: State,
}

enum State {
    Deflate(Box<InflateState>),
    /// First byte of a code point of two.
    Latin1(Option<u8>),
    Ended,
}

impl Decoder {
    fn new(packing: Packing, (start, end): (u64, u64)) -> Self {
        let state = match packing {
            Packing::Deflate => State::Deflate(InflateState::new_boxed(DataFormat::Raw)),
            Packing::Latin1 => State::Latin1(None),
        };
        Self { record: start, next: start, end, given: 0, input: Vec::new(), used: 0, state }
    }

    fn skip(&mut self, store: &dyn Store, offset: u64) -> Result<()> {
        let mut sink = vec![0; CHUNK.min((offset - self.given) as usize)];
        while self.given < offset {
            let n = sink.len().min((offset - self.given) as usize);
            self.fill(store, &mut sink[..n])?;
        }
        Ok(())
    }

    fn fill(&mut self, store: &dyn Store, mut out: &mut [u8]) -> Result<()> {
        while !out.is_empty() {
            let n = self.read(store, out)?;
            if n == 0 {
                return Err(Error::malformed(format!(
                    "a record ends after {} bytes; more are claimed",
                    self.given
                )));
            }
            out = &mut out[n..];
        }
        Ok(())
    }

    /// Some bytes; none at the end.
    fn read(&mut self, store: &dyn Store, out: &mut [u8]) -> Result<usize> {
        loop {
            if matches!(self.state, State::Ended) || out.is_empty() {
                return Ok(0);
            }
            if self.used == self.input.len() && self.next < self.end {
                let n = (CHUNK as u64 / 2).min(self.end - self.next) as usize;
                self.input.resize(n, 0);
                store.read_at(self.next, &mut self.input)?;
                self.next += n as u64;
                self.used = 0;
            }
            let input = &self.input[self.used..];
            let last = self.next == self.end;
            let (eaten, made, ended) = match &mut self.state {
                State::Deflate(state) => {
                    let r = inflate(state, input, out, MZFlush::None);
                    let ended = match r.status {
                        Ok(MZStatus::StreamEnd) => true,
                        Ok(_) => false,
                        // Nothing to give and nothing to take: the data ended inside the stream.
                        Err(_) if r.bytes_consumed > 0 || r.bytes_written > 0 => false,
                        Err(_) => return Err(Error::malformed("a deflated record is damaged or cut off")),
                    };
                    (r.bytes_consumed, r.bytes_written, ended)
                }
                State::Latin1(first) => {
                    let (eaten, made) = latin1(first, input, out)?;
                    let ended = last && eaten == input.len();
                    if ended && first.is_some() {
                        return Err(Error::malformed("bytes written as text that is cut off"));
                    }
                    (eaten, made, ended)
                }
                State::Ended => return Ok(0),
            };
            self.used += eaten;
            self.given += made as u64;
            if ended {
                self.state = State::Ended;
            }
            if made > 0 {
                return Ok(made);
            }
            if !ended && eaten == 0 && last {
                return Err(Error::malformed("a packed record is damaged or cut off"));
            }
        }
    }
}

/// Decodes as much as there is input for and room; gives the numbers of bytes taken and made.
fn latin1(first: &mut Option<u8>, input: &[u8], out: &mut [u8]) -> Result<(usize, usize)> {
    let (mut eaten, mut made) = (0, 0);
    while made < out.len() && eaten < input.len() {
        let b = input[eaten];
        let byte = match (first.take(), b) {
            (None, 0..0x80) => b,
            (None, 0xc2 | 0xc3) => {
                *first = Some(b);
                eaten += 1;
                continue;
            }
            (Some(lead), 0x80..0xc0) => (lead << 6) | (b & 0x3f),
            _ => return Err(Error::malformed("bytes written as text that is not Latin-1")),
        };
        out[made] = byte;
        made += 1;
        eaten += 1;
    }
    Ok((eaten, made))
}

/// A string or bytes that stayed in a pickle, at most `max` of them.
pub(crate) fn read_span(store: &dyn Store, at: u64, len: u64, max: u64) -> Result<Option<Vec<u8>>> {
    if len > max {
        return Ok(None);
    }
    // Through the cursor, which knows where the store ends before memory is taken.
    let mut c = Cursor::within(store, at, at.saturating_add(len));
    if c.remaining() < len {
        return Err(Error::malformed("a string ends after the file"));
    }
    let mut out = Vec::with_capacity(len as usize);
    while (out.len() as u64) < len {
        let n = CHUNK.min((len - out.len() as u64) as usize);
        out.extend_from_slice(c.take(n)?);
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_model::MemoryStore;

    fn noise(n: usize) -> Vec<u8> {
        let mut x = 1u32;
        (0..n)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((x >> 29) as u8).wrapping_mul(37)
            })
            .collect()
    }

    fn check(packing: Packing, packed: Vec<u8>, plain: &[u8]) {
        let n = packed.len() as u64;
        let store =
            Arc::new(MemoryStore { name: "x".into(), bytes: [vec![9; 5], packed, vec![9; 5]].concat() });
        let pool = Arc::new(Pool::default());
        let s = Sequential::new(store, packing, (5, 5 + n), plain.len() as u64, &pool);
        for (at, len) in
            [(0, 10), (100_000, 1000), (50, 90_000), (299_990, 10), (0, 300_000), (7, 0), (150_000, 3)]
        {
            let mut out = vec![0; len];
            s.read_at(at as u64, &mut out).unwrap();
            assert!(out == plain[at..at + len], "{packing:?} {at}+{len}");
        }
        assert!(s.read_at(299_999, &mut [0; 2]).is_err());
    }

    #[test]
    fn any_place_can_be_read() {
        let plain = noise(300_000);
        check(Packing::Deflate, miniz_oxide::deflate::compress_to_vec(&plain, 6), &plain);
        let text: String = plain.iter().map(|b| *b as char).collect();
        let store = MemoryStore { name: "x".into(), bytes: text.clone().into_bytes() };
        assert_eq!(latin1_len(&store, 0, text.len() as u64).unwrap(), 300_000);
        check(Packing::Latin1, text.into_bytes(), &plain);
    }

    #[test]
    fn decoders_go_on_and_do_not_pile_up() {
        let plain = noise(100_000);
        let packed = miniz_oxide::deflate::compress_to_vec(&plain, 6);
        let n = packed.len() as u64;
        let bytes = packed.repeat(40);
        let store: Arc<dyn Store> = Arc::new(MemoryStore { name: "x".into(), bytes });
        let pool = Arc::new(Pool::default());
        let records: Vec<Sequential> = (0..40)
            .map(|i| {
                let range = (i * n, (i + 1) * n);
                Sequential::new(Arc::clone(&store), Packing::Deflate, range, 100_000, &pool)
            })
            .collect();
        let mut out = [0; 100];
        for at in [0, 100, 200, 50_000] {
            records[0].read_at(at, &mut out).unwrap();
            assert!(out == plain[at as usize..][..100]);
            assert_eq!(pool.0.lock().unwrap().len(), 1, "the same one goes on");
        }
        for r in &records {
            r.read_at(70_000, &mut out).unwrap();
            assert!(out == plain[70_000..70_100]);
        }
        assert_eq!(pool.0.lock().unwrap().len(), IDLE);
    }

    #[test]
    fn what_ends_early_or_late_is_an_error() {
        let packed = miniz_oxide::deflate::compress_to_vec(&noise(5000), 6);
        let n = packed.len() as u64;
        let store = Arc::new(MemoryStore { name: "x".into(), bytes: packed });
        assert_eq!(inflate_all(&*store, (0, n), 5000).unwrap(), noise(5000));
        assert!(inflate_all(&*store, (0, n), 4999).is_err());
        assert!(inflate_all(&*store, (0, n), 5001).is_err());
        for cut in 0..n {
            assert!(inflate_all(&*store, (0, cut), 5000).is_err(), "{cut}");
        }
        for bad in ["\u{100}", "a\u{e9}\u{2581}"] {
            let store = MemoryStore { name: "x".into(), bytes: bad.as_bytes().to_vec() };
            assert!(latin1_len(&store, 0, bad.len() as u64).is_err());
        }
        let half = MemoryStore { name: "x".into(), bytes: vec![b'a', 0xc3] };
        assert!(latin1_len(&half, 0, 2).is_err());
    }
}

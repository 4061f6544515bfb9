//! A forward cursor over a store's header: one read per mebibyte rather than per field, and every length checked
//! against what is left before memory is taken.

use crate::wire::value_type as ty;
use tensormill_model::{Array, Error, Limits, Result, Store, Value};

const CHUNK: u64 = 1 << 20;

/// Nesting of arrays that is never exceeded, whatever the caller's limits: the parser recurses.
const MAX_DEPTH: u32 = 64;

/// Elements reserved at once for arrays whose elements are larger in memory than in the file.
const RESERVE: u64 = 1 << 16;

pub(crate) struct Cursor<'a> {
    store: &'a dyn Store,
    limits: &'a Limits,
    /// Position in the store of `buf[0]`.
    base: u64,
    buf: Vec<u8>,
    at: usize,
    /// Multi-byte numbers are big-endian.
    pub big: bool,
    /// Lengths and counts have 4 bytes (version 1) instead of 8.
    pub short: bool,
}

macro_rules! numbers {
    ($($name:ident $t:ty;)*) => {$(
        pub fn $name(&mut self, what: &str) -> Result<$t> {
            let b = self.take(what)?;
            Ok(if self.big { <$t>::from_be_bytes(b) } else { <$t>::from_le_bytes(b) })
        }
    )*};
}

impl<'a> Cursor<'a> {
    pub fn new(store: &'a dyn Store, limits: &'a Limits) -> Self {
        Self { store, limits, base: 0, buf: Vec::new(), at: 0, big: false, short: false }
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    fn remaining(&self) -> u64 {
        self.store.len() - self.position()
    }

    /// Refuses `n` further bytes that the file or the header limit cannot hold.
    fn demand(&self, n: u64, what: &str) -> Result<()> {
        let here = self.position();
        if n > self.remaining() {
            return Err(Error::malformed(format!(
                "the file ends inside {what}: {n} bytes are needed, {} are left",
                self.remaining()
            ))
            .at(here));
        }
        if here + n > self.limits.header_bytes {
            return Err(Error::over_limit(format!(
                "{what} makes the header larger than {} bytes",
                self.limits.header_bytes
            ))
            .at(here));
        }
        Ok(())
    }

    pub fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    fn fill(&mut self, out: &mut [u8], what: &str) -> Result<()> {
        // The common case, kept short: the bytes are in the buffer, so they are within file and limit.
        if let Some(b) = self.buf.get(self.at..self.at + out.len()) {
            out.copy_from_slice(b);
            self.at += out.len();
            return Ok(());
        }
        self.demand(out.len() as u64, what)?;
        let held = self.buf.len() - self.at;
        let (first, rest) = out.split_at_mut(held);
        first.copy_from_slice(&self.buf[self.at..]);
        self.base += self.buf.len() as u64;
        self.at = 0;
        self.buf.clear();
        if rest.len() as u64 >= CHUNK {
            self.store.read_at(self.base, rest)?;
            self.base += rest.len() as u64;
            return Ok(());
        }
        // Never buffer past the header limit, or the short path above would skip its check.
        let end = self.store.len().min(self.limits.header_bytes);
        self.buf.resize((end - self.base).min(CHUNK) as usize, 0);
        self.store.read_at(self.base, &mut self.buf)?;
        rest.copy_from_slice(&self.buf[..rest.len()]);
        self.at = rest.len();
        Ok(())
    }

    numbers! {
        u16 u16;
        i16 i16;
        u32 u32;
        i32 i32;
        u64 u64;
        i64 i64;
        f32 f32;
        f64 f64;
    }

    /// A length or count.
    pub fn count(&mut self, what: &str) -> Result<u64> {
        if self.short { Ok(self.u32(what)?.into()) } else { self.u64(what) }
    }

    /// A string's bytes.
    pub fn string(&mut self, what: &str) -> Result<Vec<u8>> {
        let at = self.position();
        let n = self.count(what)?;
        if n > self.limits.string_bytes {
            return Err(Error::over_limit(format!(
                "{what} is a string of {n} bytes; the limit is {}",
                self.limits.string_bytes
            ))
            .at(at));
        }
        self.demand(n, what)?;
        let mut out = vec![0; n as usize];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    /// A string that must be text: a key or a name.
    pub fn text(&mut self, what: &str) -> Result<String> {
        let at = self.position();
        String::from_utf8(self.string(what)?)
            .map_err(|_| Error::malformed(format!("{what} is not valid UTF-8")).at(at))
    }

    fn bool(&mut self, what: &str) -> Result<bool> {
        // Any value but zero is true, as in gguf.cpp.
        Ok(self.take::<1>(what)?[0] != 0)
    }

    /// A value of type code `code`.
    pub fn value(&mut self, code: u32, what: &str) -> Result<Value> {
        let at = self.position();
        Ok(match code {
            ty::U8 => Value::U8(self.take::<1>(what)?[0]),
            ty::I8 => Value::I8(self.take::<1>(what)?[0] as i8),
            ty::U16 => Value::U16(self.u16(what)?),
            ty::I16 => Value::I16(self.i16(what)?),
            ty::U32 => Value::U32(self.u32(what)?),
            ty::I32 => Value::I32(self.i32(what)?),
            ty::U64 => Value::U64(self.u64(what)?),
            ty::I64 => Value::I64(self.i64(what)?),
            ty::F32 => Value::F32(self.f32(what)?),
            ty::F64 => Value::F64(self.f64(what)?),
            ty::BOOL => Value::Bool(self.bool(what)?),
            ty::STRING => match String::from_utf8(self.string(what)?) {
                Ok(s) => Value::Str(s),
                Err(e) => Value::Bytes(e.into_bytes()),
            },
            ty::ARRAY => Value::Array(self.array(what, 1)?),
            _ => return Err(Error::malformed(format!("{what} has the unknown type code {code}")).at(at)),
        })
    }

    fn each<T>(
        &mut self,
        n: u64,
        size: u64,
        what: &str,
        mut read: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        // `size` is the least that an element takes in the file; the product cannot overflow behind the limit.
        self.demand(n.saturating_mul(size), what)?;
        let grows = std::mem::size_of::<T>() as u64 > size;
        let mut out = Vec::with_capacity(if grows { n.min(RESERVE) } else { n } as usize);
        for _ in 0..n {
            out.push(read(self)?);
        }
        Ok(out)
    }

    fn array(&mut self, what: &str, depth: u32) -> Result<Array> {
        let at = self.position();
        if depth > self.limits.depth.min(MAX_DEPTH) {
            return Err(Error::over_limit(format!("{what} nests arrays deeper than allowed")).at(at));
        }
        let code = self.u32(what)?;
        let n = self.count(what)?;
        if n > self.limits.array_len {
            return Err(Error::over_limit(format!(
                "{what} is an array of {n} elements; the limit is {}",
                self.limits.array_len
            ))
            .at(at));
        }
        let count_size = if self.short { 4 } else { 8 };
        Ok(match code {
            ty::U8 => Array::U8(self.each(n, 1, what, |c| Ok(c.take::<1>(what)?[0]))?),
            ty::I8 => Array::I8(self.each(n, 1, what, |c| Ok(c.take::<1>(what)?[0] as i8))?),
            ty::U16 => Array::U16(self.each(n, 2, what, |c| c.u16(what))?),
            ty::I16 => Array::I16(self.each(n, 2, what, |c| c.i16(what))?),
            ty::U32 => Array::U32(self.each(n, 4, what, |c| c.u32(what))?),
            ty::I32 => Array::I32(self.each(n, 4, what, |c| c.i32(what))?),
            ty::U64 => Array::U64(self.each(n, 8, what, |c| c.u64(what))?),
            ty::I64 => Array::I64(self.each(n, 8, what, |c| c.i64(what))?),
            ty::F32 => Array::F32(self.each(n, 4, what, |c| c.f32(what))?),
            ty::F64 => Array::F64(self.each(n, 8, what, |c| c.f64(what))?),
            ty::BOOL => Array::Bool(self.each(n, 1, what, |c| c.bool(what))?),
            ty::STRING => strings(self.each(n, count_size, what, |c| c.string(what))?),
            ty::ARRAY => Array::Array(self.each(n, 4 + count_size, what, |c| c.array(what, depth + 1))?),
            _ => {
                return Err(
                    Error::malformed(format!("{what} is an array of the unknown type code {code}")).at(at)
                );
            }
        })
    }
}

/// Text where every string is valid UTF-8, bytes otherwise.
fn strings(raw: Vec<Vec<u8>>) -> Array {
    if raw.iter().any(|b| std::str::from_utf8(b).is_err()) {
        return Array::Bytes(raw);
    }
    Array::Str(raw.into_iter().map(|b| String::from_utf8(b).unwrap_or_default()).collect())
}

//! GGUF headers, walked without being kept: vocabularies are stepped over. Definition: `docs/gguf.md` of ggml.
//!
//! `tensormill-gguf` reads the same into a model; a scan needs a few keys of files whose vocabulary may be of any size.

use crate::{
    bytes::Cursor,
    finding::{Place, Sink},
    rules, template, text,
};
use tensormill_model::{Error, Result, Store};

pub(crate) const MAGIC: &[u8] = b"GGUF";

/// Bytes kept of one string.
const KEPT: u64 = 2 << 20;
/// Arrays within arrays.
const MAX_DEPTH: u32 = 8;
/// Entries, tensors: more than any file has.
const MOST: u64 = 1 << 24;

/// Looks at a file.
pub(crate) fn scan(store: &dyn Store, sink: &mut Sink<'_>) {
    if let Err(e) = walk(store, sink) {
        sink.add(&rules::GGUF_BROKEN, Place::at(e.offset().unwrap_or(0)), e.message());
    }
}

struct Walk<'a> {
    c: Cursor<'a>,
    big: bool,
    short: bool,
}

impl Walk<'_> {
    fn u32(&mut self) -> Result<u32> {
        let b = self.c.array()?;
        Ok(if self.big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
    }
    fn u64(&mut self) -> Result<u64> {
        let b = self.c.array()?;
        Ok(if self.big { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) })
    }
    fn count(&mut self) -> Result<u64> {
        if self.short { Ok(self.u32()?.into()) } else { self.u64() }
    }
    fn string(&mut self, most: u64) -> Result<(String, u64)> {
        let n = self.count()?;
        Ok((self.c.text(n, most)?, n))
    }

    /// A value; strings are given to `each`.
    fn value(&mut self, kind: u32, depth: u32, wanted: bool, each: &mut dyn FnMut(&str, u64)) -> Result<()> {
        let at = self.c.at;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                if wanted {
                    let (text, n) = self.string(KEPT)?;
                    each(&text, n);
                } else {
                    let n = self.count()?;
                    self.c.skip(n)?;
                }
                return Ok(());
            }
            9 => {
                if depth == MAX_DEPTH {
                    return Err(Error::malformed("arrays nested deeper than any writer does").at(at));
                }
                let kind = self.u32()?;
                let n = self.count()?;
                let size = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    10..=12 => 8,
                    _ => 0,
                };
                if size > 0 {
                    return self.c.skip(n.saturating_mul(size));
                }
                // Every element takes some bytes, so a lie about their number ends with the file.
                for _ in 0..n {
                    self.value(kind, depth + 1, wanted, each)?;
                }
                return Ok(());
            }
            _ => return Err(Error::malformed(format!("the unknown type code {kind}")).at(at)),
        };
        self.c.skip(size)
    }
}

fn walk(store: &dyn Store, sink: &mut Sink<'_>) -> Result<()> {
    let mut w = Walk { c: Cursor::new(store), big: false, short: false };
    w.c.skip(4)?;
    let version = w.c.u32()?;
    let version = match (version, version.swap_bytes()) {
        (v @ 1..=3, _) => v,
        (_, v @ 1..=3) => {
            w.big = true;
            v
        }
        (v, _) => return Err(Error::malformed(format!("GGUF version {v}")).at(4)),
    };
    w.short = version == 1;
    let (tensors, entries) = (w.count()?, w.count()?);
    if tensors > MOST || entries > MOST {
        return Err(Error::malformed(format!("{tensors} tensors and {entries} keys are announced")).at(8));
    }
    for _ in 0..entries {
        let (key, _) = w.string(1 << 16)?;
        let kind = w.u32()?;
        let is_template = key.starts_with("tokenizer.chat_template");
        let is_tokens = key.starts_with("tokenizer.") && !is_template;
        w.value(kind, 0, !is_tokens, &mut |value, len| {
            if is_template {
                template::scan(value, &key, sink);
                if len > KEPT {
                    sink.add(&rules::TEMPLATE_LONG, Place::path(&key), format!("{len} bytes"));
                }
            }
            text::secrets_in(value, &key, sink);
        })?;
    }
    for _ in 0..tensors {
        w.string(1 << 10)?;
        let at = w.c.at;
        let rank = w.u32()?;
        if rank > 8 {
            return Err(Error::malformed(format!("a tensor of {rank} dimensions")).at(at));
        }
        w.c.skip(u64::from(rank) * if w.short { 4 } else { 8 } + 4)?;
        let at = w.c.at;
        let offset = w.u64()?;
        if offset > store.len() {
            return Err(Error::malformed(format!("a tensor's data at {offset}, after the file's end")).at(at));
        }
    }
    Ok(())
}

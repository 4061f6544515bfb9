//! Zip archives, as far as checkpoints need them: stored and deflated members, zip64.
//!
//! Definition: PKWARE's APPNOTE. Stricter than most readers, so that no two of them can see two different archives in
//! one file: no name twice, no members that overlap each other or the directory, both headers of a member agree.

use super::{
    Record,
    sequential::{Packing, Pool, Sequential, inflate_all},
};
use crate::cursor::{CHUNK, Cursor};
use std::sync::Arc;
use tensormill_model::{Error, Limits, Result, Store};

pub(crate) const LOCAL: [u8; 4] = *b"PK\x03\x04";
pub(crate) const CENTRAL: [u8; 4] = *b"PK\x01\x02";
pub(crate) const END: [u8; 4] = *b"PK\x05\x06";
pub(crate) const END64: [u8; 4] = *b"PK\x06\x06";
pub(crate) const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
/// Extra field with 64-bit sizes.
pub(crate) const EXTRA64: u16 = 1;

/// Bytes of the end record without its comment, and the longest comment.
const END_BYTES: u64 = 22;
const MAX_COMMENT: u64 = 0xffff;
/// Bytes of a local header without name and extra fields.
pub(crate) const LOCAL_BYTES: u64 = 30;

/// Deflate cannot do better than this (RFC 1951: 258 bytes in two bits).
const MAX_RATIO: u64 = 1032;

const INCOMPLETE: &str = "the file is probably incomplete: download or copy it again";

/// One member, as the directory tells it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: String,
    method: u16,
    flags: u16,
    pub crc: u32,
    packed: u64,
    pub len: u64,
    /// Where its local header starts, and what it must end before.
    start: u64,
    bound: u64,
}

impl Entry {
    /// What a packed pickle may unpack to: those of checkpoints shrink to a tenth, and small ones cost nothing.
    pub fn plausible(&self) -> u64 {
        const RATIO: u64 = 64;
        const SMALL: u64 = 8 << 20;
        self.packed.saturating_mul(RATIO).max(SMALL)
    }
}

pub(crate) struct Archive {
    store: Arc<dyn Store>,
    /// In the order of the directory.
    pub entries: Vec<Entry>,
    /// Entry numbers, sorted by name.
    by_name: Vec<u32>,
    pool: Arc<Pool>,
}

/// Where the directory lies.
struct Directory {
    start: u64,
    len: u64,
    count: u64,
}

impl Archive {
    pub fn open(store: Arc<dyn Store>, limits: &Limits) -> Result<Self> {
        let directory = find_directory(&*store)?;
        if directory.len > limits.header_bytes {
            return Err(Error::over_limit(format!(
                "an archive directory of {} bytes; the limit is {}",
                directory.len, limits.header_bytes
            )));
        }
        // Some members are no tensors.
        let most = limits.tensors.saturating_add(1 << 16);
        if directory.count > most {
            return Err(Error::over_limit(format!(
                "an archive of {} members; the limit is {most}",
                directory.count
            )));
        }
        let mut c = Cursor::within(&*store, directory.start, directory.start + directory.len);
        let mut entries = Vec::new();
        for _ in 0..directory.count {
            entries.push(entry(&mut c, directory.start).map_err(|e| e.context("the archive's directory"))?);
        }
        if c.remaining() != 0 {
            return Err(Error::malformed("the archive's directory is longer than its entries"));
        }
        bound(&mut entries, directory.start)?;
        let mut by_name: Vec<u32> = (0..entries.len() as u32).collect();
        by_name.sort_unstable_by(|a, b| entries[*a as usize].name.cmp(&entries[*b as usize].name));
        let name = |i: u32| entries[i as usize].name.as_str();
        if let Some(twice) = by_name.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
            return Err(Error::malformed(format!("the archive holds {:?} twice", name(twice[0]))));
        }
        Ok(Self { store, entries, by_name, pool: Arc::new(Pool::default()) })
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        let i = self.by_name.binary_search_by(|i| self.entries[*i as usize].name.as_str().cmp(name)).ok()?;
        Some(&self.entries[self.by_name[i] as usize])
    }

    /// Where a member's bytes lie: reads its local header, which must agree with the directory.
    fn range(&self, e: &Entry) -> Result<(u64, u64)> {
        let bad = |what: &str| {
            Error::malformed(format!("the member {:?} of the archive {what}", e.name)).at(e.start)
        };
        // Header and name alone: whatever is behind them, padding or data, need not be read.
        let head = LOCAL_BYTES + e.name.len() as u64;
        let mut bytes = vec![0; head as usize];
        self.store.read_at(e.start, &mut bytes)?;
        let (fixed, name) = bytes.split_at(LOCAL_BYTES as usize);
        let u16_at = |i: usize| u16::from_le_bytes([fixed[i], fixed[i + 1]]);
        let u32_at = |i: usize| u64::from(u16_at(i)) | u64::from(u16_at(i + 2)) << 16;
        if !fixed.starts_with(&LOCAL) {
            return Err(bad("has no header where the directory says"));
        }
        let (flags, method, sizes) = (u16_at(6), u16_at(8), (u32_at(18), u32_at(22)));
        // Sizes are zero where they follow the data, and all ones where they need 64 bits.
        let known = flags & 8 == 0 && sizes.0 != u64::from(u32::MAX) && sizes.1 != u64::from(u32::MAX);
        if method != e.method || (known && sizes != (e.packed, e.len)) {
            return Err(bad("has two headers that disagree"));
        }
        if usize::from(u16_at(26)) != name.len() || name != e.name.as_bytes() {
            return Err(bad("has another name in its own header"));
        }
        if (flags | e.flags) & 1 != 0 {
            return Err(Error::unsupported(format!("the member {:?} is encrypted", e.name)));
        }
        let start = e.start + head + u64::from(u16_at(28));
        if start > e.bound || e.bound - start < e.packed {
            return Err(bad("overlaps what follows it"));
        }
        Ok((start, start + e.packed))
    }

    /// A member's bytes, by position.
    pub fn record(&self, e: &Entry) -> Result<Record> {
        let (start, end) = self.range(e)?;
        match e.method {
            0 if e.packed != e.len => {
                Err(Error::malformed(format!("the stored member {:?} has two lengths", e.name)).at(e.start))
            }
            0 => Ok(Record { store: Arc::clone(&self.store), at: start, len: e.len, place: start }),
            8 => {
                claims(e)?;
                let store = Arc::clone(&self.store);
                let unpacked = Sequential::new(store, Packing::Deflate, (start, end), e.len, &self.pool);
                Ok(Record { store: Arc::new(unpacked), at: 0, len: e.len, place: start })
            }
            m => Err(Error::unsupported(format!(
                "the member {:?} is compressed by method {m}; stored and deflated ones are read",
                e.name
            ))
            .hint("pack the archive again without compression: zip -0")),
        }
    }

    /// A whole small member, its checksum verified; a deflated one must be at most `max` bytes.
    pub fn small(&self, e: &Entry, max: u64) -> Result<Vec<u8>> {
        if e.len > max {
            return Err(Error::over_limit(format!(
                "the member {:?} has {} bytes; the limit is {max}",
                e.name, e.len
            ))
            .hint("pack the archive again without compression: zip -0"));
        }
        let (start, end) = self.range(e)?;
        let bytes = if e.method == 8 {
            claims(e)?;
            inflate_all(&*self.store, (start, end), e.len)?
        } else {
            let r = self.record(e)?;
            let mut out = vec![0; r.len as usize];
            r.store.read_at(r.at, &mut out)?;
            out
        };
        checked(e, crc32fast::hash(&bytes))?;
        Ok(bytes)
    }

    /// Verifies the checksum of a stored member without holding it.
    pub fn verify(&self, e: &Entry) -> Result<()> {
        let (start, end) = self.range(e)?;
        let mut c = Cursor::within(&*self.store, start, end);
        let mut crc = crc32fast::Hasher::new();
        while c.remaining() > 0 {
            crc.update(c.take(c.remaining().min(CHUNK as u64) as usize)?);
        }
        checked(e, crc.finalize())
    }

    /// Whether a member has to be unpacked.
    pub fn is_packed(e: &Entry) -> bool {
        e.method != 0
    }
}

/// torch can be told to leave checksums out: zero is none.
fn checked(e: &Entry, crc: u32) -> Result<()> {
    if e.crc != 0 && crc != e.crc {
        return Err(Error::malformed(format!("the member {:?} is damaged: its checksum differs", e.name))
            .hint("download or copy the file again"));
    }
    Ok(())
}

/// Refuses a length that no deflated data of this size can have.
fn claims(e: &Entry) -> Result<()> {
    if e.len > e.packed.saturating_mul(MAX_RATIO) {
        return Err(Error::malformed(format!(
            "the member {:?} cannot unpack from {} to {} bytes",
            e.name, e.packed, e.len
        ))
        .at(e.start));
    }
    Ok(())
}

fn find_directory(store: &dyn Store) -> Result<Directory> {
    let n = store.len().min(END_BYTES + MAX_COMMENT);
    let base = store.len() - n;
    let mut tail = vec![0; n as usize];
    store.read_at(base, &mut tail)?;
    let at = (0..=tail.len().saturating_sub(END_BYTES as usize)).rev().find(|i| {
        let comment = tail.get(i + 20..i + 22).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8);
        tail[*i..].starts_with(&END) && comment == Some(tail.len() - i - END_BYTES as usize)
    });
    let Some(at) = at else {
        return Err(Error::malformed("the archive has no end record").hint(INCOMPLETE));
    };
    let at = base + at as u64;
    let mut c = Cursor::new(store, at + 4);
    let (disk, first_disk, here, count) = (c.u16()?, c.u16()?, c.u16()?, c.u16()?);
    let (len, start) = (c.u32()?, c.u32()?);
    let multi = || Error::unsupported("an archive in several files");
    let mut d = Directory { start: start.into(), len: len.into(), count: count.into() };
    let mut end = at;
    let wide = wide_directory(store, at)?;
    if let Some((position, w)) = wide {
        let agree = |small: u64, all: u64, big: u64| small == all || small == big;
        if !agree(d.count, 0xffff, w.count)
            || !agree(d.len, u32::MAX.into(), w.len)
            || !agree(d.start, u32::MAX.into(), w.start)
        {
            return Err(Error::malformed("the archive's two end records disagree").at(at));
        }
        (d, end) = (w, position);
    } else if disk != 0 || first_disk != 0 || here != count {
        return Err(multi());
    }
    match d.start.checked_add(d.len) {
        Some(e) if e <= end => Ok(d),
        _ => Err(Error::malformed("the archive's directory does not end before its end record").at(at)),
    }
}

/// The 64-bit end record, where there is one in front of the end record at `end`.
fn wide_directory(store: &dyn Store, end: u64) -> Result<Option<(u64, Directory)>> {
    let Some(locator) = end.checked_sub(20) else { return Ok(None) };
    let mut c = Cursor::within(store, locator, end);
    if c.array()? != LOCATOR64 {
        return Ok(None);
    }
    c.skip(4)?;
    let (at, disks) = (c.u64()?, c.u32()?);
    if disks > 1 {
        return Err(Error::unsupported("an archive in several files"));
    }
    let mut c = Cursor::within(store, at, locator);
    let bad = || Error::malformed("the archive's 64-bit end record is not where it should be").at(locator);
    if c.remaining() < 56 || c.array()? != END64 {
        return Err(bad());
    }
    c.skip(20)?;
    let (here, count, len, start) = (c.u64()?, c.u64()?, c.u64()?, c.u64()?);
    if here != count {
        return Err(Error::unsupported("an archive in several files"));
    }
    Ok(Some((at, Directory { start, len, count })))
}

/// One entry of the directory.
fn entry(c: &mut Cursor<'_>, directory: u64) -> Result<Entry> {
    let at = c.position();
    let bad = |what: &str| Error::malformed(what.to_owned()).at(at);
    if c.array()? != CENTRAL {
        return Err(bad("an entry does not start like one"));
    }
    c.skip(4)?;
    let (flags, method) = (c.u16()?, c.u16()?);
    c.skip(4)?;
    let (crc, packed, len) = (c.u32()?, c.u32()?, c.u32()?);
    let (name, extra, comment) = (c.u16()?, c.u16()?, c.u16()?);
    c.skip(8)?;
    let start = c.u32()?;
    let name =
        std::str::from_utf8(c.take(name.into())?).map_err(|_| bad("a name that is not UTF-8"))?.to_owned();
    let mut wide = wide_numbers(c.take(extra.into())?);
    let mut full = |small: u32, what: &str| match small {
        u32::MAX => wide.next().ok_or_else(|| bad(&format!("a 64-bit {what} is missing"))),
        n => Ok(n.into()),
    };
    // In this order in the extra field.
    let len = full(len, "length")?;
    let packed = full(packed, "packed length")?;
    let start = full(start, "offset")?;
    c.skip(comment.into())?;
    if start >= directory {
        return Err(bad("a member does not lie before the directory"));
    }
    Ok(Entry { name, method, flags, crc, packed, len, start, bound: directory })
}

/// The numbers of the 64-bit extra field, at most those that an entry can need.
fn wide_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> + use<> {
    let mut found = [None; 3];
    while let [a, b, c, d, rest @ ..] = extra {
        let (id, n) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
        let Some((field, rest)) = rest.split_at_checked(n) else { break };
        if id == EXTRA64 {
            for (slot, b) in found.iter_mut().zip(field.as_chunks::<8>().0) {
                *slot = Some(u64::from_le_bytes(*b));
            }
        }
        extra = rest;
    }
    found.into_iter().flatten()
}

/// Every member ends before the next one starts.
fn bound(entries: &mut [Entry], directory: u64) -> Result<()> {
    let mut order: Vec<u32> = (0..entries.len() as u32).collect();
    order.sort_unstable_by_key(|i| entries[*i as usize].start);
    let mut next = directory;
    for i in order.into_iter().rev() {
        let e = &mut entries[i as usize];
        let least =
            e.start.checked_add(LOCAL_BYTES + e.name.len() as u64).and_then(|n| n.checked_add(e.packed));
        if least.is_none_or(|end| end > next) {
            return Err(Error::malformed(format!(
                "the member {:?} of the archive overlaps what follows it",
                e.name
            ))
            .at(e.start));
        }
        e.bound = next;
        next = e.start;
    }
    Ok(())
}

//! Zip archives as an auditor reads them: every entry of the directory, also where loaders would refuse, and whether two
//! loaders could see two archives in one file. Definition: PKWARE's APPNOTE.
//!
//! `tensormill-pickle` has a reader that refuses what this one tells of; a scan must look into what others may load.

use crate::bytes::{Cursor, Window, Wrap, inflated};
use tensormill_model::{Error, MemoryStore, Result, Store};

pub(crate) const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";

/// Entries read; archives of checkpoints stay far below.
const MOST_ENTRIES: usize = 1 << 16;
/// Bytes of names kept, of all entries together.
const MOST_NAMES: usize = 8 << 20;

/// One entry of the directory.
pub(crate) struct Entry {
    pub name: String,
    pub method: u16,
    pub encrypted: bool,
    pub is_link: bool,
    pub packed: u64,
    pub len: u64,
    pub header: u64,
}

pub(crate) struct Archive {
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub truncated: bool,
    /// Where the directory starts.
    pub directory: u64,
}

/// What a member's own header says.
pub(crate) struct Local {
    pub name: String,
    pub method: u16,
    /// First byte of its data.
    pub start: u64,
}

/// Bytes of a member, in place or unpacked.
pub(crate) enum Content<'a> {
    InPlace(Window<'a>),
    Unpacked { bytes: MemoryStore, whole: bool },
}

impl Content<'_> {
    pub fn store(&self) -> &dyn Store {
        match self {
            Self::InPlace(w) => w,
            Self::Unpacked { bytes, .. } => bytes,
        }
    }
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Self::Unpacked { whole: false, .. })
    }
}

/// Reads the directory.
pub(crate) fn open(store: &dyn Store) -> Result<Archive> {
    let (directory, count) = find(store)?;
    let mut c = Cursor::new(store);
    c.at = directory;
    let mut entries = Vec::new();
    let mut names = 0;
    let mut truncated = false;
    for n in 0..count {
        if entries.len() == MOST_ENTRIES || names > MOST_NAMES {
            truncated = true;
            break;
        }
        if c.array()? != CENTRAL {
            return Err(
                Error::malformed(format!("entry {n} of the directory does not start like one")).at(c.at)
            );
        }
        let e = entry(&mut c)?;
        names += e.name.len();
        entries.push(e);
    }
    Ok(Archive { entries, truncated, directory })
}

/// Where the directory starts and how many entries it has.
fn find(store: &dyn Store) -> Result<(u64, u64)> {
    let n = store.len().min(22 + 0xffff);
    let base = store.len() - n;
    let mut tail = vec![0; n as usize];
    store.read_at(base, &mut tail)?;
    let at = tail.windows(4).rposition(|w| w == END).filter(|at| at + 22 <= tail.len());
    let at = at.ok_or_else(|| Error::malformed("the archive has no end record"))? as u64 + base;
    let mut c = Cursor::new(store);
    c.at = at + 10;
    let count = c.u16()?;
    c.skip(4)?;
    let start = c.u32()?;
    if let Some(locator) = at.checked_sub(20) {
        c.at = locator;
        if c.array()? == LOCATOR64 {
            c.skip(4)?;
            c.at = u64::from_le_bytes(c.array()?);
            if c.array()? == END64 {
                c.skip(28)?;
                let count = u64::from_le_bytes(c.array()?);
                c.skip(8)?;
                return Ok((u64::from_le_bytes(c.array()?), count));
            }
            return Err(
                Error::malformed("the archive's 64-bit end record is not where it should be").at(locator)
            );
        }
    }
    Ok((start.into(), count.into()))
}

fn entry(c: &mut Cursor<'_>) -> Result<Entry> {
    c.skip(4)?;
    let (flags, method) = (c.u16()?, c.u16()?);
    c.skip(8)?;
    let (packed, len) = (c.u32()?, c.u32()?);
    let (name, extra, comment) = (c.u16()?, c.u16()?, c.u16()?);
    c.skip(4)?;
    let attributes = c.u32()?;
    let header = c.u32()?;
    let name = c.text(name.into(), u64::from(u16::MAX))?;
    let extra = c.bytes(extra.into(), u64::from(u16::MAX))?;
    c.skip(comment.into())?;
    let mut wide = wide(&extra).into_iter();
    let mut full = |n: u32| if n == u32::MAX { wide.next().unwrap_or(u64::from(n)) } else { u64::from(n) };
    let (len, packed, header) = (full(len), full(packed), full(header));
    let is_link = attributes >> 16 & 0xf000 == 0xa000;
    Ok(Entry { name, method, encrypted: flags & 1 != 0, is_link, packed, len, header })
}

/// Numbers of the 64-bit extra field.
fn wide(mut extra: &[u8]) -> Vec<u64> {
    while let [a, b, c, d, rest @ ..] = extra {
        let n = usize::from(u16::from_le_bytes([*c, *d]));
        let Some((field, rest)) = rest.split_at_checked(n) else { break };
        if u16::from_le_bytes([*a, *b]) == 1 {
            return field.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
        }
        extra = rest;
    }
    Vec::new()
}

/// A member's own header.
pub(crate) fn local(c: &mut Cursor<'_>, e: &Entry) -> Result<Local> {
    c.at = e.header;
    if c.array()? != LOCAL {
        return Err(Error::malformed(format!(
            "the member {:?} has no header where the directory says",
            e.name
        ))
        .at(e.header));
    }
    c.skip(4)?;
    let method = c.u16()?;
    c.skip(16)?;
    let (name, extra) = (c.u16()?, c.u16()?);
    let name = c.text(name.into(), u64::from(u16::MAX))?;
    c.skip(extra.into())?;
    Ok(Local { name, method, start: c.at })
}

/// The bytes of a member: of a packed one at most `most`; nothing for what cannot be unpacked here.
pub(crate) fn content<'a>(
    store: &'a dyn Store,
    e: &Entry,
    start: u64,
    most: usize,
) -> Result<Option<Content<'a>>> {
    if e.encrypted {
        return Ok(None);
    }
    match e.method {
        0 => {
            let len = e.packed.min(store.len().saturating_sub(start));
            Ok(Some(Content::InPlace(Window { store, start, len })))
        }
        8 => {
            let (bytes, whole) = inflated(store, (start, e.packed), Wrap::Raw, most)?;
            Ok(Some(Content::Unpacked { bytes, whole }))
        }
        _ => Ok(None),
    }
}

//! Linux: the second, direct descriptor of a file, and what is asked of the page cache.
//!
//! Every refusal (a file system without `O_DIRECT`, a stricter alignment, no `/proc`, no descriptor to spare) ends
//! the use of the direct descriptor for good and is not an error: the caller's ordinary descriptor does the rest.

use super::{ALIGN, LARGE};
use rustix::{
    fs::{Advice, OFlags, fadvise},
    io::{Errno, ReadWriteFlags, preadv, preadv2},
};
use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, IoSliceMut},
    num::NonZeroU64,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

/// Most reads in a row that do not ask whether the cache holds their bytes, after it did not.
const UNASKED: u32 = 15;

/// Bytes of a write that are copied at once when they lie in the wrong place, once per writing thread.
const PIECE: usize = 1 << 20;

thread_local! {
    /// [`PIECE`] bytes from the first aligned address on.
    static PLACED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Room for a block of which only one end is wanted.
#[repr(align(4096))]
struct Block([u8; ALIGN]);
const _: () = assert!(align_of::<Block>() == ALIGN);

#[derive(Debug)]
struct Direct {
    file: File,
    /// Unit in which a file's bytes are cached: a page, or the file system's block where that is larger.
    unit: u64,
}

#[derive(Debug)]
pub(super) struct Bypass {
    writable: bool,
    enabled: bool,
    /// Opened at the first large transfer, so that files without one cost no second descriptor.
    direct: OnceLock<Option<Direct>>,
    refused: AtomicBool,
    used: AtomicBool,
    /// Reads that still go unasked, and how many there were after the last miss.
    unasked: AtomicU32,
    pause: AtomicU32,
}

impl Bypass {
    pub(super) fn new(writable: bool) -> Self {
        Self {
            writable,
            enabled: true,
            direct: OnceLock::new(),
            refused: AtomicBool::new(false),
            used: AtomicBool::new(false),
            unasked: AtomicU32::new(0),
            pause: AtomicU32::new(0),
        }
    }

    pub(super) fn disable(&mut self) {
        self.enabled = false;
    }

    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    pub(super) fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed) && !self.refused.load(Ordering::Relaxed)
    }

    fn open(&self, file: &File) -> Option<Direct> {
        // Without this, one cached read would fetch megabytes of what direct transfers will move anyway.
        let _ = fadvise(file, 0, None, Advice::Random);
        // By descriptor and not by path: the path may lead to another file by now.
        let direct = OpenOptions::new()
            .read(true)
            .write(self.writable)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .ok()?;
        let block = direct.metadata().ok()?.blksize();
        // Network file systems state a favourite transfer size here; real blocks are not that large.
        let block = if block.is_power_of_two() && block <= 64 << 10 { block } else { 0 };
        let unit = block.max(rustix::param::page_size() as u64).max(ALIGN as u64);
        Some(Direct { file: direct, unit })
    }

    fn direct(&self, file: &File) -> Option<&Direct> {
        let direct = self.direct.get_or_init(|| self.open(file)).as_ref();
        if self.refused.load(Ordering::Relaxed) { None } else { direct }
    }

    /// Whether an error of a direct transfer means that this file cannot have any. `EINVAL` is the answer to an
    /// alignment the file system or the disk does not accept.
    fn refuses(&self, e: &io::Error) -> bool {
        let refuses = matches!(Errno::from_io_error(e), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS));
        if refuses {
            self.refused.store(true, Ordering::Relaxed);
        }
        refuses
    }

    /// Writes the interior of `bytes` directly; gives the part that was written. Bytes that lie in the wrong
    /// place are copied: memory is an order of magnitude faster than disks, and a gigabyte of dirty pages is
    /// what makes buffered writes slow.
    pub(super) fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<Range<usize>> {
        if !self.enabled || bytes.len() < LARGE {
            return Ok(0..0);
        }
        let Some(direct) = self.direct(file) else { return Ok(0..0) };
        let start = (offset.next_multiple_of(direct.unit) - offset) as usize;
        let end = ((offset + bytes.len() as u64) / direct.unit * direct.unit).saturating_sub(offset) as usize;
        if start >= end {
            return Ok(0..0);
        }
        let placed = phase(bytes.as_ptr().addr()) == phase(offset as usize);
        let mut at = start;
        // After a count that is no multiple of the unit (a nearly full disk) the cache must take over.
        while at < end && (offset + at as u64).is_multiple_of(direct.unit) {
            let position = offset + at as u64;
            let written = if placed {
                direct.file.write_at(&bytes[at..end], position)
            } else {
                write_copy(&direct.file, &bytes[at..end.min(at + PIECE)], position)
            };
            match written {
                Ok(0) => break,
                Ok(n) => at += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if self.refuses(&e) => break,
                Err(e) => return Err(e),
            }
        }
        self.used.fetch_or(at > start, Ordering::Relaxed);
        Ok(start..at)
    }

    /// Fills `buf` from its start, from the cache or else directly; gives how many bytes are there.
    pub(super) fn read(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if !self.enabled || buf.len() < LARGE {
            return Ok(0);
        }
        let direct = self.direct(file);
        let asked = match self.cached(file, buf, offset) {
            // The rest, if any, is on its way into the cache: asking for it has set that off.
            Cached::Some(n) => return Ok(n),
            Cached::None => true,
            Cached::Unasked => false,
        };
        let Some(direct) = direct else { return Ok(0) };
        let mut done = 0;
        while buf.len() - done >= LARGE && phase(buf[done..].as_ptr().addr()) == phase(offset as usize + done)
        {
            match read_direct(&direct.file, &mut buf[done..], offset + done as u64) {
                // The end of the file, or a count that is of no use: the caller's plain read tells which.
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if self.refuses(&e) => break,
                Err(e) => return Err(e),
            }
        }
        self.used.fetch_or(done > 0, Ordering::Relaxed);
        if asked && done > 0 {
            // Asking made the kernel fetch the first page.
            let start = offset / direct.unit * direct.unit;
            let _ = fadvise(file, start, NonZeroU64::new(direct.unit), Advice::DontNeed);
        }
        Ok(done)
    }

    /// Drops whole pages of a range that a plain read has brought in.
    pub(super) fn forget(&self, file: &File, offset: u64, len: usize) {
        if self.enabled && len >= LARGE {
            let _ = fadvise(file, offset, NonZeroU64::new(len as u64), Advice::DontNeed);
        }
    }

    pub(super) fn forget_all(&self, file: &File) {
        if self.used() {
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
    }

    /// Takes what the cache holds of the start of `buf`.
    ///
    /// Asking for a page that is absent starts its transfer, so the question is put for the first page alone, and
    /// after a miss only at growing intervals: a file is mostly either cached or not.
    fn cached(&self, file: &File, buf: &mut [u8], offset: u64) -> Cached {
        let less = |n: u32| n.checked_sub(1);
        if self.unasked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            return Cached::Unasked;
        }
        let take = |buf: &mut [u8], at: usize| {
            preadv2(file, &mut [IoSliceMut::new(buf)], offset + at as u64, ReadWriteFlags::NOWAIT)
        };
        let first = (ALIGN - phase(offset as usize)).min(buf.len());
        let mut done = match take(&mut buf[..first], 0) {
            Ok(n) if n > 0 => n,
            Err(Errno::AGAIN) => {
                let pause = (self.pause.load(Ordering::Relaxed) * 2 + 1).min(UNASKED);
                self.pause.store(pause, Ordering::Relaxed);
                self.unasked.store(pause, Ordering::Relaxed);
                return Cached::None;
            }
            // Not supported here, or nothing to read.
            _ => {
                self.unasked.store(UNASKED, Ordering::Relaxed);
                return Cached::Unasked;
            }
        };
        self.pause.store(0, Ordering::Relaxed);
        while done < buf.len() {
            match take(&mut buf[done..], done) {
                Ok(n) if n > 0 => done += n,
                _ => break,
            }
        }
        Cached::Some(done)
    }
}

enum Cached {
    /// This many bytes, at least one.
    Some(usize),
    None,
    Unasked,
}

fn phase(n: usize) -> usize {
    n % ALIGN
}

/// One direct write by way of memory that is aligned; `bytes` are at most [`PIECE`].
fn write_copy(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    PLACED.with_borrow_mut(|memory| {
        if memory.is_empty() {
            memory.resize(PIECE + ALIGN, 0);
        }
        let start = memory.as_ptr().addr().next_multiple_of(ALIGN) - memory.as_ptr().addr();
        let placed = &mut memory[start..start + bytes.len()];
        placed.copy_from_slice(bytes);
        file.write_at(placed, offset)
    })
}

/// One direct read. The blocks at both ends, of which `buf` wants only a part, are read into blocks of our own in
/// the same transfer: the disk sees one contiguous request and the cache sees none.
fn read_direct(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let (mut before, mut after) = (Block([0; ALIGN]), Block([0; ALIGN]));
    let skip = phase(offset as usize);
    let head = (ALIGN - skip) % ALIGN;
    let tail = (buf.len() - head) % ALIGN;
    let inner = buf.len() - head - tail;
    let mut parts = Vec::with_capacity(3);
    if head > 0 {
        parts.push(IoSliceMut::new(&mut before.0));
    }
    parts.push(IoSliceMut::new(&mut buf[head..head + inner]));
    if tail > 0 {
        parts.push(IoSliceMut::new(&mut after.0));
    }
    let n = preadv(file, &mut parts, offset - skip as u64)?;
    let got = n.saturating_sub(skip).min(buf.len());
    let here = head.min(got);
    buf[..here].copy_from_slice(&before.0[skip..skip + here]);
    let there = got.saturating_sub(head + inner);
    buf[head + inner..][..there].copy_from_slice(&after.0[..there]);
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DirectFile;
    use rustix::fs::{FsWord, fstatfs};

    /// `len` bytes with the address `phase` modulo the alignment, all of value `fill`.
    fn with_placed(len: usize, phase: usize, fill: u8, f: impl FnOnce(&mut [u8])) {
        let mut bytes = vec![fill; len + ALIGN];
        let start = (phase + ALIGN - bytes.as_ptr().addr() % ALIGN) % ALIGN;
        f(&mut bytes[start..start + len]);
    }

    /// Whether the file lies where direct I/O is known to go past the cache: temporary folders are often in memory.
    fn on_disk(file: &File) -> bool {
        const EXT4: FsWord = 0xEF53;
        const XFS: FsWord = 0x5846_5342;
        fstatfs(file).is_ok_and(|s| [EXT4, XFS].contains(&s.f_type))
    }

    fn is_cached(file: &File, offset: u64) -> bool {
        preadv2(file, &mut [IoSliceMut::new(&mut [0])], offset, ReadWriteFlags::NOWAIT).is_ok()
    }

    #[test]
    fn what_is_written_and_read_does_not_stay_in_the_cache() {
        let file = tempfile::tempfile().unwrap();
        let (len, shift) = (16 * LARGE, 1000);
        file.set_len(len as u64).unwrap();
        if !on_disk(&file) {
            return;
        }
        let direct = DirectFile::writing(file);
        // One half without a copy, the other with.
        let half = len / 2;
        with_placed(half - shift, shift, 1, |b| direct.write_all_at(b, shift as u64).unwrap());
        with_placed(half, 24, 1, |b| direct.write_all_at(b, half as u64).unwrap());
        assert!(direct.is_direct());
        // The first page went through the cache; the others did not.
        assert!(is_cached(direct.file(), 0));
        let page = |n: usize| (n * ALIGN) as u64;
        assert!(!is_cached(direct.file(), page(1)));
        assert!(!is_cached(direct.file(), page(100)));
        assert!(!is_cached(direct.file(), page(200)));
        direct.sync_all().unwrap();
        // Asking has fetched pages 1 and 100, so others are asked about from here on.
        assert!(!is_cached(direct.file(), page(10)));
        for (phase, asked) in [(7, 20), (8, 40)] {
            // Read directly at first, then through the cache, where the pages do not stay.
            with_placed(LARGE, phase, 0, |b| {
                direct.read_exact_at(b, page(asked) + 7).unwrap();
                assert!(b.iter().all(|b| *b == 1));
            });
            for n in [asked + 5, asked + 10] {
                assert!(!is_cached(direct.file(), page(n)), "page {n}");
            }
        }
        // What others have cached stays, and is used.
        direct.file().read_exact_at(&mut vec![0; 4 * LARGE], 0).unwrap();
        with_placed(LARGE, 0, 0, |b| direct.read_exact_at(b, 0).unwrap());
        assert!((0..LARGE / ALIGN).all(|n| is_cached(direct.file(), page(n))));
    }

    #[test]
    fn a_refusal_is_final_and_silent() {
        let bypass = Bypass::new(true);
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * LARGE as u64).unwrap();
        with_placed(2 * LARGE, 0, 1, |b| {
            if on_disk(&file) {
                assert_eq!(bypass.write(&file, b, 0).unwrap(), 0..b.len());
                assert!(bypass.used());
            }
            assert!(!bypass.refuses(&io::Error::from(Errno::IO)));
            assert!(bypass.refuses(&io::Error::from(Errno::INVAL)));
            assert_eq!(bypass.write(&file, b, 0).unwrap(), 0..0);
            assert!(!bypass.used() && bypass.direct(&file).is_none());
        });
        // A unit that is too small makes unaligned transfers, which disks refuse: the bytes arrive all the same.
        let bypass = Bypass::new(true);
        let unit = Direct { file: bypass.open(&file).unwrap().file, unit: 1 };
        bypass.direct.set(Some(unit)).unwrap();
        with_placed(2 * LARGE, 1, 2, |b| {
            let done = bypass.write(&file, b, 1).unwrap();
            assert!(done.start <= done.end && done.end <= b.len());
            assert_eq!(done.is_empty(), bypass.refused.load(Ordering::Relaxed));
        });
    }
}

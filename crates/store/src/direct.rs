//! Positional reads and writes of one file that leave the page cache as they found it, where the system can.
//!
//! A pass over a model moves hundreds of gigabytes once. Through the page cache that costs a copy, pushes out
//! what other programs need, and piles up dirty pages that the kernel then flushes at its own pace. So large
//! transfers go past the cache (`O_DIRECT`), and everything else through the ordinary descriptor.
//!
//! Whoever wants transfers without a copy places the buffer so that its address and the file offset are equal
//! modulo [`ALIGN`]. Nothing depends on it but speed: other writes are copied once (a MiB of memory per writing
//! thread), other reads pass through the cache and are dropped from it.
//!
//! This module must not know what the bytes are, nor under which name the file will appear.

#[cfg(target_os = "linux")]
#[path = "bypass.rs"]
mod bypass;

use crate::ends::Ends;
use bypass::Bypass;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Direct transfers need memory address and file offset to be equal modulo this many bytes: the largest logical
/// block size of disks in use.
pub const ALIGN: usize = 4096;

/// Transfers of fewer bytes than this go through the page cache: a disk needs longer to start one than to move
/// the bytes, and small neighbours gain from being fetched and written back together.
pub const LARGE: usize = 64 << 10;

/// An opened file with a way past the page cache. Shareable between threads; there is no cursor.
///
/// # Coherence
/// Direct and buffered transfers of one file may be mixed freely by threads that write disjoint ranges, and a
/// read that begins after a write returned gives its bytes:
/// - A direct write covers only pages that lie wholly inside the range being written. The pages at its two ends,
///   which may hold bytes of the neighbours, are written by everyone through the page cache, which keeps them
///   whole. So no page is ever in both worlds at one time.
/// - These ends, and whole writes that are small, wait in memory until there are many of them (`ends`). Whoever reads or
///   writes bytes that wait has them written first, and so does who makes the file durable.
/// - Around a direct write the kernel writes back and drops the cached pages of exactly that range; before a
///   direct read it writes back dirty ones. The buffered descriptor is told not to read ahead (`FADV_RANDOM`),
///   so that no reader of an end page brings its neighbours into the cache while they are being overwritten.
///
/// # Durability
/// A direct write is not a durable one: the disk's own cache and the extents' state still need
/// [`Self::sync_all`].
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    bypass: Bypass,
    ends: Mutex<Ends>,
}

impl DirectFile {
    /// A file that was opened for reading.
    pub fn reading(file: File) -> Self {
        Self { file, bypass: Bypass::new(false), ends: Mutex::default() }
    }

    /// A file that was opened for reading and writing.
    pub fn writing(file: File) -> Self {
        Self { file, bypass: Bypass::new(true), ends: Mutex::default() }
    }

    /// The same file with every transfer through the page cache: for comparison, and where the cache is wanted.
    #[must_use]
    pub fn buffered(mut self) -> Self {
        self.bypass.disable();
        self
    }

    /// The ordinary descriptor. What waits to be written is not seen through it before a sync.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether some transfer has gone past the page cache and none has been refused since.
    pub fn is_direct(&self) -> bool {
        self.bypass.used()
    }

    /// Fills `buf` from `offset`. What the page cache holds already is taken from it; what it does not hold is
    /// not left in it.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before `buf` is full; anything else the system reports.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.settle(offset, buf.len())?;
        let done = self.bypass.read(&self.file, buf, offset)?;
        let (rest, at) = (&mut buf[done..], offset + done as u64);
        self.file.read_exact_at(rest, at)?;
        self.bypass.forget(&self.file, at, rest.len());
        Ok(())
    }

    /// Writes all of `bytes` at `offset`. Only bytes within the file's present length are worth writing directly:
    /// file systems serialize direct writes that make a file longer, so set the length first.
    ///
    /// # Errors
    /// Whatever the system reports; some of the bytes may have been written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.settle(offset, bytes.len())?;
        let done = self.bypass.write(&self.file, bytes, offset)?;
        self.end(&bytes[..done.start], offset)?;
        self.end(&bytes[done.end..], offset + done.end as u64)
    }

    /// Bytes that did not go past the page cache: few of them can wait.
    fn end(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.len() >= LARGE || !self.bypass.enabled() {
            return self.file.write_all_at(bytes, offset);
        }
        let mut ends = self.ends();
        if ends.push(offset, bytes) { self.write_out(&mut ends) } else { Ok(()) }
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self, ends: &mut Ends) -> io::Result<()> {
        ends.settle(|bytes, at| self.file.write_all_at(bytes, at))
    }

    /// Has what waits written where some of these bytes are among it.
    fn settle(&self, offset: u64, len: usize) -> io::Result<()> {
        if !self.bypass.enabled() {
            return Ok(());
        }
        let mut ends = self.ends();
        if ends.overlap(&(offset..offset.saturating_add(len as u64))) {
            self.write_out(&mut ends)
        } else {
            Ok(())
        }
    }

    /// Makes what was written durable, as far as its bytes are concerned.
    ///
    /// # Errors
    /// Whatever the system reports; then nothing is known to be durable.
    pub fn sync_data(&self) -> io::Result<()> {
        self.write_out(&mut self.ends())?;
        self.file.sync_data()
    }

    /// Makes what was written durable. Of a file that was written directly, the few pages that did go through
    /// the cache (the ends of the transfers) are dropped from it.
    ///
    /// # Errors
    /// Whatever the system reports; then nothing is known to be durable.
    pub fn sync_all(&self) -> io::Result<()> {
        self.write_out(&mut self.ends())?;
        self.file.sync_all()?;
        self.bypass.forget_all(&self.file);
        Ok(())
    }
}

impl Drop for DirectFile {
    /// Parts of a run that stops are gone on with later: what waits goes to the system, as all else did.
    fn drop(&mut self) {
        let waiting = self.ends.get_mut().unwrap_or_else(PoisonError::into_inner);
        // There is nobody left to tell; nothing that was noted as durable waits here.
        let _ = waiting.settle(|bytes, at| self.file.write_all_at(bytes, at));
    }
}

/// No way past the cache is used elsewhere than on Linux.
#[cfg(not(target_os = "linux"))]
mod bypass {
    use std::{fs::File, io, ops::Range};

    #[derive(Debug)]
    pub(super) struct Bypass;

    impl Bypass {
        pub(super) fn new(_: bool) -> Self {
            Self
        }
        pub(super) fn disable(&mut self) {}
        pub(super) fn enabled(&self) -> bool {
            false
        }
        pub(super) fn used(&self) -> bool {
            false
        }
        pub(super) fn read(&self, _: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }
        pub(super) fn write(&self, _: &File, _: &[u8], _: u64) -> io::Result<Range<usize>> {
            Ok(0..0)
        }
        pub(super) fn forget(&self, _: &File, _: u64, _: usize) {}
        pub(super) fn forget_all(&self, _: &File) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, OpenOptions},
        ops::Range,
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    /// Xorshift: any full-period generator would do.
    struct Random(u64);
    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % n as u64) as usize
        }
    }

    /// Memory whose address is `phase` modulo [`ALIGN`].
    struct Placed(Vec<u8>, Range<usize>);
    impl Placed {
        fn new(len: usize, phase: usize) -> Self {
            let bytes = vec![0xAA; len + ALIGN];
            let start = (phase + ALIGN - bytes.as_ptr().addr() % ALIGN) % ALIGN;
            Self(bytes, start..start + len)
        }
        fn of(bytes: &[u8], phase: usize) -> Self {
            let mut placed = Self::new(bytes.len(), phase);
            placed.bytes().copy_from_slice(bytes);
            placed
        }
        fn bytes(&mut self) -> &mut [u8] {
            &mut self.0[self.1.clone()]
        }
    }

    fn content(len: usize) -> Vec<u8> {
        let mut random = Random(88_172_645_463_325_252);
        (0..len).map(|_| random.below(251) as u8).collect()
    }

    fn create(path: &Path, len: usize) -> DirectFile {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(len as u64).unwrap();
        DirectFile::writing(file)
    }

    /// Disjoint ranges that cover `len` bytes: large and small, most of them meeting inside a page.
    fn pieces(len: usize, random: &mut Random) -> Vec<Range<usize>> {
        let mut cuts = vec![0, len];
        let mut at = 0;
        while at < len {
            at += match random.below(5) {
                0 => 1 + random.below(100),
                1 => 1 + random.below(2 * ALIGN),
                2 => LARGE + random.below(LARGE),
                // More than is copied at once.
                3 => (1 << 20) + random.below(2 << 20),
                _ => LARGE + random.below(4 * LARGE),
            };
            // Now and then exactly at a page's border, or a byte beside it.
            if random.below(3) == 0 {
                at = at.next_multiple_of(ALIGN) + random.below(2);
            }
            cuts.push(at.min(len));
        }
        cuts.sort_unstable();
        cuts.windows(2).map(|w| w[0]..w[1]).filter(|r| !r.is_empty()).collect()
    }

    /// Several threads write the pieces of a file and read back what they wrote while the others write.
    fn round_trip(seed: u64, wrap: fn(DirectFile) -> DirectFile) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut random = Random(seed);
        let len = (9 << 20) + random.below(3 * ALIGN);
        let expected = content(len);
        let mut pieces = pieces(len, &mut random);
        for i in (1..pieces.len()).rev() {
            pieces.swap(i, random.below(i + 1));
        }
        let file = wrap(create(&path, len));
        let next = AtomicUsize::new(0);
        thread::scope(|s| {
            for t in 1..=4 {
                let (file, next, pieces, expected) = (&file, &next, &pieces, &expected);
                let mut random = Random(seed * 31 + t);
                s.spawn(move || {
                    while let Some(r) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut phase = || match random.below(3) {
                            0 => random.below(ALIGN),
                            _ => r.start % ALIGN,
                        };
                        let mut bytes = Placed::of(&expected[r.clone()], phase());
                        file.write_all_at(bytes.bytes(), r.start as u64).unwrap();
                        let mut back = Placed::new(r.len(), phase());
                        file.read_exact_at(back.bytes(), r.start as u64).unwrap();
                        assert!(back.bytes() == &expected[r.clone()], "{r:?} of seed {seed}");
                    }
                });
            }
        });
        let direct = file.is_direct();
        file.sync_all().unwrap();
        assert!(fs::read(&path).unwrap() == expected, "the file of seed {seed}");
        // And by ranges that have nothing to do with those written, some of them now cached, some not.
        let again = wrap(DirectFile::reading(File::open(&path).unwrap()));
        for _ in 0..40 {
            let start = random.below(len);
            let n = random.below((len - start).min(1 << 20)) + 1;
            let phase = if random.below(2) == 0 { start % ALIGN } else { random.below(ALIGN) };
            let mut back = Placed::new(n, phase);
            again.read_exact_at(back.bytes(), start as u64).unwrap();
            assert!(back.bytes() == &expected[start..start + n], "{n} bytes at {start} of seed {seed}");
            if random.below(8) == 0 {
                again.bypass.forget(again.file(), 0, len);
            }
        }
        direct
    }

    #[test]
    fn disjoint_writes_of_many_threads_are_read_back() {
        for seed in 1..=6 {
            round_trip(seed, |f| f);
            assert!(!round_trip(seed + 100, DirectFile::buffered));
        }
    }

    #[test]
    fn the_end_of_the_file_is_an_error_and_its_last_bytes_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let expected = content(3 * LARGE + 77);
        fs::write(&path, &expected).unwrap();
        let file = DirectFile::reading(File::open(&path).unwrap());
        for start in [0, 1, ALIGN, ALIGN + 5, LARGE, 2 * LARGE] {
            for phase in [start % ALIGN, 3] {
                for cached in [true, false] {
                    if !cached {
                        file.file().sync_all().unwrap();
                        file.bypass.forget(file.file(), 0, 4 * LARGE);
                    }
                    let mut all = Placed::new(expected.len() - start, phase);
                    file.read_exact_at(all.bytes(), start as u64).unwrap();
                    assert!(all.bytes() == &expected[start..]);
                    let mut more = Placed::new(expected.len() - start + 1, phase);
                    let e = file.read_exact_at(more.bytes(), start as u64).unwrap_err();
                    assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
                }
            }
        }
        // Writes past the end make the file longer, whatever way they take.
        let path = dir.path().join("g");
        let file = create(&path, 0);
        let mut bytes = Placed::of(&expected, 100);
        file.write_all_at(bytes.bytes(), 100).unwrap();
        file.sync_data().unwrap();
        let written = fs::read(&path).unwrap();
        assert!(written[..100] == [0; 100] && written[100..] == expected[..]);
    }

    #[test]
    fn errors_of_the_system_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, vec![1; 4 * LARGE]).unwrap();
        // Not opened for writing: neither descriptor takes the bytes.
        let file = DirectFile::reading(File::open(&path).unwrap());
        for phase in [0, 8] {
            assert!(file.write_all_at(Placed::new(2 * LARGE, phase).bytes(), 0).is_err());
        }
        assert!(fs::read(&path).unwrap() == vec![1; 4 * LARGE]);
    }
}

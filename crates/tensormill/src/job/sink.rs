//! What the engine writes into: the files of one variant, hashed on the way where tiles come in file order.
//!
//! The Hub and `sha256sum` want SHA-256, which runs from front to back. Tiles are handed out in file order and finish
//! nearly so; a worker whose bytes come early waits for the bytes before them, holding no permit to compute. What does
//! not come in order (another variant's order of tensors, a resumed run) is hashed by reading it back ([`hash_file`]).

use super::checksums::Checksums;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};
use tensormill_engine::Sink;
use tensormill_model::{Error, FileLayout, Result};
use tensormill_store::{ALIGN, OutputSet};
use xxhash_rust::xxh3::Xxh3;

/// Where one tensor lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub start: u64,
    pub end: u64,
    /// Number of the tensor in its model.
    pub tensor: usize,
}

/// Hashes of a whole file and of each tensor in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct FileHash {
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// `(tensor, XXH3-64 of its bytes)`.
    pub tensors: Vec<(usize, u64)>,
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// Hashes the bytes of a file in order.
struct Running {
    /// In file order.
    extents: Vec<Extent>,
    len: u64,
    at: u64,
    /// The extent that `at` is in or before.
    next: usize,
    file: Sha256,
    tensor: Xxh3,
    done: Vec<(usize, u64)>,
}

impl Running {
    fn new(mut extents: Vec<Extent>, len: u64) -> Self {
        extents.sort_by_key(|e| (e.start, e.end));
        Self { extents, len, at: 0, next: 0, file: Sha256::new(), tensor: Xxh3::new(), done: Vec::new() }
    }

    /// Takes the bytes at `at`: of the header, of a tensor, or between tensors.
    fn update(&mut self, mut bytes: &[u8]) {
        self.file.update(bytes);
        while let Some(e) = self.extents.get(self.next) {
            let before = e.start.saturating_sub(self.at).min(bytes.len() as u64);
            self.at += before;
            bytes = &bytes[before as usize..];
            if self.at < e.start {
                return;
            }
            let inside = (e.end - self.at).min(bytes.len() as u64);
            self.tensor.update(&bytes[..inside as usize]);
            self.at += inside;
            bytes = &bytes[inside as usize..];
            if self.at < e.end {
                return;
            }
            self.done.push((e.tensor, self.tensor.digest()));
            self.tensor.reset();
            self.next += 1;
        }
        self.at += bytes.len() as u64;
    }

    /// The zeros up to the next tensor, or to the end of the file.
    fn skip_gap(&mut self) {
        const ZEROS: [u8; 4096] = [0; 4096];
        loop {
            let until = self.extents.get(self.next).map_or(self.len, |e| e.start);
            if self.at >= until {
                return;
            }
            let n = (until - self.at).min(ZEROS.len() as u64);
            self.update(&ZEROS[..n as usize]);
        }
    }

    fn finish(self) -> Option<FileHash> {
        let sha256 = hex(&self.file.finalize());
        (self.at == self.len).then_some(FileHash { sha256, tensors: self.done })
    }
}

/// One file, hashed while it is written.
struct InOrder {
    state: Mutex<(Running, bool)>,
    moved: Condvar,
}

impl InOrder {
    fn lock(&self) -> MutexGuard<'_, (Running, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of one variant.
pub(super) struct VariantSink<'a> {
    set: &'a OutputSet,
    /// Number in the set of each of the variant's files; `None` for those that are another part's.
    numbers: Vec<Option<usize>>,
    in_order: Vec<InOrder>,
    checksums: Checksums,
}

/// What was taken of a variant's files while they were written.
#[derive(Default)]
pub(super) struct Taken {
    /// File by file; empty when files were not hashed.
    pub hashes: Vec<Option<FileHash>>,
    /// CRC-32 by tensor, where the format asked for it and all bytes came by.
    pub checksums: BTreeMap<usize, u32>,
}

impl<'a> VariantSink<'a> {
    /// Files of the set, not hashed.
    pub(super) fn new(set: &'a OutputSet, numbers: Vec<Option<usize>>) -> Self {
        Self { set, numbers, in_order: Vec::new(), checksums: Checksums::default() }
    }

    fn number(&self, file: usize) -> Result<usize> {
        let number = self.numbers.get(file).copied().flatten();
        number.ok_or_else(|| Error::usage(format!("file {file} is another part's")))
    }

    /// Writes what of a file is no tensor.
    pub(super) fn write_frame(&self, file: usize, frame: &FileLayout) -> Result<()> {
        let number = self.number(file)?;
        self.set.write_all_at(number, 0, &frame.header)?;
        frame.pieces.iter().try_for_each(|p| self.set.write_all_at(number, p.offset, &p.bytes))
    }

    /// The CRC-32 of a tensor of a file is taken while it is written.
    pub(super) fn check_sum(&mut self, file: usize, extent: Extent) {
        self.checksums.watch(file, extent);
    }

    /// The next file is hashed while it is written: its header is, now.
    pub(super) fn hash_next(&mut self, header: &[u8], extents: Vec<Extent>, len: u64) {
        let mut running = Running::new(extents, len);
        running.update(header);
        running.skip_gap();
        self.in_order.push(InOrder { state: Mutex::new((running, false)), moved: Condvar::new() });
    }

    /// What was taken on the way.
    pub(super) fn finish(self) -> Taken {
        let state = |f: InOrder| f.state.into_inner().unwrap_or_else(PoisonError::into_inner).0;
        Taken {
            hashes: self.in_order.into_iter().map(|f| state(f).finish()).collect(),
            checksums: self.checksums.finish(),
        }
    }
}

impl Sink for VariantSink<'_> {
    fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.set.write_all_at(self.number(file)?, offset, bytes)?;
        self.checksums.update(file, offset, bytes);
        let Some(hash) = self.in_order.get(file) else { return Ok(()) };
        let mut state = hash.lock();
        while state.0.at != offset && !state.1 {
            state = hash.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.0.at == offset {
            state.0.update(bytes);
            // Only behind a whole tensor comes a gap.
            if state.0.extents.get(state.0.next).is_none_or(|e| state.0.at <= e.start) {
                state.0.skip_gap();
            }
            hash.moved.notify_all();
        }
        Ok(())
    }

    fn read_at(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        self.set.read_exact_at(self.number(file)?, offset, out)
    }

    fn abort(&self) {
        for f in &self.in_order {
            f.lock().1 = true;
            f.moved.notify_all();
        }
    }
}

/// Hashes a file of the set by reading it; `advanced` hears of every portion's bytes, and can stop it.
pub(super) fn hash_file(
    set: &OutputSet,
    file: usize,
    extents: Vec<Extent>,
    len: u64,
    advanced: &dyn Fn(u64) -> Result<()>,
) -> Result<FileHash> {
    const PORTION: usize = 2 << 20;
    let mut running = Running::new(extents, len);
    let mut buffer = vec![0; PORTION + ALIGN];
    // On a page boundary, so that direct reads can fill it.
    let start = buffer.as_ptr().align_offset(ALIGN) % ALIGN;
    while running.at < len {
        let n = (len - running.at).min(PORTION as u64) as usize;
        let portion = &mut buffer[start..start + n];
        set.read_exact_at(file, running.at, portion)?;
        running.update(portion);
        advanced(n as u64)?;
    }
    Ok(running.finish().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};
    use tensormill_store::{Existing, Parts};

    #[test]
    fn bytes_in_any_threads_order_give_the_files_hash() {
        let tmp = tempfile::tempdir().unwrap();
        let set = OutputSet::open(tmp.path(), &[("f".into(), 40)], Existing::Refuse, Parts::Fresh).unwrap();
        let extents = vec![
            Extent { start: 8, end: 20, tensor: 1 },
            Extent { start: 20, end: 20, tensor: 3 },
            Extent { start: 32, end: 36, tensor: 0 },
        ];
        set.write_all_at(0, 0, b"head").unwrap();
        let mut sink = VariantSink::new(&set, vec![Some(0)]);
        sink.hash_next(b"head", extents.clone(), 40);
        thread::scope(|s| {
            for (offset, bytes) in [(32, &b"tail"[..]), (14, b"second"), (8, b"first ")] {
                s.spawn({
                    let sink = &sink;
                    move || sink.write_at(0, offset, bytes).unwrap()
                });
                thread::sleep(Duration::from_millis(5));
            }
        });
        let in_order = sink.finish().hashes.remove(0).unwrap();
        let read = hash_file(&set, 0, extents, 40, &|_| Ok(())).unwrap();
        assert_eq!(in_order, read);
        assert_eq!(in_order.tensors.len(), 3);
        let mut whole = *b"head\0\0\0\0first second\0\0\0\0\0\0\0\0\0\0\0\0tail\0\0\0\0";
        let digest = |b: &[u8]| hex(&Sha256::digest(b));
        assert_eq!(read.sha256, digest(&whole));
        whole[0] = 0;
        assert_ne!(read.sha256, digest(&whole));
    }

    #[test]
    fn nobody_waits_for_bytes_that_will_not_come() {
        let tmp = tempfile::tempdir().unwrap();
        let set = OutputSet::open(tmp.path(), &[("f".into(), 8)], Existing::Refuse, Parts::Fresh).unwrap();
        let mut sink = VariantSink::new(&set, vec![Some(0)]);
        sink.hash_next(b"", vec![Extent { start: 0, end: 8, tensor: 0 }], 8);
        thread::scope(|s| {
            let late = s.spawn(|| sink.write_at(0, 4, b"late"));
            thread::sleep(Duration::from_millis(5));
            assert!(!late.is_finished());
            sink.abort();
            late.join().unwrap().unwrap();
        });
        assert_eq!(sink.finish().hashes, [None]);
    }
}

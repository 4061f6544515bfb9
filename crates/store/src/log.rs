//! An append-only file of records that survives being cut off anywhere: what a crash leaves of the last record is
//! recognised and dropped.
//!
//! Layout: records one after the other, each `u32 length | u64 XXH3-64 of the payload | payload`, little-endian. Must
//! not know what records say.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tensormill_model::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes before a payload.
const FRAME: usize = 12;

/// Longest payload that is read back, in bytes.
const MOST: u32 = 64 << 20;

/// Records, open for appending under a lock.
#[derive(Debug)]
pub struct AppendLog {
    file: File,
    path: PathBuf,
    end: AtomicU64,
    writing: Mutex<()>,
}

impl AppendLog {
    /// Creates an empty log, or opens one and calls `each` with the place and payload of every record in order. A
    /// record that is cut off or damaged ends the log: it is removed with all that follows it.
    ///
    /// # Errors
    /// `Usage` when another process has it open, `Io` otherwise, and whatever `each` says.
    pub fn open(path: &Path, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<Self> {
        let fail = |what: &str, e| Error::io(what, e).file(path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| fail("create", e))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::busy("another process is at work on this")
                .file(path.display())
                .hint("wait for it to end"));
        }
        let mut end = 0u64;
        let mut input = BufReader::with_capacity(1 << 16, &file);
        let mut payload = Vec::new();
        while read_record(&mut input, &mut payload).map_err(|e| fail("read", e))? {
            each(end, &payload)?;
            end += (FRAME + payload.len()) as u64;
        }
        file.set_len(end).map_err(|e| fail("write", e))?;
        Ok(Self { file, path: path.to_owned(), end: AtomicU64::new(end), writing: Mutex::new(()) })
    }

    /// Reads the records of a log that is nobody's to write, under no lock.
    ///
    /// # Errors
    /// `Io`, and whatever `each` says.
    pub fn read(path: &Path, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let fail = |what: &str, e| Error::io(what, e).file(path.display());
        let mut input = BufReader::with_capacity(1 << 16, File::open(path).map_err(|e| fail("open", e))?);
        let (mut payload, mut at) = (Vec::new(), 0);
        while read_record(&mut input, &mut payload).map_err(|e| fail("read", e))? {
            each(at, &payload)?;
            at += (FRAME + payload.len()) as u64;
        }
        Ok(())
    }

    /// Appends records and makes them durable. Gives the place of each.
    ///
    /// # Errors
    /// `Io`.
    pub fn append(&self, payloads: &[Vec<u8>]) -> Result<Vec<u64>> {
        let fail = |e| Error::io("write", e).file(self.path.display());
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let start = self.end.load(Ordering::Acquire);
        let mut bytes = Vec::with_capacity(payloads.iter().map(|p| p.len() + FRAME).sum());
        let mut places = Vec::with_capacity(payloads.len());
        for p in payloads {
            places.push(start + bytes.len() as u64);
            bytes.extend_from_slice(&(p.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&xxh3_64(p).to_le_bytes());
            bytes.extend_from_slice(p);
        }
        self.file.write_all_at(&bytes, start).map_err(fail)?;
        self.file.sync_data().map_err(fail)?;
        self.end.store(start + bytes.len() as u64, Ordering::Release);
        Ok(places)
    }

    /// Takes the space of so many more bytes of records now: a disk that fills up later does not keep them from being
    /// appended. Zeros are no record, so reading stops before them.
    ///
    /// # Errors
    /// `Io`, a full disk among them.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let fail = |e| Error::io("reserve space for", e).file(self.path.display());
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = self.end.load(Ordering::Acquire);
        let end = at.saturating_add(bytes);
        while at < end {
            let n = (end - at).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..n as usize], at).map_err(fail)?;
            at += n;
        }
        // File systems that put off allocation allocate here.
        self.file.sync_data().map_err(fail)
    }

    /// The payload of the record at a place that [`Self::open`] or [`Self::append`] gave.
    ///
    /// # Errors
    /// `Io`, and `Malformed` when there is no sound record.
    pub fn get(&self, place: u64) -> Result<Vec<u8>> {
        let fail = |e| Error::io("read", e).file(self.path.display());
        let mut frame = [0; FRAME];
        self.file.read_exact_at(&mut frame, place).map_err(fail)?;
        let (len, hash) = parse(&frame);
        let mut payload = vec![0; len.min(MOST) as usize];
        self.file.read_exact_at(&mut payload, place + FRAME as u64).map_err(fail)?;
        if xxh3_64(&payload) != hash {
            return Err(Error::malformed("a damaged record").file(self.path.display()).at(place));
        }
        Ok(payload)
    }

    /// Where the log lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the log: what it records is no longer needed.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| Error::io("remove", e).file(self.path.display()))
    }
}

fn parse(frame: &[u8; FRAME]) -> (u32, u64) {
    let (len, hash) = frame.split_at(4);
    (
        u32::from_le_bytes(len.try_into().unwrap_or_default()),
        u64::from_le_bytes(hash.try_into().unwrap_or_default()),
    )
}

/// Reads the next record; `false` at the end, or at what a crash left of the last one.
fn read_record(input: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<bool> {
    let mut frame = [0; FRAME];
    if !fill(input, &mut frame)? {
        return Ok(false);
    }
    let (len, hash) = parse(&frame);
    if len > MOST {
        return Ok(false);
    }
    payload.resize(len as usize, 0);
    Ok(fill(input, payload)? && xxh3_64(payload) == hash)
}

/// Fills the buffer; `false` when the input ends first.
fn fill(input: &mut impl Read, buf: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buf) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &Path) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        AppendLog::read(path, |_, p| {
            found.push(p.to_vec());
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn whatever_is_cut_off_the_rest_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log");
        let records: Vec<Vec<u8>> = (0..5u8).map(|i| vec![i; usize::from(i) * 7]).collect();
        let log = AppendLog::open(&path, |_, _| panic!("nothing there")).unwrap();
        let places = log.append(&records).unwrap();
        assert!(AppendLog::open(&path, |_, _| Ok(())).unwrap_err().to_string().contains("another process"));
        for (place, record) in places.iter().zip(&records) {
            assert_eq!(log.get(*place).unwrap(), *record);
        }
        assert!(log.get(places[1] + 1).is_err());
        drop(log);
        let whole = fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let kept =
                places.iter().skip(1).chain([&(whole.len() as u64)]).filter(|p| **p <= len as u64).count();
            assert_eq!(all(&path), records[..kept]);
            let mut seen = Vec::new();
            let log = AppendLog::open(&path, |at, _| {
                seen.push(at);
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, places[..kept]);
            log.append(&[b"next".to_vec()]).unwrap();
            assert_eq!(all(&path).last().unwrap(), b"next");
            log.remove().unwrap();
            assert!(!path.exists());
        }
    }

    #[test]
    fn reserved_space_is_no_record() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log");
        let log = AppendLog::open(&path, |_, _| Ok(())).unwrap();
        log.append(&[b"one".to_vec()]).unwrap();
        log.reserve(100_000).unwrap();
        assert!(fs::metadata(&path).unwrap().len() > 100_000);
        assert_eq!(all(&path), [b"one"]);
        log.append(&[b"two".to_vec()]).unwrap();
        assert_eq!(all(&path), [b"one", b"two"]);
        drop(log);
        let mut seen = 0;
        AppendLog::open(&path, |_, _| {
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!((seen, fs::metadata(&path).unwrap().len()), (2, 30));
    }

    #[test]
    fn damage_ends_the_log_and_takes_no_memory() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("log");
        let log = AppendLog::open(&path, |_, _| Ok(())).unwrap();
        log.append(&[b"one".to_vec(), b"two".to_vec()]).unwrap();
        drop(log);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        bytes.extend_from_slice(&[0xff; 40]);
        fs::write(&path, bytes).unwrap();
        assert_eq!(all(&path), [b"one"]);
        fs::write(&path, [0xff; 100]).unwrap();
        assert!(all(&path).is_empty());
    }
}

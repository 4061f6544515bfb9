//! Downloads into the cache: several files at once, large ones by several connections, resumed where they stopped, verified before
//! they get their name.
//!
//! A file that is being fetched is `blobs/<hash>.incomplete`, which grows; one that several connections fetch is
//! `blobs/<hash>.tensormill.incomplete`, full length from the start, with a list of what is there in `blobs/<hash>.tensormill.pieces`. (Other
//! programs take the length of the first kind for what has arrived, so the second kind has another name.)

use crate::{
    cache::RepoCache,
    digest::Hasher,
    hub::Hub,
    pieces::Pieces,
    remote::{RemoteDir, RemoteFile},
    room,
    snapshot::{Entry, Place, Snapshot},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};
use tensormill_model::{Error, ErrorKind, Result};

/// Bytes of one answer, at most: content networks do not give whole files of more than 50 GB.
const ANSWER: u64 = 8 << 30;

/// Bytes that are read at once where a file is hashed from disk.
const CHUNK: usize = 1 << 20;

/// Who watches a download. All functions are called from several threads.
pub trait Progress: Sync {
    /// Something has to be fetched: so many files; the bytes of all that are wanted, and how many of them are there already.
    fn begin(&self, _files: usize, _bytes: u64, _there: u64) {}
    /// A file is fetched from now on.
    fn file(&self, _path: &str, _bytes: u64) {}
    /// More bytes of a file are there.
    fn arrived(&self, _path: &str, _bytes: u64) {}
    /// Bytes that had arrived have to be fetched again.
    fn lost(&self, _path: &str, _bytes: u64) {}
    /// Another process fetches this file: it is waited for.
    fn waits(&self, _path: &str) {}
    /// A file is complete and verified.
    fn done(&self, _path: &str) {}
    /// Whether to stop. What has arrived is kept.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;
impl Progress for Silent {}

/// What a fetch did.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The folder with the files.
    pub folder: PathBuf,
    /// Files that were asked for.
    pub files: usize,
    /// Files that had to be fetched.
    pub fetched: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that came over the network.
    pub received: u64,
}

impl Hub {
    /// Brings files of a snapshot into the cache (or finds them in a mirror) and gives the folder they are in.
    ///
    /// # Errors
    /// `Usage` where the snapshot has no such file, or (offline) the cache lacks some; `Mismatch` where bytes are not what the Hub
    /// lists; `Io` for network and disk. What has arrived by then is kept and continued next time.
    pub fn fetch(&self, snapshot: &Snapshot, files: &[&str], progress: &dyn Progress) -> Result<Fetched> {
        let entries = files.iter().map(|path| {
            snapshot.file(path).ok_or_else(|| {
                Error::usage("the repository has no such file at this commit").file(snapshot.file_name(path))
            })
        });
        let entries: Vec<&Entry> = entries.collect::<Result<_>>()?;
        let bytes = entries.iter().map(|e| e.size).sum();
        let nothing =
            Fetched { folder: PathBuf::new(), files: entries.len(), fetched: 0, bytes, received: 0 };
        let commit = match (&snapshot.place, &snapshot.commit) {
            (Place::Local(folder), _) => {
                let missing: Vec<&str> =
                    files.iter().filter(|path| !folder.join(path).is_file()).copied().collect();
                if !missing.is_empty() {
                    return Err(absent(snapshot, folder, &missing));
                }
                return Ok(Fetched { folder: folder.clone(), ..nothing });
            }
            (Place::Server, Some(commit)) => commit,
            (Place::Server, None) => return Err(Error::usage("no commit is known").file(&snapshot.repo)),
        };
        let cache = self.cache(&snapshot.repo);
        cache
            .prepare()
            .and_then(|()| cache.set_commit(&snapshot.revision, commit))
            .and_then(|()| cache.set_tree(commit, &snapshot.files))
            .map_err(|e| room::explained(e, None, cache.folder()))?;
        let folder = cache.snapshot(commit);
        let missing: Vec<&Entry> =
            entries.into_iter().filter(|e| cache.file(commit, &e.path).is_none()).collect();
        if missing.is_empty() {
            return Ok(Fetched { folder, ..nothing });
        }
        progress.begin(missing.len(), bytes, bytes - missing.iter().map(|e| e.size).sum::<u64>());
        let run = Run {
            cache,
            commit,
            dir: RemoteDir::new(self, snapshot.clone())?,
            progress,
            // As many connections as there may be, shared among the files.
            lanes: (self.settings().jobs / missing.len()).max(1),
            range: self.settings().range_bytes.max(1 << 16),
            stop: AtomicBool::new(false),
        };
        run.room(&missing)?;
        let received = run.all(&missing, self.settings().jobs)?;
        Ok(Fetched { folder, fetched: missing.len(), received, ..nothing })
    }

    /// The part of the cache that belongs to a repository.
    pub fn cache(&self, repo: &str) -> RepoCache {
        RepoCache::new(&self.settings().cache, repo, self.settings().symlinks)
    }
}

fn absent(snapshot: &Snapshot, folder: &Path, missing: &[&str]) -> Error {
    let more = if missing.len() > 5 { format!(" and {} more", missing.len() - 5) } else { String::new() };
    let named = missing[..missing.len().min(5)].join(", ");
    Error::usage(format!("{} of the files are not on this machine: {named}{more}", missing.len()))
        .file(folder.display())
        .hint(format!(
            "fetch them where requests are permitted: tensormill pull {}@{}",
            snapshot.repo,
            snapshot.pinned()
        ))
}

struct Run<'a> {
    cache: RepoCache,
    commit: &'a str,
    dir: RemoteDir,
    progress: &'a dyn Progress,
    /// Connections for one file.
    lanes: usize,
    /// Bytes that one connection fetches at a time.
    range: u64,
    /// Set when one file failed: the others stop where they are.
    stop: AtomicBool,
}

impl Run<'_> {
    /// Whether there is room for what is missing, before anything is fetched.
    fn room(&self, missing: &[&Entry]) -> Result<()> {
        let held = |e: &&Entry| {
            let blob = self.cache.blob(e);
            let len = |p: &Path| fs::metadata(p).map_or(0, |m| room::allocated(&m));
            if blob.exists() { e.size } else { len(&growing(&blob)).max(len(&pieced(&blob))).min(e.size) }
        };
        let needed: u64 = missing.iter().map(|e| e.size - held(e)).sum();
        match tensormill_store::free_bytes(&self.cache.blobs()) {
            Some(free) if free < needed => Err(room::too_little(needed, free, &self.cache.blobs())),
            _ => Ok(()),
        }
    }

    /// Fetches files, several at a time; gives the bytes that were received.
    fn all(&self, missing: &[&Entry], jobs: usize) -> Result<u64> {
        let next = AtomicUsize::new(0);
        let first: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let received = std::sync::atomic::AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, missing.len()) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(entry) = missing.get(i).filter(|_| !self.stopped()) else { break };
                        let done = self.one(entry);
                        match done.map_err(|e| room::explained(e, Some(entry), &self.cache.blob(entry))) {
                            Ok(n) => drop(received.fetch_add(n, Ordering::Relaxed)),
                            Err(e) => {
                                self.stop.store(true, Ordering::Relaxed);
                                let mut slot = first.lock().unwrap_or_else(PoisonError::into_inner);
                                // Files that were stopped because of another say only that.
                                let told =
                                    slot.as_ref().is_some_and(|(_, e)| e.kind() != ErrorKind::Cancelled);
                                if !told {
                                    *slot = Some((i, e));
                                }
                            }
                        }
                    }
                });
            }
        });
        match first.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, e)) => Err(e),
            None => Ok(received.into_inner()),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.progress.cancelled()
    }

    /// Fetches one file; gives the bytes that were received.
    fn one(&self, entry: &Entry) -> Result<u64> {
        let _lock = self.cache.lock(entry, &|| self.progress.waits(&entry.path), &|| self.stopped())?;
        let blob = self.cache.blob(entry);
        let mut received = 0;
        let there = blob.exists();
        if there {
            self.progress.file(&entry.path, entry.size);
            self.progress.arrived(&entry.path, entry.size);
        } else {
            self.progress.file(&entry.path, entry.size);
            received = self.verified(entry, &blob)?;
        }
        self.cache.link(entry, self.commit, !there)?;
        self.progress.done(&entry.path);
        Ok(received)
    }

    /// Makes the blob. Bytes that turn out wrong are thrown away and fetched once more: a bad part may be an earlier run's.
    fn verified(&self, entry: &Entry, blob: &Path) -> Result<u64> {
        let name = self.dir.snapshot().file_name(&entry.path);
        let remote = self.dir.open(&entry.path)?.ok_or_else(|| Error::usage("no such file").file(&name))?;
        let mut received = 0;
        for attempt in 0..2 {
            let pieces = self.lanes > 1 && entry.size >= 2 * self.range;
            let part = if pieces && !growing(blob).exists() { pieced(blob) } else { growing(blob) };
            let got = if part == pieced(blob) {
                self.by_pieces(entry, &remote, &part)
            } else {
                self.in_order(entry, &remote, &part)
            };
            let (file, hasher, n) = got?;
            received += n;
            match hasher.check(entry) {
                Ok(()) => {
                    finish(&file, &part, blob)?;
                    return Ok(received);
                }
                Err(e) => {
                    drop(fs::remove_file(&part));
                    drop(fs::remove_file(pieced(blob).with_extension("pieces")));
                    self.progress.lost(&entry.path, entry.size);
                    if attempt > 0 {
                        return Err(e.file(name));
                    }
                    tracing::warn!(file = name, "what arrived has another hash: fetching it again");
                }
            }
        }
        unreachable!("the second attempt returns")
    }

    /// One connection: the part grows, and is hashed as it does.
    fn in_order(&self, entry: &Entry, remote: &RemoteFile, part: &Path) -> Result<(File, Hasher, u64)> {
        let file = open(part)?;
        let mut at = file.metadata().map_err(|e| Error::io("inspect", e))?.len();
        if at > entry.size {
            file.set_len(0).map_err(|e| Error::io("empty", e))?;
            at = 0;
        }
        let mut hasher = Hasher::of(entry);
        hash(&file, at, &mut hasher)?;
        self.progress.arrived(&entry.path, at);
        let mut received = 0;
        while at < entry.size {
            let end = entry.size.min(at + ANSWER);
            let got = remote.stream(at, end, &mut |offset, bytes| {
                file.write_all_at(bytes, offset).map_err(|e| Error::io("write", e))?;
                hasher.update(bytes);
                received += bytes.len() as u64;
                self.progress.arrived(&entry.path, bytes.len() as u64);
                if self.stopped() { Err(Error::cancelled()) } else { Ok(()) }
            });
            match got {
                Ok(()) => at = end,
                // A server without ranges: all of it, from the start.
                Err(e) if e.kind() == ErrorKind::Unsupported && at > 0 => {
                    file.set_len(0).map_err(|e| Error::io("empty", e))?;
                    hasher = Hasher::of(entry);
                    self.progress.lost(&entry.path, at);
                    at = 0;
                }
                Err(e) => return Err(e),
            }
        }
        Ok((file, hasher, received))
    }

    /// Several connections, each of which takes the next piece; hashed when all are there.
    fn by_pieces(&self, entry: &Entry, remote: &RemoteFile, part: &Path) -> Result<(File, Hasher, u64)> {
        let file = open(part)?;
        let list = part.with_extension("pieces");
        if file.metadata().map_or(0, |m| m.len()) != entry.size {
            // A list without its file says nothing.
            drop(fs::remove_file(&list));
        }
        let pieces = Pieces::open(&list, entry.size, self.range);
        file.set_len(entry.size).map_err(|e| Error::io("reserve space", e))?;
        self.progress.arrived(&entry.path, pieces.there());
        let before = pieces.there();
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let halted = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..self.lanes {
                scope.spawn(|| {
                    while let Some((number, start, end)) =
                        pieces.take().filter(|_| !halted.load(Ordering::Relaxed))
                    {
                        let got = remote.stream(start, end, &mut |offset, bytes| {
                            file.write_all_at(bytes, offset).map_err(|e| Error::io("write", e))?;
                            pieces.wrote(number, bytes.len() as u64)?;
                            self.progress.arrived(&entry.path, bytes.len() as u64);
                            let stop = self.stopped() || halted.load(Ordering::Relaxed);
                            if stop { Err(Error::cancelled()) } else { Ok(()) }
                        });
                        if let Err(e) = got {
                            halted.store(true, Ordering::Relaxed);
                            let mut slot = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            if slot.as_ref().is_none_or(|e| e.kind() == ErrorKind::Cancelled) {
                                *slot = Some(e);
                            }
                            break;
                        }
                    }
                });
            }
        });
        pieces.save()?;
        if let Some(e) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(e);
        }
        let mut hasher = Hasher::of(entry);
        hash(&file, entry.size, &mut hasher)?;
        Ok((file, hasher, entry.size - before))
    }
}

/// A part that grows.
fn growing(blob: &Path) -> PathBuf {
    blob.with_extension("incomplete")
}
/// A part that is filled by pieces.
fn pieced(blob: &Path) -> PathBuf {
    blob.with_extension("tensormill.incomplete")
}

fn open(part: &Path) -> Result<File> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part);
    options.map_err(|e| Error::io("create", e))
}

/// Hashes the first bytes of a file.
fn hash(file: &File, len: u64, hasher: &mut Hasher) -> Result<()> {
    let mut buffer = vec![0; CHUNK.min(len as usize)];
    let (mut from, mut left) = (io::BufReader::with_capacity(0, file), len);
    let fail = |e| Error::io("read back", e);
    io::Seek::seek(&mut from, io::SeekFrom::Start(0)).map_err(fail)?;
    while left > 0 {
        let n = buffer.len().min(left as usize);
        from.read_exact(&mut buffer[..n]).map_err(fail)?;
        hasher.update(&buffer[..n]);
        left -= n as u64;
    }
    Ok(())
}

/// Makes a part durable and gives it its name.
fn finish(file: &File, part: &Path, blob: &Path) -> Result<()> {
    file.sync_all().map_err(|e| Error::io("sync", e))?;
    match fs::rename(part, blob) {
        Ok(()) => {}
        // Somebody whose lock did not hold us off was faster, with the same bytes.
        Err(e) if e.kind() == io::ErrorKind::NotFound && blob.exists() => {}
        Err(e) => return Err(Error::io("rename", e)),
    }
    drop(fs::remove_file(pieced(blob).with_extension("pieces")));
    Ok(())
}

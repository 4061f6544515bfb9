//! Files of a repository read in place, by ranges: nothing lands on a disk.
//!
//! [`RemoteDir`] is a [`Folder`] (and [`Assets`]), [`RemoteFile`] a [`Store`]: what reads local models reads remote ones.
//!
//! - **Pinned.** A file is named by commit and by the hash that the Hub lists; a server that answers with another file, or with
//!   another one than at first, is a `Mismatch`, never a mixture.
//! - **Bounded.** Large reads go into the caller's buffer; small ones through blocks, of which a folder keeps 8 MiB. Side files are
//!   kept whole, up to 64 MiB together.
//! - **Patient.** A body that breaks off is continued where it did; a signed URL that has expired is asked for again.
//!
//! Ranges cannot be held against the hash of a whole file. Side files, which are read whole, are.

use crate::{
    address::check_path,
    blocks::{BLOCK, Blocks},
    client::{Client, Follow, Request, Response},
    digest::Hasher,
    hub::Hub,
    snapshot::{Entry, Place, Snapshot},
    status::{self, Subject},
    url::Url,
};
use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tensormill_model::{Assets, Error, Folder, Result, Store};

/// Reads from this many bytes on go past the blocks.
const LARGE: usize = BLOCK as usize / 2;

/// Bytes that are taken from a connection at once.
const PIECE: usize = 256 << 10;

/// Largest side file that is read whole: what local folders permit.
const ASSET_BYTES: u64 = tensormill_store::ASSET_BYTES;

/// Bytes of side files that are kept in memory, of a folder together.
const KEPT_ASSETS: usize = 64 << 20;

/// The files of a snapshot (or of a folder in it) on the server. Cheap to clone, shareable between threads.
#[derive(Clone)]
pub struct RemoteDir(Arc<Dir>);

struct Dir {
    hub: Hub,
    snapshot: Arc<Snapshot>,
    /// Empty, or a folder's name with a slash behind it.
    prefix: String,
    name: String,
    blocks: Arc<Blocks>,
    assets: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
    opened: Mutex<BTreeMap<String, Arc<RemoteFile>>>,
}

impl std::fmt::Debug for RemoteDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteDir({})", self.label())
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteDir {
    /// The files of a snapshot that [`Hub::model`] listed.
    ///
    /// # Errors
    /// `Usage` where the snapshot is on this machine: its files are read from there ([`Snapshot::folder`]).
    pub fn new(hub: &Hub, snapshot: Snapshot) -> Result<Self> {
        if snapshot.place != Place::Server || snapshot.commit.is_none() {
            return Err(
                Error::usage("these files are on this machine, and are read from there").file(&snapshot.repo)
            );
        }
        let name = snapshot.repo.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self::make(hub, Arc::new(snapshot), String::new(), name))
    }

    fn make(hub: &Hub, snapshot: Arc<Snapshot>, prefix: String, name: String) -> Self {
        Self(Arc::new(Dir {
            hub: hub.clone(),
            snapshot,
            prefix,
            name,
            blocks: Arc::default(),
            assets: Mutex::default(),
            opened: Mutex::default(),
        }))
    }

    /// A folder in this one.
    ///
    /// # Errors
    /// `Malformed` for a name that leads elsewhere, `Usage` where there is no such folder.
    pub fn subfolder(&self, path: &str) -> Result<Self> {
        let path = path.trim_matches('/');
        check_path(path)?;
        let prefix = format!("{}{path}/", self.0.prefix);
        if !self.0.snapshot.files.iter().any(|e| e.path.starts_with(&prefix)) {
            return Err(Error::usage(format!("there is no folder {path:?}")).file(self.label()));
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self::make(&self.0.hub, Arc::clone(&self.0.snapshot), prefix, name))
    }

    /// What it shows: repository, commit, files.
    pub fn snapshot(&self) -> &Snapshot {
        &self.0.snapshot
    }

    /// A file below this folder.
    ///
    /// # Errors
    /// `Malformed` for a name that leads elsewhere.
    pub fn entry(&self, name: &str) -> Result<Option<&Entry>> {
        check_path(name).map_err(|e| e.file(self.label()))?;
        Ok(self.0.snapshot.file(&format!("{}{name}", self.0.prefix)))
    }

    /// Opens a file for reading in place; `None` where there is none. The same file is opened once.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub fn open(&self, name: &str) -> Result<Option<Arc<RemoteFile>>> {
        let Some(entry) = self.entry(name)? else { return Ok(None) };
        let mut opened = lock(&self.0.opened);
        if let Some(file) = opened.get(name) {
            return Ok(Some(Arc::clone(file)));
        }
        let file = RemoteFile {
            client: self.0.hub.client_arc(),
            url: self.0.hub.file_url(&self.0.snapshot, &entry.path)?,
            name: self.0.snapshot.file_name(&entry.path),
            repo: self.0.snapshot.repo.clone(),
            commit: self.0.snapshot.pinned().to_owned(),
            entry: entry.clone(),
            target: Mutex::default(),
            blocks: Arc::clone(&self.0.blocks),
            number: opened.len(),
        };
        let file = Arc::new(file);
        opened.insert(name.to_owned(), Arc::clone(&file));
        Ok(Some(file))
    }
}

impl Folder for RemoteDir {
    fn label(&self) -> String {
        self.0.snapshot.file_name(self.0.prefix.trim_end_matches('/'))
    }
    fn names(&self) -> Vec<String> {
        let inner = |e: &Entry| e.path.strip_prefix(&self.0.prefix).map(str::to_owned);
        let mut names: Vec<String> =
            self.0.snapshot.files.iter().filter_map(inner).filter(|n| !n.contains('/')).collect();
        names.sort_unstable();
        names
    }
    fn store(&self, name: &str) -> Result<Option<Arc<dyn Store>>> {
        Ok(self.open(name)?.map(|file| file as Arc<dyn Store>))
    }
}

impl Assets for RemoteDir {
    fn name(&self) -> &str {
        &self.0.name
    }
    fn list(&self) -> Vec<String> {
        self.names()
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = lock(&self.0.assets).get(name) {
            return Ok(Some(bytes.to_vec()));
        }
        let Some(file) = self.open(name)? else { return Ok(None) };
        if file.entry.size > ASSET_BYTES {
            let e = Error::over_limit(format!("side files may have at most {ASSET_BYTES} bytes"));
            return Err(e.file(file.name()));
        }
        let mut bytes = vec![0; file.entry.size as usize];
        file.fetch(0, &mut bytes)?;
        let mut hasher = Hasher::of(&file.entry);
        hasher.update(&bytes);
        hasher.check(&file.entry).map_err(|e| e.file(file.name()))?;
        let mut assets = lock(&self.0.assets);
        if assets.values().map(|b| b.len()).sum::<usize>() + bytes.len() <= KEPT_ASSETS {
            assets.insert(name.to_owned(), Arc::new(bytes.clone()));
        }
        Ok(Some(bytes))
    }
}

/// A file on the server, read by ranges. Shareable between threads, each of which has a connection of its own.
pub struct RemoteFile {
    client: Arc<Client>,
    /// Where the Hub has it.
    url: Url,
    name: String,
    repo: String,
    commit: String,
    entry: Entry,
    target: Mutex<Option<Target>>,
    blocks: Arc<Blocks>,
    number: usize,
}

/// Where the Hub said that the bytes are.
#[derive(Clone)]
struct Target {
    url: Url,
    /// What the content network calls them.
    etag: Option<String>,
}

impl RemoteFile {
    /// What the Hub lists of it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Fills `buf` from `offset`, by as many requests as it takes.
    fn fetch(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset + buf.len() as u64;
        self.stream(offset, end, &mut |at, bytes| {
            let at = (at - offset) as usize;
            buf[at..at + bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    /// Gives the bytes `start..end` to `sink` in order, each with its offset, by as many requests as it takes. What `sink` says ends
    /// it.
    pub(crate) fn stream(
        &self,
        start: u64,
        end: u64,
        sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut attempts = self.client.retry().start();
        let mut buffer = vec![0; PIECE.min((end - start) as usize)];
        let mut at = start;
        while at < end {
            let mut response = self.answer(at, end, &mut attempts)?;
            let url = response.url().clone();
            let mut reader = response.reader();
            let problem = loop {
                let room = buffer.len().min((end - at) as usize);
                match reader.read(&mut buffer[..room]) {
                    Ok(0) => break io::ErrorKind::UnexpectedEof.into(),
                    Ok(n) => {
                        sink(at, &buffer[..n])?;
                        at += n as u64;
                        attempts.progressed();
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => break e,
                }
                if at == end {
                    // Read to its end, a connection can be used again.
                    drop(reader.read(&mut [0]));
                    return Ok(());
                }
            };
            tracing::info!(file = self.name, at, error = %problem, "the connection broke off");
            if !attempts.again(None) {
                return Err(status::broken(&problem, &url).context(&self.name).at(at));
            }
        }
        Ok(())
    }

    /// The head of an answer that is the range `start..end`.
    fn answer(&self, start: u64, end: u64, attempts: &mut crate::retry::Attempts<'_>) -> Result<Response> {
        let about = Subject::repo(&self.repo, &self.commit).file(&self.entry.path);
        loop {
            let known = lock(&self.target).clone();
            let target = match known {
                Some(target) => target,
                None => match self.resolve(start, end, attempts)? {
                    Resolved::Here(response) => return self.check(response, start, end, None),
                    Resolved::There(url) => lock(&self.target).insert(Target { url, etag: None }).clone(),
                },
            };
            // A signature that has run out is an answer, too: then the Hub gives a new one.
            let request =
                Request::get(target.url.clone()).range(start, end).about(about).accept(&[401, 403, 404, 410]);
            let response = self.client.send_counting(&request, attempts)?;
            if response.status() >= 400 {
                let status = response.status();
                lock(&self.target).take();
                if !attempts.again(None) {
                    let e = io::Error::other(format!("the content network answers with status {status}"));
                    return Err(Error::io("read it", e).file(&self.name));
                }
                continue;
            }
            return self.check(response, start, end, Some(&target));
        }
    }

    /// Asks the Hub for the range: it answers itself, or says where the bytes are.
    fn resolve(&self, start: u64, end: u64, attempts: &mut crate::retry::Attempts<'_>) -> Result<Resolved> {
        let about = Subject::repo(&self.repo, &self.commit).file(&self.entry.path);
        let request =
            Request::get(self.url.clone()).range(start, end).follow(Follow::SameOrigin).about(about);
        let response = self.client.send_counting(&request, attempts)?;
        let other = |what: &str, listed: &str, found: &str| {
            Error::mismatch(format!(
                "the server has another file now: its {what} is {found}, listed was {listed}"
            ))
            .file(&self.name)
            .hint("run it again: it begins with what the repository holds then")
        };
        if let Some(commit) = response.header("x-repo-commit").filter(|c| *c != self.commit) {
            return Err(other("commit", &self.commit, commit));
        }
        let etag = response.header("x-linked-etag").or_else(|| response.header("etag")).map(bare);
        if let Some(etag) = etag.filter(|e| !self.entry.etag().is_empty() && *e != self.entry.etag()) {
            return Err(other("hash", self.entry.etag(), etag));
        }
        Ok(match response.location()? {
            Some(url) => Resolved::There(url),
            None => Resolved::Here(response),
        })
    }

    /// Whether an answer is the range that was asked for, of the file that it was at first.
    fn check(&self, response: Response, start: u64, end: u64, target: Option<&Target>) -> Result<Response> {
        let wrong = |what: String| Error::mismatch(what).file(&self.name).at(start);
        if let Some(target) = target {
            let etag = response.header("etag").map(bare).map(str::to_owned);
            match (&target.etag, etag) {
                (Some(first), Some(now)) if *first != now => {
                    return Err(wrong(format!(
                        "the file changed while it was read: its ETag was {first} and is {now}"
                    )));
                }
                (None, Some(now)) => {
                    if let Some(t) = lock(&self.target).as_mut().filter(|t| t.url == target.url) {
                        t.etag = Some(now);
                    }
                }
                _ => {}
            }
        }
        let size = self.entry.size;
        match (response.status(), response.content_range()) {
            (206, Some((from, to, total)))
                if from == start && to == end && total.is_none_or(|t| t == size) =>
            {
                Ok(response)
            }
            (206, Some((_, _, Some(total)))) if total != size => {
                Err(wrong(format!("the file has {total} bytes now; {size} were listed")))
            }
            // All of it, where all of it was asked for.
            (200, _) if start == 0 && end == size && response.length().is_none_or(|n| n == size) => {
                Ok(response)
            }
            (200, _) => Err(Error::unsupported("the server does not give ranges of files")
                .file(&self.name)
                .hint("download it first: tensormill pull")),
            _ => Err(wrong("the server's answer is not the range that was asked for".to_owned())),
        }
    }
}

enum Resolved {
    Here(Response),
    There(Url),
}

/// An ETag without quotation marks and without the sign of a weak one.
pub(crate) fn bare(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

impl Store for RemoteFile {
    fn len(&self) -> u64 {
        self.entry.size
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.entry.size) {
            return Err(Error::malformed(format!(
                "the file ends early: {} bytes are needed here, the file has {}",
                buf.len(),
                self.entry.size
            ))
            .file(&self.name)
            .at(offset));
        }
        if buf.len() >= LARGE {
            return self.fetch(offset, buf);
        }
        self.blocks.read(self.number, self.entry.size, offset, buf, &|at, out| self.fetch(at, out))
    }
}

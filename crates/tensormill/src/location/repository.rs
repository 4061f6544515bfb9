//! A repository of the Hub as a folder of model files.
//!
//! Headers are read where they are, by ranges. Side files go through the cache, since they are small and read whole. The
//! weights of a job follow when it begins ([`Repository::fetch`]): by then it is known which files it needs, and that it
//! can be done. Without a cache everything is read where it is.

use super::{Dir, Found, Location, RepositoryFile, RepositoryReport};
use crate::hub::Watch;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tensormill_engine::Progress;
use tensormill_graph::Program;
use tensormill_hub::{self as hub, Address, Entry, Hub, RemoteDir, RemoteFile, Snapshot};
use tensormill_model::{Assets, Error, Folder, Index, Place, Reader, Result, Rows, Store};
use tensormill_store::{ASSET_BYTES, LocalFile};

/// A repository at one commit.
pub(super) struct Repository {
    hub: Hub,
    snapshot: Snapshot,
    /// Its files on the server; none where they are on this machine: a mirror, or offline the cache.
    remote: Option<RemoteDir>,
    /// Whether files go through the cache.
    cached: bool,
    /// Files that were opened, by name.
    files: Mutex<BTreeMap<String, Arc<HubFile>>>,
    /// Side files that were read.
    read: Mutex<BTreeSet<String>>,
}

fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Repository {
    /// Asks what it holds.
    pub(super) fn open(hub: &Hub, address: &Address, cached: bool) -> Result<Self> {
        let snapshot = hub.model(address)?;
        let remote = if snapshot.is_remote() { Some(RemoteDir::new(hub, snapshot.clone())?) } else { None };
        if cached && remote.is_some() {
            // Notes which commit this is, for those who ask offline. A cache that cannot be written may serve all the same.
            let _ = hub.fetch(&snapshot, &[], &hub::Silent);
        }
        Ok(Self {
            hub: hub.clone(),
            snapshot,
            remote,
            cached,
            files: Mutex::default(),
            read: Mutex::default(),
        })
    }

    /// A place in it, as messages name it.
    fn address(&self, path: &str) -> Address {
        Address {
            repo: self.snapshot.repo.clone(),
            revision: Some(self.snapshot.pinned().to_owned()),
            path: (!path.is_empty()).then(|| path.to_owned()),
        }
    }

    fn label(&self, path: &str) -> String {
        Location::Hub(self.address(path)).to_string()
    }

    /// What a branch or tag is.
    pub(super) fn note(&self) -> Option<String> {
        let Snapshot { repo, revision, commit, .. } = &self.snapshot;
        let commit = commit.as_ref().filter(|c| *c != revision)?;
        let asked = Address { repo: repo.clone(), revision: Some(revision.clone()), path: None };
        Some(format!("{} is commit {commit}", Location::Hub(asked)))
    }

    pub(super) fn report(&self) -> RepositoryReport {
        let mut names = locked(&self.read).clone();
        names.extend(locked(&self.files).keys().cloned());
        let file = |name: &String| {
            let Entry { path, size, oid, sha256, .. } = self.snapshot.file(name)?.clone();
            Some(RepositoryFile { path, bytes: size, sha256, git_oid: oid })
        };
        RepositoryReport {
            repository: self.snapshot.repo.clone(),
            revision: self.snapshot.revision.clone(),
            commit: self.snapshot.commit.clone(),
            files: names.iter().filter_map(file).collect(),
        }
    }

    fn dir(self: &Arc<Self>, folder: &str) -> Arc<dyn Dir> {
        let name = folder.rsplit('/').next().filter(|n| !n.is_empty());
        let name = name.or_else(|| self.snapshot.repo.rsplit('/').next()).unwrap_or_default().to_owned();
        Arc::new(HubDir { repository: Arc::clone(self), folder: folder.to_owned(), name })
    }

    fn has_folder(&self, folder: &str) -> bool {
        let front = format!("{folder}/");
        let at = self.snapshot.files.partition_point(|e| *e.path < *front);
        self.snapshot.files.get(at).is_some_and(|e| e.path.starts_with(&front))
    }

    /// Names of all files in a folder and below it, from the folder on.
    pub(super) fn names_below(&self, folder: &str) -> Vec<String> {
        let front = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.snapshot.files.iter().filter_map(|e| e.path.strip_prefix(&front)).map(str::to_owned).collect()
    }

    /// An address in it, at the commit.
    pub(super) fn pinned(&self, address: &Address) -> Address {
        self.address(address.path.as_deref().unwrap_or_default())
    }

    /// What an address in it is about.
    pub(super) fn find(self: &Arc<Self>, address: &Address) -> Result<(Address, Found)> {
        let path = address.path.as_deref().unwrap_or_default();
        let pinned = self.pinned(address);
        if path.is_empty() || self.has_folder(path) {
            return Ok((pinned, Found::Folder(self.dir(path))));
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let store = self.file(path)?;
        Ok((pinned, Found::File { store, name: name.to_owned(), dir: self.dir(folder) }))
    }

    fn entry(&self, path: &str) -> Result<&Entry> {
        self.snapshot.file(path).ok_or_else(|| {
            let all = self.snapshot.files.iter().map(|e| e.path.as_str());
            let suffix = path.rsplit_once('.').map_or("", |(_, s)| s);
            let like = all.filter(|p| p.rsplit_once('.').is_some_and(|(_, s)| s == suffix));
            let like: Vec<&str> = like.take(8).collect();
            let e = Error::usage("there is no such file or folder at this commit").file(self.label(path));
            if like.is_empty() { e } else { e.hint(format!("perhaps {}", like.join(", "))) }
        })
    }

    /// Opens a file; the same one every time.
    fn file(&self, path: &str) -> Result<Arc<HubFile>> {
        let entry = self.entry(path)?;
        let mut files = locked(&self.files);
        if let Some(known) = files.get(path) {
            known.wanted.store(true, Ordering::Relaxed);
            return Ok(Arc::clone(known));
        }
        let file = Arc::new(HubFile::open(self, entry)?);
        files.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    /// A whole side file.
    fn whole(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.snapshot.file(path) else { return Ok(None) };
        if entry.size > ASSET_BYTES {
            return Err(Error::over_limit(format!("side files may have at most {ASSET_BYTES} bytes"))
                .file(self.label(path)));
        }
        locked(&self.read).insert(path.to_owned());
        if let Some(remote) = self.remote.as_ref().filter(|_| !self.cached) {
            return remote.read(path);
        }
        let path = self.fetched(&[path], &hub::Silent)?.join(path);
        let file = LocalFile::open(&path)?;
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// The folder in which files are, where they are on this machine already.
    fn folder(&self) -> Option<PathBuf> {
        match (self.snapshot.folder(), &self.snapshot.commit) {
            (Some(folder), _) => Some(folder.to_owned()),
            (None, Some(commit)) if self.cached => Some(self.hub.cache(&self.snapshot.repo).snapshot(commit)),
            _ => None,
        }
    }

    /// Brings files into the cache, where they are not there yet; gives the folder in which they are.
    fn fetched(&self, paths: &[&str], progress: &dyn hub::Progress) -> Result<PathBuf> {
        let there = self.folder().filter(|f| paths.iter().all(|p| f.join(p).is_file()));
        match there {
            Some(folder) => Ok(folder),
            None => Ok(self.hub.fetch(&self.snapshot, paths, progress)?.folder),
        }
    }

    /// Of the files that were opened so far, no more is needed than headers.
    pub(super) fn headers_only(&self) {
        locked(&self.files).values().for_each(|f| f.wanted.store(false, Ordering::Relaxed));
    }

    /// Puts the files that were opened into the cache.
    pub(super) fn fetch(&self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<()> {
        if self.remote.is_none() || !self.cached {
            return Ok(());
        }
        let files: Vec<_> = locked(&self.files).values().cloned().collect();
        let needed = |f: &Arc<HubFile>| f.wanted.load(Ordering::Relaxed) && f.local.get().is_none();
        let missing: Vec<_> = files.into_iter().filter(needed).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let paths: Vec<&str> = missing.iter().map(|f| &*f.entry.path).collect();
        let folder = self.fetched(&paths, &Watch { progress, cancel, alone: false })?;
        missing.iter().try_for_each(|file| file.settle(&folder))
    }

    /// The path of a file, fetched with all others that were opened.
    pub(super) fn on_disk(
        &self,
        address: &Address,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<PathBuf> {
        let path = address.path.as_deref().unwrap_or_default();
        self.entry(path)?;
        if self.remote.is_some() && !self.cached {
            return Err(Error::unsupported("a file of the Hub is no file on this disk")
                .file(self.label(path))
                .hint("leave out --no-cache: this needs it in the cache"));
        }
        self.file(path)?;
        self.fetch(progress, cancel)?;
        Ok(self.fetched(&[path], &hub::Silent)?.join(path))
    }
}

/// A folder of a repository.
struct HubDir {
    repository: Arc<Repository>,
    /// Without a slash at its end; empty for the whole.
    folder: String,
    name: String,
}

impl HubDir {
    fn path(&self, name: &str) -> String {
        if self.folder.is_empty() { name.to_owned() } else { format!("{}/{name}", self.folder) }
    }
}

impl Assets for HubDir {
    fn name(&self) -> &str {
        &self.name
    }
    fn list(&self) -> Vec<String> {
        let front = self.path("");
        let files = self.repository.snapshot.files.iter();
        let inner = files.filter_map(|e| e.path.strip_prefix(&front)).filter(|n| !n.contains('/'));
        inner.map(str::to_owned).collect()
    }
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.repository.whole(&self.path(name))
    }
}

impl Folder for HubDir {
    fn label(&self) -> String {
        self.repository.label(&self.folder)
    }
    fn names(&self) -> Vec<String> {
        self.list()
    }
    fn store(&self, name: &str) -> Result<Option<Arc<dyn Store>>> {
        if self.contains(name) { self.open(name).map(Some) } else { Ok(None) }
    }
}

impl Dir for HubDir {
    fn contains(&self, name: &str) -> bool {
        self.repository.snapshot.file(&self.path(name)).is_some()
    }
    fn open(&self, name: &str) -> Result<Arc<dyn Store>> {
        Ok(self.repository.file(&self.path(name))?)
    }
    fn open_often(&self, name: &str) -> Result<Arc<dyn Store>> {
        let file = self.repository.file(&self.path(name))?;
        file.often.store(true, Ordering::Relaxed);
        Ok(file)
    }
    fn inner(&self, name: &str) -> Result<Option<Arc<dyn Dir>>> {
        let folder = self.path(name);
        Ok(self.repository.has_folder(&folder).then(|| self.repository.dir(&folder)))
    }
    fn outer(&self) -> Option<Arc<dyn Dir>> {
        if self.folder.is_empty() {
            return None;
        }
        Some(self.repository.dir(self.folder.rsplit_once('/').map_or("", |(outer, _)| outer)))
    }
    fn label_of(&self, name: &str) -> String {
        self.repository.label(&self.path(name))
    }
    fn identified(&self, reader: Arc<dyn Reader>) -> Arc<dyn Reader> {
        let files = locked(&self.repository.files);
        // Of a mirror, nobody may have said.
        if files.values().any(|f| f.entry.etag().is_empty()) {
            return reader;
        }
        let one = |f: &Arc<HubFile>| format!("{} {}\n", f.entry.path, f.entry.etag());
        Arc::new(Identified { reader, identity: files.values().map(one).collect() })
    }
}

/// A file of a repository: on the Hub, until it is on this machine.
struct HubFile {
    entry: Entry,
    name: String,
    remote: Option<Arc<RemoteFile>>,
    local: OnceLock<LocalFile>,
    /// Whether it is read over and over.
    often: AtomicBool,
    /// Whether more of it is needed than headers.
    wanted: AtomicBool,
}

impl HubFile {
    fn open(repository: &Repository, entry: &Entry) -> Result<Self> {
        let file = Self {
            entry: entry.clone(),
            name: repository.label(&entry.path),
            remote: match &repository.remote {
                Some(dir) => dir.open(&entry.path)?,
                None => None,
            },
            local: OnceLock::new(),
            often: AtomicBool::new(false),
            wanted: AtomicBool::new(true),
        };
        let there = repository.folder().is_some_and(|f| f.join(&entry.path).is_file());
        if there || file.remote.is_none() {
            // Says how to get it, where it is not there and nobody may be asked.
            file.settle(&repository.fetched(&[&entry.path], &hub::Silent)?)?;
        }
        Ok(file)
    }

    /// Reads from a folder of this machine from now on.
    fn settle(&self, folder: &std::path::Path) -> Result<()> {
        let path = folder.join(&self.entry.path);
        let file = LocalFile::open(&path)?;
        if file.len() != self.entry.size {
            return Err(Error::mismatch(format!(
                "there are {} bytes of a file of {}",
                file.len(),
                self.entry.size
            ))
            .file(path.display())
            .hint("remove it: it is fetched again"));
        }
        let file = if self.often.load(Ordering::Relaxed) { file.buffered() } else { file };
        self.local.get_or_init(|| file);
        Ok(())
    }
}

impl Store for HubFile {
    fn len(&self) -> u64 {
        self.entry.size
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match (self.local.get(), &self.remote) {
            (Some(file), _) => file.read_at(offset, buf),
            (None, Some(file)) => file.read_at(offset, buf),
            (None, None) => unreachable!("a file that is not remote was opened on this machine"),
        }
    }
}

/// A reader of files whose hashes are known.
struct Identified {
    reader: Arc<dyn Reader>,
    identity: String,
}

impl Reader for Identified {
    fn index(&self) -> &Index {
        self.reader.index()
    }
    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        self.reader.read(tensor, rows, out)
    }
    fn place(&self, tensor: usize) -> Place {
        self.reader.place(tensor)
    }
    fn program(&self) -> Option<&Arc<Program>> {
        self.reader.program()
    }
    fn identity(&self) -> Option<&str> {
        Some(&self.identity)
    }
}

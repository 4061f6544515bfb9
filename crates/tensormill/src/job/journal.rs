//! The journal of a run: which tiles are done, with the hashes of what they wrote, beside the outputs.
//!
//! What the journal says is durable: before tiles are noted, the files they wrote to are synced. So after a kill or a
//! power failure everything it names stands on the disk (and is checked against its hash all the same); what it does
//! not name is done again. Tiles are noted in batches, every few seconds, since a sync costs milliseconds.

use super::Part;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tensormill_engine::{ComputeRecord, Ledger, Plan, TileRecord};
use tensormill_model::{Assets, Error, Result};
use tensormill_store::{AppendLog, LocalDir, OutputSet};
use tensormill_tensor::ErrorStats;

/// Between two batches of notes.
const INTERVAL: Duration = Duration::from_secs(3);

/// Version of the records below.
const VERSION: u32 = 1;

const HEADER: u8 = b'{';
const TILE: u8 = 1;
const COMPLETE: u8 = 2;
const PUBLISH: u8 = 3;

/// What must be equal for a journal to be continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Version of the layout of the journal.
    pub journal: u32,
    /// Version of tensormill: another one may encode differently.
    pub tensormill: String,
    /// What the sources hold.
    pub source: String,
    /// What is made of it, and where it goes.
    pub plan: String,
    /// Number of tiles.
    pub tiles: u64,
    /// Files being written.
    pub files: Vec<String>,
    /// Which part of the work this journal is about.
    pub part: Option<Part>,
}

impl Identity {
    pub(super) fn new(source: u64, plan: u64, tiles: u64, files: Vec<String>, part: Option<Part>) -> Self {
        Self {
            journal: VERSION,
            tensormill: env!("CARGO_PKG_VERSION").to_owned(),
            source: format!("{source:016x}"),
            plan: format!("{plan:016x}"),
            tiles,
            files,
            part,
        }
    }

    /// Why a journal with identity `old` cannot be continued.
    fn refuse(&self, old: &Self) -> Option<&'static str> {
        let Self { journal, tensormill, source, plan, tiles, files, part: _ } = self;
        if *journal != old.journal || *tensormill != old.tensormill {
            Some("another version of tensormill began it")
        } else if *source != old.source {
            Some("the source has changed since")
        } else if *plan != old.plan || *tiles != old.tiles || *files != old.files {
            Some("it was asked for other outputs")
        } else {
            None
        }
    }
}

/// Prefix of the journals of a run called `name`.
fn prefix(name: &str) -> String {
    format!(".{name}.tensormill-journal")
}

fn path(folder: &Path, name: &str, part: Option<Part>) -> PathBuf {
    let suffix = part.map_or_else(String::new, |p| format!("-{}-of-{}", p.index + 1, p.count));
    folder.join(prefix(name) + &suffix)
}

/// The journals that stand in a folder, with the part each is about.
pub(super) fn standing(folder: &Path, name: &str) -> Result<Vec<(PathBuf, Option<Part>)>> {
    let prefix = prefix(name);
    let mut found = Vec::new();
    for file in LocalDir::open(folder)?.list() {
        let Some(suffix) = file.strip_prefix(&prefix) else { continue };
        let part = suffix.strip_prefix('-').and_then(|s| s.split_once("-of-")).and_then(|(i, n)| {
            let (i, n): (u64, u64) = (i.parse().ok()?, n.parse().ok()?);
            (1..=n).contains(&i).then(|| Part { index: i - 1, count: n, whole_files: false })
        });
        if suffix.is_empty() || part.is_some() {
            found.push((folder.join(&file), part));
        }
    }
    Ok(found)
}

/// One journal, or several that are read as one.
pub(super) struct Journal {
    logs: Vec<AppendLog>,
    /// Log and place of every tile noted.
    places: HashMap<u64, (usize, u64)>,
    /// Whether each log's part is complete.
    complete: Vec<bool>,
    /// The files that were complete and being renamed.
    publishing: Option<Vec<String>>,
    pending: Mutex<Pending>,
    flushing: Mutex<()>,
}

struct Pending {
    records: Vec<(u64, Vec<u8>)>,
    flushed: Instant,
    /// Where the notes of this run went.
    places: HashMap<u64, u64>,
}

impl Journal {
    /// Begins a journal, or continues the one that stands there.
    ///
    /// # Errors
    /// `Usage` when another process is at it, `Mismatch` when it is about something else.
    pub(super) fn open(folder: &Path, name: &str, identity: &Identity) -> Result<Self> {
        let mut journal = Self::empty();
        journal.attach(&path(folder, name, identity.part), identity)?;
        Ok(journal)
    }

    /// Continues several journals: all parts of one run.
    pub(super) fn join(paths: &[PathBuf], identity: &Identity) -> Result<Self> {
        let mut journal = Self::empty();
        paths.iter().try_for_each(|p| journal.attach(p, identity))?;
        Ok(journal)
    }

    /// The part that a journal says it is about, and whether it says that this is complete; read without a lock.
    pub(super) fn glance(path: &Path) -> Result<(Option<Part>, bool)> {
        let (mut part, mut complete) = (None, false);
        let mut first = true;
        AppendLog::read(path, |_, payload| {
            if std::mem::take(&mut first) {
                part = serde_json::from_slice::<Identity>(payload).ok().and_then(|i| i.part);
            }
            complete |= matches!(payload.first(), Some(&(COMPLETE | PUBLISH)));
            Ok(())
        })?;
        Ok((part, complete))
    }

    fn empty() -> Self {
        let pending = Pending { records: Vec::new(), flushed: Instant::now(), places: HashMap::new() };
        Self {
            logs: Vec::new(),
            places: HashMap::new(),
            complete: Vec::new(),
            publishing: None,
            pending: Mutex::new(pending),
            flushing: Mutex::new(()),
        }
    }

    fn attach(&mut self, path: &Path, identity: &Identity) -> Result<()> {
        let number = self.logs.len();
        let (mut first, mut complete) = (true, false);
        let log = AppendLog::open(path, |place, payload| {
            if std::mem::take(&mut first) {
                let refused = match serde_json::from_slice::<Identity>(payload) {
                    Ok(old) => identity.refuse(&old),
                    Err(_) => Some("its journal is not of this version"),
                };
                return match refused {
                    None => Ok(()),
                    Some(why) => {
                        Err(Error::mismatch(format!("an unfinished run cannot be continued: {why}"))
                            .file(path.display())
                            .hint("repeat exactly what was asked then, or start over with --restart"))
                    }
                };
            }
            match payload.split_first() {
                Some((&TILE, rest)) if rest.len() >= 8 => {
                    let tile = u64::from_le_bytes(rest[..8].try_into().unwrap_or_default());
                    self.places.insert(tile, (number, place));
                }
                Some((&COMPLETE, _)) => complete = true,
                Some((&PUBLISH, names)) => self.publishing = serde_json::from_slice(names).ok(),
                _ => {}
            }
            Ok(())
        })?;
        if first {
            let header = serde_json::to_vec(identity)
                .map_err(|e| Error::unsupported(format!("the journal cannot be written: {e}")))?;
            debug_assert_eq!(header.first(), Some(&HEADER));
            log.append(&[header])?;
        }
        self.logs.push(log);
        self.complete.push(complete);
        Ok(())
    }

    /// Takes the space that the notes of a plan need: what was done must be noted also when the disk is full.
    pub(super) fn reserve(&self, plan: &Plan<'_>) -> Result<()> {
        /// Frame, tag and tile number; hash, flag and statistics; what follows the last tile.
        const TILE: u64 = 24;
        const RECORD: u64 = 8 + 1 + 8 * ErrorStats::WORDS as u64;
        const END: u64 = 1 << 16;
        let bytes = plan.tiles().saturating_mul(TILE).saturating_add(plan.records().saturating_mul(RECORD));
        self.logs.first().map_or(Ok(()), |log| log.reserve(bytes.saturating_add(END)))
    }

    /// Whether any tile is noted.
    pub(super) fn has_tiles(&self) -> bool {
        !self.places.is_empty() || !lock(&self.pending).places.is_empty()
    }

    /// Number of tiles noted.
    pub(super) fn tiles(&self) -> u64 {
        let earlier = self.places.len() as u64;
        let added = lock(&self.pending).places.keys().filter(|t| !self.places.contains_key(t)).count();
        earlier + added as u64
    }

    /// Whether every part is complete.
    pub(super) fn all_complete(&self) -> bool {
        self.complete.iter().all(|c| *c)
    }

    /// Whether outputs were complete and being given their names.
    pub(super) fn publishing(&self) -> bool {
        self.publishing.is_some()
    }

    /// Their names.
    pub(super) fn publishing_names(&self) -> Option<&Vec<String>> {
        self.publishing.as_ref()
    }

    /// Makes everything noted so far durable, after the files themselves.
    pub(super) fn flush(&self, set: &OutputSet) -> Result<()> {
        let _one = lock(&self.flushing);
        self.flush_batch(set)
    }

    fn flush_batch(&self, set: &OutputSet) -> Result<()> {
        let batch = std::mem::take(&mut lock(&self.pending).records);
        if !batch.is_empty() {
            set.sync_data()?;
        }
        let (tiles, records): (Vec<u64>, Vec<Vec<u8>>) = batch.into_iter().unzip();
        let places = match self.logs.first() {
            Some(log) if !records.is_empty() => log.append(&records)?,
            _ => Vec::new(),
        };
        let mut pending = lock(&self.pending);
        pending.places.extend(tiles.into_iter().zip(places));
        pending.flushed = Instant::now();
        tracing::debug!(tiles = records.len(), "journal flushed");
        Ok(())
    }

    /// Notes that this run's part is complete.
    pub(super) fn note_complete(&self, set: &OutputSet) -> Result<()> {
        self.flush(set)?;
        self.append(vec![COMPLETE])
    }

    /// Notes that all outputs are complete and durable, and get their names from here on.
    pub(super) fn note_publish(&self, names: &[String]) -> Result<()> {
        let json = serde_json::to_vec(names)
            .map_err(|e| Error::unsupported(format!("the journal cannot be written: {e}")))?;
        self.append([&[PUBLISH], json.as_slice()].concat())
    }

    fn append(&self, record: Vec<u8>) -> Result<()> {
        self.logs.first().map_or(Ok(()), |log| log.append(&[record]).map(|_| ()))
    }

    /// Removes the journals: the run is over.
    pub(super) fn remove(self) -> Result<()> {
        self.logs.into_iter().try_for_each(AppendLog::remove)
    }
}

/// A journal at work on the files of a set.
pub(super) struct Noting<'a> {
    pub journal: &'a Journal,
    pub set: &'a OutputSet,
}

impl Ledger for Noting<'_> {
    fn keeps(&self) -> bool {
        true
    }
    fn done(&self, tile: u64) -> Option<TileRecord> {
        self.journal.done(tile)
    }
    fn record(&self, tile: u64, record: &TileRecord) -> Result<()> {
        self.journal.note(tile, record, self.set)
    }
}

/// A journal that is only read.
impl Ledger for Journal {
    fn keeps(&self) -> bool {
        false
    }
    fn done(&self, tile: u64) -> Option<TileRecord> {
        let added = lock(&self.pending).places.get(&tile).map(|place| (0, *place));
        let (log, place) = added.or_else(|| self.places.get(&tile).copied())?;
        decode(&self.logs[log].get(place).ok()?)
    }

    fn record(&self, _: u64, _: &TileRecord) -> Result<()> {
        Ok(())
    }
}

impl Journal {
    /// Notes a tile; now and then, with all that were noted before, durably.
    fn note(&self, tile: u64, record: &TileRecord, set: &OutputSet) -> Result<()> {
        let mut pending = lock(&self.pending);
        pending.records.push((tile, encode(tile, record)));
        let due = pending.flushed.elapsed() >= INTERVAL;
        drop(pending);
        match self.flushing.try_lock() {
            Ok(_one) if due => self.flush_batch(set),
            _ => Ok(()),
        }
    }
}

fn encode(tile: u64, record: &TileRecord) -> Vec<u8> {
    let mut out = vec![TILE];
    out.extend_from_slice(&tile.to_le_bytes());
    for c in &record.computes {
        out.extend_from_slice(&c.hash.to_le_bytes());
        out.push(u8::from(c.error.is_some()));
        for word in c.error.iter().flat_map(ErrorStats::to_words) {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
    out
}

fn decode(payload: &[u8]) -> Option<TileRecord> {
    let mut rest = payload.get(9..)?;
    let word = |rest: &mut &[u8]| -> Option<u64> {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        *rest = tail;
        Some(u64::from_le_bytes(*head))
    };
    let mut record = TileRecord::default();
    while !rest.is_empty() {
        let hash = word(&mut rest)?;
        let (&measured, tail) = rest.split_first()?;
        rest = tail;
        let mut error = None;
        if measured == 1 {
            let mut words = [0; ErrorStats::WORDS];
            for w in &mut words {
                *w = word(&mut rest)?;
            }
            error = Some(ErrorStats::from_words(&words));
        }
        record.computes.push(ComputeRecord { hash, error });
    }
    Some(record)
}

/// Nothing in here can panic halfway through a change, so a poisoned state is a sound one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_store::{Existing, Parts};

    fn no_files(folder: &Path) -> OutputSet {
        OutputSet::open(folder, &[], Existing::Refuse, Parts::Fresh).unwrap()
    }
    fn identity(plan: u64, part: Option<Part>) -> Identity {
        Identity::new(7, plan, 10, vec!["a.gguf".into()], part)
    }

    #[test]
    fn records_come_back_and_other_plans_do_not() {
        let tmp = tempfile::tempdir().unwrap();
        let set = no_files(tmp.path());
        let mut stats = ErrorStats::default();
        stats.add(&[1.0, 2.0], &[1.0, 2.5]);
        let record = TileRecord {
            computes: vec![
                ComputeRecord { hash: 42, error: Some(stats) },
                ComputeRecord { hash: u64::MAX, error: None },
            ],
        };
        let journal = Journal::open(tmp.path(), "m", &identity(1, None)).unwrap();
        journal.note(3, &record, &set).unwrap();
        assert_eq!(journal.done(3), None, "not durable yet");
        journal.flush(&set).unwrap();
        assert_eq!(journal.done(3), Some(record.clone()));
        assert!(Journal::open(tmp.path(), "m", &identity(1, None)).is_err(), "it is being written");
        drop(journal);
        let journal = Journal::open(tmp.path(), "m", &identity(1, None)).unwrap();
        assert_eq!((journal.done(3), journal.done(4), journal.tiles()), (Some(record), None, 1));
        assert!(!journal.all_complete() && !journal.publishing());
        journal.note_complete(&set).unwrap();
        drop(journal);
        assert!(Journal::open(tmp.path(), "m", &identity(1, None)).unwrap().all_complete());
        let e = Journal::open(tmp.path(), "m", &identity(2, None)).err().unwrap();
        assert!(e.to_string().contains("other outputs"), "{e}");
        assert_eq!(standing(tmp.path(), "m").unwrap().len(), 1);
        assert!(standing(tmp.path(), "n").unwrap().is_empty());
    }

    #[test]
    fn parts_have_journals_of_their_own() {
        let tmp = tempfile::tempdir().unwrap();
        let set = no_files(tmp.path());
        for index in 0..3 {
            let part = Some(Part { index, count: 3, whole_files: false });
            let journal = Journal::open(tmp.path(), "m", &identity(1, part)).unwrap();
            journal.note(index * 2, &TileRecord::default(), &set).unwrap();
            journal.note_complete(&set).unwrap();
        }
        let standing = standing(tmp.path(), "m").unwrap();
        assert_eq!(standing[2].1, Some(Part { index: 2, count: 3, whole_files: false }));
        let paths: Vec<PathBuf> = standing.into_iter().map(|(p, _)| p).collect();
        let all = Journal::join(&paths, &identity(1, None)).unwrap();
        assert!(all.all_complete() && all.tiles() == 3 && all.done(4).is_some() && all.done(1).is_none());
        all.remove().unwrap();
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    }
}

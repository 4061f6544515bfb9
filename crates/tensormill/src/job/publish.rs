//! What comes after the last tile: limits, verification, sums, manifest and report, the final names.
//!
//! Must not know how tiles are written or divided: that is `run`.

use super::{
    Leftovers, Part, Planned, existing,
    journal::Journal,
    manifest,
    run::{extent, extents},
    sink::{Extent, FileHash, Taken, VariantSink, hash_file},
};
use crate::{
    memory::Sampler,
    report::{DoneReport, ErrorReport, RunReport},
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};
use tensormill_engine::{self as engine, Event, Mode, Plan, Progress, Run, Sink, TensorRun};
use tensormill_model::{Error, Result};
use tensormill_store::{OutputSet, finish_commit};
use tensormill_tensor::ErrorStats;

impl Planned {
    /// Everything after the last tile. Pieces are plans, with journals that know all their tiles; together they make up
    /// the whole.
    pub(super) fn publish(
        &self,
        pieces: Vec<(Plan<'_>, Journal)>,
        mut set: OutputSet,
        taken: Vec<Taken>,
        mut totals: engine::Report,
        (start, sampler): (Instant, Sampler),
        (progress, cancel): (&dyn Progress, &AtomicBool),
    ) -> Result<DoneReport> {
        let runs = collect(&pieces)?;
        let mut done = self.report_of(&totals, start, Vec::new(), Some(&runs), None);
        if let Some(error) = broken_bounds(&done) {
            return Err(error.also_hint("nothing was published; relax the limits and continue with --resume"));
        }
        if self.job.verify {
            progress.event(Event::Phase { name: "verifying", bytes: 0 });
            let sinks = Self::plain_sinks(&set, &self.own_files(None));
            let dyns: Vec<&dyn Sink> = sinks.iter().map(|s| s as _).collect();
            for (plan, journal) in &pieces {
                let tiles = 0..plan.tiles();
                let run = Run {
                    sinks: &dyns,
                    progress,
                    cancel,
                    ledger: journal,
                    tiles,
                    mode: Mode::Verify,
                    accelerator: None,
                };
                let verified = plan
                    .execute(&run)
                    .map_err(|e| e.also_hint("continue with --resume to write it again"))?;
                totals.times += verified.times;
            }
            done.run.verified = true;
        }
        let (mut hashes, known): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|t| (t.hashes, t.checksums)).unzip();
        self.write_checksums(&set, &known)?;
        let mut names: Vec<String> =
            self.files(&self.own_files(None)).into_iter().map(|(name, _)| name).collect();
        if self.job.manifest {
            self.hash_rest(&set, &mut hashes, (progress, cancel))?;
            for (v, hashes) in done.plan.variants.iter_mut().zip(&hashes) {
                for (f, hash) in v.files.iter_mut().zip(hashes) {
                    f.sha256 = hash.as_ref().map(|h| h.sha256.clone());
                }
            }
            done.run.memory = sampler.stop();
            Self::time(&mut done.run, &totals, start);
            for (name, text) in manifest::files(self, &done, &hashes)? {
                set.add(&name, text.as_bytes())?;
                names.push(name);
            }
        }
        progress.event(Event::Phase { name: "syncing", bytes: 0 });
        set.sync_data()?;
        pieces[0].1.note_publish(&names)?;
        set.commit().map_err(|e| e.also_hint("everything is complete: continue with --resume"))?;
        pieces.into_iter().try_for_each(|(_, journal)| journal.remove())?;
        tracing::info!(files = names.len(), "published");
        Self::time(&mut done.run, &totals, start);
        Ok(done)
    }

    /// The report of a release that was published before, when its manifest and files say that it is this one: an
    /// engine that repeats what it did not see end finds it done.
    pub(super) fn published_already(&self, start: Instant) -> Result<Option<DoneReport>> {
        let job = &self.job;
        if job.force || job.leftovers == Leftovers::Restart || !manifest::tells(self)? {
            return Ok(None);
        }
        let bytes = self.report.variants.iter().flat_map(|v| &v.tensors).map(|t| t.bytes).sum();
        let totals = engine::Report { skipped: bytes, ..engine::Report::default() };
        Ok(Some(self.report_of(&totals, start, Vec::new(), None, None)))
    }

    /// The rest of a publication that a dead process had begun.
    pub(super) fn published_before(
        &self,
        pieces: Vec<(Plan<'_>, Journal)>,
        start: Instant,
    ) -> Result<DoneReport> {
        let runs = collect(&pieces)?;
        let names = pieces[0].1.publishing_names().cloned().unwrap_or_default();
        finish_commit(&self.job.folder, names.iter().map(String::as_str), existing(&self.job))?;
        let skipped = pieces.iter().map(|(plan, _)| plan.output_bytes()).sum();
        pieces.into_iter().try_for_each(|(_, journal)| journal.remove())?;
        let totals = engine::Report { skipped, ..engine::Report::default() };
        Ok(self.report_of(&totals, start, Vec::new(), Some(&runs), None))
    }

    /// Puts the CRC-32 of tensors where the formats want them; those that were not taken on the way are taken from what
    /// was written.
    fn write_checksums(&self, set: &OutputSet, known: &[BTreeMap<usize, u32>]) -> Result<()> {
        let sinks = Self::plain_sinks(set, &self.own_files(None));
        for (i, (v, sink)) in self.variants.iter().zip(&sinks).enumerate() {
            for slot in &v.layout.checksums {
                let checksum = match known.get(i).and_then(|k| k.get(&slot.tensor)) {
                    Some(known) => *known,
                    None => read_checksum(sink, v.layout.places[slot.tensor].file, extent(v, slot.tensor))?,
                };
                for place in &slot.places {
                    sink.write_at(place.file, place.offset, &checksum.to_le_bytes())?;
                }
            }
        }
        Ok(())
    }

    /// Hashes the files that could not be hashed while they were written, several at a time.
    fn hash_rest(
        &self,
        set: &OutputSet,
        hashes: &mut Vec<Vec<Option<FileHash>>>,
        (progress, cancel): (&dyn Progress, &AtomicBool),
    ) -> Result<()> {
        hashes.resize_with(self.variants.len(), Vec::new);
        let mut rest = Vec::new();
        let mut in_set = 0;
        for (variant, (v, known)) in self.variants.iter().zip(hashes.iter_mut()).enumerate() {
            known.resize(v.layout.files.len(), None);
            for (number, file) in v.layout.files.iter().enumerate() {
                if known[number].is_none() {
                    rest.push((variant, number, in_set, file.len));
                }
                in_set += 1;
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        progress.event(Event::Phase { name: "checksums", bytes: rest.iter().map(|r| r.3).sum() });
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let advanced = |bytes| {
            progress.event(Event::PhaseAdvanced { bytes });
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::cancelled());
            }
            Ok(())
        };
        let work = || {
            while let Some(&(variant, number, file, len)) = rest.get(next.fetch_add(1, Ordering::Relaxed)) {
                let hash = hash_file(set, file, extents(&self.variants[variant], number), len, &advanced);
                results.lock().unwrap_or_else(PoisonError::into_inner).push((variant, number, hash));
            }
        };
        thread::scope(|s| {
            for _ in 1..self.options.threads.min(rest.len()) {
                // Where the system gives no more threads, this one does the work.
                if thread::Builder::new().spawn_scoped(s, work).is_err() {
                    break;
                }
            }
            work();
        });
        for (variant, number, hash) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
            hashes[variant][number] = Some(hash?);
        }
        Ok(())
    }

    /// The report: the plan, with what was measured where it is known.
    pub(super) fn report_of(
        &self,
        totals: &engine::Report,
        start: Instant,
        memory: Vec<crate::report::MemorySample>,
        runs: Option<&[Vec<TensorRun>]>,
        part: Option<Part>,
    ) -> DoneReport {
        let mut plan = self.report.clone();
        for ((v, run), variant) in
            plan.variants.iter_mut().zip(runs.into_iter().flatten()).zip(&self.job.variants)
        {
            let errors = || run.iter().map(|t| t.error);
            v.broken = variant.gate.check(v.tensors.iter().zip(errors()));
            let mut total: Option<ErrorStats> = None;
            for (row, stats) in v.tensors.iter_mut().zip(errors()) {
                if let Some(stats) = stats {
                    row.error = Some(ErrorReport::from(&stats));
                    total.get_or_insert_default().merge(&stats);
                }
            }
            v.error = total.as_ref().map(ErrorReport::from);
        }
        let mut run = RunReport {
            wall_seconds: 0.0,
            read_bytes: totals.read,
            written_bytes: totals.written,
            resumed_bytes: totals.skipped,
            peak_rss_bytes: None,
            peak_tile_bytes: totals.peak_tile_bytes,
            stages: BTreeMap::new(),
            verified: false,
            device: self.device.outcome(),
            part: part.map(|p| format!("{}/{}", p.index + 1, p.count)),
            memory,
        };
        Self::time(&mut run, totals, start);
        DoneReport { plan, run }
    }

    fn time(run: &mut RunReport, totals: &engine::Report, start: Instant) {
        let t = &totals.times;
        run.wall_seconds = start.elapsed().as_secs_f64();
        run.peak_rss_bytes = engine::peak_rss();
        run.stages = [
            ("read", t.read),
            ("compute", t.compute),
            ("measure", t.measure),
            ("write", t.write),
            ("wait", t.wait),
        ]
        .into_iter()
        .map(|(name, time)| (name, time.as_secs_f64()))
        .collect();
    }
}

/// The CRC-32 of a tensor as it stands in a file.
fn read_checksum(sink: &VariantSink<'_>, file: usize, extent: Extent) -> Result<u32> {
    const PORTION: u64 = 2 << 20;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = Vec::new();
    let mut at = extent.start;
    while at < extent.end {
        buffer.resize(PORTION.min(extent.end - at) as usize, 0);
        sink.read_at(file, at, &mut buffer)?;
        hasher.update(&buffer);
        at += buffer.len() as u64;
    }
    Ok(hasher.finalize())
}

/// What all journals together say of every tensor: each is known to one of them.
fn collect(pieces: &[(Plan<'_>, Journal)]) -> Result<Vec<Vec<TensorRun>>> {
    let mut all: Vec<Vec<TensorRun>> = Vec::new();
    for (plan, journal) in pieces {
        let runs = plan.collect(journal)?;
        if all.is_empty() {
            all = runs;
            continue;
        }
        for (known, found) in all.iter_mut().flatten().zip(runs.into_iter().flatten()) {
            if found != TensorRun::default() {
                *known = found;
            }
        }
    }
    Ok(all)
}

/// An error that names the first few bounds that are broken.
fn broken_bounds(done: &DoneReport) -> Option<Error> {
    const SHOWN: usize = 8;
    let variants = done.plan.variants.iter();
    let broken: Vec<String> =
        variants.flat_map(|v| v.broken.iter().map(move |b| format!("{}: {b}", v.name))).collect();
    if broken.is_empty() {
        return None;
    }
    let mut text = format!("{} limits are broken", broken.len());
    for line in broken.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if broken.len() > SHOWN {
        text.push_str("\n  ...");
    }
    Some(Error::failed(text))
}

//! Carrying a plan out: parts of files, tiles, checks, sums, names.
//!
//! The order of things is what makes a crash harmless. Parts and journal first; tiles, noted after they are durable;
//! then everything is checked; then the small files; then one note that all is complete and durable; then the final
//! names; last the journal goes. Whatever the moment of a kill, the next run finds where to go on ([`Leftovers::Resume`]).

use super::{
    Leftovers, Part, Planned, existing,
    journal::{Identity, Journal, Noting, standing},
    manifest,
    sink::{Extent, Taken, VariantSink},
};
use crate::{memory::Sampler, report::DoneReport};
use std::{collections::BTreeSet, sync::atomic::AtomicBool, time::Instant};
use tensormill_engine::{self as engine, Mode, Output, Plan, Progress, Run, Sink};
use tensormill_model::{Accelerator, Error, ErrorKind, Layout, Result, fingerprint};
use tensormill_store::{OutputSet, Parts, discard_parts, ensure_folder, refuse_existing, require_parts};

impl Planned {
    /// Reads, converts and writes everything. Files appear under their final names only when all of them are
    /// complete and have passed their checks.
    ///
    /// # Errors
    /// I/O errors, values that cannot be quantized, `Failed` for broken bounds or verification, `Cancelled`. What
    /// was done so far is kept for [`Leftovers::Resume`] where that makes sense; the error's hint then says so.
    pub fn run(self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<DoneReport> {
        self.carry_out(None, progress, cancel)
    }

    /// Does one of several parts of the work; other parts are other processes', here or elsewhere. What an earlier
    /// try of this part has done stays done. Outputs get their names when [`Self::finish`] finds all parts complete.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_part(self, part: Part, progress: &dyn Progress, cancel: &AtomicBool) -> Result<DoneReport> {
        if part.index >= part.count {
            return Err(Error::usage(format!("there is no part {} of {}", part.index + 1, part.count))
                .hint("parts are 1/n to n/n"));
        }
        self.carry_out(Some(part), progress, cancel)
    }

    fn carry_out(
        self,
        part: Option<Part>,
        progress: &dyn Progress,
        cancel: &AtomicBool,
    ) -> Result<DoneReport> {
        let start = Instant::now();
        self.consent()?;
        let files = self.own_files(part);
        let plan = self.plan(&files)?;
        let identity = self.identity(&plan, &files, part)?;
        let job = &self.job;
        ensure_folder(&job.folder, job.create_folder)?;
        if (part.is_some() || job.again)
            && let Some(done) = self.published_already(start)?
        {
            return Ok(done);
        }
        // Before anything is touched: without the device that was asked for there is nothing to do.
        let device = self.device.open(progress)?;
        let begun = self.look_for_leftovers(part)?;
        let journal = Journal::open(&job.folder, &job.name, &identity)?;
        if journal.publishing() {
            return self.published_before(vec![(plan, journal)], start);
        }
        let parts = match part {
            Some(_) => Parts::Shared,
            None if begun => Parts::Resume,
            None => Parts::Fresh,
        };
        let mut free = manifest::names(job).into_iter().filter(|_| job.manifest);
        let opened = (job.access.fetch(progress, cancel))
            .and_then(|()| free.try_for_each(|name| refuse_existing(&job.folder.join(name), existing(job))))
            .and_then(|()| journal.reserve(&plan))
            .and_then(|()| OutputSet::open(&job.folder, &self.files(&files), existing(job), parts));
        let mut set = match opened {
            Ok(set) => set,
            Err(e) => {
                // Nothing was done: nothing is left behind.
                if !journal.has_tiles() {
                    journal.remove()?;
                }
                return Err(e);
            }
        };
        set.keep(true);
        tracing::info!(folder = %job.folder.display(), ?parts, part = part.map(|p| p.index + 1), tiles_known = journal.tiles(), "files opened");
        let sampler = Sampler::start();
        let fresh = !journal.has_tiles();
        let tiles = match part {
            Some(p) if !p.whole_files => plan.part(p.index, p.count),
            _ => 0..plan.tiles(),
        };
        let mut totals = engine::Report::default();
        let mut taken = Vec::new();
        let result = self
            .write_tiles(
                &plan,
                tiles,
                &set,
                &files,
                &journal,
                fresh && part.is_none(),
                (progress, cancel, device.as_ref().map(|d| d as _)),
            )
            .and_then(|(done, on_the_way)| {
                totals = done;
                taken = on_the_way;
                journal.flush(&set)
            });
        drop(device);
        if let Err(error) = result {
            let kept = journal.flush(&set).is_ok()
                && worth_keeping(&error)
                && (journal.has_tiles() || part.is_some());
            if kept {
                let hint =
                    if part.is_some() { "run this part again to continue" } else { "continue with --resume" };
                let done = format!("{} of {} tiles are done; {hint}", journal.tiles(), identity.tiles);
                return Err(error.also_hint(done));
            }
            if part.is_none() {
                drop_everything(set, journal)?;
            }
            return Err(error);
        }
        if let Some(part) = part {
            journal.note_complete(&set)?;
            drop(journal);
            drop(set);
            let report = self.report_of(&totals, start, sampler.stop(), None, Some(part));
            return Ok(report);
        }
        self.publish(vec![(plan, journal)], set, taken, totals, (start, sampler), (progress, cancel))
            .map_err(resumable)
    }

    /// Publishes what several parts made: checks that all of them are complete, then does what a whole run does
    /// after its tiles.
    ///
    /// # Errors
    /// `Busy` when a part is still at work or not complete; else as [`Self::run`].
    pub fn finish(self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<DoneReport> {
        let start = Instant::now();
        self.consent()?;
        let job = &self.job;
        let standing = if job.folder.is_dir() { standing(&job.folder, &job.name)? } else { Vec::new() };
        let parts: Vec<Part> = standing.iter().filter_map(|(_, part)| *part).collect();
        let Some(count) = parts.first().map(|p| p.count) else {
            if let Some(done) = self.published_already(start)? {
                return Ok(done);
            }
            return Err(Error::busy("no part of this release has been started here")
                .file(job.folder.display())
                .hint("run every part with --shard i/n, then finish again"));
        };
        if parts.len() != standing.len() || parts.iter().any(|p| p.count != count) {
            return Err(Error::usage("runs that divide the work differently have left their journals")
                .file(job.folder.display())
                .hint("remove the ones that do not belong, or start over with --restart"));
        }
        let missing: Vec<String> = (0..count)
            .filter(|i| parts.iter().all(|p| p.index != *i))
            .map(|i| format!("{}/{count}", i + 1))
            .collect();
        if !missing.is_empty() {
            return Err(Error::busy(format!("parts not started: {}", missing.join(", ")))
                .file(job.folder.display())
                .hint("run them, then finish again"));
        }
        let paths: Vec<_> = standing.into_iter().map(|(path, _)| path).collect();
        // Looked at before they are opened for writing: where locks mean nothing, a part may be at work on its journal.
        let glances = paths.iter().map(|p| Journal::glance(p)).collect::<Result<Vec<_>>>()?;
        let unfinished: Vec<String> = parts
            .iter()
            .zip(&glances)
            .filter(|(_, (_, complete))| !complete)
            .map(|(p, _)| format!("{}/{count}", p.index + 1))
            .collect();
        if !unfinished.is_empty() {
            return Err(Error::busy(format!("parts not finished: {}", unfinished.join(", ")))
                .file(job.folder.display())
                .hint("run those that are not at work again, then finish again"));
        }
        let whole_files = glances[0].0.is_some_and(|p| p.whole_files);
        let mut pieces = Vec::new();
        if whole_files {
            for (path, part) in paths.iter().zip(parts) {
                let files = self.own_files(Some(Part { whole_files, ..part }));
                let plan = self.plan(&files)?;
                let journal =
                    Journal::join(std::slice::from_ref(path), &self.identity(&plan, &files, None)?)?;
                pieces.push((plan, journal));
            }
        } else {
            let files = self.own_files(None);
            let plan = self.plan(&files)?;
            let journal = Journal::join(&paths, &self.identity(&plan, &files, None)?)?;
            pieces.push((plan, journal));
        }
        if pieces[0].1.publishing() {
            return self.published_before(pieces, start);
        }
        let total: u64 = pieces.iter().map(|(plan, _)| plan.tiles()).sum();
        let done: u64 = pieces.iter().map(|(_, journal)| journal.tiles()).sum();
        if done < total || !pieces.iter().all(|(_, journal)| journal.all_complete()) {
            return Err(Error::busy(format!("{done} of {total} tiles are done"))
                .file(job.folder.display())
                .hint("run the parts that failed again, then finish again"));
        }
        let files = self.files(&self.own_files(None));
        require_parts(&job.folder, &files)
            .map_err(|e| e.also_hint("bring it here from the machine that made it"))?;
        let mut set = OutputSet::open(&job.folder, &files, existing(job), Parts::Resume)?;
        set.keep(true);
        let sampler = Sampler::start();
        let skipped = pieces.iter().map(|(plan, _)| plan.output_bytes()).sum();
        let totals = engine::Report { skipped, ..engine::Report::default() };
        self.publish(pieces, set, Vec::new(), totals, (start, sampler), (progress, cancel)).map_err(resumable)
    }

    /// Whether what the outputs cannot hold may be left out.
    fn consent(&self) -> Result<()> {
        let lost = &self.report.job.lost;
        if lost.is_empty() || self.job.allow_loss {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the output cannot hold everything that the source has:\n  {}",
            lost.join("\n  ")
        ))
        .hint("go on without with --allow-loss"))
    }

    /// Which files of every variant a part writes: all, unless parts are made of whole files. Those are dealt out by
    /// size, each to the part that has least so far.
    pub(super) fn own_files(&self, part: Option<Part>) -> Vec<Vec<bool>> {
        let Some(part) = part.filter(|p| p.whole_files) else {
            return self.variants.iter().map(|v| vec![true; v.layout.files.len()]).collect();
        };
        let mut owned: Vec<Vec<bool>> =
            self.variants.iter().map(|v| vec![false; v.layout.files.len()]).collect();
        let each = |(i, v): (usize, &super::PlannedVariant)| {
            let files = v.layout.files.iter().enumerate();
            files.map(|(number, f)| (f.len, i, number)).collect::<Vec<_>>()
        };
        let mut files: Vec<_> = self.variants.iter().enumerate().flat_map(each).collect();
        files.sort_by_key(|(len, variant, number)| (std::cmp::Reverse(*len), *variant, *number));
        let mut loads: BTreeSet<(u64, u64)> = (0..part.count).map(|i| (0, i)).collect();
        for (len, variant, number) in files {
            let Some((load, owner)) = loads.pop_first() else { break };
            loads.insert((load.saturating_add(len), owner));
            owned[variant][number] = owner == part.index;
        }
        owned
    }

    /// The plan of some files.
    fn plan(&self, files: &[Vec<bool>]) -> Result<Plan<'_>> {
        let all = files.iter().flatten().all(|f| *f);
        let outputs: Vec<Output<'_>> = self
            .variants
            .iter()
            .zip(files)
            .map(|(v, files)| Output { files: (!all).then_some(files.as_slice()), ..v.output() })
            .collect();
        engine::plan(&self.source.readers, &outputs, &self.options)
    }

    /// What must be equal for a journal to be continued.
    fn identity(&self, plan: &Plan<'_>, files: &[Vec<bool>], part: Option<Part>) -> Result<Identity> {
        let headers = self.variants.iter().flat_map(|v| v.headers.to_le_bytes());
        let plan_hash = fingerprint(plan.fingerprint().to_le_bytes().into_iter().chain(headers));
        let files = self.files(files).into_iter().map(|(name, _)| name).collect();
        Ok(Identity::new(self.source.fingerprint()?, plan_hash, plan.tiles(), files, part))
    }

    /// Names and lengths of files, variant by variant.
    pub(super) fn files(&self, own: &[Vec<bool>]) -> Vec<(String, u64)> {
        let each = |(v, own): (&super::PlannedVariant, &Vec<bool>)| {
            let files = v.layout.files.iter().zip(own).filter(|(_, own)| **own);
            files.map(|(f, _)| (f.name.clone(), f.len)).collect::<Vec<_>>()
        };
        self.variants.iter().zip(own).flat_map(each).collect()
    }

    /// Whether an unfinished run is to be continued; what is left of one that is not is removed, when asked.
    fn look_for_leftovers(&self, part: Option<Part>) -> Result<bool> {
        let job = &self.job;
        let mut standing = standing(&job.folder, &job.name)?;
        if part.is_some() && job.leftovers != Leftovers::Restart {
            // Other parts' journals are nobody's leftovers, and this part's own is continued.
            standing.retain(|(_, other)| other.map(|o| o.count) != part.map(|p| p.count));
        }
        let divided = standing.iter().any(|(_, other)| other.is_some()) || part.is_some();
        match (standing.first(), job.leftovers) {
            (None, _) => Ok(false),
            (Some(_), Leftovers::Resume) if !divided => Ok(true),
            (Some(_), Leftovers::Restart) => {
                // A journal that is being written says that somebody is at work.
                for (path, _) in &standing {
                    tensormill_store::AppendLog::open(path, |_, _| Ok(()))?.remove()?;
                }
                discard_parts(
                    &job.folder,
                    self.files(&self.own_files(None)).iter().map(|(name, _)| name.as_str()),
                )?;
                Ok(false)
            }
            (Some((path, _)), _) if divided => {
                Err(Error::usage("a run that divides the work differently was begun here and not finished")
                    .file(path.display())
                    .hint("finish it with `tensormill finish`, or start over with --restart"))
            }
            (Some((path, _)), _) => Err(Error::usage("an earlier run was not finished")
                .file(path.display())
                .hint("continue it with --resume, or start over with --restart")),
        }
    }

    /// The tiles; gives what was done, and what was taken of each variant on the way.
    #[allow(clippy::too_many_arguments, reason = "the state of a run, handed on once")]
    fn write_tiles(
        &self,
        plan: &Plan<'_>,
        tiles: std::ops::Range<u64>,
        set: &OutputSet,
        own: &[Vec<bool>],
        journal: &Journal,
        whole: bool,
        (progress, cancel, accelerator): (&dyn Progress, &AtomicBool, Option<&dyn Accelerator>),
    ) -> Result<(engine::Report, Vec<Taken>)> {
        let mut sinks = Self::plain_sinks(set, own);
        for (i, (v, sink)) in self.variants.iter().zip(&mut sinks).enumerate() {
            let Layout { files, checksums, places } = v.whole_layout()?;
            // Pieces and checksums between tensors come out of order.
            let framed = checksums.is_empty() && files.iter().all(|f| f.pieces.is_empty());
            let hash = self.job.manifest && whole && framed && plan.in_file_order(i);
            for slot in &checksums {
                let file = places[slot.tensor].file;
                if own[i][file] {
                    sink.check_sum(file, extent(v, slot.tensor));
                }
            }
            for (number, f) in files.iter().enumerate().filter(|(n, _)| own[i][*n]) {
                sink.write_frame(number, f)?;
                if hash {
                    sink.hash_next(&f.header, extents(v, number), f.len);
                }
            }
        }
        let dyns: Vec<&dyn Sink> = sinks.iter().map(|s| s as _).collect();
        let ledger = Noting { journal, set };
        let run =
            Run { sinks: &dyns, progress, cancel, ledger: &ledger, tiles, mode: Mode::Write, accelerator };
        let report = plan.execute(&run)?;
        drop(dyns);
        Ok((report, sinks.into_iter().map(VariantSink::finish).collect()))
    }

    /// Sinks of all variants over a set that holds the files which are one's own, in order.
    pub(super) fn plain_sinks<'a>(set: &'a OutputSet, own: &[Vec<bool>]) -> Vec<VariantSink<'a>> {
        let mut next = 0;
        let mut number = |own: &bool| {
            own.then(|| {
                next += 1;
                next - 1
            })
        };
        own.iter().map(|own| VariantSink::new(set, own.iter().map(&mut number).collect())).collect()
    }
}

/// Where a tensor of a variant lies.
pub(super) fn extent(v: &super::PlannedVariant, tensor: usize) -> Extent {
    let start = v.layout.places[tensor].offset;
    let len = v.checked.model().tensors[tensor].spec.bytes().unwrap_or_default();
    Extent { start, end: start + len, tensor }
}

/// Where the tensors of one file of a variant lie; of tied ones, the first.
pub(super) fn extents(v: &super::PlannedVariant, file: usize) -> Vec<Extent> {
    let mut seen = BTreeSet::new();
    let places = v.layout.places.iter().enumerate();
    places
        .filter(|(_, place)| place.file == file)
        .map(|(tensor, _)| extent(v, tensor))
        .filter(|e| e.start == e.end || seen.insert(e.start))
        .collect()
}

/// Says that a run which failed after its tiles can go on, unless it was said.
fn resumable(error: Error) -> Error {
    let said = error.hint_text().is_some_and(|h| h.contains("--resume"));
    if said { error } else { error.also_hint("all tiles are done: continue with --resume, or finish again") }
}

/// Whether what was done before an error is of use to a later run: not where the input itself is at fault.
fn worth_keeping(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Busy | ErrorKind::Cancelled | ErrorKind::Failed)
}

fn drop_everything(mut set: OutputSet, journal: Journal) -> Result<()> {
    set.keep(false);
    journal.remove()?;
    drop(set);
    Ok(())
}

//! Runs a plan: a pool of threads takes tiles in order from one counter.

use crate::{
    ComputeRecord, Event, Ledger, Plan, Progress, Sink, TileRecord,
    budget::Budget,
    cores::Cores,
    group::On,
    tile::{Done, Times, Worker},
};
use std::{
    any::Any,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tensormill_model::{Accelerator, Error, Result};
use tensormill_tensor::ErrorStats;

/// What to do with tiles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Write them; those that the ledger knows and the sinks still hold are left as they are.
    #[default]
    Write,
    /// Read back what the ledger knows, compare bytes and values, write nothing.
    Verify,
}

/// How to run a plan.
pub struct Run<'a> {
    /// Where bytes go, in the order of the outputs planned.
    pub sinks: &'a [&'a dyn Sink],
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// Set to stop.
    pub cancel: &'a AtomicBool,
    /// Who remembers.
    pub ledger: &'a dyn Ledger,
    /// Which tiles; [`Plan::part`] gives those of one machine.
    pub tiles: Range<u64>,
    /// Write or verify.
    pub mode: Mode,
    /// Who is asked first to compute, where the plan expects somebody ([`crate::PlanOptions::offload`]).
    pub accelerator: Option<&'a dyn Accelerator>,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// For every output, its tensors in the model's order.
    pub outputs: Vec<Vec<TensorRun>>,
    /// Bytes read from the sources.
    pub read: u64,
    /// Bytes written to all outputs.
    pub written: u64,
    /// Bytes that an earlier run had written already.
    pub skipped: u64,
    /// Time from the first read to the last write.
    pub wall: Duration,
    /// Where the workers' time went.
    pub times: Times,
    /// Bytes of tile memory that were held at most at one time.
    pub peak_tile_bytes: u64,
}

/// What a run says about one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TensorRun {
    /// Whether the source's own bytes were only moved, so that there is no error.
    pub copied: bool,
    /// Error of the written values against the input of the tensor's outermost op; of tensors that are parts of one
    /// bundle, the first has the error of the bundle's values, and the others have none. `None` when nothing was measured:
    /// not asked for, `copied`, or an op that is not an encoding of its input.
    pub error: Option<ErrorStats>,
}

struct Shared<'a> {
    run: &'a Run<'a>,
    worker: Worker<'a>,
    budget: Budget,
    /// The next tile. Held while its memory is borrowed, so that tiles get theirs in order.
    turn: Mutex<u64>,
    /// No tile from this number on is started.
    stop_at: AtomicU64,
    failure: Mutex<Option<(u64, Error)>>,
    groups: Vec<Mutex<GroupState>>,
    totals: Mutex<Totals>,
}

/// What is known of a group so far.
struct GroupState {
    /// Tiles of this run that are still to come.
    left: u64,
    started: bool,
    /// Errors, one per distinct op.
    errors: Vec<Option<ErrorStats>>,
}

#[derive(Default)]
struct Totals {
    read: u64,
    written: u64,
    skipped: u64,
    times: Times,
}

impl Plan<'_> {
    /// Executes the whole plan: reads, computes, measures, writes. `sinks` are in the order of the outputs planned.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn run(&self, sinks: &[&dyn Sink], progress: &dyn Progress, cancel: &AtomicBool) -> Result<Report> {
        self.execute(&Run {
            sinks,
            progress,
            cancel,
            ledger: &(),
            tiles: 0..self.tiles(),
            mode: Mode::Write,
            accelerator: None,
        })
    }

    /// Executes some tiles of the plan.
    ///
    /// # Errors
    /// The failure of the smallest tile number, naming the tensor; `Cancelled` when `cancel` was set before the
    /// last tile was done; `Failed` when verified bytes or values are not what they were. An op, reader or sink that
    /// panics gives an error, too.
    pub fn execute(&self, run: &Run<'_>) -> Result<Report> {
        if run.sinks.len() != self.outputs.len() {
            return Err(Error::usage(format!(
                "{} sinks for {} outputs",
                run.sinks.len(),
                self.outputs.len()
            )));
        }
        let start = Instant::now();
        let tiles = run.tiles.start.min(self.tiles())..run.tiles.end.min(self.tiles());
        let cores = Cores::new(self.threads);
        let mine = |c: &crate::plan::Cut| {
            (c.first + c.tiles).min(tiles.end).saturating_sub(c.first.max(tiles.start))
        };
        let whole = tiles == (0..self.tiles());
        let share = |bytes: u64, rows: u64, c: &crate::plan::Cut| {
            if whole { bytes } else { bytes.checked_div(rows).unwrap_or(0) * rows.min(mine(c) * c.tile_rows) }
        };
        let sum = |f: &dyn Fn(&crate::plan::Cut) -> u64| {
            self.groups.iter().filter(|c| mine(c) > 0).map(f).fold(0, u64::saturating_add)
        };
        run.progress.event(Event::Started {
            source_bytes: sum(&|c| share(c.reads, c.group.base.rows, c)),
            output_bytes: sum(&|c| share(c.group.writes(&(0..c.group.base.rows)), c.group.base.rows, c)),
            tensors: self.groups.iter().filter(|c| mine(c) > 0).count(),
        });
        let shared = Shared {
            run,
            worker: Worker {
                plan: self,
                sinks: run.sinks,
                cores: &cores,
                cancel: run.cancel,
                hash: run.ledger.keeps(),
                accelerator: run.accelerator,
            },
            budget: Budget::new(self.limit, self.usual),
            turn: Mutex::new(tiles.start),
            stop_at: AtomicU64::new(tiles.end),
            failure: Mutex::new(None),
            groups: self
                .groups
                .iter()
                .map(|c| {
                    let errors = vec![None; c.group.computes.len()];
                    Mutex::new(GroupState { left: mine(c), started: false, errors })
                })
                .collect(),
            totals: Mutex::default(),
        };
        thread::scope(|scope| {
            for i in 1..self.workers {
                // Where the system gives no more threads, those at hand do the work.
                let named = thread::Builder::new().name(format!("tile-{i}"));
                if named.spawn_scoped(scope, || shared.work()).is_err() {
                    break;
                }
            }
            shared.work();
        });
        let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = failure {
            return Err(error);
        }
        let errors = shared.groups.into_iter();
        let outputs =
            self.tensor_runs(errors.map(|g| g.into_inner().unwrap_or_else(PoisonError::into_inner).errors));
        let totals = shared.totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Report {
            outputs,
            read: totals.read,
            written: totals.written,
            skipped: totals.skipped,
            wall: start.elapsed(),
            times: totals.times,
            peak_tile_bytes: shared.budget.peak(),
        })
    }
}

impl Plan<'_> {
    /// What a ledger that knows every tile says about all tensors, without running anything.
    ///
    /// # Errors
    /// `Mismatch` when it does not know a tile.
    pub fn collect(&self, ledger: &dyn Ledger) -> Result<Vec<Vec<TensorRun>>> {
        let mut all = Vec::with_capacity(self.groups.len());
        for cut in &self.groups {
            let mut errors = vec![None; cut.group.computes.len()];
            for tile in cut.first..cut.first + cut.tiles {
                let record =
                    ledger.done(tile).filter(|r| r.computes.len() == errors.len()).ok_or_else(|| {
                        Error::mismatch(format!("nothing is known of tile {tile}")).tensor(&cut.group.label)
                    })?;
                merge(&mut errors, &record);
            }
            all.push(errors);
        }
        Ok(self.tensor_runs(all.into_iter()))
    }

    /// From errors per group and op to tensors per output.
    fn tensor_runs(&self, errors: impl Iterator<Item = Vec<Option<ErrorStats>>>) -> Vec<Vec<TensorRun>> {
        let mut outputs: Vec<Vec<TensorRun>> =
            self.outputs.iter().map(|n| vec![TensorRun::default(); *n]).collect();
        for (cut, errors) in self.groups.iter().zip(errors) {
            let group = &cut.group;
            for (compute, error) in group.computes.iter().zip(&errors) {
                let copied = compute.only_moves() && group.base.only_moves();
                let error = if compute.on == On::Base { *error } else { None };
                for sink in &compute.sinks {
                    outputs[sink.output][sink.tensor] = TensorRun { copied, error };
                }
            }
            // Of every output, the first part stands for all: one weight is one line in a report.
            for stem in &group.stems {
                for (output, tensor) in &stem.firsts {
                    outputs[*output][*tensor].error = errors[stem.first];
                }
            }
        }
        outputs
    }
}

/// Adds what a record says of each op.
fn merge(errors: &mut [Option<ErrorStats>], record: &TileRecord) {
    for (total, ComputeRecord { error, .. }) in errors.iter_mut().zip(&record.computes) {
        if let Some(error) = error {
            total.get_or_insert_default().merge(error);
        }
    }
}

impl Shared<'_> {
    fn work(&self) {
        loop {
            let mut turn = lock(&self.turn);
            let tile = *turn;
            // Tiles before a failed one still run: they were handed out before it, and one of them may fail
            // as well, so the failure that is reported does not depend on timing.
            if tile >= self.stop_at.load(Ordering::Acquire) {
                return;
            }
            *turn += 1;
            let mut lease = self.budget.borrow(&self.worker.plan.cut(tile).1.demand);
            drop(turn);
            // The wait may have been long.
            if tile >= self.stop_at.load(Ordering::Acquire) {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| self.tile(tile, lease.parts())))
                .unwrap_or_else(|panic| Err(self.panicked(tile, panic.as_ref())));
            if let Err(error) = result {
                self.fail(tile, error);
            }
        }
    }

    fn fail(&self, tile: u64, error: Error) {
        self.stop_at.fetch_min(tile, Ordering::AcqRel);
        let mut failure = lock(&self.failure);
        if failure.as_ref().is_none_or(|(t, _)| tile < *t) {
            *failure = Some((tile, error));
        }
        drop(failure);
        self.run.sinks.iter().for_each(|s| s.abort());
    }

    fn panicked(&self, tile: u64, panic: &(dyn Any + Send)) -> Error {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Error::unsupported(format!("the computation panicked: {text}"))
            .tensor(&self.worker.plan.cut(tile).1.group.label)
            .hint("this is a bug in tensormill: please report it")
    }

    fn tile(&self, tile: u64, buffers: (&mut [u8], &mut [f32])) -> Result<()> {
        let (index, cut) = self.worker.plan.cut(tile);
        let number = tile - cut.first;
        let name = cut.group.label.as_str();
        if !std::mem::replace(&mut lock(&self.groups[index]).started, true) {
            self.run.progress.event(Event::TensorStarted { name });
        }
        let known = self.run.ledger.done(tile);
        match (self.run.mode, known) {
            (Mode::Write, Some(record)) if self.worker.matches(cut, number, &record, buffers.0)? => {
                let rows = number * cut.tile_rows..cut.group.base.rows.min((number + 1) * cut.tile_rows);
                let written = cut.group.writes(&rows);
                self.merge(index, &record);
                lock(&self.totals).skipped += written;
                tracing::debug!(tile, tensor = name, bytes = written, "tile stands already");
                self.run.progress.event(Event::Skipped { read: cut.reads(rows), written });
            }
            (Mode::Write, _) => {
                let done = self.worker.write(cut, number, buffers)?;
                tracing::debug!(tile, tensor = name, read = done.read, written = done.written, times = ?done.times, "tile written");
                if self.run.ledger.keeps() {
                    self.run.ledger.record(tile, &done.record)?;
                }
                self.account(index, &done);
            }
            (Mode::Verify, Some(record)) => {
                self.account(index, &self.worker.verify(cut, number, &record, buffers)?);
                tracing::debug!(tile, tensor = name, "tile verified");
            }
            (Mode::Verify, None) => {
                return Err(Error::mismatch(format!("nothing is known of tile {number} to verify it by"))
                    .tensor(name));
            }
        }
        let mut state = lock(&self.groups[index]);
        state.left -= 1;
        if state.left == 0 {
            drop(state);
            self.run.progress.event(Event::TensorFinished { name });
        }
        Ok(())
    }

    fn merge(&self, index: usize, record: &TileRecord) {
        merge(&mut lock(&self.groups[index]).errors, record);
    }

    fn account(&self, index: usize, done: &Done) {
        self.merge(index, &done.record);
        let Done { read, written, times, .. } = *done;
        let mut totals = lock(&self.totals);
        totals.read += read;
        totals.written += written;
        totals.times += times;
        drop(totals);
        self.run.progress.event(Event::Advanced { read, written, times });
    }
}

/// Nothing in here can panic halfway through a change, so a poisoned state is a sound one.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Runs a plan: a pool of threads takes tiles in order from one counter.

use crate::{
    Event, Plan, Progress, Sink,
    budget::Budget,
    eval::Eval,
    group::Compute,
    measure::{self, Meter},
    plan::Cut,
};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tensormill_model::{Error, ErrorKind, Result};
use tensormill_tensor::ErrorStats;

/// What a run did.
#[derive(Clone, Debug)]
pub struct Report {
    /// For every output, its tensors in the model's order.
    pub outputs: Vec<Vec<TensorRun>>,
    /// Bytes read from the sources.
    pub read: u64,
    /// Bytes written to all outputs.
    pub written: u64,
    /// Time from the first read to the last write.
    pub wall: Duration,
    /// Bytes of tile memory that were held at most at one time.
    pub peak_tile_bytes: u64,
}

/// What a run says about one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TensorRun {
    /// Whether the source's own bytes were only moved, so that there is no error.
    pub copied: bool,
    /// Error of the written values against the input of the tensor's outermost op. `None` when nothing was
    /// measured: not asked for, `copied`, or an op that is not an encoding of its input.
    pub error: Option<ErrorStats>,
}

struct Shared<'a> {
    plan: &'a Plan<'a>,
    sinks: &'a [&'a dyn Sink],
    progress: &'a dyn Progress,
    cancel: &'a AtomicBool,
    budget: Budget,
    next: AtomicU64,
    /// No tile from this number on is started.
    stop_at: AtomicU64,
    failure: Mutex<Option<(u64, Error)>>,
    /// Per group: tiles done, and a meter per distinct op.
    groups: Vec<(AtomicU64, Vec<Meter>)>,
    read: AtomicU64,
    written: AtomicU64,
}

impl Plan<'_> {
    /// Executes the plan: reads, computes, measures, writes. `sinks` are in the order of the outputs planned.
    ///
    /// # Errors
    /// The failure of the smallest tile number, naming the tensor; `Cancelled` when `cancel` was set before the
    /// last tile began. An op, reader or sink that panics gives an error, too.
    pub fn run(&self, sinks: &[&dyn Sink], progress: &dyn Progress, cancel: &AtomicBool) -> Result<Report> {
        if sinks.len() != self.outputs.len() {
            return Err(Error::usage(format!("{} sinks for {} outputs", sinks.len(), self.outputs.len())));
        }
        let start = Instant::now();
        progress.event(Event::Started {
            source_bytes: self.source_bytes(),
            output_bytes: self.output_bytes(),
            tensors: self.groups.iter().filter(|c| c.tiles > 0).count(),
        });
        let shared = Shared {
            plan: self,
            sinks,
            progress,
            cancel,
            budget: Budget::new(self.limit, self.usual),
            next: AtomicU64::new(0),
            stop_at: AtomicU64::new(self.tiles()),
            failure: Mutex::new(None),
            groups: self
                .groups
                .iter()
                .map(|c| (AtomicU64::new(0), c.group.computes.iter().map(|_| Meter::default()).collect()))
                .collect(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        };
        thread::scope(|scope| {
            for i in 1..self.threads {
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
        let mut outputs: Vec<Vec<TensorRun>> =
            self.outputs.iter().map(|n| vec![TensorRun::default(); *n]).collect();
        for (cut, (_, meters)) in self.groups.iter().zip(&shared.groups) {
            for (compute, meter) in cut.group.computes.iter().zip(meters) {
                let copied = compute.op.is_none() && cut.group.base.only_moves();
                for sink in &compute.sinks {
                    outputs[sink.output][sink.tensor] = TensorRun { copied, error: meter.finish() };
                }
            }
        }
        Ok(Report {
            outputs,
            read: shared.read.into_inner(),
            written: shared.written.into_inner(),
            wall: start.elapsed(),
            peak_tile_bytes: shared.budget.peak(),
        })
    }
}

impl Shared<'_> {
    fn work(&self) {
        loop {
            let tile = self.next.fetch_add(1, Ordering::Relaxed);
            // Tiles before a failed one still run: they were handed out before it, and one of them may fail
            // as well, so the failure that is reported does not depend on timing.
            if tile >= self.stop_at.load(Ordering::Acquire) {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| self.tile(tile)))
                .unwrap_or_else(|panic| Err(self.panicked(tile, panic.as_ref())));
            if let Err(error) = result {
                self.fail(tile, error);
            }
        }
    }

    fn fail(&self, tile: u64, error: Error) {
        self.stop_at.fetch_min(tile, Ordering::AcqRel);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.as_ref().is_none_or(|(t, _)| tile < *t) {
            *failure = Some((tile, error));
        }
    }

    fn panicked(&self, tile: u64, panic: &(dyn Any + Send)) -> Error {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Error::unsupported(format!("the computation panicked: {text}"))
            .tensor(&self.plan.cut(tile).1.group.label)
            .hint("this is a bug in tensormill: please report it")
    }

    fn tile(&self, tile: u64) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "stopped on request"));
        }
        let (index, cut) = self.plan.cut(tile);
        let number = tile - cut.first;
        let mut lease = self.budget.borrow(&cut.demand);
        // The wait may have been long.
        if tile >= self.stop_at.load(Ordering::Acquire) {
            return Ok(());
        }
        let name = cut.group.label.as_str();
        if number == 0 {
            self.progress.event(Event::TensorStarted { name });
        }
        let (read, written) = self.execute(index, cut, number, lease.parts())?;
        drop(lease);
        self.read.fetch_add(read, Ordering::Relaxed);
        self.written.fetch_add(written, Ordering::Relaxed);
        self.progress.event(Event::Advanced { read, written });
        if self.groups[index].0.fetch_add(1, Ordering::AcqRel) + 1 == cut.tiles {
            self.progress.event(Event::TensorFinished { name });
        }
        Ok(())
    }

    /// Evaluates the base rows once, then every distinct op on them; gives bytes read and written.
    fn execute(
        &self,
        index: usize,
        cut: &Cut,
        number: u64,
        (arena, floats): (&mut [u8], &mut [f32]),
    ) -> Result<(u64, u64)> {
        let group = &cut.group;
        let base = &group.base;
        let start = number * cut.tile_rows;
        let rows = start..base.rows.min(start + cut.tile_rows);
        let n = rows.end - rows.start;
        let (value, rest) = arena.split_at_mut((n * base.row_bytes) as usize);
        let mut eval = Eval { sources: self.plan.sources, read: 0 };
        eval.rows(base, rows.clone(), value, rest).map_err(|e| e.tensor(&group.label))?;
        let forms = std::slice::from_ref(&base.form);
        for (compute, meter) in group.computes.iter().zip(&self.groups[index].1) {
            let Some(op) = &compute.op else {
                self.write(compute, start, value)?;
                continue;
            };
            let fail = |e: Error| e.tensor(&compute.sinks[0].name);
            let out = &mut rest[..(n * compute.row_bytes) as usize];
            op.run(rows.clone(), forms, &[value], out).map_err(fail)?;
            self.write(compute, start, out)?;
            if compute.measured {
                let units = measure::tile(&base.form, value, compute, out, floats).map_err(fail)?;
                meter.add(number, units);
            }
        }
        Ok((eval.read, group.writes(n)))
    }

    fn write(&self, compute: &Compute, row: u64, bytes: &[u8]) -> Result<()> {
        for sink in &compute.sinks {
            let offset = sink.place.offset + row * compute.row_bytes;
            self.sinks[sink.output]
                .write_at(sink.place.file, offset, bytes)
                .map_err(|e| e.tensor(&sink.name))?;
        }
        Ok(())
    }
}

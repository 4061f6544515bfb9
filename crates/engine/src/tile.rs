//! The work on one tile: read, compute, measure, write; or check what stands already.
//!
//! Must not know how tiles are handed out, nor what becomes of failures.

use crate::{
    ComputeRecord, Plan, Sink, TileRecord,
    cores::Cores,
    eval::Eval,
    group::Compute,
    measure,
    place::{OWN_SLACK, skip},
    plan::Cut,
};
use std::{
    ops::{AddAssign, Range},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tensormill_model::{Accelerator, Error, Result, Task};
use xxhash_rust::xxh3::Xxh3;

/// Where the time of a tile, or of a run, went; summed over workers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Times {
    /// Reading sources, with the expressions below the outermost op.
    pub read: Duration,
    /// The outermost ops; on an accelerator, with the wait for it.
    pub compute: Duration,
    /// Hashing and measuring what they gave.
    pub measure: Duration,
    /// Writing, with what sinks do on the way.
    pub write: Duration,
    /// Waiting for a permit to compute.
    pub wait: Duration,
}

impl AddAssign for Times {
    fn add_assign(&mut self, o: Self) {
        self.read += o.read;
        self.compute += o.compute;
        self.measure += o.measure;
        self.write += o.write;
        self.wait += o.wait;
    }
}

/// What a tile needs from its run.
pub(crate) struct Worker<'a> {
    pub plan: &'a Plan<'a>,
    pub sinks: &'a [&'a dyn Sink],
    pub cores: &'a Cores,
    pub cancel: &'a AtomicBool,
    /// Whether bytes are hashed for the ledger.
    pub hash: bool,
    /// Who is asked first to compute.
    pub accelerator: Option<&'a dyn Accelerator>,
}

/// What a tile did.
#[derive(Default)]
pub(crate) struct Done {
    pub record: TileRecord,
    pub read: u64,
    pub written: u64,
    pub times: Times,
}

/// Where a result goes, or stands already.
struct Slot<'b> {
    buffer: &'b mut [u8],
    /// Its first byte.
    at: usize,
    /// Whether an accelerator has computed it.
    done: bool,
}

/// Hash and statistics of one op's results, step by step.
#[derive(Default)]
struct Meter {
    hash: Xxh3,
    error: Option<tensormill_tensor::ErrorStats>,
}

impl Worker<'_> {
    /// Evaluates the base rows of a tile once, then every distinct op on them, and writes the results.
    pub(crate) fn write(&self, cut: &Cut, number: u64, buffers: (&mut [u8], &mut [f32])) -> Result<Done> {
        let (arena, floats) = buffers;
        let mut done = Done::default();
        let mut meters: Vec<Meter> = cut.group.computes.iter().map(|_| Meter::default()).collect();
        for rows in steps(cut, number) {
            self.check_cancel()?;
            let (value, rest) = self.base(cut, &rows, arena, &mut done)?;
            let (own, rest) = self.offer(cut, &rows, value, rest, &mut done.times)?;
            for ((compute, meter), own) in cut.group.computes.iter().zip(&mut meters).zip(own) {
                let slot = own.unwrap_or_else(|| slot(cut, compute, &rows, rest));
                self.compute(cut, compute, &rows, value, slot, floats, meter, &mut done.times)?;
            }
            done.written += cut.group.writes(rows.end - rows.start);
        }
        done.record = finish(meters);
        Ok(done)
    }

    /// Whether what the sinks hold is what the record says: every byte, by its hash.
    pub(crate) fn matches(
        &self,
        cut: &Cut,
        number: u64,
        record: &TileRecord,
        arena: &mut [u8],
    ) -> Result<bool> {
        if record.computes.len() != cut.group.computes.len() {
            return Ok(false);
        }
        for (compute, want) in cut.group.computes.iter().zip(&record.computes) {
            for sink in &compute.sinks {
                let mut hash = Xxh3::new();
                let rows = rows_of(cut, number);
                let end = sink.place.offset + rows.end * compute.row_bytes;
                let mut at = sink.place.offset + rows.start * compute.row_bytes;
                while at < end {
                    let skip = if cut.demand.roomy { skip(arena, at) } else { 0 };
                    let room = arena.len() - skip;
                    let out = &mut arena[skip..][..room.min((end - at) as usize)];
                    self.sinks[sink.output]
                        .read_at(sink.place.file, at, out)
                        .map_err(|e| e.tensor(&sink.name))?;
                    hash.update(out);
                    at += out.len() as u64;
                }
                if hash.digest() != want.hash {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Evaluates the base rows again and compares what the sinks hold: bytes by their hash, values by their error.
    pub(crate) fn verify(
        &self,
        cut: &Cut,
        number: u64,
        record: &TileRecord,
        buffers: (&mut [u8], &mut [f32]),
    ) -> Result<Done> {
        let (arena, floats) = buffers;
        let failed = |name: &str, what: &str| {
            Err(Error::failed(format!("what was written does not hold {what}"))
                .tensor(name)
                .hint("the disk or its file system lost bytes: write to another one"))
        };
        let mut done = Done::default();
        let mut errors = vec![None; cut.group.computes.len()];
        if !self.matches(cut, number, record, arena)? {
            return failed(&cut.group.label, "the bytes that were computed");
        }
        for rows in steps(cut, number) {
            self.check_cancel()?;
            let n = rows.end - rows.start;
            let (value, rest) = self.base(cut, &rows, arena, &mut done)?;
            for (compute, error) in cut.group.computes.iter().zip(&mut errors) {
                let Some(sink) = compute.sinks.first().filter(|_| compute.measured) else { continue };
                let start = Instant::now();
                let out = &mut rest[..(n * compute.row_bytes) as usize];
                let at = sink.place.offset + rows.start * compute.row_bytes;
                self.sinks[sink.output]
                    .read_at(sink.place.file, at, out)
                    .map_err(|e| e.tensor(&sink.name))?;
                done.times.write += start.elapsed();
                let (stats, waited, took) =
                    self.cores.run(|| measure::tile(&cut.group.base.form, value, compute, out, floats));
                done.times.wait += waited;
                done.times.measure += took;
                merge(error, stats.map_err(|e| e.tensor(&sink.name))?);
            }
            done.written += cut.group.writes(n);
        }
        for ((compute, got), want) in cut.group.computes.iter().zip(errors).zip(&record.computes) {
            if got != want.error {
                return failed(&compute.sinks[0].name, "values as close to the source as they were measured");
            }
        }
        done.record = record.clone();
        Ok(done)
    }

    fn check_cancel(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// The base value of some rows, and the rest of the arena.
    fn base<'b>(
        &self,
        cut: &Cut,
        rows: &Range<u64>,
        arena: &'b mut [u8],
        done: &mut Done,
    ) -> Result<(&'b [u8], &'b mut [u8])> {
        let base = &cut.group.base;
        let offset = match cut.group.placed() {
            Some(place) => Some(place.offset + rows.start * base.row_bytes),
            None => base.offset(self.plan.sources, rows.start),
        };
        let offset = offset.filter(|_| cut.demand.roomy);
        let skip = offset.map_or(0, |o| skip(arena, o));
        let (value, rest) = arena[skip..].split_at_mut(((rows.end - rows.start) * base.row_bytes) as usize);
        let cores = (!base.only_moves()).then_some(self.cores);
        let mut eval = Eval { sources: self.plan.sources, cores, read: 0 };
        let mut run = || eval.rows(base, rows.clone(), value, rest);
        let result = if base.only_moves() {
            let start = Instant::now();
            let result = run();
            done.times.read += start.elapsed();
            result
        } else {
            let (result, waited, took) = self.cores.run(run);
            done.times.wait += waited;
            done.times.read += took;
            result
        };
        result.map_err(|e| e.tensor(&cut.group.label))?;
        done.read += eval.read;
        Ok((value, rest))
    }

    /// Lets the accelerator do what it can, all at once and without a permit: meanwhile others compute. Gives the
    /// results' places, for those that have one of their own, and the rest of the buffer.
    #[allow(clippy::type_complexity, reason = "a slot per op, and the rest")]
    fn offer<'b>(
        &self,
        cut: &Cut,
        rows: &Range<u64>,
        value: &[u8],
        mut rest: &'b mut [u8],
        times: &mut Times,
    ) -> Result<(Vec<Option<Slot<'b>>>, &'b mut [u8])> {
        let len = |compute: &Compute| ((rows.end - rows.start) * compute.row_bytes) as usize;
        let slack = if cut.demand.roomy { OWN_SLACK as usize } else { 0 };
        let mut slots = Vec::with_capacity(cut.group.computes.len());
        for compute in &cut.group.computes {
            slots.push(compute.offload.then(|| {
                let (own, more) = std::mem::take(&mut rest).split_at_mut(len(compute) + slack);
                rest = more;
                slot(cut, compute, rows, own)
            }));
        }
        if let Some(accelerator) = self.accelerator {
            let start = Instant::now();
            let each = cut.group.computes.iter().zip(&mut slots);
            let (mut tasks, mut flags): (Vec<Task<'_>>, Vec<&mut bool>) = each
                .filter_map(|(c, slot)| {
                    let (op, Slot { buffer, at, done }) = (c.op.as_ref()?, slot.as_mut()?);
                    Some((Task { op: &**op, out: &mut buffer[*at..][..len(c)], done: false }, done))
                })
                .unzip();
            if !tasks.is_empty() {
                accelerator
                    .run(rows.clone(), &cut.group.base.form, value, &mut tasks)
                    .map_err(|e| e.tensor(&cut.group.label))?;
            }
            for (task, flag) in tasks.iter().zip(&mut flags) {
                **flag = task.done;
            }
            times.compute += start.elapsed();
        }
        Ok((slots, rest))
    }

    #[allow(clippy::too_many_arguments, reason = "parts of one tile's state, borrowed apart")]
    fn compute(
        &self,
        cut: &Cut,
        compute: &Compute,
        rows: &Range<u64>,
        value: &[u8],
        slot: Slot<'_>,
        floats: &mut [f32],
        meter: &mut Meter,
        times: &mut Times,
    ) -> Result<()> {
        let fail = |e: Error| e.tensor(&compute.sinks[0].name);
        let base = &cut.group.base;
        let len = ((rows.end - rows.start) * compute.row_bytes) as usize;
        let offset = |sink: usize| compute.sinks[sink].place.offset + rows.start * compute.row_bytes;
        let Slot { buffer: rest, mut at, done } = slot;
        let copied = cut.demand.roomy && cut.group.placed().is_none();
        if let Some(op) = compute.op.as_ref().filter(|_| !done || self.hash || compute.measured) {
            let forms = std::slice::from_ref(&base.form);
            let out = &mut rest[at..][..len];
            let (took, waited, _) = self.cores.run(|| -> Result<_> {
                let start = Instant::now();
                if !done {
                    op.run(rows.clone(), forms, &[value], out)?;
                }
                let computed = Instant::now();
                if self.hash {
                    meter.hash.update(out);
                }
                if compute.measured {
                    merge(&mut meter.error, measure::tile(&base.form, value, compute, out, floats)?);
                }
                Ok((computed - start, computed.elapsed()))
            });
            let (computed, measured) = took.map_err(fail)?;
            times.wait += waited;
            times.compute += computed;
            times.measure += measured;
        } else if compute.op.is_none() {
            if self.hash {
                let ((), waited, took) = self.cores.run(|| meter.hash.update(value));
                times.wait += waited;
                times.measure += took;
            }
            if copied {
                let start = Instant::now();
                rest[at..][..len].copy_from_slice(value);
                times.compute += start.elapsed();
            }
        }
        let start = Instant::now();
        for (i, sink) in compute.sinks.iter().enumerate() {
            let bytes = if compute.op.is_some() || copied {
                if cut.demand.roomy {
                    // Another file wants the bytes at another distance from its pages: move them by less than one.
                    let to = skip(rest, offset(i));
                    rest.copy_within(at..at + len, to);
                    at = to;
                }
                &rest[at..][..len]
            } else {
                value
            };
            self.sinks[sink.output]
                .write_at(sink.place.file, offset(i), bytes)
                .map_err(|e| e.tensor(&sink.name))?;
        }
        times.write += start.elapsed();
        Ok(())
    }
}

/// The place of a result at the front of a buffer.
fn slot<'b>(cut: &Cut, compute: &Compute, rows: &Range<u64>, buffer: &'b mut [u8]) -> Slot<'b> {
    let offset = compute.sinks[0].place.offset + rows.start * compute.row_bytes;
    let at = if cut.demand.roomy { skip(buffer, offset) } else { 0 };
    Slot { buffer, at, done: false }
}

/// Rows of a tile of a group.
fn rows_of(cut: &Cut, number: u64) -> Range<u64> {
    let start = number * cut.tile_rows;
    start..cut.group.base.rows.min(start + cut.tile_rows)
}

/// The tile's rows in portions that the budget allows.
fn steps(cut: &Cut, number: u64) -> impl Iterator<Item = Range<u64>> {
    let rows = rows_of(cut, number);
    let (end, step) = (rows.end, cut.step_rows);
    rows.step_by(step as usize).map(move |start| start..end.min(start + step))
}

fn merge(total: &mut Option<tensormill_tensor::ErrorStats>, more: Option<tensormill_tensor::ErrorStats>) {
    if let Some(more) = more {
        total.get_or_insert_default().merge(&more);
    }
}

fn finish(meters: Vec<Meter>) -> TileRecord {
    TileRecord {
        computes: meters
            .into_iter()
            .map(|m| ComputeRecord { hash: m.hash.digest(), error: m.error.filter(|e| e.count > 0) })
            .collect(),
    }
}

//! The work on one tile: read, compute, measure, write.
//!
//! Must not know how tiles are handed out, nor what becomes of failures.

use crate::{
    ComputeRecord, Plan, Sink, TileRecord,
    cores::Cores,
    eval::Eval,
    node::Node,
    place::skip,
    plan::Cut,
    results::{Step, To, windows},
};
use std::{
    ops::{AddAssign, Range},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tensormill_model::{Accelerator, Error, Result};
use tensormill_tensor::ErrorStats;
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

/// Hash and statistics of one op's results, step by step.
#[derive(Default)]
pub(crate) struct Meter {
    pub hash: Xxh3,
    pub error: Option<ErrorStats>,
}

impl Worker<'_> {
    /// Evaluates the base rows of a tile once, then every distinct op on them, and writes the results.
    pub(crate) fn write(&self, cut: &Cut, number: u64, buffers: (&mut [u8], &mut [f32])) -> Result<Done> {
        let (arena, floats) = buffers;
        let mut done = Done::default();
        let mut meters: Vec<Meter> = cut.group.computes.iter().map(|_| Meter::default()).collect();
        let (extras, arena) = self.extras(cut, arena, &mut done)?;
        for pass in 0..cut.passes {
            let (mut windows, arena) = windows(cut, pass, &mut *arena);
            for rows in steps(cut, number) {
                self.check_cancel()?;
                let (value, rest) = self.base(cut, &rows, arena, &mut done)?;
                let step = Step { cut, pass, rows: &rows, value, extras: &extras };
                let (own, rest) = self.offer(&step, rest, &mut done.times)?;
                let (windows, meters, times) = (&mut windows, &mut meters, &mut done.times);
                self.results(&step, own, rest, &mut To { windows, meters, floats, times })?;
            }
            self.finish(cut, windows, &extras, arena, &mut meters, &mut done.times)?;
        }
        done.written = cut.group.writes(&rows_of(cut, number));
        done.record = finish(meters);
        Ok(done)
    }

    pub(crate) fn check_cancel(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// What ops need as a whole beside the rows of a tile, and the rest of the arena.
    pub(crate) fn extras<'b>(
        &self,
        cut: &Cut,
        arena: &'b mut [u8],
        done: &mut Done,
    ) -> Result<(Vec<&'b [u8]>, &'b mut [u8])> {
        let mut rest = arena;
        let mut values = Vec::with_capacity(cut.group.extras.len());
        for extra in &cut.group.extras {
            let rows = 0..extra.node.rows;
            let (value, more) = rest.split_at_mut((rows.end * extra.node.row_bytes) as usize);
            self.evaluate(&extra.node, rows, value, more, done).map_err(|e| e.tensor(&cut.group.label))?;
            values.push(&*value);
            rest = more;
        }
        Ok((values, rest))
    }

    /// Rows of an expression, under a permit where something is computed.
    fn evaluate(
        &self,
        node: &Node,
        rows: Range<u64>,
        value: &mut [u8],
        scratch: &mut [u8],
        done: &mut Done,
    ) -> Result<()> {
        let cores = (!node.only_moves()).then_some(self.cores);
        let mut eval = Eval { sources: self.plan.sources, cores, read: 0 };
        let run = || eval.rows(node, rows, value, scratch);
        let (result, waited, took) = if let Some(cores) = cores {
            cores.run(run)
        } else {
            let start = Instant::now();
            (run(), Duration::ZERO, start.elapsed())
        };
        done.times.wait += waited;
        done.times.read += took;
        done.read += eval.read;
        result
    }

    /// The base value of some rows, and the rest of the arena.
    pub(crate) fn base<'b>(
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
        self.evaluate(base, rows.clone(), value, rest, done).map_err(|e| e.tensor(&cut.group.label))?;
        Ok((value, rest))
    }
}

/// Rows of a tile of a group.
pub(crate) fn rows_of(cut: &Cut, number: u64) -> Range<u64> {
    let start = number * cut.tile_rows;
    start..cut.group.base.rows.min(start + cut.tile_rows)
}

/// The tile's rows in portions that the budget allows.
pub(crate) fn steps(cut: &Cut, number: u64) -> impl Iterator<Item = Range<u64>> {
    let rows = rows_of(cut, number);
    let (end, step) = (rows.end, cut.step_rows);
    rows.step_by(step as usize).map(move |start| start..end.min(start + step))
}

pub(crate) fn merge(total: &mut Option<ErrorStats>, more: Option<ErrorStats>) {
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

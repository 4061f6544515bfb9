//! Decomposing all changes: several tensors at once, inside the budget; factors go to disk as soon as they are known.

use super::{
    Options,
    change::{self, Change, Context},
    pairs::Pair,
};
use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use std::{collections::HashMap, thread};
use tensormill_engine::Event;
use tensormill_lowrank::{self as lowrank, Failure, residual};
use tensormill_model::{Error, Result};
use tensormill_store::OutputSet;
use tensormill_tensor::{DType, decode_plain, encode_plain};

/// Of a change that was looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Squared norm of the change.
    pub(super) energy: f64,
    /// Squared norm of what the adapter leaves of it.
    pub(super) lost: f64,
    /// Columns of the factors; zero where there are none.
    pub(super) rank: usize,
    /// The singular values that were kept.
    pub(super) singular: Vec<f64>,
}

/// Work on one pair.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) pair: &'a Pair,
    /// Where its factors go in the file of factors: first `A`, behind it `B`.
    pub(super) at: u64,
    /// Of its factors.
    pub(super) dtype: DType,
}

/// What a job needs and costs.
struct Plan {
    job: usize,
    /// Multiplications, roughly.
    cost: f64,
    threads: usize,
    keep: bool,
    memory: u64,
}

/// How a tensor is decomposed.
fn numerics(options: &Options, threads: usize) -> lowrank::Options {
    lowrank::Options {
        iterations: options.iterations,
        seed: options.seed,
        threads,
        ..lowrank::Options::new(options.rank)
    }
}

/// Bytes that are gone through for a pair, with those that come from memory.
pub(super) fn bytes_of(pair: &Pair, context: Context<'_>, options: &Options) -> u64 {
    let Some(base) = pair.base else { return 0 };
    let Ok(change) = Change::new(context, &pair.name, base, pair.tuned, false) else { return 0 };
    let passes = if pair.how.is_low_rank() {
        use lowrank::Matrix;
        numerics(options, 1).passes(change.rows(), change.columns()) as u64 + 1
    } else {
        1
    };
    change.bytes().saturating_mul(passes)
}

/// Says how each job is run: a tensor that is more than a thread's share of the work gets all threads, the others one.
fn plan(jobs: &[Job<'_>], context: Context<'_>, options: &Options, budget: u64) -> Result<Vec<Plan>> {
    use lowrank::Matrix;
    let mut plans = Vec::with_capacity(jobs.len());
    for (job, Job { pair, dtype, .. }) in jobs.iter().enumerate() {
        let Some(base) = pair.base else { continue };
        let change = Change::new(context, &pair.name, base, pair.tuned, false)?;
        let (rows, columns) = (change.rows(), change.columns());
        let elements = rows as u64 * columns as u64;
        let low = pair.how.is_low_rank();
        let need = |threads: usize| {
            if !low {
                return change.buffer_bytes((1 << 18) / columns.max(1) + 1) * 2;
            }
            let numerics = numerics(options, threads);
            // Factors are decoded again, and turned into bytes.
            let factors = (options.rank.min(rows).min(columns) * (rows + columns)) as u64;
            lowrank::memory(rows, columns, &numerics)
                + factors * (4 + dtype.bits() / 8)
                + threads as u64 * change.buffer_bytes(lowrank::tile_rows(rows, columns))
        };
        let cost = elements as f64 * if low { (options.rank * 10) as f64 } else { 1.0 };
        plans.push((job, cost, elements, need(1), need(options.threads)));
    }
    let total: f64 = plans.iter().map(|p| p.1).sum();
    let share = budget / options.threads as u64;
    let plan = |(job, cost, elements, one, all): (usize, f64, u64, u64, u64)| {
        let alone = cost * options.threads as f64 > total || one > share;
        let (threads, memory) = if alone && all <= budget { (options.threads, all) } else { (1, one) };
        let low = jobs[job].pair.how.is_low_rank();
        let (bound, whole) = (if alone { budget } else { share }, elements.saturating_mul(4));
        let keep = low && memory.saturating_add(whole) <= bound;
        if memory > budget {
            let more = (memory - budget).div_ceil(1 << 20) + 1;
            return Err(Error::over_limit(format!(
                "its factors need {} MiB at one time, of {} MiB that --memory leaves",
                memory >> 20,
                budget >> 20
            ))
            .tensor(&jobs[job].pair.name)
            .hint(format!("give {more} MiB more with --memory, or a smaller --rank")));
        }
        Ok(Plan { job, cost, threads, keep, memory: memory + if keep { whole } else { 0 } })
    };
    let mut plans = plans.into_iter().map(plan).collect::<Result<Vec<_>>>()?;
    // The largest first, so that no thread is left with one at the end; those with all threads before the others.
    plans.sort_by(|a, b| b.threads.cmp(&a.threads).then(b.cost.total_cmp(&a.cost)).then(a.job.cmp(&b.job)));
    Ok(plans)
}

/// Bytes that jobs may still take.
struct Room {
    free: Mutex<u64>,
    freed: Condvar,
}

impl Room {
    fn take(&self, bytes: u64) {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |f| *f < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
    }
    fn give(&self, bytes: u64) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
        self.freed.notify_all();
    }
}

/// Does all jobs; what comes back is in their order. The error of the first job that failed is the one that is told.
pub(super) fn run(
    jobs: &[Job<'_>],
    context: Context<'_>,
    options: &Options,
    budget: u64,
    spool: &OutputSet,
) -> Result<Vec<Outcome>> {
    let plans = plan(jobs, context, options, budget)?;
    let (alone, shared): (Vec<Plan>, Vec<Plan>) = plans.into_iter().partition(|p| p.threads > 1);
    let done = Mutex::new(HashMap::new());
    let work = |plan: &Plan| {
        let job = &jobs[plan.job];
        context.progress.event(Event::TensorStarted { name: &job.pair.name });
        let result = decompose(job, plan, context, options, spool);
        context.progress.event(Event::TensorFinished { name: &job.pair.name });
        let ok = result.is_ok();
        done.lock().unwrap_or_else(PoisonError::into_inner).insert(plan.job, result);
        ok
    };
    if alone.iter().all(work) {
        let room = Room { free: Mutex::new(budget), freed: Condvar::new() };
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let worker = || {
            while failed.load(Ordering::Relaxed) == 0 {
                let Some(plan) = shared.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                room.take(plan.memory);
                failed.fetch_add(usize::from(!work(plan)), Ordering::Relaxed);
                room.give(plan.memory);
            }
        };
        thread::scope(|s| {
            for _ in 1..options.threads.min(shared.len()) {
                // Where the system gives no more threads, this one does the work.
                if thread::Builder::new().spawn_scoped(s, worker).is_err() {
                    break;
                }
            }
            worker();
        });
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failures: Vec<usize> = done.iter().filter(|(_, r)| r.is_err()).map(|(i, _)| *i).collect();
    failures.sort_unstable();
    if let Some(Err(e)) = failures.first().and_then(|i| done.remove(i)) {
        return Err(e);
    }
    Ok((0..jobs.len()).map(|i| done.remove(&i).and_then(Result::ok).unwrap_or_default()).collect())
}

fn decompose(
    job: &Job<'_>,
    plan: &Plan,
    context: Context<'_>,
    options: &Options,
    spool: &OutputSet,
) -> Result<Outcome> {
    let pair = job.pair;
    let Some(base) = pair.base else { return Ok(Outcome::default()) };
    let change = Change::new(context, &pair.name, base, pair.tuned, plan.keep)?;
    if !pair.how.is_low_rank() {
        return Ok(Outcome { energy: change::norm(&change)?, ..Outcome::default() });
    }
    let mut svd = lowrank::decompose(&change, &numerics(options, plan.threads)).map_err(|f| match f {
        Failure::Source(e) => e.tensor(&pair.name),
        f => Error::malformed(f.to_string()).tensor(&pair.name),
    })?;
    if let Some(share) = options.energy {
        svd.truncate(svd.rank_of_share(share).max(1));
    }
    // Beyond these nothing is left but rounding errors.
    let least = svd.s.first().map_or(0.0, |s| s * f64::from(f32::EPSILON));
    svd.truncate(svd.s.iter().filter(|s| **s > least).count());
    let (energy, rank, singular) = (svd.energy, svd.rank(), svd.s.clone());
    if rank == 0 {
        return Ok(Outcome { energy, ..Outcome::default() });
    }
    let (left, right) = svd.into_factors();
    let rows = left.len() / rank;
    let (left, of_left) = rounded(left, rows, job)?;
    let (right, of_right) = rounded(right, rank, job)?;
    let lost = residual(&change, &left, &right, rank, plan.threads).map_err(|e| e.tensor(&pair.name))?;
    let (a, b) = if pair.how.is_transposed() { (of_left, of_right) } else { (of_right, of_left) };
    spool.write_all_at(0, job.at, &a)?;
    spool.write_all_at(0, job.at + a.len() as u64, &b)?;
    Ok(Outcome { energy, lost, rank, singular })
}

/// A factor of so many rows as it is stored: its values after rounding, in their order, and its bytes, row by row or
/// column by column.
fn rounded(mut x: Vec<f32>, rows: usize, job: &Job<'_>) -> Result<(Vec<f32>, Vec<u8>)> {
    let bytes = encode(&x, job.dtype);
    let decoded = decode_plain(job.dtype, &bytes, &mut x);
    debug_assert!(decoded, "what is encoded can be decoded");
    if x.iter().any(|x| !x.is_finite()) {
        return Err(Error::unsupported(format!("its factors are beyond what {} holds", job.dtype))
            .tensor(&job.pair.name)
            .hint("choose --dtype f32"));
    }
    if !job.pair.how.is_transposed() {
        return Ok((x, bytes));
    }
    drop(bytes);
    let columns = x.len() / rows;
    let turned: Vec<f32> = (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect();
    Ok((x, encode(&turned, job.dtype)))
}

fn encode(x: &[f32], dtype: DType) -> Vec<u8> {
    let mut bytes = vec![0; x.len() * dtype.bits() as usize / 8];
    let encoded = encode_plain(dtype, x, &mut bytes);
    debug_assert!(encoded, "only types that can be written are chosen");
    bytes
}

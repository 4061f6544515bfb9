//! Finds the value of a reduction, once, with the help of every worker that asks for it meanwhile.
//!
//! Workers take blocks of rows until a pass has none left, then wait for those that others hold. So the rows of one
//! large tensor keep all cores busy, although its tiles cannot begin before the numbers are there. What is found depends
//! on no worker: counts add up in any order, and sums are added in the order of blocks. Must not know tiles or budgets.

use crate::{cores::Cores, node::Node};
use std::{
    mem::take,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};
use tensormill_model::{Form, Reduction, Result, Rows, Tally};

/// Bytes of the widest input in a block: large enough to be read well, small enough for a few of them in memory.
const BLOCK_BYTES: u64 = 256 << 10;

/// A value that is found at first use.
pub(crate) struct Reduced {
    /// Rows of every block but the last.
    pub block_rows: u64,
    rows: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    value: Option<Arc<[u8]>>,
    /// Passes that are complete.
    earlier: Arc<Vec<Tally>>,
    /// Of the pass at hand, without sums.
    tally: Tally,
    /// Sums of every block of it.
    sums: Vec<(u64, Vec<f64>)>,
    /// The next block to take, and those that were given back.
    next: u64,
    returned: Vec<u64>,
    /// Blocks of the pass that are done.
    done: u64,
    /// Whether somebody has asked already whether passes are needed at all.
    begun: bool,
}

impl State {
    fn take_block(&mut self, blocks: u64) -> Option<u64> {
        self.returned.pop().or_else(|| {
            let block = self.next;
            (block < blocks).then(|| {
                self.next += 1;
                block
            })
        })
    }

    /// Adds what a worker has found in its blocks.
    fn merge(&mut self, tally: &Tally, sums: &mut Vec<(u64, Vec<f64>)>) {
        let (all, counts) = (&mut self.tally, &tally.counts);
        if all.counts.len() < counts.len() {
            all.counts.resize(counts.len(), 0);
        }
        for (total, n) in all.counts.iter_mut().zip(counts) {
            *total += n;
        }
        all.join_maxima(&tally.maxima);
        self.done += sums.len() as u64;
        self.sums.append(sums);
    }

    /// Closes the pass.
    fn close(&mut self) {
        self.sums.sort_unstable_by_key(|(block, _)| *block);
        let mut total: Vec<f64> = Vec::new();
        for (_, sums) in self.sums.drain(..) {
            if total.len() < sums.len() {
                total.resize(sums.len(), 0.0);
            }
            for (t, s) in total.iter_mut().zip(sums) {
                *t += s;
            }
        }
        let tally = Tally { sums: total, ..take(&mut self.tally) };
        Arc::make_mut(&mut self.earlier).push(tally);
        (self.next, self.done) = (0, 0);
    }
}

impl Reduced {
    /// For inputs with as many rows each; `None` when they have not.
    pub(crate) fn new(inputs: &[Node]) -> Option<Self> {
        let rows = inputs.first()?.rows;
        if inputs.iter().any(|i| i.rows != rows) {
            return None;
        }
        let widest = inputs.iter().map(|i| i.row_bytes).max().unwrap_or(0).max(1);
        let block_rows = (BLOCK_BYTES / widest).clamp(1, rows.max(1));
        Some(Self { block_rows, rows, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, `bytes` long. `add` evaluates the rows of a block and adds them to a tally. Who waits lends the permit
    /// that it holds of `cores`: those that it waits for may have lent theirs, and need one to go on.
    ///
    /// # Errors
    /// As `add`; the block is then somebody else's, who meets the same error, so that every tile reports it.
    pub(crate) fn value(
        &self,
        reduction: &dyn Reduction,
        forms: &[Form],
        bytes: usize,
        cores: Option<&Cores>,
        mut add: impl FnMut(&[Tally], Rows, &mut Tally) -> Result<()>,
    ) -> Result<Arc<[u8]>> {
        let blocks = self.rows.div_ceil(self.block_rows);
        let mut state = self.lock();
        loop {
            if let Some(value) = &state.value {
                return Ok(Arc::clone(value));
            }
            if !state.begun || state.done == blocks {
                if state.begun {
                    state.close();
                }
                state.begun = true;
                let mut value = vec![0; bytes];
                let complete = reduction.value(&state.earlier, forms, &mut value);
                debug_assert!(
                    complete || state.earlier.len() < reduction.passes(),
                    "as many passes as announced"
                );
                if complete {
                    state.value = Some(value.into());
                    state.earlier = Arc::default();
                }
                self.changed.notify_all();
                continue;
            }
            let Some(mut block) = state.take_block(blocks) else {
                let wait = || drop(self.changed.wait(state));
                match cores {
                    Some(cores) => cores.lend(wait),
                    None => wait(),
                }
                state = self.lock();
                continue;
            };
            let earlier = Arc::clone(&state.earlier);
            drop(state);
            // An error may leave half a block in the tally: then all that this worker has counted is counted again.
            let mut held = Held { of: self, blocks: Vec::new() };
            let (mut tally, mut sums) = (Tally::default(), Vec::new());
            state = loop {
                held.blocks.push(block);
                let start = block * self.block_rows;
                add(&earlier, start..self.rows.min(start + self.block_rows), &mut tally)?;
                sums.push((block, take(&mut tally.sums)));
                let mut state = self.lock();
                match state.take_block(blocks) {
                    Some(another) => block = another,
                    None => break state,
                }
            };
            held.blocks.clear();
            state.merge(&tally, &mut sums);
            self.changed.notify_all();
        }
    }
}

/// Blocks that a worker has taken and not accounted for: whatever ends it, others can take them.
struct Held<'a> {
    of: &'a Reduced,
    blocks: Vec<u64>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.blocks.is_empty() {
            self.of.lock().returned.append(&mut self.blocks);
            self.of.changed.notify_all();
        }
    }
}

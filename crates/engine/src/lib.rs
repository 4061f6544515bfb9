//! Executes a plan tile by tile inside a memory budget.
//!
//! A *group* is one base expression with everything that is computed from it: the input of the outermost
//! row-local op of a tensor, keyed by its text, with all tensors of all outputs that share it. A *tile* is a
//! range of a group's rows. Each tile is evaluated once, each distinct op runs on it once, and every result is
//! written at its precomputed position, so N variants cost one read of the source.
//!
//! Invariants:
//! - Every tile is a pure function of the source: bytes and statistics do not depend on the number of threads,
//!   the budget or the order in which tiles finish.
//! - Tile buffers never take more than [`PlanOptions::memory`]; a tile that cannot fit is an error of [`plan`],
//!   naming the tensor. Buffers are kept between tiles, so memory does not creep.
//! - Groups run in the order of their first byte in the sources, tiles of a group in row order: reads are
//!   sequential but for the width of the thread pool.
//! - The failure with the smallest tile number is the one reported: every tile before it has been run.
//!
//! The engine writes tensors only; headers are in the [`Layout`] and belong to whoever creates the files. It
//! must *not* know formats, architectures, block types or terminals.
//!
//! Where later parts attach. A *journal* of finished tiles (resume) and `--shard i/n` are both a filter on tile
//! numbers in the worker loop of `run`: tile numbers are fixed by the plan, so a journal has to record the
//! plan's tile heights next to them. *Reductions* (a per-tensor scale) are an earlier phase over the same group: the
//! place is between planning and the worker loop, with the results handed to the op that needs them.
//! *File hashes* belong behind [`Sink`], which sees every byte with its position.

mod budget;
mod eval;
mod group;
mod measure;
mod memory;
mod node;
mod plan;
mod run;

pub use memory::{peak_rss, resident};
pub use plan::{Plan, PlanOptions, plan};
pub use run::{Report, TensorRun};

use tensormill_model::{Checked, Layout, Result};

/// One variant to write: a checked model and where its tensors go.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// What to write.
    pub model: &'a Checked,
    /// Where to write it.
    pub layout: &'a Layout,
}

/// Takes the bytes of one [`Output`].
pub trait Sink: Sync {
    /// Writes `bytes` at byte `offset` of file number `file` of the layout. Called from many threads, never
    /// twice for the same byte.
    ///
    /// # Errors
    /// I/O errors, naming the file.
    fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// What happens during a run. All sizes are bytes of tensor data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Once, before the first read.
    Started {
        /// What will be read from the sources.
        source_bytes: u64,
        /// What will be written to all outputs.
        output_bytes: u64,
        /// How many times [`Event::TensorStarted`] will come.
        tensors: usize,
    },
    /// The first tile of a group begins.
    TensorStarted {
        /// Name of the first tensor that the group feeds.
        name: &'a str,
    },
    /// A tile is done.
    Advanced {
        /// Bytes read for it.
        read: u64,
        /// Bytes written for it.
        written: u64,
    },
    /// The last tile of a group is done.
    TensorFinished {
        /// Name of the first tensor that the group feeds.
        name: &'a str,
    },
}

/// Watches a run. Called from worker threads, a few times per tile.
pub trait Progress: Sync {
    /// Takes one event.
    fn event(&self, event: Event<'_>);
}

/// Nobody watches.
impl Progress for () {
    fn event(&self, _: Event<'_>) {}
}

//! Executes a plan tile by tile inside a memory budget.
//!
//! A *group* is one base expression with everything that is computed from it: the input of the outermost
//! row-local op of a tensor, keyed by its text, with all tensors of all outputs that share it. A *tile* is a
//! range of a group's rows. Each tile is evaluated once, each distinct op runs on it once, and every result is
//! written at its precomputed position, so N variants cost one read of the source.
//!
//! Tensors that are parts of one bundle ([`tensormill_model::Op::makes_bundle`]) belong to the group of what the bundle is
//! made of: `parts(bundle(base, wholes..))`, where parts are ops that take rows, one on top of the other, perhaps with one
//! transpose of a matrix among them and reshapes at the top. The bundle is made once a step.
//!
//! Invariants:
//! - Every tile is a pure function of the source: bytes and statistics do not depend on the number of threads,
//!   the budget or the order in which tiles finish.
//! - Tiles depend on sources and outputs alone; what of a tile is in memory at one time (a *step*) depends on the
//!   budget. So a [`Ledger`] of finished tiles holds for another run, with other threads and another budget, and a
//!   part of the tiles can be another machine's ([`Plan::part`]).
//! - Tile buffers never take more than [`PlanOptions::memory`]; a step that cannot fit is an error of [`plan`],
//!   naming the tensor. Buffers are kept between tiles, so memory does not creep.
//! - Groups run in the order of their first byte in the sources, or in an output's file order when asked
//!   ([`PlanOptions::follow`]); tiles of a group in row order. Tiles get their memory in that order, too: a tile
//!   may wait for what an earlier one writes.
//! - The failure with the smallest tile number is the one reported: every tile before it has been run.
//! - There are more workers than threads that compute ([`PlanOptions::threads`]): the others read ahead and write
//!   behind.
//!
//! The engine writes tensors only; headers are in the [`Layout`] and belong to whoever creates the files. It
//! must *not* know formats, architectures, block types or terminals.
//!
//! *Reductions* (numbers about whole tensors) are found when a tile first asks for them, by all workers that wait for
//! them together, and kept. *File hashes* belong behind [`Sink`], which sees every byte with its position.

mod budget;
mod buffer;
mod chain;
mod check;
mod cores;
mod demand;
mod eval;
mod group;
mod ledger;
mod measure;
mod memory;
mod node;
mod place;
mod plan;
mod reduce;
mod results;
mod run;
mod split;
mod tile;
mod transpose;

pub use ledger::{ComputeRecord, Ledger, TileRecord};
pub use memory::{peak_rss, resident};
pub use plan::{AHEAD, Plan, PlanOptions, TILE_BYTES, plan};
pub use run::{Mode, Report, Run, TensorRun};
pub use tile::Times;

use tensormill_model::{Checked, Layout, Result};

/// One variant to write: a checked model and where its tensors go.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// What to write.
    pub model: &'a Checked,
    /// Where to write it.
    pub layout: &'a Layout,
    /// Which files of the layout are to be written, where not all are.
    pub files: Option<&'a [bool]>,
}

impl<'a> Output<'a> {
    /// All files of a variant.
    pub fn new(model: &'a Checked, layout: &'a Layout) -> Self {
        Self { model, layout, files: None }
    }
}

/// Takes the bytes of one [`Output`].
pub trait Sink: Sync {
    /// Writes `bytes` at byte `offset` of file number `file` of the layout. Called from many threads, never
    /// twice for the same byte.
    ///
    /// # Errors
    /// I/O errors, naming the file.
    fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Reads back what this run or an earlier one wrote.
    ///
    /// # Errors
    /// I/O errors, naming the file.
    fn read_at(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<()>;

    /// Some tile has failed: bytes that a sink may be waiting for will not come. Called at least once before the run
    /// ends with an error.
    fn abort(&self) {}
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
        /// Where its time went.
        times: Times,
    },
    /// A tile was found done: an earlier run wrote the same bytes.
    Skipped {
        /// Bytes that need not be read again.
        read: u64,
        /// Bytes that stand already.
        written: u64,
    },
    /// Something that a user should know and that is no error.
    Note {
        /// A sentence or two.
        text: &'a str,
    },
    /// Work other than tiles begins: checksums, publication.
    Phase {
        /// What it is.
        name: &'a str,
        /// Bytes it will go through; zero when it cannot be measured.
        bytes: u64,
    },
    /// Some of a phase's bytes are done.
    PhaseAdvanced {
        /// How many.
        bytes: u64,
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

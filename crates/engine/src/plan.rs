//! Cuts groups into tiles that fit the memory budget. No byte of weight is read here.

use crate::{
    Output,
    budget::Demand,
    group::{Group, groups},
    node::lcm,
};
use std::sync::Arc;
use tensormill_model::{Error, Reader, Result};

/// Bytes of base value in a tile where memory allows: large enough for sequential disk reads, small enough
/// that threads share the work of one tensor evenly.
const TARGET: u64 = 4 << 20;

/// Choices of the one who runs.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Bytes for tiles. What is resident for other reasons (metadata, vocabularies) is already subtracted.
    pub memory: u64,
    /// Worker threads; zero counts as one.
    pub threads: usize,
    /// Whether to accumulate the error of every variant.
    pub measure: bool,
}

/// Groups and tiles, ready to run.
pub struct Plan<'a> {
    pub(crate) sources: &'a [Arc<dyn Reader>],
    pub(crate) groups: Vec<Cut>,
    /// Number of tensors of every output.
    pub(crate) outputs: Vec<usize>,
    pub(crate) limit: u64,
    pub(crate) threads: usize,
    /// Bytes at which ordinary buffers are made.
    pub(crate) usual: u64,
    memory: u64,
    tiles: u64,
    source_bytes: u64,
    output_bytes: u64,
}

/// A group with its tiles.
pub(crate) struct Cut {
    pub group: Group,
    /// Rows of every tile but the last.
    pub tile_rows: u64,
    /// Number of its first tile.
    pub first: u64,
    pub tiles: u64,
    pub demand: Demand,
}

impl Plan<'_> {
    /// Number of groups: tensors as the sources see them.
    pub fn tensors(&self) -> usize {
        self.groups.len()
    }
    /// Number of tiles.
    pub fn tiles(&self) -> u64 {
        self.tiles
    }
    /// Bytes of tile memory that a run holds at most.
    pub fn memory(&self) -> u64 {
        self.memory
    }
    /// Bytes that one pass over the sources reads.
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }
    /// Bytes of tensor data in all outputs.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }
    /// The group of a tile number below [`Self::tiles`].
    pub(crate) fn cut(&self, tile: u64) -> (usize, &Cut) {
        // Groups without tiles share their first number with the next one: the last of them is meant.
        let i = self.groups.partition_point(|c| c.first <= tile) - 1;
        (i, &self.groups[i])
    }
}

/// Plans the execution of all outputs.
///
/// # Errors
/// `OverLimit` when some tile cannot fit into the memory, naming the tensor that needs most and by how much to
/// raise it; `Mismatch` when models, layouts and sources do not belong together.
pub fn plan<'a>(
    sources: &'a [Arc<dyn Reader>],
    outputs: &[Output<'_>],
    options: &PlanOptions,
) -> Result<Plan<'a>> {
    let groups = groups(sources, outputs, options.measure)?;
    let threads = options.threads.max(1);
    let share = options.memory / threads as u64;
    let mut worst: Option<(u64, String)> = None;
    let mut cuts = Vec::with_capacity(groups.len());
    let (mut tiles, mut source_bytes, mut output_bytes) = (0u64, 0u64, 0u64);
    for group in groups {
        let rows = group.base.rows;
        source_bytes = source_bytes.saturating_add(group.base.reads(0..rows));
        output_bytes = output_bytes.saturating_add(group.writes(rows));
        match tile_rows(&group, share, options.memory) {
            Ok((tile_rows, demand)) => {
                let n = rows.div_ceil(tile_rows);
                cuts.push(Cut { group, tile_rows, first: tiles, tiles: n, demand });
                tiles += n;
            }
            Err(least) if worst.as_ref().is_none_or(|(w, _)| *w < least) => {
                worst = Some((least, group.label));
            }
            Err(_) => {}
        }
    }
    if let Some((least, name)) = worst {
        return Err(Error::over_limit(format!(
            "its smallest tile takes {least} bytes, and the memory budget leaves {} bytes for tiles",
            options.memory
        ))
        .tensor(name)
        .hint(format!(
            "raise the memory budget by at least {} bytes",
            least.saturating_sub(options.memory)
        )));
    }
    let fits = |c: &&Cut| c.demand.total() <= share;
    let usual = cuts.iter().filter(fits).map(|c| c.demand.bytes).max().unwrap_or(0);
    let threads = threads.min(usize::try_from(tiles).unwrap_or(usize::MAX)).max(1);
    let largest = cuts
        .iter()
        .map(|c| Demand { bytes: c.demand.bytes.max(usual), ..c.demand }.total())
        .max()
        .unwrap_or(0);
    Ok(Plan {
        sources,
        groups: cuts,
        outputs: outputs.iter().map(|o| o.layout.places.len()).collect(),
        limit: options.memory,
        threads,
        usual,
        memory: options.memory.min(largest.saturating_mul(threads as u64)),
        tiles,
        source_bytes,
        output_bytes,
    })
}

/// Rows per tile and what such a tile takes; as an error, the least memory that works.
///
/// In order of preference: tiles that read no byte twice and leave room for every thread; one such tile at a
/// time; smaller tiles for every thread; the smallest tile.
fn tile_rows(group: &Group, share: u64, memory: u64) -> std::result::Result<(u64, Demand), u64> {
    let rows = group.base.rows.max(1);
    let target = TARGET / group.base.row_bytes.max(1);
    let aligned = lcm(group.base.align(), group.unit).min(rows);
    for (step, most) in [(aligned, target.max(aligned)), (group.unit, target.min(aligned))] {
        let mut n = (most.min(rows) / step * step).max(step);
        loop {
            let demand = group.demand(n, step);
            if demand.total() <= share || (n == step && demand.total() <= memory) {
                return Ok((n, demand));
            }
            if n == step {
                break;
            }
            n = (n / 2 / step * step).max(step);
        }
    }
    Err(group.demand(group.unit, group.unit).total())
}

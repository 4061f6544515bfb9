//! Cuts groups into tiles that fit the memory budget. No byte of weight is read here.

use crate::{
    Output,
    budget::Demand,
    group::{Compute, Group, On, groups},
    node::lcm,
};
use std::{collections::HashMap, fmt::Write, ops::Range, sync::Arc};
use tensormill_model::{Error, Reader, Result};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of base value in a tile, by default: large enough for sequential disk reads, small enough that threads share
/// the work of one tensor evenly.
pub const TILE_BYTES: u64 = 4 << 20;

/// Most workers beyond the computing ones: what reads ahead and writes behind.
pub const AHEAD: usize = 4;

/// Memory per worker below which reading ahead is not worth taking memory from tiles.
const WORKER_BYTES: u64 = 4 * TILE_BYTES;

/// Choices of the one who runs.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Bytes for tiles. What is resident for other reasons (metadata, vocabularies) is already subtracted.
    pub memory: u64,
    /// Threads that compute at one time; zero counts as one.
    pub threads: usize,
    /// Whether to accumulate the error of every variant.
    pub measure: bool,
    /// Bytes of base value in a tile: [`TILE_BYTES`], unless a test wants many tiles of little data.
    pub tile_bytes: u64,
    /// Run the tiles in the order of this output's files, rather than in the order of the sources.
    pub follow: Option<usize>,
    /// Whether the run may have an accelerator ([`crate::Run::accelerator`]): results of all encoders of a step then have
    /// room at the same time, so that the rows go to it once.
    pub offload: bool,
}

impl PlanOptions {
    /// Measures, in the order of the sources.
    pub fn new(memory: u64, threads: usize) -> Self {
        Self { memory, threads, measure: true, tile_bytes: TILE_BYTES, follow: None, offload: false }
    }
}

/// Groups and tiles, ready to run.
pub struct Plan<'a> {
    pub(crate) sources: &'a [Arc<dyn Reader>],
    pub(crate) groups: Vec<Cut>,
    /// Number of tensors of every output.
    pub(crate) outputs: Vec<usize>,
    pub(crate) limit: u64,
    /// Threads that compute at one time.
    pub(crate) threads: usize,
    /// Threads in all.
    pub(crate) workers: usize,
    /// Bytes and floats with which ordinary buffers are made.
    pub(crate) usual: (u64, u64),
    memory: u64,
    tiles: u64,
    source_bytes: u64,
    output_bytes: u64,
}

/// A group with its tiles.
pub(crate) struct Cut {
    pub group: Group,
    /// Rows of every tile but the last: a matter of sources and outputs alone, so that tile numbers mean the same
    /// under any budget.
    pub tile_rows: u64,
    /// Rows that are in memory at one time: what the budget allows of a tile.
    pub step_rows: u64,
    /// How often all rows of a tile pass by: more than once where transposed matrices do not fit the budget.
    pub passes: u64,
    /// Number of its first tile.
    pub first: u64,
    pub tiles: u64,
    pub demand: Demand,
    /// Bytes that all of its tiles read.
    pub reads: u64,
}

impl Cut {
    /// Bytes of the base value.
    fn bytes(&self) -> u64 {
        self.group.base.rows * self.group.base.row_bytes
    }
    /// Bytes that some rows read, from one tile's boundary to another's, with what is read once for all.
    pub(crate) fn reads(&self, rows: Range<u64>) -> u64 {
        let base = &self.group.base;
        let tiles = || rows.clone().step_by(usize::try_from(self.tile_rows).unwrap_or(usize::MAX));
        let tile =
            |at: u64| base.reads_by(at..rows.end.min(at.saturating_add(self.tile_rows)), self.step_rows);
        let each = if base.adds_up() {
            base.reads(rows.clone())
        } else {
            tiles().map(tile).fold(0, u64::saturating_add)
        };
        let extras = self.group.extras.iter().map(|e| {
            let tile = e.node.reads(0..e.node.rows);
            tile.saturating_mul(tiles().count() as u64).saturating_add(e.node.once())
        });
        extras.fold(each.saturating_mul(self.passes).saturating_add(base.once()), u64::saturating_add)
    }
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
    /// Number of records in all [`crate::TileRecord`]s together.
    pub fn records(&self) -> u64 {
        self.groups.iter().map(|c| c.tiles.saturating_mul(c.group.computes.len() as u64)).sum()
    }
    /// Bytes of tile memory that a run holds at most.
    pub fn memory(&self) -> u64 {
        self.memory
    }
    /// Bytes that a run of all tiles reads from the sources, those that it reads several times as often as it does.
    pub fn source_bytes(&self) -> u64 {
        self.source_bytes
    }
    /// Bytes of tensor data in all outputs.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }
    /// Tells plans apart: equal for equal outputs of equal expressions over the sources, whatever memory and threads.
    /// What the sources hold is for the caller to add.
    pub fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        for c in &self.groups {
            let _ = write!(text, "{} {} {}", c.group.text, c.tile_rows, c.tiles);
            for compute in &c.group.computes {
                let Compute { text: op, form, measured, .. } = compute;
                let measured = *measured || Self::measures(c, compute);
                let _ = write!(text, "; {op} {} {measured}", form.encoding);
                for s in &compute.sinks {
                    let _ = write!(text, " {}:{}@{}+{}", s.output, s.name, s.place.file, s.place.offset);
                }
            }
            text.push('\n');
        }
        xxh3_64(text.as_bytes())
    }
    /// Whether a compute stands for a bundle whose error is measured.
    fn measures(cut: &Cut, compute: &Compute) -> bool {
        matches!(compute.on, On::Stem(i) if cut.group.stems[i].measured)
    }
    /// The tiles of part `index` (from zero) of `count`, balanced by bytes of source.
    pub fn part(&self, index: u64, count: u64) -> Range<u64> {
        let cost = |tile: u64| {
            if tile >= self.tiles {
                return self.groups.iter().map(Cut::bytes).fold(0, u64::saturating_add);
            }
            let (i, cut) = self.cut(tile);
            let before = self.groups[..i].iter().map(Cut::bytes).fold(0, u64::saturating_add);
            before.saturating_add((tile - cut.first) * cut.tile_rows * cut.group.base.row_bytes)
        };
        crate::ledger::part(cost, self.tiles, index, count)
    }
    /// Whether tiles in order of their numbers fill the files of an output from front to back.
    pub fn in_file_order(&self, output: usize) -> bool {
        let mut at: HashMap<usize, u64> = HashMap::new();
        self.groups.iter().filter(|c| c.tiles > 0).all(|c| {
            let mut sinks = c.group.computes.iter().flat_map(|c| &c.sinks).filter(|s| s.output == output);
            match (sinks.next(), sinks.next()) {
                (None, _) => true,
                // Two tensors of one file advance at the same time.
                (Some(_), Some(_)) => false,
                (Some(s), None) => {
                    let last = at.insert(s.place.file, s.place.offset);
                    last.is_none_or(|l| l < s.place.offset)
                }
            }
        })
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
    let groups = groups(sources, outputs, options)?;
    let threads = options.threads.max(1);
    let affordable = usize::try_from(options.memory / WORKER_BYTES).unwrap_or(usize::MAX);
    // Workers that wait for an accelerator hold no permit: a few more keep it busy.
    let ahead = if options.offload { AHEAD } else { threads.min(AHEAD) };
    let workers = (threads + ahead).min(affordable.max(threads));
    let share = options.memory / workers as u64;
    let mut worst: Option<(u64, String)> = None;
    let mut cuts = Vec::with_capacity(groups.len());
    let (mut tiles, mut source_bytes, mut output_bytes) = (0u64, 0u64, 0u64);
    for group in groups {
        let rows = group.base.rows;
        output_bytes = output_bytes.saturating_add(group.writes(&(0..rows)));
        let tile_rows = tile_rows(&group, options.tile_bytes);
        match steps(&group, (tile_rows, options.tile_bytes), share, options.memory) {
            Ok((passes, step_rows, demand)) => {
                let (first, n) = (tiles, rows.div_ceil(tile_rows));
                let mut cut = Cut { group, tile_rows, step_rows, passes, first, tiles: n, demand, reads: 0 };
                cut.reads = cut.reads(0..rows);
                source_bytes = source_bytes.saturating_add(cut.reads);
                cuts.push(cut);
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
    let usual = cuts
        .iter()
        .filter(fits)
        .fold((0, 0), |(bytes, floats), c| (c.demand.bytes.max(bytes), c.demand.floats.max(floats)));
    let workers = workers.min(usize::try_from(tiles).unwrap_or(usize::MAX)).max(1);
    let largest = cuts
        .iter()
        .map(|c| {
            let (bytes, floats) = (c.demand.bytes.max(usual.0), c.demand.floats.max(usual.1));
            Demand { bytes, floats, ..c.demand }.total()
        })
        .max()
        .unwrap_or(0);
    Ok(Plan {
        sources,
        groups: cuts,
        outputs: outputs.iter().map(|o| o.layout.places.len()).collect(),
        limit: options.memory,
        threads,
        workers,
        usual,
        memory: options.memory.min(largest.saturating_mul(workers as u64)),
        tiles,
        source_bytes,
        output_bytes,
    })
}

/// Rows at whose multiples tiles read no byte twice and cut no unit of statistics apart.
fn aligned_rows(group: &Group) -> u64 {
    lcm(group.base.align(), group.unit).min(group.base.rows.max(1))
}

/// Rows per tile: all of them where something is transposed.
fn tile_rows(group: &Group, tile_bytes: u64) -> u64 {
    if group.turns() { group.base.rows.max(1) } else { height(group, tile_bytes) }
}

/// Aligned rows of so many bytes of base, or the least there are.
fn height(group: &Group, tile_bytes: u64) -> u64 {
    let rows = group.base.rows.max(1);
    let aligned = aligned_rows(group);
    // What is evaluated for every tile is worth tiles as large as it is.
    let tile_bytes = tile_bytes.max(group.worth());
    let most = (tile_bytes / group.base.row_bytes.max(1)).max(aligned).min(rows);
    (most / aligned * aligned).max(aligned)
}

/// How often rows pass by, how many are in memory at one time, and what they take; as an error, the least memory that
/// works. Reading and encoding again is what costs most: as few passes as the whole budget allows.
fn steps(
    group: &Group,
    (tile_rows, tile_bytes): (u64, u64),
    share: u64,
    memory: u64,
) -> std::result::Result<(u64, u64, Demand), u64> {
    let most = group.most_passes();
    let mut passes = 1;
    loop {
        if group.turns() && !group.base.rereads() {
            // Steps as high as tiles would be, and not much lower while windows of one tensor at a time fit.
            let (high, step) = (height(group, tile_bytes), aligned_rows(group));
            for room in [share, memory] {
                for n in [high, high / 2, high / 4].map(|n| (n / step * step).max(step)) {
                    let demand = group.demand(n, step, passes);
                    if demand.total() <= room {
                        return Ok((passes, n, demand));
                    }
                }
            }
        }
        match step_rows(group, tile_rows, passes, share, memory) {
            Ok((rows, demand)) => return Ok((passes, rows, demand)),
            Err(least) if passes >= most => return Err(least),
            Err(_) => passes = most.min(passes + passes.div_ceil(4)),
        }
    }
}

/// Rows of a tile that are in memory at one time, and what they take; as an error, the least memory that works.
///
/// In order of preference: steps that read no byte twice and leave room for every worker; one such step at a
/// time; smaller steps for every worker; the smallest step. What is read again for every step takes the largest step
/// that fits before it thinks of other workers.
fn step_rows(
    group: &Group,
    tile_rows: u64,
    passes: u64,
    share: u64,
    memory: u64,
) -> std::result::Result<(u64, Demand), u64> {
    let aligned = aligned_rows(group);
    let fits = |n: u64, step: u64, room: u64| {
        let demand = group.demand(n, step, passes);
        (demand.total() <= room).then_some((n, demand))
    };
    for (step, most) in [(aligned, tile_rows), (group.unit, tile_rows.min(aligned))] {
        let mut n = (most / step * step).max(step);
        if step < aligned && group.base.rereads() {
            // Half as high would be read twice as often, so the height is searched for, not halved.
            let (mut low, mut high) = (1, n / step);
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                (low, high) = if fits(middle * step, step, memory).is_some() {
                    (middle, high)
                } else {
                    (low, middle - 1)
                };
            }
            // As many steps, of one height.
            let even = most.div_ceil(most.div_ceil(low * step)).div_ceil(step).min(low);
            if let Some(found) = fits(even * step, step, memory) {
                return Ok(found);
            }
            break;
        }
        loop {
            let room = if n == step { memory } else { share };
            if let Some(found) = fits(n, step, room) {
                return Ok(found);
            }
            if n == step {
                break;
            }
            n = (n / 2 / step * step).max(step);
        }
    }
    Err(group.demand(group.unit, group.unit, passes).total())
}

//! What is known about finished tiles: the seam between a run and a journal.
//!
//! Tile numbers, and the rows behind them, depend on sources and outputs alone ([`crate::Plan::fingerprint`] tells
//! whether two plans agree), so a record made by another process, or by a run with another memory budget, holds here.
//! Must not know files.

use std::ops::Range;
use tensormill_model::Result;
use tensormill_tensor::ErrorStats;

/// What one distinct op of a tile gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ComputeRecord {
    /// XXH3-64 of the bytes written.
    pub hash: u64,
    /// Their error against the base values; `None` when it is not measured.
    pub error: Option<ErrorStats>,
}

/// A finished tile: one entry per distinct op of its group, in plan order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TileRecord {
    /// The ops' results.
    pub computes: Vec<ComputeRecord>,
}

/// Knows finished tiles and takes note of new ones. Called from worker threads.
pub trait Ledger: Sync {
    /// Whether [`Self::record`] does anything; if not, bytes are not hashed for it.
    fn keeps(&self) -> bool;
    /// The record of a tile that was finished earlier.
    fn done(&self, tile: u64) -> Option<TileRecord>;
    /// Takes note of a tile whose bytes have all been handed to the sinks.
    ///
    /// # Errors
    /// When the note cannot be kept.
    fn record(&self, tile: u64, record: &TileRecord) -> Result<()>;
}

/// Remembers nothing.
impl Ledger for () {
    fn keeps(&self) -> bool {
        false
    }
    fn done(&self, _: u64) -> Option<TileRecord> {
        None
    }
    fn record(&self, _: u64, _: &TileRecord) -> Result<()> {
        Ok(())
    }
}

/// The tiles of part `index` of `count` (counted from zero) when `weights` says what the tiles cost up to each
/// boundary: `weights[i]` is the cost of all tiles before tile `i`. Contiguous, so that a part reads its share of the
/// source in one go.
pub(crate) fn part(weights: impl Fn(u64) -> u64, tiles: u64, index: u64, count: u64) -> Range<u64> {
    let total = u128::from(weights(tiles));
    let boundary = |i: u64| {
        let want = total * u128::from(i) / u128::from(count.max(1));
        // The first tile whose start is at or past the wanted cost.
        let (mut low, mut high) = (0, tiles);
        while low < high {
            let middle = low + (high - low) / 2;
            if u128::from(weights(middle)) < want { low = middle + 1 } else { high = middle }
        }
        low
    };
    let end = if index + 1 >= count { tiles } else { boundary(index + 1) };
    boundary(index)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_every_tile_once() {
        for (tiles, count) in [(0, 3), (1, 4), (10, 3), (100, 7), (5, 1)] {
            let cost = |i: u64| i * i;
            let parts: Vec<_> = (0..count).map(|i| part(cost, tiles, i, count)).collect();
            assert_eq!((parts[0].start, parts[count as usize - 1].end), (0, tiles));
            assert!(parts.windows(2).all(|p| p[0].end == p[1].start));
        }
        // Tiles that cost more make shorter parts.
        let cost = |i: u64| if i <= 50 { i } else { 50 + (i - 50) * 9 };
        assert_eq!(part(cost, 100, 0, 2), 0..73);
    }
}

//! Error of what is written against the values it came from, accumulated while a tile is in memory.
//!
//! Floating sums depend on their order, so statistics are kept per *unit* of rows, whose height depends on the
//! shape alone, and merged in row order whatever the tiles and threads. Must not know block types: ops decode
//! their own output.

use crate::group::Compute;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};
use tensormill_model::{Error, Form, Result};
use tensormill_tensor::{Encoding, ErrorStats, decode_plain};

/// Elements decoded at a time: small enough for the second-level cache, a multiple of every block's length.
pub(crate) const CHUNK: u64 = 16384;

/// Rows in one unit: a power of two, so that it goes well with other alignments.
pub(crate) fn unit_rows(row_len: u64) -> u64 {
    let most = (CHUNK / row_len.max(1)).max(1);
    1 << most.ilog2()
}

/// Whether plain elements of this encoding have `f32` values.
fn has_values(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Plain(d) if decode_plain(d, &[], &mut []))
}

/// Whether the error of such an output is worth the name: it must stand for the same values as the base.
pub(crate) fn measurable(base: &Form, compute: &Compute) -> bool {
    let Some(op) = &compute.op else { return false };
    let comparable = match compute.form.encoding {
        Encoding::Plain(_) => op.is_encoding() && has_values(compute.form.encoding),
        Encoding::Block(b) => CHUNK.is_multiple_of(u64::from(b.weights)),
    };
    comparable
        && has_values(base.encoding)
        && base.shape.rows() == compute.form.shape.rows()
        && base.shape.row_len() == compute.form.shape.row_len()
}

/// Statistics of one tile, unit by unit; empty when the op cannot decode its output.
///
/// `floats` holds twice [`CHUNK`] elements, or twice the tile where that is less.
pub(crate) fn tile(
    base: &Form,
    value: &[u8],
    compute: &Compute,
    out: &[u8],
    floats: &mut [f32],
) -> Result<Vec<ErrorStats>> {
    let (Encoding::Plain(dtype), Some(op)) = (base.encoding, &compute.op) else { return Ok(Vec::new()) };
    let row_len = base.shape.row_len();
    let bytes = |encoding: Encoding, n: u64| {
        encoding.row_bytes(n).map(|n| n as usize).ok_or_else(|| Error::mismatch("a cut block"))
    };
    let per_unit = unit_rows(row_len) * row_len;
    let total = value.len() as u64 / bytes(base.encoding, row_len)?.max(1) as u64 * row_len;
    let mut units = Vec::with_capacity(total.div_ceil(per_unit) as usize);
    let (mut value, mut out) = (value, out);
    let mut done = 0;
    while done < total {
        let mut stats = ErrorStats::default();
        let end = total.min(done + per_unit);
        while done < end {
            let n = CHUNK.min(end - done);
            let (want, rest) = floats.split_at_mut(n as usize);
            let got = &mut rest[..n as usize];
            let (v, value_rest) = value.split_at(bytes(base.encoding, n)?);
            let (o, out_rest) = out.split_at(bytes(compute.form.encoding, n)?);
            (value, out) = (value_rest, out_rest);
            let decoded = match compute.form.encoding {
                Encoding::Plain(d) => decode_plain(d, o, got),
                Encoding::Block(_) => match op.decode(o, got) {
                    Some(result) => result.map(|()| true)?,
                    None => false,
                },
            };
            if !decoded || !decode_plain(dtype, v, want) {
                return Ok(Vec::new());
            }
            stats.add(want, got);
            done += n;
        }
        units.push(stats);
    }
    Ok(units)
}

/// Merges the statistics of tiles that come in any order.
#[derive(Default)]
pub(crate) struct Meter(Mutex<Merged>);

#[derive(Default)]
struct Merged {
    /// Tiles merged so far: all before this number.
    next: u64,
    total: ErrorStats,
    early: BTreeMap<u64, Vec<ErrorStats>>,
}

impl Meter {
    pub(crate) fn add(&self, tile: u64, units: Vec<ErrorStats>) {
        let mut merged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        merged.early.insert(tile, units);
        loop {
            let next = merged.next;
            let Some(units) = merged.early.remove(&next) else { break };
            for unit in &units {
                merged.total.merge(unit);
            }
            merged.next += 1;
        }
    }

    /// The sum, once all tiles are in; `None` when there was nothing to compare.
    pub(crate) fn finish(&self) -> Option<ErrorStats> {
        let merged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (merged.total.count > 0).then_some(merged.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_depend_on_the_row_alone() {
        assert_eq!(unit_rows(4096), 4);
        assert_eq!(unit_rows(3), 4096);
        assert_eq!(unit_rows(100_000), 1);
        assert_eq!(unit_rows(0), 16384);
    }

    #[test]
    fn order_of_tiles_does_not_matter() {
        let unit = |i: u64| {
            let mut s = ErrorStats::default();
            s.add(&[0.1 * i as f32, 1e-7], &[0.1 * i as f32 + 0.001, 1.0 / (i as f32 + 3.0)]);
            vec![s]
        };
        let (forward, mixed) = (Meter::default(), Meter::default());
        (0..50).for_each(|i| forward.add(i, unit(i)));
        (0..50).for_each(|i| mixed.add(i * 7 % 50, unit(i * 7 % 50)));
        assert_eq!(forward.finish(), mixed.finish());
        assert_eq!(forward.finish().unwrap().count, 100);
    }
}

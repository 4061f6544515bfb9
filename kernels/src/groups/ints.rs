//! Integer codes: which weights share their numbers, and who finds them.

use super::lanes::{Lanes, Reference, Weights};
use super::search::Search;
use super::{Fit, GroupRows, Quantizer};
use crate::dispatch::Level;
use crate::lanes::{Job, Scan, run_at, try_at};

/// Fills the bundles of finite rows.
pub(super) fn encode(q: &Quantizer, rows: GroupRows<'_>, level: Level, out: &mut [u8]) {
    if rows.len == 0 || rows.x.is_empty() {
        return;
    }
    let work = Work { q, rows: &rows, out };
    if q.fit != Fit::Nearest || rows.importance.is_some() {
        run_at(level, Searched(work));
    } else if let Err(Nearest(Work { q, rows, out })) = try_at(level, Nearest(work)) {
        nearest(&Reference, q, rows, out);
    }
}

struct Work<'a> {
    q: &'a Quantizer,
    rows: &'a GroupRows<'a>,
    out: &'a mut [u8],
}

/// As the library of the rule does it.
struct Nearest<'a>(Work<'a>);

impl Job for Nearest<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Scan>(self, v: V) {
        nearest(&Lanes(v), self.0.q, self.0.rows, self.0.out);
    }
}

/// By a search.
struct Searched<'a>(Work<'a>);

impl Job for Searched<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Scan>(self, v: V) {
        let Work { q, rows, out } = self.0;
        let mut search = Search::new(q, rows);
        let (len, columns, band) =
            (q.grid.group_len(rows.len), rows.len, q.grid.band(rows.x.len() / rows.len));
        let style = q.searched_style();
        let bytes = q.grid.bundle_bytes(columns);
        for (x, out) in rows.x.chunks(band * columns).zip(out.chunks_mut(band * bytes)) {
            for group in 0..q.grid.groups(columns) {
                let (start, end) = (group * len, ((group + 1) * len).min(columns));
                search.clear();
                for row in x.chunks_exact(columns) {
                    search.push(&row[start..end], start);
                }
                let numbers = search.find(v);
                for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(bytes)) {
                    let codes = q.put(rows, group, &numbers, out);
                    Lanes(v).codes(style, &numbers.coding, &x[start..end], codes);
                }
            }
        }
    }
}

#[inline(always)]
fn nearest<W: Weights>(w: &W, q: &Quantizer, rows: &GroupRows<'_>, out: &mut [u8]) {
    let style = q.style();
    let (len, columns, band) = (q.grid.group_len(rows.len), rows.len, q.grid.band(rows.x.len() / rows.len));
    let bytes = q.grid.bundle_bytes(columns);
    let mut rounded = Vec::new();
    for (x, out) in rows.x.chunks(band * columns).zip(out.chunks_mut(band * bytes)) {
        let x = if style.weights.holds(x) {
            x
        } else {
            rounded.resize(x.len(), 0.0);
            w.weights(style.weights, x, &mut rounded);
            &rounded[..x.len()]
        };
        for group in 0..q.grid.groups(columns) {
            let (start, end) = (group * len, ((group + 1) * len).min(columns));
            let mut range = (f32::INFINITY, f32::NEG_INFINITY);
            for row in x.chunks_exact(columns) {
                let (low, high) = w.range(&row[start..end]);
                range = (range.0.min(low), range.1.max(high));
            }
            let numbers = q.numbers(range.0, range.1, rows.outer);
            for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(bytes)) {
                let codes = q.put(rows, group, &numbers, out);
                w.codes(style, &numbers.coding, &x[start..end], codes);
            }
        }
    }
}

impl Quantizer {
    /// Writes the numbers of a group to a bundle; gives the place of its codes.
    #[inline]
    fn put<'a>(
        &self,
        rows: &GroupRows<'_>,
        group: usize,
        numbers: &super::rules::Numbers,
        bundle: &'a mut [u8],
    ) -> &'a mut [u8] {
        let parts = self.grid.parts_mut(bundle, rows.len);
        parts.scales[group] = numbers.scale.to_le_bytes();
        if let Some(offset) = parts.offsets.get_mut(group) {
            *offset = numbers.offset.to_le_bytes();
        }
        if let Some(outer) = parts.outer {
            *outer = rows.outer.to_le_bytes();
        }
        let len = self.grid.group_len(rows.len);
        let end = ((group + 1) * len).min(rows.len);
        &mut parts.codes[group * len..end]
    }
}

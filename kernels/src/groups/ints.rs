//! Integer codes: which weights share their numbers, and who finds them.

use super::lanes::{Lanes, Reference, Weights};
use super::rounding::Float;
use super::search::Search;
use super::{Fit, GroupRows, Quantizer};
use crate::dispatch::Level;
use crate::lanes::{Job, Scan, run_at, try_at};

/// Fills the bundles of finite rows.
pub(super) fn encode(q: &Quantizer, rows: GroupRows<'_>, level: Level, out: &mut [u8]) {
    if rows.len == 0 || rows.x.is_empty() {
        return;
    }
    let job = Encode { q, rows: &rows, out };
    if job.searches() {
        run_at(level, job);
    } else if let Err(Encode { q, rows, out }) = try_at(level, job) {
        nearest(&Reference, q, rows, out);
    }
}

struct Encode<'a> {
    q: &'a Quantizer,
    rows: &'a GroupRows<'a>,
    out: &'a mut [u8],
}

impl Encode<'_> {
    /// Whether a search finds the numbers; otherwise they are those that the library of the rule takes.
    fn searches(&self) -> bool {
        self.q.fit != Fit::Nearest || self.rows.importance.is_some()
    }
}

impl Job for Encode<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Scan>(self, v: V) {
        if self.searches() {
            searched(v, self.q, self.rows, self.out);
        } else {
            nearest(&Lanes(v), self.q, self.rows, self.out);
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
        let x = if style.weights == Float::F32 {
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

#[inline(always)]
fn searched<V: Scan>(v: V, q: &Quantizer, rows: &GroupRows<'_>, out: &mut [u8]) {
    let style = q.searched_style();
    let (len, columns, band) = (q.grid.group_len(rows.len), rows.len, q.grid.band(rows.x.len() / rows.len));
    let bytes = q.grid.bundle_bytes(columns);
    let mut search = Search::new(q, rows);
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

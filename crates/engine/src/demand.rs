//! The memory that a step of a group takes.
//!
//! In a tile's buffer lie, one after the other: what is evaluated once for the tile (extras), what is collected of
//! transposed matrices (windows), the base's rows, results that have a place of their own, and one bundle at a time with one
//! of its parts, or one result. [`crate::tile`] takes it apart in that order.

use crate::{
    budget::Demand,
    group::{Group, On, Turned},
    node::Need,
    place::{OWN_SLACK, ROOMY, SLACK},
};

impl Group {
    /// Memory for `n` rows in tiles that start at multiples of `step`, where they pass by so many times.
    pub(crate) fn demand(&self, n: u64, step: u64, passes: u64) -> Demand {
        let need = self.base.need(n, step);
        let value = n.saturating_mul(self.base.row_bytes);
        let roomy = value >= ROOMY;
        let slack = if roomy { OWN_SLACK } else { 0 };
        let (mut own, mut shared, mut outside) = (0u64, 0u64, need.outside);
        // The largest part of every bundle.
        let mut parts = vec![0u64; self.stems.len()];
        for c in &self.computes {
            outside = outside.max(c.chain.outside(n));
            let bytes = c.chain.bytes(n);
            let most = match c.on {
                On::Stem(i) => &mut parts[i],
                On::Base => &mut shared,
            };
            if c.offload {
                own = own.saturating_add(bytes).saturating_add(slack);
            } else if c.moves() && roomy && self.placed().is_none() {
                // Values that are only moved are copied where there is room, to a place that suits direct I/O.
                *most = (*most).max(value);
            } else {
                *most = (*most).max(bytes.saturating_add(c.chain.between(n)));
            }
        }
        for (s, part) in self.stems.iter().zip(parts) {
            outside = outside.max(s.link.op.scratch(&s.link.forms, n));
            let bytes = s.link.bytes(n);
            if s.offload {
                own = own.saturating_add(bytes).saturating_add(slack);
                shared = shared.max(part);
            } else {
                shared = shared.max(bytes.saturating_add(part));
            }
        }
        let turned = self.turned(passes);
        let extras = self.extra_need();
        outside = outside.max(turned.need.outside).max(extras.need.outside);
        let step = value.saturating_add(need.arena.max(own.saturating_add(shared)));
        let windows = turned.bytes.saturating_add(slack.saturating_mul(turned.count));
        let rest = step.max(turned.need.arena).saturating_add(if roomy { SLACK } else { 0 });
        Demand {
            bytes: extras.bytes.saturating_add(extras.need.arena.max(windows.saturating_add(rest))),
            floats: self.floats,
            outside,
            roomy,
        }
    }

    /// What extras take, and what it takes to evaluate one.
    fn extra_need(&self) -> Several {
        let mut all = Several::default();
        for e in &self.extras {
            let (rows, bytes) = (e.node.rows, e.node.rows * e.node.row_bytes);
            all.bytes = all.bytes.saturating_add(bytes);
            all.need = all.need.max(e.node.need(rows, rows.max(1)));
            all.count += 1;
        }
        all
    }

    /// What windows of transposed matrices take, and what it takes to finish one.
    fn turned(&self, passes: u64) -> Several {
        let mut all = Several::default();
        for t in self.computes.iter().filter_map(|c| c.turned.as_ref()) {
            let window = t.window(passes);
            all.bytes = all.bytes.saturating_add(window.saturating_mul(t.row_bytes()));
            all.need = all.need.max(finish(t, window));
            all.count += 1;
        }
        all
    }
}

/// Memory of several things, what it takes to make one of them, and how many they are.
#[derive(Default)]
struct Several {
    bytes: u64,
    need: Need,
    count: u64,
}

/// What ops on a portion of a window take.
fn finish(t: &Turned, window: u64) -> Need {
    let n = t.portion(window);
    Need { arena: t.chain.bytes(n).saturating_add(t.chain.between(n)), outside: t.chain.outside(n) }
}

//! The memory budget: buffers are borrowed from it and kept for the next tile.
//!
//! The sum of all buffers, in use and idle, plus what ops said they allocate themselves, never exceeds the
//! limit. Must not know what the buffers are for.

use crate::buffer::Bytes;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What one tile takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Demand {
    /// Bytes of buffer.
    pub bytes: u64,
    /// Elements of `f32` buffer.
    pub floats: u64,
    /// Bytes allocated by others while the tile is worked on.
    pub outside: u64,
    /// Whether `bytes` includes room to move values to places that suit direct I/O.
    pub roomy: bool,
}

impl Demand {
    pub(crate) fn total(&self) -> u64 {
        self.bytes.saturating_add(self.floats.saturating_mul(4)).saturating_add(self.outside)
    }
}

#[derive(Default)]
struct Buffer {
    bytes: Bytes,
    floats: Vec<f32>,
}

impl Buffer {
    fn size(&self) -> u64 {
        self.bytes.len() as u64 + self.floats.len() as u64 * 4
    }
}

/// The budget.
pub(crate) struct Budget {
    limit: u64,
    /// Bytes and floats with which buffers for ordinary tiles are made, so that any such tile can use any of them.
    usual: (u64, u64),
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    used: u64,
    idle: Vec<Buffer>,
    idle_bytes: u64,
    peak: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64, usual: (u64, u64)) -> Self {
        Self { limit, usual, state: Mutex::default(), freed: Condvar::new() }
    }

    /// Waits until a tile's memory is free. The demand must not exceed the limit. Callers come one at a time, in the
    /// order of their tiles: so a large tile is not overtaken forever, and no tile holds memory that an earlier one
    /// waits for.
    pub(crate) fn borrow(&self, demand: &Demand) -> Lease<'_> {
        debug_assert!(demand.total() <= self.limit, "the planner lets no such tile through");
        let mut state = self.lock();
        loop {
            if let Some(buffer) = state.take(demand, self.usual, self.limit) {
                let held = buffer.size() + demand.outside;
                state.used += held;
                state.peak = state.peak.max(state.used + state.idle_bytes);
                return Lease { budget: self, buffer, held };
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The most that was held at once.
    pub(crate) fn peak(&self) -> u64 {
        self.lock().peak
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic halfway through a change, so a poisoned state is a sound one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops idle buffers until `size` more bytes fit.
    fn make_room(&mut self, size: u64, limit: u64) -> bool {
        while self.used + self.idle_bytes + size > limit {
            match self.idle.pop() {
                Some(b) => self.idle_bytes -= b.size(),
                None => return false,
            }
        }
        true
    }

    fn take(&mut self, demand: &Demand, usual: (u64, u64), limit: u64) -> Option<Buffer> {
        // A buffer much larger than the tile would keep others waiting.
        let most = usual.0.max(demand.bytes.saturating_mul(2));
        let fits = |b: &Buffer| {
            let len = b.bytes.len() as u64;
            len >= demand.bytes && len <= most && b.floats.len() as u64 >= demand.floats
        };
        let best = self.idle.iter().enumerate().filter(|(_, b)| fits(b)).min_by_key(|(_, b)| b.size());
        if let Some((i, _)) = best {
            let buffer = self.idle.swap_remove(i);
            self.idle_bytes -= buffer.size();
            if self.make_room(buffer.size() + demand.outside, limit) {
                return Some(buffer);
            }
        }
        let whole =
            Demand { bytes: usual.0.max(demand.bytes), floats: usual.1.max(demand.floats), ..*demand };
        [whole, *demand]
            .into_iter()
            .find(|d| self.make_room(d.total(), limit))
            .map(|d| Buffer { bytes: Bytes::new(d.bytes), floats: vec![0.0; d.floats as usize] })
    }
}

/// Memory borrowed for one tile; goes back when dropped, also when the tile's computation panics.
pub(crate) struct Lease<'a> {
    budget: &'a Budget,
    buffer: Buffer,
    held: u64,
}

impl Lease<'_> {
    /// The buffers, at least as long as demanded. What they hold is left over from earlier tiles.
    pub(crate) fn parts(&mut self) -> (&mut [u8], &mut [f32]) {
        (&mut self.buffer.bytes, &mut self.buffer.floats)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut state = self.budget.lock();
        state.used -= self.held;
        state.idle_bytes += buffer.size();
        state.idle.push(buffer);
        drop(state);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(bytes: u64) -> Demand {
        Demand { bytes, ..Demand::default() }
    }

    #[test]
    fn buffers_are_reused_and_evicted() {
        let budget = Budget::new(100, (40, 0));
        let first = {
            let mut lease = budget.borrow(&bytes(10));
            assert_eq!(lease.parts().0.len(), 40);
            lease.parts().0.as_ptr()
        };
        let mut again = budget.borrow(&bytes(40));
        assert_eq!(again.parts().0.as_ptr(), first);
        drop(again);
        assert_eq!(budget.peak(), 40);
        // 100 bytes only fit when the idle 40 go; and 70 must not get the buffer of 100's size.
        assert_eq!(budget.borrow(&bytes(100)).parts().0.len(), 100);
        assert_eq!(budget.borrow(&bytes(30)).parts().0.len(), 40);
        assert_eq!(budget.peak(), 100);
    }

    #[test]
    fn memory_of_others_counts() {
        let budget = Budget::new(100, (90, 0));
        let demand = Demand { bytes: 50, floats: 5, outside: 30, roomy: false };
        let mut lease = budget.borrow(&demand);
        // The usual 90 would not leave 30 for others.
        assert_eq!((lease.parts().0.len(), lease.parts().1.len()), (50, 5));
        assert_eq!(budget.peak(), 100);
    }
}

//! How fast it goes, and how long it will take. Arithmetic only.

use std::{collections::VecDeque, time::Duration};

/// What is looked back on: long enough that a few slow tiles do not make the time left jump about.
const WINDOW: Duration = Duration::from_secs(15);

/// Samples kept whatever their age: where a tile takes many seconds, the window would hold one or none.
const LEAST: usize = 8;

/// Between two samples.
const STEP: Duration = Duration::from_millis(400);

/// Before this, a rate says more about starting than about working.
const WARM_UP: Duration = Duration::from_secs(1);

/// Bytes per second over the last seconds.
///
/// Bytes that need no work (an earlier run did them) count as done, but neither they nor the time that only they took
/// count towards the rate: a resumed run would promise to be ready at once.
#[derive(Debug, Default)]
pub struct Rate {
    /// Working time and bytes worked through, oldest first.
    samples: VecDeque<(Duration, u64)>,
    /// Time in which work was done, or waited for.
    working: Duration,
    last: Duration,
    worked: u64,
    skipped: u64,
}

impl Rate {
    /// Takes the state at `now`: bytes worked through and bytes skipped, both since the beginning.
    pub fn update(&mut self, now: Duration, worked: u64, skipped: u64) {
        let only_skipped = worked == self.worked && skipped > self.skipped;
        if !only_skipped {
            self.working += now.saturating_sub(self.last);
        }
        (self.last, self.worked, self.skipped) = (now, worked, skipped);
        if self.samples.is_empty() {
            self.samples.push_back((Duration::ZERO, 0));
        }
        let moved = self.samples.back().is_some_and(|(at, n)| *n < worked && self.working >= *at + STEP);
        if moved {
            self.samples.push_back((self.working, worked));
        }
        while self.samples.len() > LEAST && self.samples[1].0 + WINDOW < self.working {
            self.samples.pop_front();
        }
    }

    /// Bytes per second; `None` while there is too little to tell.
    pub fn per_second(&self) -> Option<f64> {
        let (from, before) = *self.samples.front()?;
        let time = self.working.saturating_sub(from);
        (self.worked > before && time >= WARM_UP).then(|| (self.worked - before) as f64 / time.as_secs_f64())
    }

    /// Time until `left` more bytes are done; `None` while there is too little to tell.
    pub fn time_for(&self, left: u64) -> Option<Duration> {
        Duration::try_from_secs_f64(left as f64 / self.per_second()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tenths: u64) -> Duration {
        Duration::from_millis(tenths * 100)
    }

    #[test]
    fn a_steady_pace_is_found_and_followed() {
        let mut r = Rate::default();
        assert_eq!(r.per_second(), None);
        for t in 1..=100 {
            r.update(at(t), t * 10, 0);
            assert_eq!(r.per_second().is_some(), t >= 10, "at {t}");
        }
        assert!((r.per_second().unwrap() - 100.0).abs() < 1e-9);
        assert_eq!(r.time_for(500), Some(Duration::from_secs(5)));
        // Ten times as fast from here on: twenty seconds later nothing is left of the old pace.
        for t in 101..=300 {
            r.update(at(t), 1000 + (t - 100) * 100, 0);
        }
        assert!((r.per_second().unwrap() - 1000.0).abs() < 1.0, "{:?}", r.per_second());
    }

    #[test]
    fn what_is_skipped_does_not_count() {
        let mut r = Rate::default();
        for t in 1..=50 {
            r.update(at(t), 0, t * 1_000_000);
        }
        assert_eq!(r.per_second(), None, "nothing was worked through yet");
        for t in 51..=80 {
            r.update(at(t), (t - 50) * 10, 50_000_000);
        }
        assert!((r.per_second().unwrap() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn rare_tiles_give_a_rate_and_a_stall_lowers_it() {
        let mut r = Rate::default();
        // One tile of 3000 bytes every 30 s.
        for t in 1..=3000 {
            r.update(at(t), t / 300 * 3000, 0);
            assert!(t < 300 || r.per_second().is_some());
        }
        let before = r.per_second().unwrap();
        assert!((before - 100.0).abs() < 5.0, "{before}");
        for t in 3001..=9000 {
            r.update(at(t), 30_000, 0);
        }
        assert!(r.per_second().unwrap_or(0.0) < before / 2.0);
    }

    #[test]
    fn nothing_done_is_never_ready() {
        let mut r = Rate::default();
        (1..100).for_each(|t| r.update(at(t), 0, 0));
        assert_eq!((r.per_second(), r.time_for(1)), (None, None));
    }
}

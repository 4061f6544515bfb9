//! What has happened so far. Worker threads add to it, the painting thread looks.

use super::rate::Rate;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tensormill_core::Times;

/// Names of the stages, in the order of [`Counts::stages`].
pub const STAGES: [&str; 5] = ["read", "compute", "measure", "write", "wait"];

/// Sums that workers add to: no lock, nothing to wait for.
#[derive(Debug, Default)]
pub struct Tally {
    read: AtomicU64,
    written: AtomicU64,
    skipped: AtomicU64,
    skipped_written: AtomicU64,
    /// Nanoseconds per stage.
    stages: [AtomicU64; 5],
    /// Whether tiles have begun.
    begun: AtomicBool,
    /// Whether something else than tiles goes on.
    in_phase: AtomicBool,
    phase_done: AtomicU64,
}

/// A look at a [`Tally`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Bytes read from the source to be converted.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Bytes of the source that need not be read: an earlier run did.
    pub skipped: u64,
    /// Bytes that an earlier run has written.
    pub skipped_written: u64,
    /// Time of all workers per stage, in the order of [`STAGES`].
    pub stages: [Duration; 5],
    /// Bytes of the phase that are done.
    pub phase_done: u64,
}

impl Tally {
    /// A tile is done. In a phase (verification) it counts for the phase and for the stages only.
    pub fn advanced(&self, read: u64, written: u64, t: Times) {
        if self.in_phase.load(Relaxed) {
            self.phase_done.fetch_add(read, Relaxed);
        } else {
            self.read.fetch_add(read, Relaxed);
            self.written.fetch_add(written, Relaxed);
        }
        for (sum, time) in self.stages.iter().zip([t.read, t.compute, t.measure, t.write, t.wait]) {
            sum.fetch_add(time.as_nanos() as u64, Relaxed);
        }
    }

    /// A tile was done before.
    pub fn skipped(&self, read: u64, written: u64) {
        self.skipped.fetch_add(read, Relaxed);
        self.skipped_written.fetch_add(written, Relaxed);
    }

    /// Another phase begins.
    pub fn phase(&self) {
        self.in_phase.store(true, Relaxed);
        self.phase_done.store(0, Relaxed);
    }

    /// Tiles begin, perhaps after a phase (a download); `false` where they are gone through again, in a phase of their own.
    pub fn begins(&self) -> bool {
        let again = self.begun.swap(true, Relaxed) && self.in_phase.load(Relaxed);
        self.in_phase.store(again, Relaxed);
        !again
    }

    /// Bytes of the phase are done.
    pub fn phase_advanced(&self, bytes: u64) {
        self.phase_done.fetch_add(bytes, Relaxed);
    }

    pub fn counts(&self) -> Counts {
        let n = |a: &AtomicU64| a.load(Relaxed);
        Counts {
            read: n(&self.read),
            written: n(&self.written),
            skipped: n(&self.skipped),
            skipped_written: n(&self.skipped_written),
            stages: [0, 1, 2, 3, 4].map(|i: usize| Duration::from_nanos(n(&self.stages[i]))),
            phase_done: n(&self.phase_done),
        }
    }
}

/// What a painter is told besides numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The tiles begin.
    Started { source: u64, output: u64, tensors: usize },
    /// The first tile of a tensor begins.
    TensorStarted(String),
    /// The last tile of a tensor is done.
    TensorFinished(String),
    /// Other work begins; zero bytes: it cannot be measured.
    Phase { name: String, bytes: u64 },
    /// The size of a phase became known after its beginning.
    PhaseBytes(u64),
    /// Something worth knowing that is not an error.
    Remark(String),
    /// Somebody asked to stop.
    Stopping,
    /// The run is over, well or not.
    End { done: bool },
}

/// Everything a painter shows.
#[derive(Debug, Default)]
pub struct View {
    /// Since the program began.
    pub now: Duration,
    pub counts: Counts,
    /// Other work than tiles, when that goes on.
    pub phase: Option<String>,
    /// Bytes that tiles, or the phase, will go through; zero when that is not known.
    pub total: u64,
    /// Tensors at work, oldest first.
    pub tensors: Vec<String>,
    pub tensors_done: usize,
    pub tensors_total: usize,
    pub resident: Option<u64>,
    /// What resident memory stays under.
    pub limit: u64,
    pub stopping: bool,
    rate: Rate,
    /// When the tiles, or the phase, began.
    began: Duration,
}

impl View {
    pub fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes a note.
    pub fn take(&mut self, note: &Note) {
        match note {
            Note::Started { source, tensors, .. } => {
                (self.total, self.tensors_total) = (*source, *tensors);
                self.phase = None;
                self.restart();
            }
            Note::TensorStarted(name) => self.tensors.push(name.clone()),
            Note::TensorFinished(name) => {
                self.tensors_done += 1;
                self.tensors.retain(|n| n != name);
            }
            Note::Phase { name, bytes } => {
                self.phase = Some(name.clone());
                self.total = *bytes;
                self.tensors.clear();
                self.restart();
            }
            Note::PhaseBytes(bytes) => self.total = *bytes,
            Note::Stopping => self.stopping = true,
            Note::Remark(_) | Note::End { .. } => {}
        }
    }

    fn restart(&mut self) {
        self.rate = Rate::default();
        self.began = self.now;
    }

    /// Takes the numbers of this moment.
    pub fn update(&mut self, now: Duration, counts: Counts, resident: Option<u64>) {
        (self.now, self.counts, self.resident) = (now, counts, resident);
        let since = now.saturating_sub(self.began);
        match self.phase {
            None => self.rate.update(since, counts.read, counts.skipped),
            Some(_) => self.rate.update(since, counts.phase_done, 0),
        }
    }

    /// Bytes of [`Self::total`] that are done.
    pub fn done(&self) -> u64 {
        match self.phase {
            None => (self.counts.read + self.counts.skipped).min(self.total),
            Some(_) if self.total == 0 => self.counts.phase_done,
            Some(_) => self.counts.phase_done.min(self.total),
        }
    }

    /// Part of the total that is done, 0 to 1.
    pub fn fraction(&self) -> Option<f64> {
        (self.total > 0).then(|| self.done() as f64 / self.total as f64)
    }

    /// Bytes per second.
    pub fn rate(&self) -> Option<f64> {
        self.rate.per_second()
    }

    /// Time left.
    pub fn eta(&self) -> Option<Duration> {
        self.rate.time_for(self.total.checked_sub(self.done()).filter(|_| self.total > 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_bytes_are_done_but_not_fast() {
        let (tally, mut view) = (Tally::default(), View::new(0));
        view.take(&Note::Started { source: 1000, output: 500, tensors: 2 });
        tally.skipped(400, 200);
        view.update(Duration::from_secs(1), tally.counts(), None);
        assert_eq!((view.done(), view.rate(), view.eta()), (400, None, None));
        tally.advanced(100, 50, Times { compute: Duration::from_secs(2), ..Times::default() });
        view.update(Duration::from_secs(3), tally.counts(), None);
        assert_eq!((view.done(), view.rate()), (500, Some(50.0)));
        assert_eq!(view.eta(), Some(Duration::from_secs(10)));
        assert_eq!((view.counts.written, view.counts.skipped_written), (50, 200));
        assert_eq!(view.counts.stages[1], Duration::from_secs(2));
    }

    #[test]
    fn a_phase_counts_for_itself() {
        let (tally, mut view) = (Tally::default(), View::new(0));
        view.take(&Note::Started { source: 100, output: 50, tensors: 1 });
        tally.advanced(100, 50, Times::default());
        view.update(Duration::from_secs(5), tally.counts(), None);
        tally.phase();
        view.take(&Note::Phase { name: "verifying".into(), bytes: 0 });
        assert_eq!(view.fraction(), None);
        view.take(&Note::PhaseBytes(100));
        tally.advanced(30, 15, Times::default());
        view.update(Duration::from_secs(7), tally.counts(), None);
        assert_eq!((view.done(), view.counts.read, view.counts.written), (30, 100, 50));
        assert_eq!(view.rate(), Some(15.0));
    }

    #[test]
    fn tiles_begin_after_a_download_and_are_verified_in_a_phase() {
        let (tally, mut view) = (Tally::default(), View::new(0));
        tally.phase();
        view.take(&Note::Phase { name: "downloading".into(), bytes: 70 });
        tally.phase_advanced(70);
        assert!(tally.begins(), "a download is not verified");
        view.take(&Note::Started { source: 100, output: 50, tensors: 1 });
        tally.advanced(40, 20, Times::default());
        view.update(Duration::from_secs(1), tally.counts(), None);
        assert_eq!((view.phase.as_deref(), view.done(), view.counts.read), (None, 40, 40));
        tally.phase();
        assert!(!tally.begins());
        tally.advanced(30, 0, Times::default());
        assert_eq!((tally.counts().read, tally.counts().phase_done), (40, 30));
    }

    #[test]
    fn tensors_come_and_go() {
        let mut view = View::new(0);
        view.take(&Note::TensorStarted("a".into()));
        view.take(&Note::TensorStarted("b".into()));
        view.take(&Note::TensorFinished("a".into()));
        assert_eq!((view.tensors.as_slice(), view.tensors_done), (&["b".to_owned()][..], 1));
    }
}

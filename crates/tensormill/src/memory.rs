//! What `--memory` means: resident memory of the process stays under it plus [`OVERHEAD`].
//!
//! What a device's driver and compiler take for themselves is beside that: nobody else can bound it.

use crate::report::MemorySample;
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tensormill_engine::{peak_rss, resident};
use tensormill_model::{Error, Result};

/// What the process may take beyond `--memory`: the program, thread stacks, the allocator's slack, and the
/// metadata of models with small vocabularies.
pub const OVERHEAD: u64 = 64 << 20;

/// The part of [`OVERHEAD`] that is kept for what grows after planning: stacks, I/O, allocator slack.
const RESERVE: u64 = 16 << 20;

/// The least that is left for tiles, so that the engine can say which tensor needs more.
const LEAST: u64 = 1 << 20;

/// Bytes left for tiles when the caller may use `limit` bytes: all of it, less what metadata and
/// vocabulary hold already beyond the overhead.
///
/// # Errors
/// `OverLimit` with the smallest limit that works, when nothing is left, or when reading headers and vocabulary
/// took more than the limit allows already.
pub fn for_tiles(limit: u64) -> Result<u64> {
    let held = (resident().unwrap_or(0) + RESERVE).saturating_sub(OVERHEAD);
    let passed = peak_rss().unwrap_or(0).saturating_sub(OVERHEAD);
    match limit.checked_sub(held) {
        Some(tiles) if tiles >= LEAST && passed <= limit => Ok(tiles),
        _ => Err(Error::over_limit(format!(
            "headers and vocabulary take {} MiB, more than --memory leaves them",
            (held.max(passed) + OVERHEAD) >> 20
        ))
        .hint(format!("use --memory {}MiB or more", (held + LEAST).max(passed).div_ceil(1 << 20) + 1))),
    }
}

/// The part of what is left for tiles that a device may have for what is on its way to it and back.
pub(crate) fn for_staging(tiles: u64) -> u64 {
    tiles / 4
}

/// Looks at the process's resident memory now and then, until it is stopped.
pub(crate) struct Sampler {
    stop: Sender<()>,
    thread: Option<JoinHandle<Vec<MemorySample>>>,
}

/// Samples kept; when there are more, every second one goes and the interval doubles.
const SAMPLES: usize = 400;

impl Sampler {
    pub(crate) fn start() -> Self {
        let (stop, stopped) = channel();
        let named = thread::Builder::new().name("memory".into());
        Self { stop, thread: named.spawn(move || sample(&stopped)).ok() }
    }

    /// The samples, in order.
    pub(crate) fn stop(self) -> Vec<MemorySample> {
        // A thread that is gone already has nothing to say.
        let _ = self.stop.send(());
        self.thread.and_then(|t| t.join().ok()).unwrap_or_default()
    }
}

fn sample(stopped: &Receiver<()>) -> Vec<MemorySample> {
    let start = Instant::now();
    let mut interval = Duration::from_millis(100);
    let mut samples = Vec::new();
    loop {
        if let Some(resident) = resident() {
            samples.push(MemorySample { seconds: start.elapsed().as_secs_f64(), resident });
        }
        if samples.len() > SAMPLES {
            let mut keep = false;
            samples.retain(|_| {
                keep = !keep;
                keep
            });
            interval *= 2;
        }
        match stopped.recv_timeout(interval) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return samples,
        }
    }
}

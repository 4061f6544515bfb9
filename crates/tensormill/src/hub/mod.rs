//! The Hub, for jobs: models found and fetched by name, folders published.
//!
//! What a request, a cache and a file on the Hub are is `tensormill-hub`'s to know; here stands what jobs want of it.

mod pull;
pub mod push;
mod search;

pub use pull::{PullReport, PullRequest, Pulled, pull};
pub use search::{Found, search};
pub use tensormill_hub::{
    Address, Endpoint, Entry, Fetched, Gate, Hub, Info, Need, Query, RemoteDir, RemoteFile, Retry, Settings,
    Snapshot, Sort, Token, wanted,
};

use std::sync::atomic::{AtomicBool, Ordering};
use tensormill_engine::{Event, Progress};

/// Shows a download to whoever watches runs: a phase whose files are told as tensors are.
pub struct Watch<'a> {
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// Set by whoever wants it to stop.
    pub cancel: &'a AtomicBool,
    /// Whether there is nothing else to the run; where a job follows, that one counts the tensors.
    pub alone: bool,
}

impl tensormill_hub::Progress for Watch<'_> {
    fn begin(&self, files: usize, bytes: u64, there: u64) {
        let missing = bytes - there;
        if self.alone {
            self.progress.event(Event::Started {
                source_bytes: missing,
                output_bytes: missing,
                tensors: files,
            });
        }
        self.progress.event(Event::Phase { name: "downloading", bytes: missing });
    }
    fn file(&self, path: &str, _: u64) {
        if self.alone {
            self.progress.event(Event::TensorStarted { name: path });
        }
    }
    fn arrived(&self, _: &str, bytes: u64) {
        self.progress.event(Event::PhaseAdvanced { bytes });
    }
    fn waits(&self, path: &str) {
        self.progress
            .event(Event::Note { text: &format!("another process is fetching {path}: waiting for it") });
    }
    fn done(&self, path: &str) {
        if self.alone {
            self.progress.event(Event::TensorFinished { name: path });
        }
    }
    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

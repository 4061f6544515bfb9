//! What commands that take sources say about the Hub.

use crate::{
    args::Progress,
    progress::{self, Display},
};
use clap::Args;
use tensormill_core::{Access, Event, Progress as _, Reach};

/// How the Hub is reached, for every command that takes a source.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Sources on the Hub (hf://org/model@revision)")]
pub struct HubArgs {
    /// Read a source on the Hub range by range where it is: nothing of it is written to this disk
    #[arg(long)]
    pub no_cache: bool,
    /// Make no request: of the Hub, only what is in the cache (or in a mirror that HF_ENDPOINT names) can be read
    #[arg(long)]
    pub offline: bool,
}

impl HubArgs {
    /// What is shared by all that a command opens.
    pub fn access(self) -> Access {
        Access::new(Reach { no_cache: self.no_cache, offline: self.offline })
    }
}

/// Tells which commits were read, where the command itself does not.
pub fn tell(access: &Access, wanted: Progress) {
    for note in access.notes() {
        progress::note(wanted, &note);
    }
}

/// The same, to whoever watches, who hears last that a run ends; of one that failed, the error says it.
pub fn tell_watched(access: &Access, display: &Display, done: bool) {
    for text in access.notes().iter().filter(|_| done) {
        display.event(Event::Note { text });
    }
}

//! The progress bar: on a terminal only, on standard error.

use crate::args::Progress as Progress_;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use tensormill_core::{Event, Progress};

/// A bar over source bytes, or nothing where nobody looks.
pub struct Display(Option<ProgressBar>);

impl Display {
    /// A bar when standard error is a terminal and `quiet` is not asked for.
    pub fn new(how: Progress_, quiet: bool) -> Self {
        if quiet || how == Progress_::None || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template(
            "{bar:32} {percent:>3}%  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta}  {wide_msg:.dim}",
        )
        .expect("the template is a constant")
        .progress_chars("━╸─");
        Self(Some(ProgressBar::new(0).with_style(style)))
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Display {
    fn event(&self, event: Event<'_>) {
        let Some(bar) = &self.0 else { return };
        match event {
            Event::Started { source_bytes, .. } => bar.set_length(source_bytes),
            Event::Advanced { read, .. } => bar.inc(read),
            Event::TensorStarted { name } => bar.set_message(name.to_owned()),
            Event::Skipped { read, .. } => bar.inc(read),
            _ => {}
        }
    }
}

//! Progress on standard error: bars, lines or JSON.
//!
//! Worker threads add to counters and leave notes; one thread of its own looks a few times a second and paints, so
//! that a slow terminal or a full pipe never holds a worker up. Knows nothing of what is converted.

mod bars;
mod json;
mod plain;
mod rate;
mod tally;
mod text;

pub use json::failed;

use crate::{args::Progress as Wanted, log};
use std::{
    env,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tally::{Note, Tally, View};
use tensormill_core::{Event, Progress, memory::OVERHEAD, resident};

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(200);

/// Shows what the notes and numbers say, on one thread.
trait Painter: Send {
    /// Something has happened; the view knows it already.
    fn note(&mut self, note: &Note, view: &View);
    /// Some time has passed.
    fn look(&mut self, view: &View);
}

/// What is painted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Bars,
    Plain,
    Json,
    Nothing,
}

/// What to paint: `auto` gives bars on a terminal, unless the report goes out as JSON. Log lines would tear bars, so
/// with them there are lines.
fn mode(wanted: Wanted, json_report: bool, terminal: bool, logging: bool) -> Mode {
    match wanted {
        Wanted::Auto if json_report || !terminal => Mode::Nothing,
        Wanted::Auto if logging => Mode::Plain,
        Wanted::Auto => Mode::Bars,
        Wanted::Plain => Mode::Plain,
        Wanted::Json => Mode::Json,
        Wanted::None => Mode::Nothing,
    }
}

/// Since the program began; the first call begins.
pub fn clock() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Tells something that is not an error: an event where those are wanted, else a line.
pub fn note(wanted: Wanted, text: &str) {
    if wanted == Wanted::Json {
        json::note(text);
    } else {
        say(&remark(text));
    }
}

/// Something worth knowing that is not an error, as a line.
fn remark(text: &str) -> String {
    format!("note: {text}")
}

/// One line to standard error, in one write. If nobody listens, the work goes on.
fn say(line: &str) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Watches a run and shows it.
pub struct Display {
    tally: Arc<Tally>,
    /// `None` where nothing is painted.
    painter: Option<(Sender<Note>, JoinHandle<()>)>,
}

impl Display {
    /// Shows a run with this `--memory` that stops when `cancel` is set.
    pub fn new(wanted: Wanted, json_report: bool, memory: u64, cancel: &Arc<AtomicBool>) -> Self {
        let tally = Arc::new(Tally::default());
        let dumb = env::var_os("TERM").is_some_and(|t| t == "dumb");
        let terminal = io::stderr().is_terminal() && !dumb;
        let painter: Box<dyn Painter> = match mode(wanted, json_report, terminal, log::wanted()) {
            Mode::Nothing => return Self { tally, painter: None },
            Mode::Bars => Box::new(bars::Bars::default()),
            Mode::Plain => Box::new(plain::Plain::default()),
            Mode::Json => Box::new(json::Json::default()),
        };
        let (sender, notes) = channel();
        let (counts, cancel) = (Arc::clone(&tally), Arc::clone(cancel));
        let view = View::new(memory.saturating_add(OVERHEAD));
        let thread = thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || paint(&notes, &counts, &cancel, view, painter));
        // Where the system gives no more threads, the work is done unwatched.
        Self { tally, painter: thread.ok().map(|t| (sender, t)) }
    }

    /// The run is over: shows the end, and removes what must not stay.
    pub fn finish(mut self, done: bool) {
        self.end(done);
    }

    fn end(&mut self, done: bool) {
        if let Some((sender, thread)) = self.painter.take() {
            let _ = sender.send(Note::End { done });
            let _ = thread.join();
        }
    }

    fn tell(&self, note: Note) {
        if let Some((sender, _)) = &self.painter {
            let _ = sender.send(note);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.end(false);
    }
}

impl Progress for Display {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Note { text } if self.painter.is_some() => self.tell(Note::Remark(text.to_owned())),
            Event::Note { text } => say(&remark(text)),
            Event::Advanced { read, written, times } => self.tally.advanced(read, written, times),
            Event::Skipped { read, written } => self.tally.skipped(read, written),
            Event::PhaseAdvanced { bytes } => self.tally.phase_advanced(bytes),
            // Verification is a second run of the same tiles, and says how many bytes when it begins.
            Event::Started { source_bytes, .. } if !self.tally.begins() => {
                self.tell(Note::PhaseBytes(source_bytes));
            }
            Event::Started { source_bytes, output_bytes, tensors } => {
                self.tell(Note::Started { source: source_bytes, output: output_bytes, tensors });
            }
            Event::TensorStarted { name } => self.tell(Note::TensorStarted(name.to_owned())),
            Event::TensorFinished { name } => self.tell(Note::TensorFinished(name.to_owned())),
            Event::Phase { name, bytes } => {
                self.tally.phase();
                self.tell(Note::Phase { name: name.to_owned(), bytes });
            }
        }
    }
}

/// The painting thread: until the end, or until the display is gone.
fn paint(
    notes: &Receiver<Note>,
    tally: &Tally,
    cancel: &AtomicBool,
    mut view: View,
    mut painter: Box<dyn Painter>,
) {
    let mut next = Instant::now() + LOOK;
    loop {
        let note = match notes.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(note) => Some(note),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(note) = note {
            if matches!(note, Note::End { .. } | Note::Phase { .. } | Note::Started { .. }) {
                view.update(clock(), tally.counts(), resident());
            } else {
                view.now = clock();
            }
            view.take(&note);
            painter.note(&note, &view);
            if matches!(note, Note::End { .. }) {
                return;
            }
        }
        if Instant::now() >= next {
            view.update(clock(), tally.counts(), resident());
            if cancel.load(Ordering::Relaxed) && !view.stopping {
                view.take(&Note::Stopping);
                painter.note(&Note::Stopping, &view);
            }
            painter.look(&view);
            next = Instant::now() + LOOK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_for_people_who_look() {
        use Wanted::{Auto, Json, None, Plain};
        for (wanted, json, terminal, logging, expected) in [
            (Auto, false, true, false, Mode::Bars),
            (Auto, false, true, true, Mode::Plain),
            (Auto, true, true, false, Mode::Nothing),
            (Auto, false, false, false, Mode::Nothing),
            (Auto, false, false, true, Mode::Nothing),
            (Plain, true, false, false, Mode::Plain),
            (Json, true, true, true, Mode::Json),
            (None, false, true, true, Mode::Nothing),
        ] {
            assert_eq!(
                mode(wanted, json, terminal, logging),
                expected,
                "{wanted:?} {json} {terminal} {logging}"
            );
        }
    }
}

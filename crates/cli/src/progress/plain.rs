//! A line every few seconds: for logs and for terminals that cannot move the cursor.

use super::{
    Painter, say,
    tally::{Note, View},
    text,
};
use std::time::Duration;
use tensormill_core::size::human;

/// Before the first line.
const FIRST: Duration = Duration::from_secs(2);

/// Between two lines.
const EVERY: Duration = Duration::from_secs(5);

/// Longest text for the tensors at work.
const NAMES: usize = 60;

/// Writes the lines.
#[derive(Default)]
pub struct Plain {
    /// When the next line is due; `None` before the run has begun.
    next: Option<Duration>,
}

impl Painter for Plain {
    fn note(&mut self, note: &Note, v: &View) {
        match note {
            Note::Started { .. } | Note::Phase { .. } => self.next = Some(v.now + FIRST),
            _ => {}
        }
        if let Some(line) = note_line(note, v) {
            say(&line);
        }
    }

    fn look(&mut self, v: &View) {
        if self.next.is_some_and(|next| v.now >= next) {
            self.next = Some(v.now + EVERY);
            say(&line(v));
        }
    }
}

fn note_line(note: &Note, v: &View) -> Option<String> {
    match note {
        Note::Phase { name, bytes: 0 } => Some(format!("progress: {name}")),
        Note::Phase { name, bytes } => Some(format!("progress: {name}, {}", human(*bytes))),
        Note::Remark(text) => Some(super::remark(text)),
        Note::Stopping => {
            Some("progress: stopping when the tiles at work are done; once more stops at once".to_owned())
        }
        Note::End { done } => {
            let c = &v.counts;
            let skipped = match c.skipped {
                0 => String::new(),
                n => format!(", {} stood already", human(n)),
            };
            Some(format!(
                "progress: {} after {:.1} s, {} read, {} written{skipped}",
                if *done { "done" } else { "ended" },
                v.now.as_secs_f64(),
                human(c.read),
                human(c.written)
            ))
        }
        _ => None,
    }
}

fn line(v: &View) -> String {
    let mut parts = text::totals(v);
    if parts.is_empty() {
        parts.push("at work".to_owned());
    }
    parts.extend(text::memory(v));
    if !v.tensors.is_empty() {
        parts.push(text::tensors(v, NAMES));
    }
    let phase = v.phase.as_ref().map_or_else(String::new, |p| format!("{p} "));
    format!("progress: {phase}{}", parts.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tally::Tally;
    use tensormill_core::Times;

    #[test]
    fn lines_say_how_far_it_is() {
        let (tally, mut v) = (Tally::default(), View::new(1 << 30));
        let started = Note::Started { source: 10 << 20, output: 5 << 20, tensors: 3 };
        v.take(&started);
        v.take(&Note::TensorStarted("blk.0.attn_q.weight".into()));
        tally.advanced(4 << 20, 2 << 20, Times::default());
        v.update(Duration::from_secs(2), tally.counts(), Some(100 << 20));
        assert_eq!(
            line(&v),
            "progress:  40%  4.00 MiB of 10.0 MiB  ETA 0:03  2.00 MiB/s  memory 100 MiB of 1.00 GiB  blk.0.attn_q.weight"
        );
        tally.phase();
        let phase = Note::Phase { name: "checksums".into(), bytes: 5 << 20 };
        v.take(&phase);
        v.update(Duration::from_secs(2), tally.counts(), None);
        assert_eq!(note_line(&phase, &v).unwrap(), "progress: checksums, 5.00 MiB");
        assert_eq!(line(&v), "progress: checksums   0%  0 B of 5.00 MiB");
        let end = note_line(&Note::End { done: true }, &v).unwrap();
        assert_eq!(end, "progress: done after 2.0 s, 4.00 MiB read, 2.00 MiB written");
        assert_eq!(note_line(&started, &v), None);
    }
}

//! One JSON object per event and line. Fields are a contract: `docs/progress.md` lists them.

use super::{
    Painter, clock, say,
    tally::{Counts, Note, STAGES, View},
};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tensormill_core::{Error, peak_rss};

/// Between two `progress` events.
const EVERY: Duration = Duration::from_millis(500);

/// Writes the lines.
#[derive(Default)]
pub struct Json {
    /// When the next `progress` event is due; `None` before the run has begun.
    next: Option<Duration>,
}

impl Painter for Json {
    fn note(&mut self, note: &Note, v: &View) {
        match note {
            Note::Started { .. } | Note::Phase { .. } => self.next = Some(v.now),
            // The last word on how far it came.
            Note::End { .. } if self.next.is_some() => say(&progress(v).to_string()),
            _ => {}
        }
        if let Some(event) = of_note(note, v) {
            say(&event.to_string());
        }
    }

    fn look(&mut self, v: &View) {
        if self.next.is_some_and(|next| v.now >= next) {
            self.next = Some(v.now + EVERY);
            say(&progress(v).to_string());
        }
    }
}

/// The program ends with an error.
pub fn failed(e: &Error, exit_code: u8) {
    let mut event = event("failed", clock());
    event["exit_code"] = exit_code.into();
    event["error"] = crate::error_json(e);
    say(&event.to_string());
}

/// Something worth knowing that is not an error.
pub fn note(text: &str) {
    let mut event = event("note", clock());
    event["message"] = text.into();
    say(&event.to_string());
}

fn event(name: &str, now: Duration) -> Value {
    json!({ "event": name, "seconds": seconds(now) })
}

/// Seconds to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// `None`: this note is no event, or others write it.
fn of_note(note: &Note, v: &View) -> Option<Value> {
    let named = |name| event(name, v.now);
    let with = |name, more: Value| {
        let mut event = named(name);
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        Some(event)
    };
    match note {
        Note::Started { source, output, tensors } => with(
            "started",
            json!({
                "version": env!("CARGO_PKG_VERSION"),
                "source_bytes": source,
                "output_bytes": output,
                "tensors": tensors,
                "resident_limit_bytes": v.limit,
            }),
        ),
        Note::TensorStarted(name) => with("tensor_started", json!({ "name": name, "phase": v.phase })),
        Note::TensorFinished(name) => with("tensor_finished", json!({ "name": name, "phase": v.phase })),
        Note::Phase { name, bytes } => with("phase", json!({ "name": name, "bytes": known(*bytes) })),
        Note::Remark(text) => with("note", json!({ "message": text })),
        Note::Stopping => with("stopping", json!({})),
        Note::End { done: true } => {
            let mut more = sums(&v.counts);
            more.insert("peak_resident_bytes".to_owned(), json!(peak_rss()));
            with("finished", Value::Object(more))
        }
        Note::PhaseBytes(_) | Note::End { done: false } => None,
    }
}

fn progress(v: &View) -> Value {
    let mut event = event("progress", v.now);
    if let Some(event) = event.as_object_mut() {
        event.insert("phase".to_owned(), json!(v.phase));
        event.insert("done_bytes".to_owned(), json!(v.done()));
        event.insert("total_bytes".to_owned(), json!(known(v.total)));
        event.insert("bytes_per_second".to_owned(), json!(v.rate().map(f64::round)));
        event.insert("eta_seconds".to_owned(), json!(v.eta().map(seconds)));
        event.extend(sums(&v.counts));
        event.insert("resident_bytes".to_owned(), json!(v.resident));
    }
    event
}

fn sums(c: &Counts) -> Map<String, Value> {
    let stages: Map<String, Value> =
        STAGES.iter().zip(c.stages).map(|(name, t)| ((*name).to_owned(), json!(seconds(t)))).collect();
    [
        ("read_bytes", json!(c.read)),
        ("written_bytes", json!(c.written)),
        ("skipped_read_bytes", json!(c.skipped)),
        ("skipped_written_bytes", json!(c.skipped_written)),
        ("stage_seconds", Value::Object(stages)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

/// `null` for a size that is not known.
fn known(bytes: u64) -> Option<u64> {
    Some(bytes).filter(|b| *b > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tally::Tally;
    use tensormill_core::Times;

    #[test]
    fn events_are_as_documented() {
        let (tally, mut v) = (Tally::default(), View::new(1 << 30));
        v.now = Duration::from_micros(1_500_400);
        let note = Note::Started { source: 100, output: 50, tensors: 2 };
        v.take(&note);
        assert_eq!(
            of_note(&note, &v).unwrap().to_string(),
            format!(
                r#"{{"event":"started","seconds":1.5,"version":"{}","source_bytes":100,"output_bytes":50,"tensors":2,"resident_limit_bytes":1073741824}}"#,
                env!("CARGO_PKG_VERSION")
            )
        );
        tally.advanced(60, 30, Times { read: Duration::from_millis(250), ..Times::default() });
        tally.skipped(10, 5);
        v.update(Duration::from_millis(3500), tally.counts(), Some(4096));
        assert_eq!(
            progress(&v).to_string(),
            r#"{"event":"progress","seconds":3.5,"phase":null,"done_bytes":70,"total_bytes":100,"bytes_per_second":30.0,"eta_seconds":1.0,"read_bytes":60,"written_bytes":30,"skipped_read_bytes":10,"skipped_written_bytes":5,"stage_seconds":{"read":0.25,"compute":0.0,"measure":0.0,"write":0.0,"wait":0.0},"resident_bytes":4096}"#
        );
        let hostile = Note::TensorStarted("a\"\n\u{1b}".into());
        assert_eq!(
            of_note(&hostile, &v).unwrap().to_string(),
            r#"{"event":"tensor_started","seconds":3.5,"name":"a\"\n\u001b","phase":null}"#
        );
        let phase = Note::Phase { name: "syncing".into(), bytes: 0 };
        assert_eq!(
            of_note(&phase, &v).unwrap().to_string(),
            r#"{"event":"phase","seconds":3.5,"name":"syncing","bytes":null}"#
        );
        assert_eq!(of_note(&Note::End { done: false }, &v), None, "the error is told by who knows it");
    }
}

//! Numbers and names as the bars and the plain lines write them.

use super::tally::{STAGES, View};
use std::time::Duration;
use tensormill_core::size::human;

/// `1:02:03` or `2:03`.
pub fn clock(time: Duration) -> String {
    // A time that shows 0:00 looks ready: round up.
    let s = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

/// How far it is: percent, bytes, time left, rate, most important first.
pub fn totals(v: &View) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(f) = v.fraction() {
        // Rounded down: 100 % is for what is done.
        parts.push(format!("{:>3}%", (f * 100.0) as u32));
        parts.push(format!("{} of {}", human(v.done()), human(v.total)));
    }
    if let Some(eta) = v.eta() {
        parts.push(format!("ETA {}", clock(eta)));
    }
    if let Some(rate) = v.rate() {
        parts.push(format!("{}/s", human(rate as u64)));
    }
    parts
}

/// The tensors at work, in at most `width` columns.
pub fn tensors(v: &View, width: usize) -> String {
    let mut text = String::new();
    for (i, name) in v.tensors.iter().enumerate() {
        let rest = v.tensors.len() - i - 1;
        let more = if rest > 0 { format!(" +{rest}") } else { String::new() };
        let next = if i == 0 { clean(name) } else { format!(", {}", clean(name)) };
        if i > 0 && text.len() + next.len() + more.len() > width {
            text = format!("{text} +{}", rest + 1);
            break;
        }
        text.push_str(&next);
    }
    cut(&text, width)
}

/// How fast each stage is, and its share of the workers' time: `compute 96 MiB/s 71%`. Rates are bytes of the source
/// (for writing, of the output) per second that a worker spends there.
pub fn stages(v: &View, rates: bool) -> String {
    let c = &v.counts;
    let all: Duration = c.stages.iter().sum();
    let mut parts = Vec::new();
    for (i, (name, time)) in STAGES.iter().zip(c.stages).enumerate() {
        let share = time.as_secs_f64() / all.as_secs_f64().max(1e-9) * 100.0;
        let bytes = if i == 3 { c.written } else { c.read };
        // Nothing goes through waiting.
        if rates && i < 4 && time > Duration::ZERO {
            parts.push(format!("{name} {}/s {share:.0}%", human((bytes as f64 / time.as_secs_f64()) as u64)));
        } else {
            parts.push(format!("{name} {share:.0}%"));
        }
    }
    parts.join("  ")
}

/// Memory now, and its bound.
pub fn memory(v: &View) -> Option<String> {
    v.resident.map(|now| format!("memory {} of {}", human(now), human(v.limit)))
}

/// A name from a file, which may hold anything, without what a terminal would act on.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The first `width` characters.
pub fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// As many parts from the front as fit into `width` columns, in one line.
pub fn fit(parts: &[String], width: usize) -> String {
    let mut line = String::new();
    for part in parts {
        if !line.is_empty() && line.chars().count() + 2 + part.chars().count() > width {
            break;
        }
        if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(part);
    }
    cut(&line, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tally::{Note, Tally};
    use tensormill_core::Times;

    #[test]
    fn times_are_read_as_on_a_clock() {
        assert_eq!(clock(Duration::ZERO), "0:00");
        assert_eq!(clock(Duration::from_millis(100)), "0:01");
        assert_eq!(clock(Duration::from_secs(123)), "2:03");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn lines_fit() {
        let parts = ["12%", "1 of 2", "ETA 0:03"].map(str::to_owned);
        assert_eq!(fit(&parts, 80), "12%  1 of 2  ETA 0:03");
        assert_eq!(fit(&parts, 12), "12%  1 of 2");
        assert_eq!(fit(&parts, 2), "12");
        let mut v = View::new(0);
        for n in ["blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"] {
            v.take(&Note::TensorStarted(n.into()));
        }
        assert_eq!(tensors(&v, 100), "blk.0.attn_q.weight, blk.0.attn_k.weight, blk.0.attn_v.weight");
        assert_eq!(tensors(&v, 50), "blk.0.attn_q.weight, blk.0.attn_k.weight +1");
        assert_eq!(tensors(&v, 30), "blk.0.attn_q.weight +2");
        (0..80).for_each(|w| assert!(tensors(&v, w).chars().count() <= w));
    }

    #[test]
    fn names_cannot_command_a_terminal() {
        let mut v = View::new(0);
        v.take(&Note::TensorStarted("a\u{1b}[2Jb\nc".into()));
        assert_eq!(tensors(&v, 80), "a?[2Jb?c");
    }

    #[test]
    fn stages_say_rate_and_share() {
        let (tally, mut v) = (Tally::default(), View::new(0));
        let s = Duration::from_secs;
        let times = Times { read: s(1), compute: s(6), measure: s(0), write: s(2), wait: s(1) };
        tally.advanced(6 << 20, 2 << 20, times);
        v.update(s(5), tally.counts(), None);
        assert_eq!(
            stages(&v, true),
            "read 6.00 MiB/s 10%  compute 1.00 MiB/s 60%  measure 0%  write 1.00 MiB/s 20%  wait 10%"
        );
        assert_eq!(stages(&v, false), "read 10%  compute 60%  measure 0%  write 20%  wait 10%");
    }
}

//! Where the time of a run went: busy seconds and throughput of every stage.

use crate::data::{Release, Stage};
use crate::svg::{Chart, text};
use crate::text::{Esc, Px, put, rate, rate_value, seconds, shorten, width};

/// Height of a row.
const ROW: f64 = 26.0;

/// Draws the bars `total` pixels wide: two panels side by side, or one above the other where it is narrow.
pub(crate) fn draw(release: &Release, total: f64) -> Chart {
    const TITLE: &str = "Time and throughput by stage";
    let stages: Vec<&Stage> =
        release.stages.iter().filter(|s| s.seconds.is_finite() && s.seconds >= 0.0).collect();
    if stages.is_empty() {
        return Chart::empty(TITLE, "No stage was timed.");
    }
    let narrow = total < 600.0;
    let most = if narrow { 130.0 } else { 210.0 };
    let names: Vec<String> = stages.iter().map(|s| shorten(&s.name, if narrow { 18 } else { 30 })).collect();
    let column = names.iter().map(|n| width(n, 12.0)).fold(60.0, f64::max).min(most) + 12.0;
    let mut body = String::new();
    let rows = stages.len() as f64 * ROW;
    let top = 28.0;

    let busy = |s: &Stage| (s.seconds, seconds(s.seconds));
    let moved = |s: &Stage| (rate_value(s.bytes, s.seconds).unwrap_or(0.0), rate(s.bytes, s.seconds));
    let height = if narrow {
        let right = total - column;
        names_column(&mut body, &names, column, top);
        panel(&mut body, &stages, (column, top), right, "Time, summed over workers", "bar", busy);
        let second = top + rows + 44.0;
        names_column(&mut body, &names, column, second);
        panel(&mut body, &stages, (column, second), right, "Throughput per worker", "bar two", moved);
        second + rows + 8.0
    } else {
        let half = (total - column - 32.0) / 2.0;
        names_column(&mut body, &names, column, top);
        panel(&mut body, &stages, (column, top), half, "Time, summed over workers", "bar", busy);
        let second = column + half + 32.0;
        panel(&mut body, &stages, (second, top), half, "Throughput per worker", "bar two", moved);
        top + rows + 8.0
    };
    Chart { width: total, height, title: TITLE.to_owned(), desc: describe(&stages), body }
}

fn names_column(body: &mut String, names: &[String], column: f64, top: f64) {
    for (i, name) in names.iter().enumerate() {
        text(body, "end", column - 12.0, top + i as f64 * ROW + 17.0, name);
    }
}

fn panel(
    body: &mut String,
    stages: &[&Stage],
    (left, top): (f64, f64),
    room: f64,
    heading: &str,
    class: &str,
    value: impl Fn(&Stage) -> (f64, String),
) {
    text(body, "mut", left, top - 12.0, heading);
    let longest = stages.iter().map(|s| value(s).0).fold(0.0, f64::max);
    // The number stands behind its bar.
    let scale = if longest > 0.0 { (room - 96.0) / longest } else { 0.0 };
    for (i, stage) in stages.iter().enumerate() {
        let (v, label) = value(stage);
        let y = top + i as f64 * ROW;
        let long = if v > 0.0 { (v * scale).max(1.5) } else { 0.0 };
        let idle = if stage.bytes == 0 { " idle" } else { "" };
        put!(body, "<g><title>{}: {}</title>", Esc(&stage.name), Esc(&label));
        if long > 0.0 {
            put!(
                body,
                "<rect class=\"{class}{idle}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"14\" rx=\"2\"/>",
                Px(left),
                Px(y + 6.0),
                Px(long)
            );
        }
        text(body, "mut", left + long + if long > 0.0 { 8.0 } else { 0.0 }, y + 17.0, &label);
        body.push_str("</g>");
    }
}

fn describe(stages: &[&Stage]) -> String {
    let mut out = String::from("Busy time and bytes per second of each stage.");
    for s in stages.iter().take(40) {
        put!(out, " {}: {}, {}.", s.name, seconds(s.seconds), rate(s.bytes, s.seconds));
    }
    out
}

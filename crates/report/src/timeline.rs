//! Memory over time, with the budget as a line.

use crate::axis;
use crate::data::{MemorySample, Release};
use crate::svg::{Chart, line, path, text};
use crate::text::{memory, put, seconds, width};

/// Draws the plot `total` pixels wide.
pub(crate) fn draw(release: &Release, total: f64) -> Chart {
    const TITLE: &str = "Memory over time";
    let samples = thin(&release.memory, (total / 2.5) as usize);
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return Chart::empty(TITLE, "Memory was not sampled.");
    };
    let height = 300.0;
    let (left, top, right, bottom) = (64.0, 44.0, total - 10.0, height - 44.0);
    let from = first.seconds.min(0.0);
    let until = if last.seconds > from { last.seconds } else { from + 1.0 };
    let highest = samples.iter().map(|s| s.resident_bytes.max(s.tile_bytes)).max().unwrap_or(0).max(1) as f64;
    // A budget far above what was used would press the curve flat: then it is only told.
    let limit = release.memory_limit.map(|l| l as f64);
    let shown = limit.filter(|l| *l <= highest * 3.0);
    let ceiling = highest.max(shown.unwrap_or(0.0)) * 1.08;
    let x = |s: f64| left + (s - from) / (until - from) * (right - left);
    let y = |b: f64| bottom - b / ceiling * (bottom - top);

    let mut body = String::new();
    let (unit, unit_name) = axis::unit(ceiling, 1024.0);
    for tick in axis::linear(0.0, ceiling / unit, 5) {
        let py = y(tick * unit);
        line(&mut body, if tick == 0.0 { "axis" } else { "grid" }, left, py, right, py);
        let label = format!("{} {unit_name}", axis::label(tick));
        text(&mut body, "mut end", left - 8.0, py + 4.0, if tick == 0.0 { "0" } else { &label });
    }
    let (span, span_name) = time_unit(until - from);
    for tick in axis::linear(from / span, until / span, if total < 600.0 { 4 } else { 8 }) {
        text(&mut body, "mut mid", x(tick * span), bottom + 18.0, &axis::label(tick));
    }
    text(&mut body, "mut end", right, height - 6.0, &format!("{span_name} since the start"));

    let resident: Vec<_> = samples.iter().map(|s| (x(s.seconds), y(s.resident_bytes as f64))).collect();
    let mut area = resident.clone();
    area.extend([(x(last.seconds), bottom), (x(first.seconds), bottom)]);
    put!(body, "<path class=\"area\" d=\"{}z\"/>", path(area));
    put!(body, "<path class=\"resident\" d=\"{}\"/>", path(resident));
    let tiles = samples.iter().map(|s| (x(s.seconds), y(s.tile_bytes as f64)));
    put!(body, "<path class=\"tiles\" d=\"{}\"/>", path(tiles));
    if let Some(l) = shown {
        line(&mut body, "limit", left, y(l), right, y(l));
    }
    legend(&mut body, left, release.memory_limit, shown.is_some(), total);

    let mut desc = format!(
        "Resident memory and tile buffers over {}; highest sample {}.",
        seconds(until - from),
        memory(samples.iter().map(|s| s.resident_bytes).max().unwrap_or(0))
    );
    if let Some(l) = release.memory_limit {
        put!(desc, " Budget {}.", memory(l));
    }
    Chart { width: total, height, title: TITLE.to_owned(), desc, body }
}

fn legend(body: &mut String, left: f64, limit: Option<u64>, shown: bool, total: f64) {
    let mut at = if total < 600.0 { 0.0 } else { left };
    let mut entry = |class: &str, text_class: &str, label: &str| {
        if !class.is_empty() {
            line(body, class, at, 12.0, at + 22.0, 12.0);
            at += 28.0;
        }
        text(body, text_class, at, 16.0, label);
        at += width(label, 12.0) + 12.0;
    };
    entry("resident", "mut", "resident");
    entry("tiles", "mut", "tile buffers");
    if let Some(l) = limit {
        let label = memory(l);
        if shown {
            entry("limit", "mut", &format!("budget {label}"));
        } else {
            entry("", "mut", &format!("↑ budget {label}"));
        }
    }
}

fn time_unit(span: f64) -> (f64, &'static str) {
    if span >= 3.0 * 3600.0 {
        (3600.0, "hours")
    } else if span >= 180.0 {
        (60.0, "minutes")
    } else {
        (1.0, "seconds")
    }
}

/// At most `most` samples, each the highest of its share: peaks must not vanish. Samples out of order, or at no
/// time at all, are left out.
fn thin(samples: &[MemorySample], most: usize) -> Vec<MemorySample> {
    let mut latest = f64::NEG_INFINITY;
    let ordered: Vec<&MemorySample> = samples
        .iter()
        .filter(|s| {
            let good = s.seconds.is_finite() && s.seconds >= latest;
            if good {
                latest = s.seconds;
            }
            good
        })
        .collect();
    let share = ordered.len().div_ceil(most.max(2)).max(1);
    ordered
        .chunks(share)
        .map(|c| MemorySample {
            seconds: c[0].seconds,
            resident_bytes: c.iter().map(|s| s.resident_bytes).max().unwrap_or(0),
            tile_bytes: c.iter().map(|s| s.tile_bytes).max().unwrap_or(0),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64, resident_bytes: u64) -> MemorySample {
        MemorySample { seconds, resident_bytes, tile_bytes: 0 }
    }

    #[test]
    fn thinning_keeps_the_peak_and_drops_what_has_no_place() {
        let mut samples: Vec<_> = (0..10_000).map(|i| sample(f64::from(i), 100)).collect();
        samples[7_777].resident_bytes = 999;
        samples.push(sample(f64::NAN, 5000));
        samples.push(sample(3.0, 5000));
        let thinned = thin(&samples, 300);
        assert!(thinned.len() <= 300);
        assert_eq!(thinned.iter().map(|s| s.resident_bytes).max(), Some(999));
    }
}

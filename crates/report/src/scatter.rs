//! Size against error: one point per variant.

use crate::axis;
use crate::colour::NEARLY_EXACT_DB;
use crate::data::{Release, Variant};
use crate::labels::{self, Place, Point, Rect};
use crate::svg::{Chart, line, path, text};
use crate::text::{Esc, Px, bytes, decibels, put, shorten, width};

/// More labels than this no plot of this size can carry.
const MOST_LABELS: usize = 60;

/// Where the lanes begin, and how high one is.
const TOP: f64 = 26.0;
const LANE: f64 = 26.0;

/// Lanes above the plot, for variants that have no place on its axis.
#[derive(Clone, Copy, PartialEq)]
enum Lane {
    Exact,
    Above,
}

impl Lane {
    /// The lanes that are needed, from top to bottom.
    fn of(dots: &[Dot], high: f64) -> Vec<Self> {
        [Lane::Exact, Lane::Above]
            .into_iter()
            .filter(|l| dots.iter().any(|d| l.holds(d.sqnr, high)))
            .collect()
    }

    fn holds(self, sqnr: f64, high: f64) -> bool {
        match self {
            Lane::Exact => sqnr == f64::INFINITY,
            Lane::Above => sqnr.is_finite() && sqnr > high,
        }
    }

    fn label(self, high: f64) -> String {
        match self {
            Lane::Exact => "exact".to_owned(),
            Lane::Above => format!("> {high}"),
        }
    }
}

/// The highest SQNR that the axis shows: everything finite, unless that spans quantized and plain variants.
fn ceiling(dots: &[Dot]) -> f64 {
    let finite = || dots.iter().map(|d| d.sqnr).filter(|v| v.is_finite());
    if finite().any(|v| v <= NEARLY_EXACT_DB) && finite().any(|v| v > NEARLY_EXACT_DB) {
        NEARLY_EXACT_DB
    } else {
        f64::MAX
    }
}

/// One variant in the plot.
struct Dot<'a> {
    variant: &'a Variant,
    bytes: f64,
    /// SQNR in dB; infinite for exact variants.
    sqnr: f64,
    at: (f64, f64),
}

/// Draws the plot `total` pixels wide.
pub(crate) fn draw(release: &Release, total: f64) -> Chart {
    const TITLE: &str = "Size against error";
    let mut dots: Vec<Dot> = release.variants.iter().filter_map(dot).collect();
    if dots.is_empty() {
        return Chart::empty(TITLE, "No variant has both a size and a measured error.");
    }
    let left_out = release.variants.len() - dots.len();
    let high = ceiling(&dots);
    let lanes = Lane::of(&dots, high);
    let height = if total < 600.0 { 500.0 } else { 480.0 };
    let below = TOP + lanes.len() as f64 * LANE + if lanes.is_empty() { 0.0 } else { 8.0 };
    let plot = Rect { left: 44.0, top: below, right: total - 10.0, bottom: height - 46.0 };

    let mut body = String::new();
    let x = x_axis(&mut body, &dots, &plot, TOP);
    let y = y_axis(&mut body, &dots, &plot, high);
    for (i, lane) in lanes.iter().enumerate() {
        let top = TOP + i as f64 * LANE;
        put!(
            body,
            "<rect class=\"band\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"4\"/>",
            Px(plot.left),
            Px(top),
            Px(plot.right - plot.left),
            Px(LANE - 3.0)
        );
        text(&mut body, "mut end", plot.left - 8.0, top + LANE / 2.0 + 2.5, &lane.label(high));
    }
    for d in &mut dots {
        let lane = lanes.iter().position(|l| l.holds(d.sqnr, high));
        d.at = (x(d.bytes), lane.map_or_else(|| y(d.sqnr), |l| TOP + (l as f64 + 0.5) * LANE - 1.5));
    }
    text(&mut body, "mut", 0.0, 12.0, "SQNR in dB, higher is better");
    let unit = axis::unit(dots.iter().map(|d| d.bytes).fold(0.0, f64::max), 1000.0).1;
    text(&mut body, "mut end", plot.right, height - 8.0, &format!("size in {unit}"));

    let front = frontier(&dots, high);
    if front.len() > 1 {
        put!(body, "<path class=\"front\" d=\"{}\"/>", path(front.iter().copied()));
    }
    let bounds = Rect { top: TOP, ..plot };
    let labels = labelled(&dots, bounds, &front);
    draw_dots(&mut body, &dots, &labels);

    let unlabelled = labels.iter().filter(|p| p.is_none()).count();
    if unlabelled > 0 {
        text(&mut body, "mut", plot.left, height - 8.0, &format!("{unlabelled} without room for a label"));
    }
    Chart { width: total, height, title: TITLE.to_owned(), desc: describe(&dots, left_out, unlabelled), body }
}

fn dot(variant: &Variant) -> Option<Dot<'_>> {
    let error = variant.error.as_ref()?;
    let sqnr = if error.is_exact() { f64::INFINITY } else { error.sqnr_db };
    let size = variant.bytes();
    let drawable = size > 0 && (sqnr.is_finite() || sqnr == f64::INFINITY) && sqnr > -1e4;
    drawable.then_some(Dot { variant, bytes: size as f64, sqnr, at: (0.0, 0.0) })
}

/// Draws the axis of sizes and gives the place of a size on it: logarithmic as soon as sizes lie far apart, since
/// else the quantized variants would crowd beside the plain ones.
fn x_axis(body: &mut String, dots: &[Dot], plot: &Rect, top: f64) -> impl Fn(f64) -> f64 + use<> {
    let low = dots.iter().map(|d| d.bytes).fold(f64::INFINITY, f64::min);
    let high = dots.iter().map(|d| d.bytes).fold(0.0, f64::max);
    let log = high > 2.5 * low;
    let (low, high) = if log {
        let room = (high / low).powf(0.04);
        (low / room, high * room)
    } else {
        let room = ((high - low) * 0.06).max(high * 0.02);
        (low - room, high + room)
    };
    let (left, right) = (plot.left, plot.right);
    let at = move |v: f64| {
        let t = if log { (v / low).ln() / (high / low).ln() } else { (v - low) / (high - low) };
        left + t * (right - left)
    };
    let most = if right - left > 600.0 { 9 } else { 5 };
    let (unit, _) = axis::unit(dots.iter().map(|d| d.bytes).fold(0.0, f64::max), 1000.0);
    let ticks = if log {
        axis::logarithmic(low / unit, high / unit, most)
    } else {
        axis::linear(low / unit, high / unit, most)
    };
    for tick in ticks {
        let px = at(tick * unit);
        line(body, "grid", px, top, px, plot.bottom);
        text(body, "mut mid", px, plot.bottom + 18.0, &axis::label(tick));
    }
    line(body, "axis", plot.left, plot.bottom, plot.right, plot.bottom);
    at
}

/// Draws the axis of errors and gives the place of an SQNR on it.
fn y_axis(body: &mut String, dots: &[Dot], plot: &Rect, ceiling: f64) -> impl Fn(f64) -> f64 + use<> {
    let finite = || dots.iter().map(|d| d.sqnr).filter(|v| *v <= ceiling);
    let low = finite().fold(f64::INFINITY, f64::min);
    let high = finite().fold(f64::NEG_INFINITY, f64::max);
    let any = low <= high;
    let (low, high) =
        if any { ((low / 5.0 - 0.3).floor() * 5.0, (high / 5.0 + 0.3).ceil() * 5.0) } else { (0.0, 10.0) };
    let (top, bottom) = (plot.top, plot.bottom);
    let at = move |v: f64| bottom - (v - low) / (high - low) * (bottom - top);
    if any {
        for tick in axis::linear(low, high, 7) {
            line(body, "grid", plot.left, at(tick), plot.right, at(tick));
            text(body, "mut end", plot.left - 8.0, at(tick) + 4.0, &axis::label(tick));
        }
    }
    at
}

/// The variants that no other beats in both size and error, by size.
fn frontier(dots: &[Dot], high: f64) -> Vec<(f64, f64)> {
    let mut order: Vec<&Dot> = dots.iter().filter(|d| d.sqnr <= high).collect();
    order.sort_by(|a, b| a.bytes.total_cmp(&b.bytes).then(b.sqnr.total_cmp(&a.sqnr)));
    let mut best = f64::NEG_INFINITY;
    order.retain(|d| {
        let better = d.sqnr > best;
        best = best.max(d.sqnr);
        better
    });
    order.iter().map(|d| d.at).collect()
}

fn name(v: &Variant) -> String {
    shorten(&v.name, 20)
}

fn labelled(dots: &[Dot], bounds: Rect, front: &[(f64, f64)]) -> Vec<Option<Place>> {
    let points: Vec<Point> = dots
        .iter()
        .take(MOST_LABELS)
        .map(|d| Point {
            x: d.at.0,
            y: d.at.1,
            width: width(&name(d.variant), 12.0),
            height: 15.0,
            first: !d.variant.limits_broken.is_empty(),
        })
        .collect();
    let mut places = labels::place(&points, bounds, front);
    places.resize(dots.len(), None);
    places
}

fn draw_dots(body: &mut String, dots: &[Dot], labels: &[Option<Place>]) {
    for (d, p) in dots.iter().zip(labels) {
        if let Some((x, y)) = p.and_then(|p| p.leader) {
            line(body, "lead", d.at.0, d.at.1, x, y);
        }
    }
    let broken = |d: &Dot| !d.variant.limits_broken.is_empty();
    let mut order: Vec<_> = dots.iter().zip(labels).collect();
    // What breaks a limit lies on top.
    order.sort_by_key(|(d, _)| broken(d));
    for (d, p) in order {
        let v = d.variant;
        let broken = broken(d);
        let sqnr = if d.sqnr.is_finite() { format!("{} dB", decibels(d.sqnr)) } else { "exact".to_owned() };
        put!(
            body,
            "<g><title>{}: {}, {:.2} bits per weight, {sqnr}{}</title>",
            Esc(&v.name),
            bytes(v.bytes()),
            v.bits_per_weight,
            if broken { ", limits broken" } else { "" }
        );
        let (x, y) = d.at;
        if broken {
            // Another shape too, for those who do not tell red from blue.
            put!(body, "<path class=\"dot bad\" d=\"M{} {}l6.5 6.5-6.5 6.5-6.5-6.5z\"/>", Px(x), Px(y - 6.5));
        } else {
            put!(body, "<circle class=\"dot\" cx=\"{}\" cy=\"{}\" r=\"5\"/>", Px(x), Px(y));
        }
        if let Some(p) = p {
            let middle = f64::midpoint(p.rect.left, p.rect.right);
            // The estimate of the width is generous: text goes to the side that faces its point.
            let (class, at) = if p.rect.left >= x {
                ("", p.rect.left)
            } else if p.rect.right <= x {
                ("end", p.rect.right)
            } else {
                ("mid", middle)
            };
            text(body, class, at, p.rect.bottom - 3.5, &name(v));
        }
        body.push_str("</g>");
    }
}

fn describe(dots: &[Dot], left_out: usize, unlabelled: usize) -> String {
    let mut out = format!(
        "{} variants by size and SQNR; the line joins those that no other beats in both.",
        dots.len()
    );
    let best = dots.iter().max_by(|a, b| a.sqnr.total_cmp(&b.sqnr));
    let smallest = dots.iter().min_by(|a, b| a.bytes.total_cmp(&b.bytes));
    for (what, d) in [("Smallest", smallest), ("Most exact", best)] {
        if let Some(d) = d {
            let sqnr =
                if d.sqnr.is_finite() { format!("{} dB", decibels(d.sqnr)) } else { "exact".to_owned() };
            put!(out, " {what}: {} ({}, {sqnr}).", d.variant.name, bytes(d.variant.bytes()));
        }
    }
    if left_out > 0 {
        put!(out, " {left_out} without a measured error left out.");
    }
    if unlabelled > 0 {
        put!(out, " {unlabelled} without room for a label.");
    }
    out
}

//! Heat map of one variant: error by layer (columns) and role (rows).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::colour::{LEVELS, Mark, Scale};
use crate::data::{Error, Release, Tensor, Variant};
use crate::svg::{Chart, text};
use crate::text::{Esc, Px, decibels, put, shorten, width};

/// How much each cell says. A page holds a map for every variant, so that large models have to say less per cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// Colours alone: one path for each level.
    Colour,
    /// Numbers on hover.
    Hover,
    /// Numbers on hover, and in the cells where they fit.
    Full,
}

/// Rows and columns that all maps of a release share, so that they can be compared.
pub(crate) struct Grid {
    /// Layers, ascending.
    pub layers: Vec<u32>,
    /// Roles in order of first appearance.
    pub roles: Vec<String>,
    /// Roles left out since every variant keeps them as they are (or measured nothing).
    pub exact: Vec<String>,
}

impl Grid {
    /// The grid of a release.
    pub fn of(release: &Release) -> Self {
        let mut layers = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut order = Vec::new();
        let mut lossy = HashSet::new();
        for t in release.variants.iter().flat_map(|v| &v.tensors) {
            let Some(layer) = t.layer else { continue };
            layers.insert(layer);
            if seen.insert(t.role.as_str()) {
                order.push(t.role.clone());
            }
            if t.error.as_ref().is_some_and(|e| !e.is_exact()) {
                lossy.insert(t.role.as_str());
            }
        }
        // Where nothing differs at all, the map shows just that.
        let (roles, exact) = if lossy.is_empty() {
            (order, Vec::new())
        } else {
            order.into_iter().partition(|r| lossy.contains(r.as_str()))
        };
        Self { layers: layers.into_iter().collect(), roles, exact }
    }

    /// The most detail at which `maps` maps stay within about two megabytes of markup.
    pub fn detail(&self, maps: usize) -> Detail {
        match self.layers.len().saturating_mul(self.roles.len()).saturating_mul(maps) {
            0..=10_000 => Detail::Full,
            10_001..=30_000 => Detail::Hover,
            _ => Detail::Colour,
        }
    }

    /// The worst tensor at each (row, column): a weight and its bias share a cell.
    fn cells<'a>(&self, variant: &'a Variant) -> BTreeMap<(usize, usize), &'a Tensor> {
        let rows: HashMap<&str, usize> =
            self.roles.iter().enumerate().map(|(i, r)| (r.as_str(), i)).collect();
        let mut cells = BTreeMap::new();
        for t in &variant.tensors {
            let column = t.layer.and_then(|l| self.layers.binary_search(&l).ok());
            if let (Some(column), Some(row)) = (column, rows.get(t.role.as_str())) {
                cells
                    .entry((*row, column))
                    .and_modify(|worst: &mut &Tensor| {
                        if badness(t.error.as_ref()) > badness(worst.error.as_ref()) {
                            *worst = t;
                        }
                    })
                    .or_insert(t);
            }
        }
        cells
    }
}

/// Orders errors from unmeasured over exact to worst.
pub(crate) fn badness(error: Option<&Error>) -> (u8, f64) {
    match error {
        None => (0, 0.0),
        Some(e) if e.non_finite > 0 || e.sqnr_db.is_nan() && !e.is_exact() => (3, e.non_finite as f64),
        Some(e) if e.is_exact() => (1, 0.0),
        Some(e) => (2, -e.sqnr_db),
    }
}

/// What a cell says on hover, and in tables.
pub(crate) fn value(error: Option<&Error>) -> String {
    match error {
        None => "not measured".to_owned(),
        Some(e) if e.non_finite > 0 => format!("{} not finite", e.non_finite),
        Some(e) if e.is_exact() => "exact".to_owned(),
        Some(e) => format!("{} dB", decibels(e.sqnr_db)),
    }
}

/// Measures of a map.
struct Layout {
    left: f64,
    top: f64,
    cell: (f64, f64),
    numbers: bool,
}

/// Draws the map of a variant.
pub(crate) fn draw(grid: &Grid, variant: &Variant, detail: Detail) -> Chart {
    let title = format!("Error by layer and role, {}", variant.name);
    if grid.layers.is_empty() {
        return Chart::empty(&title, "No tensor belongs to a layer.");
    }
    let (columns, rows) = (grid.layers.len() as f64, grid.roles.len() as f64);
    let names: Vec<String> = grid.roles.iter().map(|r| shorten(r, 26)).collect();
    let left = (names.iter().map(|n| width(n, 12.0)).fold(30.0, f64::max) + 12.0).round();
    let across = ((960.0 - left) / columns).floor().clamp(5.0, 48.0);
    let numbers = detail == Detail::Full && across >= 22.0;
    let layout = Layout {
        left,
        top: 22.0,
        cell: (across, if numbers { 24.0 } else { across.clamp(17.0, 24.0) }),
        numbers,
    };
    let cells = grid.cells(variant);
    let scale = Scale::of_variant(variant);
    let marks: BTreeMap<(usize, usize), Mark> =
        cells.iter().map(|(at, t)| (*at, scale.mark(t.error.as_ref()))).collect();

    let mut body = String::new();
    layer_numbers(&mut body, &grid.layers, &layout);
    for (i, name) in names.iter().enumerate() {
        let y = layout.top + (i as f64 + 0.5) * layout.cell.1 + 4.0;
        text(&mut body, "end", left - 10.0, y, name);
    }
    if detail == Detail::Colour {
        draw_levels(&mut body, &marks, &layout);
    } else {
        draw_cells(&mut body, grid, &cells, &marks, &layout);
    }
    let bottom = layout.top + rows * layout.cell.1 + 18.0;
    let kinds: BTreeSet<Mark> = marks.values().copied().collect();
    let end = legend(&mut body, scale, &kinds, left, bottom);
    Chart {
        width: (left + columns * across).max(end),
        height: bottom + 34.0,
        title,
        desc: describe(&cells),
        body,
    }
}

fn layer_numbers(body: &mut String, layers: &[u32], layout: &Layout) {
    let widest = layers.last().map_or(1, |l| l.to_string().len()) as f64 * 8.0 + 6.0;
    let every = (widest / layout.cell.0).ceil().max(1.0) as usize;
    // Steps that people count in.
    let every = [1, 2, 5, 10, 20, 50, 100].into_iter().find(|s| *s >= every).unwrap_or(every);
    for (i, layer) in layers.iter().enumerate().step_by(every) {
        let x = layout.left + (i as f64 + 0.5) * layout.cell.0;
        text(body, "mut mid", x, layout.top - 8.0, &layer.to_string());
    }
}

/// One element for each cell.
fn draw_cells(
    body: &mut String,
    grid: &Grid,
    cells: &BTreeMap<(usize, usize), &Tensor>,
    marks: &BTreeMap<(usize, usize), Mark>,
    layout: &Layout,
) {
    let (w, h) = (layout.cell.0 - 1.0, layout.cell.1 - 1.0);
    for (at @ (row, column), t) in cells {
        let mark = marks.get(at).copied().unwrap_or(Mark::Unmeasured);
        let (x, y) = (layout.left + *column as f64 * layout.cell.0, layout.top + *row as f64 * layout.cell.1);
        let class = mark.class();
        let layer = grid.layers[*column];
        // The role and not the tensor's name: shorter, and this is written tens of thousands of times.
        let (role, encoding, said) = (Esc(&t.role), Esc(&t.encoding), value(t.error.as_ref()));
        if layout.numbers {
            let inside = match (mark, t.error.as_ref()) {
                (Mark::Level(_), Some(e)) => {
                    let decimals = usize::from(layout.cell.0 >= 34.0);
                    format!("{:.decimals$}", e.sqnr_db.clamp(-999.0, 9999.0))
                }
                (Mark::Broken, _) => "!".to_owned(),
                (Mark::Exact, _) => "=".to_owned(),
                _ => String::new(),
            };
            put!(
                body,
                "<g class=\"{class}\"><title>layer {layer} {role}: {encoding}, {said}</title>\
                 <path d=\"M{} {}h{w}v{h}h-{w}z\"/><text class=\"cell\" x=\"{}\" y=\"{}\">{inside}</text></g>",
                Px(x),
                Px(y),
                Px(x + w / 2.0),
                Px(y + h / 2.0 + 4.0)
            );
        } else {
            put!(
                body,
                "<path class=\"{class}\" d=\"M{} {}h{w}v{h}h-{w}z\"><title>{layer} {role} {encoding} {said}</title></path>",
                Px(x),
                Px(y)
            );
        }
    }
}

/// One element for each level.
fn draw_levels(body: &mut String, marks: &BTreeMap<(usize, usize), Mark>, layout: &Layout) {
    let mut paths: BTreeMap<Mark, String> = BTreeMap::new();
    let (w, h) = (layout.cell.0 - 1.0, layout.cell.1 - 1.0);
    for ((row, column), mark) in marks {
        let (x, y) = (layout.left + *column as f64 * layout.cell.0, layout.top + *row as f64 * layout.cell.1);
        put!(paths.entry(*mark).or_default(), "M{} {}h{w}v{h}h-{w}z", Px(x), Px(y));
    }
    for (mark, d) in paths {
        put!(body, "<path class=\"{}\" d=\"{d}\"/>", mark.class());
    }
}

/// The scale, and what the other marks that occur mean; returns where it ends.
fn legend(body: &mut String, scale: Scale, kinds: &BTreeSet<Mark>, left: f64, top: f64) -> f64 {
    const STEP: f64 = 6.0;
    let mut at = left;
    if kinds.iter().any(|k| matches!(k, Mark::Level(_))) {
        let long = LEVELS as f64 * STEP;
        for i in 0..LEVELS {
            // From low to high, as numbers run: the worst level stands on the left.
            let level = LEVELS - 1 - i;
            put!(
                body,
                "<path class=\"q{level}\" d=\"M{} {}h{STEP}v10h-{STEP}z\"/>",
                Px(at + i as f64 * STEP),
                Px(top)
            );
        }
        let middle = f64::midpoint(scale.low, scale.high);
        let ends = [format!("≤ {}", scale.low), format!("{middle}"), format!("≥ {} dB", scale.high)];
        for (x, class, label) in
            [(at, "mut", &ends[0]), (at + long / 2.0, "mut mid", &ends[1]), (at + long, "mut end", &ends[2])]
        {
            text(body, class, x, top + 25.0, &label.replace('-', "−"));
        }
        at += long + 24.0;
    }
    for (mark, sign, label) in [
        (Mark::Exact, "=", "exact"),
        (Mark::Unmeasured, "", "not measured"),
        (Mark::Broken, "!", "values that are not finite"),
    ] {
        if kinds.contains(&mark) {
            put!(
                body,
                "<g class=\"{}\"><path d=\"M{} {}h15v12h-15z\"/><text class=\"cell\" x=\"{}\" y=\"{}\">{sign}</text></g>",
                mark.class(),
                Px(at),
                Px(top - 1.0),
                Px(at + 7.5),
                Px(top + 9.0)
            );
            text(body, "mut", at + 22.0, top + 9.5, label);
            at += 22.0 + width(label, 12.0) + 18.0;
        }
    }
    at
}

fn describe(cells: &BTreeMap<(usize, usize), &Tensor>) -> String {
    let measured = || cells.values().filter(|t| t.error.is_some());
    let worst = measured().max_by(|a, b| {
        let (a, b) = (badness(a.error.as_ref()), badness(b.error.as_ref()));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    match worst {
        Some(t) => format!(
            "SQNR of {} cells by layer and role. Worst: {} ({}, {}).",
            measured().count(),
            t.name,
            t.encoding,
            value(t.error.as_ref())
        ),
        None => "No error was measured.".to_owned(),
    }
}

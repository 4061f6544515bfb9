//! Reports of a release: one self-contained HTML page, and its plots as SVG files for a model card.
//!
//! Pure functions from plain data to text. Knows nothing of formats, block types, architectures, files or
//! terminals; uses no other crate of this house.
//!
//! What comes out
//! - loads nothing: no script, style, font or image from elsewhere, and a content security policy that forbids it;
//! - is well-formed XML, and HTML at the same time;
//! - follows the reader's light or dark setting, and reads well at 400 pixels;
//! - works without JavaScript, which only adds sorting;
//! - holds no text from a file unescaped.

mod axis;
mod bars;
mod colour;
mod data;
mod heat;
mod labels;
mod page;
mod scatter;
mod svg;
mod tables;
mod text;
mod timeline;

pub use data::{Error, File, MemorySample, Release, Stage, Tensor, Variant};

/// Width of stand-alone plots in pixels, without their margin.
const FILE_WIDTH: f64 = 880.0;

/// The report as one HTML page.
///
/// Stays below three megabytes for 30 variants of a model of 80 layers with 12 roles each; larger ones lose the
/// numbers of the heat maps first.
pub fn html(release: &Release) -> String {
    page::html(release)
}

/// Size against error of all variants, as an SVG file.
pub fn size_vs_error_svg(release: &Release) -> String {
    scatter::draw(release, FILE_WIDTH).file(&release.title)
}

/// Error by layer and role of one variant of `release`, as an SVG file.
///
/// Rows and columns are those of the whole release; colours are scaled to the variant, as the legend says.
pub fn heat_map_svg(release: &Release, variant: &Variant) -> String {
    let grid = heat::Grid::of(release);
    let subtitle = format!("{} · SQNR in dB, higher is better", release.title);
    heat::draw(&grid, variant, grid.detail(1)).file(&subtitle)
}

/// Busy time and throughput of every stage, as an SVG file.
pub fn stages_svg(release: &Release) -> String {
    bars::draw(release, FILE_WIDTH).file(&release.title)
}

/// Memory over time with the budget, as an SVG file.
pub fn memory_svg(release: &Release) -> String {
    timeline::draw(release, FILE_WIDTH).file(&release.title)
}

//! The frame of a chart: inline in the page, or a file of its own for a model card.
//!
//! Colours stand in `chart.css` as plain values, not as CSS variables: a file must also look right in viewers that
//! know neither variables nor media queries (they show the light colours).

use crate::colour;
use crate::text::{Esc, Px, put, shorten, width};

/// Rules for everything that a chart draws, in light and dark.
pub(crate) fn css() -> String {
    format!("{}{}", include_str!("chart.css"), colour::css())
}

/// A drawn chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub width: f64,
    pub height: f64,
    /// What it shows, in a few words.
    pub title: String,
    /// What there is to see, for those who do not see it.
    pub desc: String,
    /// Elements, coordinates from (0, 0) to (width, height).
    pub body: String,
}

impl Chart {
    /// A chart that says why there is nothing to draw.
    pub fn empty(title: &str, why: &str) -> Self {
        let mut body = String::new();
        put!(body, "<text class=\"mut\" x=\"0\" y=\"28\">{}</text>", Esc(why));
        Self { width: 420.0, height: 48.0, title: title.to_owned(), desc: why.to_owned(), body }
    }

    /// As part of the page: `id` must be unique there; `class` says at which widths it is shown.
    pub fn inline(&self, id: &str, class: &str) -> String {
        let (w, h) = (Px(self.width), Px(self.height));
        let mut out = String::with_capacity(self.body.len() + 512);
        put!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart {class}\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" \
             height=\"{h}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title>\
             <desc id=\"{id}-d\">{}</desc>{}</svg>",
            Esc(&self.title),
            Esc(&self.desc),
            self.body
        );
        out
    }

    /// As a file: with a heading, its own background and its own rules.
    pub fn file(&self, subtitle: &str) -> String {
        const PAD: f64 = 24.0;
        const HEAD: f64 = 76.0;
        let w = (self.width + 2.0 * PAD).max(360.0);
        let h = self.height + HEAD + PAD;
        let fit = |s: &str, size: f64| {
            let chars = s.chars().count().max(1) as f64;
            shorten(s, ((w - 2.0 * PAD) / (width(s, size) / chars)) as usize)
        };
        let mut out = String::with_capacity(self.body.len() + 8192);
        put!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" \
             height=\"{h}\" role=\"img\" aria-labelledby=\"t d\"><title id=\"t\">{}</title><desc id=\"d\">{}</desc>\
             <style>{}</style><rect class=\"ground\" width=\"{w}\" height=\"{h}\" rx=\"8\"/>\
             <text class=\"head\" x=\"{PAD}\" y=\"36\">{}</text><text class=\"mut\" x=\"{PAD}\" y=\"56\">{}</text>\
             <g transform=\"translate({PAD} {HEAD})\">{}</g></svg>\n",
            Esc(&self.title),
            Esc(&self.desc),
            css(),
            Esc(&fit(&self.title, 17.0)),
            Esc(&fit(subtitle, 12.0)),
            self.body,
            w = Px(w),
            h = Px(h),
        );
        out
    }
}

/// A text element.
pub(crate) fn text(out: &mut String, class: &str, x: f64, y: f64, s: &str) {
    put!(out, "<text class=\"{class}\" x=\"{}\" y=\"{}\">{}</text>", Px(x), Px(y), Esc(s));
}

/// A straight line.
pub(crate) fn line(out: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
    put!(
        out,
        "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
        Px(x1),
        Px(y1),
        Px(x2),
        Px(y2)
    );
}

/// The `d` of a path through points.
pub(crate) fn path(points: impl IntoIterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.into_iter().enumerate() {
        put!(d, "{}{} {}", if i == 0 { "M" } else { "L" }, Px(x), Px(y));
    }
    d
}

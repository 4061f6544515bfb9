//! The colour scale of error: which level a value falls into, and what colour a level has.
//!
//! Colours run evenly in lightness in OKLCH (Björn Ottosson, "A perceptual color space for image processing", 2020),
//! so that they keep their order for colour-blind readers and on paper. What is worse stands out more from the
//! background: dark on a light page, bright on a dark one.

use crate::data::{Error, Release, Tensor, Variant};
use crate::text::put;

/// Number of levels.
pub(crate) const LEVELS: usize = 32;

/// Widest range that colours are spread over, in dB. What is better than that is as good as exact to the eye, and
/// would take the differences between quantized types away.
const WIDEST_DB: f64 = 50.0;

/// Beyond this many dB values are as good as exact: no quantized type gets there.
pub(crate) const NEARLY_EXACT_DB: f64 = 55.0;

/// The range of SQNR that colours stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// At or below this is the worst level.
    pub low: f64,
    /// At or above this is the best level.
    pub high: f64,
}

/// How a measured value is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// A level: 0 is best, `LEVELS - 1` worst.
    Level(u8),
    /// No difference at all.
    Exact,
    /// Some value is not finite, or the ratio is not a number.
    Broken,
    /// Nothing was measured.
    Unmeasured,
}

impl Mark {
    /// The CSS class of a cell.
    pub fn class(self) -> String {
        match self {
            Mark::Level(n) => format!("q{n}"),
            Mark::Exact => "qx".to_owned(),
            Mark::Broken => "qb".to_owned(),
            Mark::Unmeasured => "qu".to_owned(),
        }
    }
}

impl Scale {
    /// The scale of a whole release: its variants can be compared, and what is nearly exact does not count.
    pub fn of_release(release: &Release) -> Self {
        Self::spread(release.variants.iter().flat_map(|v| &v.tensors), 10.0)
    }

    /// The scale of the layers of one variant: finer, so that single layers show; yet not so fine that noise looks
    /// like a finding.
    pub fn of_variant(variant: &Variant) -> Self {
        Self::spread(variant.tensors.iter().filter(|t| t.layer.is_some()), 15.0)
    }

    /// From the first to the 99th percentile, so that one odd tensor does not flatten all others, rounded outwards
    /// to whole dB, and at least `narrowest` dB.
    fn spread<'a>(tensors: impl Iterator<Item = &'a Tensor>, narrowest: f64) -> Self {
        let mut values: Vec<f64> = tensors
            .filter_map(|t| t.error.as_ref())
            .map(|e| e.sqnr_db)
            // Beyond these no measurement in binary64 goes; the bounds keep the arithmetic below finite.
            .filter(|v| v.abs() < 400.0)
            .collect();
        values.sort_by(f64::total_cmp);
        // Plain types among quantized ones would take most of the range for themselves.
        let quantized = values.partition_point(|v| *v <= NEARLY_EXACT_DB);
        if quantized > 0 {
            values.truncate(quantized);
        }
        let Some(last) = values.len().checked_sub(1) else { return Self { low: 0.0, high: 40.0 } };
        let low = values[last / 100].floor();
        let high = values[last - last / 100].ceil().clamp(low, low + WIDEST_DB);
        let missing = (narrowest - (high - low)).max(0.0);
        Self { low: low - (missing / 2.0).floor(), high: high + (missing / 2.0).ceil() }
    }

    /// How an error is drawn.
    pub fn mark(self, error: Option<&Error>) -> Mark {
        match error {
            None => Mark::Unmeasured,
            Some(e) if e.non_finite > 0 => Mark::Broken,
            Some(e) if e.is_exact() => Mark::Exact,
            Some(e) => self.level(e.sqnr_db),
        }
    }

    /// How a ratio in dB is drawn.
    pub fn level(self, sqnr_db: f64) -> Mark {
        if sqnr_db.is_nan() {
            return Mark::Broken;
        }
        let t = (self.high - sqnr_db) / (self.high - self.low);
        Mark::Level(((t * LEVELS as f64).floor().clamp(0.0, LEVELS as f64 - 1.0)) as u8)
    }
}

/// A colour in sRGB.
pub(crate) type Rgb = [u8; 3];

/// The colour of a level on a light or dark page.
pub(crate) fn level(n: usize, dark: bool) -> Rgb {
    let t = n as f64 / (LEVELS - 1) as f64;
    // Cream, orange, crimson, purple: the same path both ways, cut short where it would meet the background.
    let at = if dark { 0.99 - 0.94 * t } else { t };
    let chroma = 0.035 + 0.135 * (std::f64::consts::PI * at.powf(0.85)).sin().max(0.0);
    oklch(0.965 - 0.69 * at, chroma, 95.0 - 130.0 * at)
}

/// Black or white, whichever is easier to read on `ground`; at least 4.5:1 on any colour.
pub(crate) fn ink(ground: Rgb) -> Rgb {
    let l = luminance(ground);
    if (l + 0.05) / 0.05 > 1.05 / (l + 0.05) { [0; 3] } else { [255; 3] }
}

/// Relative luminance (WCAG 2.2).
pub(crate) fn luminance(c: Rgb) -> f64 {
    let [r, g, b] = c.map(|v| {
        let v = f64::from(v) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

/// OKLCH to sRGB, with as much of the chroma as sRGB can show.
fn oklch(l: f64, chroma: f64, hue: f64) -> Rgb {
    let (sin, cos) = hue.to_radians().sin_cos();
    let mut c = chroma;
    loop {
        let rgb = linear(l, c * cos, c * sin);
        if c <= 0.0 || rgb.iter().all(|v| (-0.0005..=1.0005).contains(v)) {
            return rgb.map(|v| {
                let v = v.clamp(0.0, 1.0);
                let v = if v <= 0.0031308 { v * 12.92 } else { 1.055 * v.powf(1.0 / 2.4) - 0.055 };
                (v * 255.0).round() as u8
            });
        }
        c -= 0.004;
    }
}

/// OKLab to linear sRGB: the matrices of Ottosson's article.
fn linear(l: f64, a: f64, b: f64) -> [f64; 3] {
    let long = (l + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let medium = (l - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let short = (l - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    [
        4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short,
        -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short,
        -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701_0 * short,
    ]
}

/// The rules for `.q0` to `.q31`, for shapes of an SVG and for cells of a table alike.
pub(crate) fn css() -> String {
    let rules = |dark| {
        let mut out = String::new();
        for n in 0..LEVELS {
            let ground = level(n, dark);
            let (fill, text) = (hex(ground), if ink(ground) == [0; 3] { "#000" } else { "#fff" });
            put!(out, ".q{n}{{fill:{fill};background:{fill};color:{text}}}");
        }
        out
    };
    format!("{}\n@media (prefers-color-scheme:dark){{{}}}\n", rules(false), rules(true))
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lightness_is_strictly_monotone_in_both_themes() {
        for n in 1..LEVELS {
            assert!(luminance(level(n, false)) < luminance(level(n - 1, false)), "light {n}");
            assert!(luminance(level(n, true)) > luminance(level(n - 1, true)), "dark {n}");
        }
    }

    #[test]
    fn text_on_every_level_is_readable() {
        for n in 0..LEVELS {
            for dark in [false, true] {
                let (a, b) = (luminance(level(n, dark)), luminance(ink(level(n, dark))));
                assert!((a.max(b) + 0.05) / (a.min(b) + 0.05) >= 4.5, "level {n}, dark {dark}");
            }
        }
    }

    #[test]
    fn oklch_gives_the_known_colours() {
        assert_eq!(oklch(1.0, 0.0, 0.0), [255; 3]);
        assert_eq!(oklch(0.0, 0.0, 0.0), [0; 3]);
        // sRGB red is oklch(0.62796 0.25768 29.234).
        let [r, g, b] = oklch(0.62796, 0.2576, 29.234);
        assert!(r >= 254 && g <= 4 && b <= 4, "{r} {g} {b}");
    }

    #[test]
    fn a_scale_is_neither_too_narrow_nor_led_by_one_tensor() {
        let tensor = |sqnr_db| Tensor {
            name: String::new(),
            layer: Some(0),
            role: String::new(),
            encoding: String::new(),
            bytes: 0,
            weights: 0,
            error: Some(Error { max_abs: 1.0, rmse: 1.0, sqnr_db, cosine: 1.0, non_finite: 0 }),
        };
        let of = |values: &[f64]| {
            let list: Vec<Tensor> = values.iter().map(|v| tensor(*v)).collect();
            Scale::spread(list.iter(), 15.0)
        };
        assert_eq!(of(&[20.5, 21.5]), Scale { low: 14.0, high: 29.0 });
        assert_eq!(of(&[10.0, 30.0, 90.0]), Scale { low: 10.0, high: 30.0 });
        assert_eq!(of(&[70.0, 200.0]), Scale { low: 70.0, high: 120.0 });
        let mut many = vec![20.0; 200];
        many[0] = -30.0;
        assert_eq!(of(&many), Scale { low: 13.0, high: 28.0 });
        assert_eq!(of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300]), Scale { low: 0.0, high: 40.0 });
    }

    #[test]
    fn levels_run_from_best_to_worst_and_clamp() {
        let s = Scale { low: 10.0, high: 50.0 };
        assert_eq!(s.level(50.0), Mark::Level(0));
        assert_eq!(s.level(900.0), Mark::Level(0));
        assert_eq!(s.level(f64::INFINITY), Mark::Level(0));
        assert_eq!(s.level(10.0), Mark::Level(31));
        assert_eq!(s.level(f64::NEG_INFINITY), Mark::Level(31));
        assert_eq!(s.level(f64::NAN), Mark::Broken);
    }
}

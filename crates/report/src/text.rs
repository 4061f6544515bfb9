//! Text for markup: escaping, and numbers as people read them.
//!
//! Every string that a caller hands in passes through [`Esc`]; nothing else may put it into a page.

use std::fmt::{self, Display, Formatter, Write};

/// Appends formatted text to a `String`, which cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($out, $($arg)*);
    }};
}
pub(crate) use put;

/// Text made safe for XML and HTML, in content and in quoted attributes.
///
/// Characters that XML 1.0 forbids, and those that reorder text (so that a name could pass for another one),
/// become U+FFFD.
pub(crate) struct Esc<'a>(pub &'a str);

impl Display for Esc<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\t' | '\n' | '\r' => f.write_char(' ')?,
                c if c.is_control() || is_reordering(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                    f.write_char(char::REPLACEMENT_CHARACTER)?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Unicode's bidirectional marks, embeddings, overrides and isolates (UAX #9).
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `chars` characters, with an ellipsis in the middle where some are left out: the ends of a tensor's or
/// file's name tell more than its middle.
pub(crate) fn shorten(s: &str, chars: usize) -> String {
    let n = s.chars().count();
    if n <= chars {
        return s.to_owned();
    }
    let keep = chars.saturating_sub(1);
    let (head, tail) = (keep.div_ceil(2), keep / 2);
    s.chars().take(head).chain(std::iter::once('…')).chain(s.chars().skip(n - tail)).collect()
}

/// Estimated width of `s` in pixels at a font size: generous, since the reader's font is not known.
pub(crate) fn width(s: &str, size: f64) -> f64 {
    let em: f64 = s
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '|' | '\'' | ' ' => 0.36,
            'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.98,
            '_' | '-' => 0.52,
            c if c.is_ascii_uppercase() => 0.72,
            c if c.is_ascii() => 0.64,
            _ => 1.0,
        })
        .sum();
    em * size
}

/// A coordinate: one decimal at most, never anything but a number.
pub(crate) struct Px(pub f64);

impl Display for Px {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let v = if self.0.is_finite() { (self.0 * 10.0).round() / 10.0 } else { 0.0 };
        // No "-0", which some renderers take badly.
        if v == 0.0 { f.write_str("0") } else { write!(f, "{v}") }
    }
}

/// Three significant digits, without an exponent as long as that is readable.
pub(crate) fn number(v: f64) -> String {
    if v.is_nan() {
        return "n/a".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "∞" } else { "−∞" }.to_owned();
    }
    let a = v.abs();
    if a == 0.0 {
        "0".to_owned()
    } else if !(1e-4..1e6).contains(&a) {
        let (mantissa, exponent) = split_exponent(v);
        format!("{mantissa}e{exponent}")
    } else {
        let decimals = (2 - a.log10().floor() as i32).max(0) as usize;
        format!("{v:.decimals$}")
    }
}

/// `1.23` and `-7`, rounded first, so that 9.999e-8 is 1.00e-7.
fn split_exponent(v: f64) -> (String, i32) {
    let text = format!("{v:.2e}");
    match text.split_once('e') {
        Some((m, e)) => (m.to_owned(), e.parse().unwrap_or(0)),
        None => (text, 0),
    }
}

/// A ratio in decibels.
pub(crate) fn decibels(v: f64) -> String {
    if v.is_finite() { format!("{v:.2}") } else { number(v) }
}

/// A cosine similarity, with the digits that tell good ones apart; one only when it is one.
pub(crate) fn cosine(v: f64) -> String {
    if !v.is_finite() {
        return number(v);
    }
    if v == 1.0 {
        return "1".to_owned();
    }
    let text = format!("{v:.6}");
    if text == "1.000000" && v < 1.0 { "> 0.999999".to_owned() } else { text }
}

/// Bytes in decimal units, as file sizes are given where models are published.
pub(crate) fn bytes(v: u64) -> String {
    scaled(v as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Bytes in binary units, as memory is given.
pub(crate) fn memory(v: u64) -> String {
    scaled(v as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(mut v: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while v >= base && unit + 1 < units.len() {
        v /= base;
        unit += 1;
    }
    let decimals = if unit == 0 || v >= 100.0 { 0 } else { 2 - usize::from(v >= 10.0) };
    format!("{v:.decimals$}\u{a0}{}", units[unit])
}

/// Bytes per second, or a dash where there is no time or nothing moved.
pub(crate) fn rate(bytes_moved: u64, seconds: f64) -> String {
    match rate_value(bytes_moved, seconds) {
        Some(r) => format!("{}/s", bytes(r.round() as u64)),
        None => "–".to_owned(),
    }
}

/// Bytes per second, where that means something.
pub(crate) fn rate_value(bytes_moved: u64, seconds: f64) -> Option<f64> {
    let r = bytes_moved as f64 / seconds;
    (bytes_moved > 0 && seconds > 0.0 && r.is_finite()).then_some(r)
}

/// A duration.
pub(crate) fn seconds(v: f64) -> String {
    if !v.is_finite() || v < 0.0 {
        return "n/a".to_owned();
    }
    // Rounded before it is split, so that 59.97 s is 1 min 00 s and not 0 min 60 s.
    let whole = v.round() as u64;
    if v < 0.0995 {
        format!("{:.0}\u{a0}ms", v * 1000.0)
    } else if v < 9.95 {
        format!("{v:.1}\u{a0}s")
    } else if whole < 60 {
        format!("{whole}\u{a0}s")
    } else if whole < 3600 {
        format!("{}\u{a0}min {:02}\u{a0}s", whole / 60, whole % 60)
    } else {
        format!("{}\u{a0}h {:02}\u{a0}min", whole / 3600, whole % 3600 / 60)
    }
}

/// `1 file`, `2 files`.
pub(crate) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n}\u{a0}{}", if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_leaves_no_markup_and_no_forbidden_character() {
        let hostile = "</script><b a='1' c=\"2\">&\u{0}\u{1b}\u{202e}\u{ffff}\u{85}\nx";
        assert_eq!(
            Esc(hostile).to_string(),
            "&lt;/script&gt;&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd} x"
        );
    }

    #[test]
    fn numbers_keep_three_digits_and_say_when_there_are_none() {
        for (v, want) in [
            (0.0, "0"),
            (0.001234, "0.00123"),
            (0.00001234, "1.23e-5"),
            (9.999e-8, "1.00e-7"),
            (12.345, "12.3"),
            (f64::INFINITY, "∞"),
            (f64::NAN, "n/a"),
            (1e300, "1.00e300"),
        ] {
            assert_eq!(number(v), want);
        }
        assert_eq!(decibels(f64::INFINITY), "∞");
        assert_eq!(cosine(1.0), "1");
        assert_eq!(cosine(0.999_999_9), "> 0.999999");
        assert_eq!(cosine(0.998), "0.998000");
    }

    #[test]
    fn sizes_and_times_read_well_at_their_edges() {
        assert_eq!(bytes(999), "999\u{a0}B");
        assert_eq!(bytes(2_471_645_608), "2.47\u{a0}GB");
        assert_eq!(memory(1 << 30), "1.00\u{a0}GiB");
        assert_eq!(memory(u64::MAX), "16.0\u{a0}EiB");
        assert_eq!(seconds(59.97), "1\u{a0}min 00\u{a0}s");
        assert_eq!(seconds(0.004), "4\u{a0}ms");
        assert_eq!(seconds(f64::NAN), "n/a");
        assert_eq!(rate(10, 0.0), "–");
        assert_eq!(rate(0, 1.0), "–");
    }

    #[test]
    fn shortening_keeps_both_ends_and_counts_characters() {
        assert_eq!(shorten("abcdefghij", 5), "ab…ij");
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("abc", 0), "…");
    }

    #[test]
    fn coordinates_are_numbers_whatever_comes_in() {
        assert_eq!(Px(f64::NAN).to_string(), "0");
        assert_eq!(Px(-0.01).to_string(), "0");
        assert_eq!(Px(12.345).to_string(), "12.3");
    }
}

//! The tables of the page: variants, roles, tensors, files, stages.

use std::collections::{HashMap, HashSet};

use crate::colour::{Mark, Scale};
use crate::data::{Error, File, Release, Stage, Tensor, Variant};
use crate::heat::{badness, value};
use crate::text::{Esc, bytes, cosine, count, decibels, number, put, rate, seconds, shorten};

/// Columns of the table of roles; a model with more shows the largest.
const MOST_ROLES: usize = 24;

/// A header cell: `class` is `num` for columns of numbers.
fn header(out: &mut String, class: &str, label: &str) {
    put!(out, "<th scope=\"col\" class=\"{class}\">{}</th>", Esc(label));
}

/// A number with the value that it is sorted by; without one it sorts below all others.
fn cell(out: &mut String, key: Option<f64>, shown: &str) {
    match key.filter(|k| !k.is_nan()) {
        Some(k) if k.is_infinite() => {
            put!(out, "<td class=\"num\" data-v=\"{}Infinity\">", if k < 0.0 { "-" } else { "" });
        }
        Some(k) => put!(out, "<td class=\"num\" data-v=\"{k}\">"),
        None => out.push_str("<td class=\"num\">"),
    }
    put!(out, "{}</td>", Esc(shown));
}

/// SQNR, RMSE, largest difference and cosine.
fn error_cells(out: &mut String, error: Option<&Error>) {
    let Some(e) = error else {
        for _ in 0..4 {
            cell(out, None, "–");
        }
        return;
    };
    if e.is_exact() {
        cell(out, Some(f64::INFINITY), "exact");
    } else {
        cell(out, Some(e.sqnr_db), &decibels(e.sqnr_db));
    }
    cell(out, Some(e.rmse), &number(e.rmse));
    cell(out, Some(e.max_abs), &number(e.max_abs));
    cell(out, Some(e.cosine), &cosine(e.cosine));
}

/// One row for each variant.
pub(crate) fn variants(release: &Release) -> String {
    let mut out = String::from("<table class=\"sort\"><thead><tr>");
    header(&mut out, "", "Variant");
    for label in ["Size", "Bits/weight", "SQNR, dB", "RMSE", "Max. abs.", "Cosine"] {
        header(&mut out, "num", label);
    }
    header(&mut out, "", "Limits");
    out.push_str("</tr></thead><tbody>");
    for v in &release.variants {
        put!(out, "<tr><th scope=\"row\" title=\"{}\">{}", Esc(&v.name), Esc(&shorten(&v.name, 28)));
        if v.files.len() > 1 {
            put!(out, " <small>{}</small>", count(v.files.len(), "file", "files"));
        }
        out.push_str("</th>");
        cell(&mut out, Some(v.bytes() as f64), &bytes(v.bytes()));
        let known = v.bits_per_weight.is_finite();
        cell(
            &mut out,
            Some(v.bits_per_weight),
            &if known { format!("{:.2}", v.bits_per_weight) } else { "n/a".into() },
        );
        error_cells(&mut out, v.error.as_ref());
        put!(out, "<td>{}</td></tr>", verdict(v));
    }
    out.push_str("</tbody></table>");
    out
}

/// What became of a variant's limits, and values that are not finite, as markup.
pub(crate) fn verdict(v: &Variant) -> String {
    let broken = v.limits_broken.len();
    let mut out = if broken > 0 {
        format!("<span class=\"bad\">▲ {broken}\u{a0}broken</span>")
    } else if v.limits_checked > 0 {
        format!("<span class=\"good\">✓ {}\u{a0}held</span>", v.limits_checked)
    } else {
        "<span class=\"mut\">none set</span>".to_owned()
    };
    if let Some(e) = v.error.as_ref().filter(|e| e.non_finite > 0) {
        put!(out, " <span class=\"bad\">▲ {}\u{a0}not finite</span>", e.non_finite);
    }
    out
}

/// Roles by variants: the middle SQNR of all tensors of a role. `None` where every tensor of every variant is exact,
/// or nothing was measured.
pub(crate) fn roles(release: &Release, scale: Scale) -> Option<(String, usize)> {
    let mut order: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    let mut weights: HashMap<&str, u64> = HashMap::new();
    for t in release.variants.iter().flat_map(|v| &v.tensors) {
        if t.error.as_ref().is_none_or(Error::is_exact) {
            continue;
        }
        if seen.insert(t.role.as_str()) {
            order.push(&t.role);
        }
        let sum = weights.entry(&t.role).or_default();
        *sum = sum.saturating_add(t.weights);
    }
    if order.is_empty() {
        return None;
    }
    let left_out = order.len().saturating_sub(MOST_ROLES);
    if left_out > 0 {
        let mut largest = order.clone();
        largest.sort_by_key(|r| std::cmp::Reverse(weights.get(r).copied()));
        let keep: HashSet<&str> = largest.into_iter().take(MOST_ROLES).collect();
        order.retain(|r| keep.contains(r));
    }
    let mut out = String::from("<table class=\"roles\"><thead><tr>");
    header(&mut out, "", "Variant");
    for role in &order {
        put!(out, "<th scope=\"col\" title=\"{}\">{}</th>", Esc(role), Esc(&shorten(role, 20)));
    }
    out.push_str("</tr></thead><tbody>");
    for v in &release.variants {
        put!(out, "<tr><th scope=\"row\">{}</th>", Esc(&shorten(&v.name, 28)));
        let mut by_role: HashMap<&str, Vec<&Error>> = HashMap::new();
        for t in &v.tensors {
            if let Some(e) = &t.error {
                by_role.entry(t.role.as_str()).or_default().push(e);
            }
        }
        for role in &order {
            let errors = by_role.get(role).map_or(&[][..], Vec::as_slice);
            let (mark, shown) = middle(errors, scale);
            put!(out, "<td class=\"{}\">{shown}</td>", mark.class());
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    Some((out, left_out))
}

/// The lower median: of two middle values the worse.
fn middle(errors: &[&Error], scale: Scale) -> (Mark, String) {
    if errors.is_empty() {
        return (Mark::Unmeasured, "–".to_owned());
    }
    if errors.iter().any(|e| scale.mark(Some(e)) == Mark::Broken) {
        return (Mark::Broken, "!".to_owned());
    }
    let mut values: Vec<f64> =
        errors.iter().map(|e| if e.is_exact() { f64::INFINITY } else { e.sqnr_db }).collect();
    values.sort_by(f64::total_cmp);
    let v = values[(values.len() - 1) / 2];
    if v == f64::INFINITY { (Mark::Exact, "=".to_owned()) } else { (scale.level(v), format!("{v:.1}")) }
}

/// A table of tensors.
pub(crate) fn tensors(caption: &str, list: &[&Tensor]) -> String {
    let mut out = String::new();
    put!(out, "<table><caption>{}</caption><thead><tr>", Esc(caption));
    header(&mut out, "", "Tensor");
    header(&mut out, "", "Type");
    for label in ["Size", "SQNR, dB", "RMSE", "Max. abs.", "Cosine"] {
        header(&mut out, "num", label);
    }
    out.push_str("</tr></thead><tbody>");
    for t in list {
        put!(
            out,
            "<tr><th scope=\"row\" title=\"{}\">{}</th><td>{}</td>",
            Esc(&shorten(&t.name, 400)),
            Esc(&shorten(&t.name, 44)),
            Esc(&shorten(&t.encoding, 20))
        );
        cell(&mut out, None, &bytes(t.bytes));
        error_cells(&mut out, t.error.as_ref());
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    out
}

/// The `most` worst tensors of a variant, worst first; exact ones are not among them.
pub(crate) fn worst(variant: &Variant, most: usize) -> Vec<&Tensor> {
    let mut list: Vec<&Tensor> =
        variant.tensors.iter().filter(|t| t.error.as_ref().is_some_and(|e| !e.is_exact())).collect();
    list.sort_by(|a, b| {
        let (a, b) = (badness(a.error.as_ref()), badness(b.error.as_ref()));
        b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
    });
    list.truncate(most);
    list
}

/// One line about a variant.
pub(crate) fn facts(v: &Variant) -> String {
    let mut out = bytes(v.bytes());
    if v.bits_per_weight.is_finite() {
        put!(out, " · {:.2} bits per weight", v.bits_per_weight);
    }
    if v.error.is_some() {
        put!(out, " · {}", value(v.error.as_ref()));
    }
    out
}

/// Every file with its hash.
pub(crate) fn files(release: &Release) -> String {
    let mut out = String::from("<table class=\"files\"><thead><tr>");
    header(&mut out, "", "File");
    header(&mut out, "num", "Bytes");
    header(&mut out, "", "SHA-256");
    out.push_str("</tr></thead><tbody>");
    for File { name, bytes: size, sha256 } in release.variants.iter().flat_map(|v| &v.files) {
        put!(out, "<tr><th scope=\"row\">{}</th>", Esc(name));
        cell(&mut out, None, &grouped(*size));
        match sha256 {
            Some(hash) => put!(out, "<td><code>{}</code></td></tr>", Esc(hash)),
            None => out.push_str("<td class=\"mut\">not taken</td></tr>"),
        }
    }
    out.push_str("</tbody></table>");
    out
}

/// A whole number with narrow spaces between groups of three digits.
fn grouped(v: u64) -> String {
    let digits = v.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

/// Stages as numbers, for those who do not see the bars.
pub(crate) fn stages(list: &[Stage]) -> String {
    let mut out = String::from("<table><thead><tr>");
    header(&mut out, "", "Stage");
    for label in ["Time", "Bytes", "Throughput"] {
        header(&mut out, "num", label);
    }
    out.push_str("</tr></thead><tbody>");
    for s in list {
        put!(out, "<tr><th scope=\"row\">{}</th>", Esc(&s.name));
        cell(&mut out, None, &seconds(s.seconds));
        cell(&mut out, None, &if s.bytes > 0 { bytes(s.bytes) } else { "–".to_owned() });
        cell(&mut out, None, &rate(s.bytes, s.seconds));
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1234), "1\u{202f}234");
        assert_eq!(grouped(123456), "123\u{202f}456");
    }

    #[test]
    fn the_middle_of_two_is_the_worse() {
        let e = |sqnr_db| Error { max_abs: 1.0, rmse: 1.0, sqnr_db, cosine: 0.9, non_finite: 0 };
        let (a, b) = (e(10.0), e(20.0));
        let exact = Error { max_abs: 0.0, rmse: 0.0, ..e(f64::INFINITY) };
        let scale = Scale { low: 0.0, high: 40.0 };
        assert_eq!(middle(&[&b, &a], scale).1, "10.0");
        assert_eq!(middle(&[&b, &exact, &a], scale).1, "20.0");
        assert_eq!(middle(&[&exact], scale), (Mark::Exact, "=".to_owned()));
        assert_eq!(middle(&[], scale).0, Mark::Unmeasured);
        assert_eq!(middle(&[&a, &Error { non_finite: 1, ..e(10.0) }], scale).0, Mark::Broken);
    }
}

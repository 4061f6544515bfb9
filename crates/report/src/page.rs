//! The page: what stands where.
//!
//! Markup is XML and HTML at once: every element is closed, every attribute quoted, and style and script hold
//! neither `<` nor `&`, which the two languages read differently.

use crate::colour::Scale;
use crate::data::Release;
use crate::heat::{self, Detail, Grid};
use crate::text::{Esc, bytes, count, memory, put, rate, seconds};
use crate::{bars, scatter, svg, tables, timeline};

/// Widths at which plots are drawn; style rules show one of them.
const WIDE: f64 = 960.0;
const NARROW: f64 = 360.0;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// SHA-256 of the script in base64: the page's policy lets no other script run, whatever a name may hold.
const SCRIPT_HASH: &str = include_str!("page.js.sha256");

/// Tensors listed as worst for each variant.
const WORST: usize = 6;

/// Tensors outside of layers listed for each variant.
const MOST_OUTER: usize = 40;

/// The whole page.
pub(crate) fn html(release: &Release) -> String {
    let mut sections: Vec<(&str, &str, String)> = vec![
        ("variants", "Variants", variants(release)),
        ("plot", "Size against error", size_against_error(release)),
        ("roles", "Error by role", roles(release)),
        ("layers", "Error by layer", layers(release)),
        ("stages", "Time and throughput", stages(release)),
        ("memory", "Memory", memory_section(release)),
        ("files", "Files", files(release)),
    ];
    sections.retain(|s| !s.2.is_empty());

    let mut out = String::with_capacity(64 * 1024 + sections.iter().map(|s| s.2.len()).sum::<usize>());
    head(&mut out, release);
    out.push_str("<body><header class=\"top\">");
    heading(&mut out, release);
    out.push_str("<nav aria-label=\"Sections\">");
    for (id, title, _) in &sections {
        put!(out, "<a href=\"#{id}\">{title}</a> ");
    }
    out.push_str("</nav></header><main>");
    summary(&mut out, release);
    for (id, title, body) in &sections {
        put!(out, "<section id=\"{id}\"><h2>{title}</h2>{body}</section>");
    }
    out.push_str(GLOSSARY);
    put!(out, "</main><footer>{}", Esc(&release.tool_version));
    if let Some(date) = &release.date {
        put!(out, " · {}", Esc(date));
    }
    put!(out, "</footer><script>{SCRIPT}</script></body></html>\n");
    out
}

fn head(out: &mut String, release: &Release) {
    put!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/>\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'sha256-{}'; base-uri 'none'; form-action 'none'\"/>\
         <title>{}</title><style>{STYLE}{}",
        SCRIPT_HASH.trim(),
        Esc(&release.title),
        svg::css()
    );
    // One rule for each variant shows its panel without a script; browsers that do not know `:has` show all.
    out.push_str("@supports selector(:has(a)){@media screen{.panel{display:none}");
    for i in 0..release.variants.len() {
        put!(out, ".tabs:has(#v{i}:checked) #p{i}{{display:block}}");
    }
    out.push_str("}}</style></head>");
}

fn heading(out: &mut String, release: &Release) {
    put!(
        out,
        "<p class=\"kind\">Release report</p><h1>{}</h1><p class=\"source\">from ",
        Esc(&release.title)
    );
    put!(out, "<code>{}</code>", Esc(&release.source));
    if let Some(revision) = &release.revision {
        put!(out, " at <code>{}</code>", Esc(revision));
    }
    out.push_str("</p>");
}

/// The headline: verdict, key figures, remarks.
fn summary(out: &mut String, release: &Release) {
    verdict(out, release);
    let total = release.variants.iter().fold(0u64, |sum, v| sum.saturating_add(v.bytes()));
    let files: usize = release.variants.iter().map(|v| v.files.len()).sum();
    out.push_str("<dl class=\"figures\">");
    let mut figure = |name: &str, value: &str, more: &str| {
        put!(out, "<div><dt>{name}</dt><dd>{}<small>{}</small></dd></div>", Esc(value), Esc(more));
    };
    figure("Variants", &release.variants.len().to_string(), &count(files, "file", "files"));
    figure("Written", &bytes(total), &rate_or_blank(total, release.wall_seconds));
    figure("Source", &bytes(release.source_bytes), &read_how_often(release));
    figure("Time", &seconds(release.wall_seconds), &count(release.threads, "thread", "threads"));
    let budget = release.memory_limit.map(|l| format!("budget {}", memory(l))).unwrap_or_default();
    let sampled = release.memory.iter().map(|s| s.resident_bytes).max();
    match release.peak_rss.or(sampled) {
        Some(peak) => figure("Peak memory", &memory(peak), &budget),
        None => figure("Peak memory", "not known", &budget),
    }
    out.push_str("</dl>");
    if !release.notes.is_empty() {
        out.push_str("<div class=\"notes\"><h2>Notes</h2><ul>");
        for note in &release.notes {
            put!(out, "<li>{}</li>", Esc(note));
        }
        out.push_str("</ul></div>");
    }
}

fn rate_or_blank(moved: u64, seconds: f64) -> String {
    match rate(moved, seconds).as_str() {
        "–" => String::new(),
        r => r.to_owned(),
    }
}

fn read_how_often(release: &Release) -> String {
    if release.read_bytes == 0 || release.source_bytes == 0 {
        String::new()
    } else if release.read_bytes == release.source_bytes {
        "read once".to_owned()
    } else {
        format!("read {:.2} times", release.read_bytes as f64 / release.source_bytes as f64)
    }
}

fn verdict(out: &mut String, release: &Release) {
    let broken: Vec<_> = release.variants.iter().filter(|v| !v.limits_broken.is_empty()).collect();
    let odd: Vec<_> =
        release.variants.iter().filter(|v| v.error.as_ref().is_some_and(|e| e.non_finite > 0)).collect();
    let checked: usize = release.variants.iter().map(|v| v.limits_checked).sum();
    if !broken.is_empty() || !odd.is_empty() {
        out.push_str("<div class=\"verdict broken\" role=\"note\"><p><strong>");
        if !broken.is_empty() {
            let (n, of) = (broken.len(), release.variants.len());
            put!(
                out,
                "▲ {n} of {of} variants {} limits. ",
                if n == 1 { "breaks its" } else { "break their" }
            );
        }
        if !odd.is_empty() {
            put!(out, "▲ {} with values that are not finite.", count(odd.len(), "variant", "variants"));
        }
        out.push_str("</strong></p><ul>");
        for v in broken {
            for limit in &v.limits_broken {
                put!(out, "<li><b>{}</b> {}</li>", Esc(&v.name), Esc(limit));
            }
        }
        out.push_str("</ul></div>");
    } else if checked > 0 {
        put!(
            out,
            "<div class=\"verdict held\" role=\"note\"><p><strong>✓ All limits hold</strong> ({} over {}).</p></div>",
            count(checked, "check", "checks"),
            count(release.variants.len(), "variant", "variants")
        );
    }
}

fn variants(release: &Release) -> String {
    if release.variants.is_empty() {
        return "<p class=\"mut\">The release has no variants.</p>".to_owned();
    }
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Table of variants\">{}</div>",
        tables::variants(release)
    )
}

/// A plot at both widths.
fn both(id: &str, wide: &svg::Chart, narrow: &svg::Chart) -> String {
    format!("<figure>{}{}</figure>", wide.inline(id, "wide"), narrow.inline(&format!("{id}-n"), "narrow"))
}

fn size_against_error(release: &Release) -> String {
    if release.variants.iter().all(|v| v.error.is_none()) {
        return String::new();
    }
    format!(
        "<p class=\"lead-in\">The line joins the variants that no other beats in both. A diamond breaks a limit.</p>{}",
        both("plot-svg", &scatter::draw(release, WIDE), &scatter::draw(release, NARROW))
    )
}

fn roles(release: &Release) -> String {
    let Some((table, left_out)) = tables::roles(release, Scale::of_release(release)) else {
        return String::new();
    };
    let mut out = format!(
        "<p class=\"lead-in\">Median SQNR in dB of all tensors of a role; = stands for exact.</p><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Table of roles\">{table}</div>"
    );
    if left_out > 0 {
        put!(out, "<p class=\"mut\">{left_out} smaller roles left out.</p>");
    }
    out
}

fn layers(release: &Release) -> String {
    if !release.variants.iter().flat_map(|v| &v.tensors).any(|t| t.error.is_some()) {
        return String::new();
    }
    let grid = Grid::of(release);
    let detail = grid.detail(release.variants.len());
    let mut out = String::from(
        "<p class=\"lead-in\">SQNR in dB of each tensor, higher is better. Colours are \
         scaled to each variant.",
    );
    if !grid.exact.is_empty() {
        let names: Vec<&str> = grid.exact.iter().take(12).map(String::as_str).collect();
        let more = grid.exact.len().saturating_sub(12);
        put!(out, " Exact in every variant, and not shown: {}", Esc(&names.join(", ")));
        if more > 0 {
            put!(out, " and {more} more");
        }
        out.push('.');
    }
    if detail == Detail::Colour {
        out.push_str(" Too many cells for a number each; the SVG files of single variants have them.");
    }
    out.push_str("</p><div class=\"tabs\"><fieldset><legend>Variant</legend>");
    let first = first_shown(release);
    for (i, v) in release.variants.iter().enumerate() {
        put!(
            out,
            "<span class=\"tab\"><input type=\"radio\" name=\"variant\" id=\"v{i}\"{}/><label for=\"v{i}\">{}{}</label></span>",
            if i == first { " checked=\"checked\"" } else { "" },
            Esc(&v.name),
            if v.limits_broken.is_empty() { "" } else { " <span class=\"bad\">▲</span>" }
        );
    }
    out.push_str("</fieldset>");
    for (i, v) in release.variants.iter().enumerate() {
        put!(
            out,
            "<div class=\"panel\" id=\"p{i}\"><h3>{} <small>{}</small></h3>",
            Esc(&v.name),
            Esc(&tables::facts(v))
        );
        let map = heat::draw(&grid, v, detail);
        put!(
            out,
            "<div class=\"scroll map\" tabindex=\"0\" role=\"group\" aria-label=\"Heat map\">{}</div>",
            map.inline(&format!("h{i}"), "fixed")
        );
        let outer: Vec<_> = v.tensors.iter().filter(|t| t.layer.is_none()).collect();
        let worst = tables::worst(v, WORST);
        let more = outer.len().saturating_sub(MOST_OUTER);
        for (caption, list) in
            [("Worst tensors", &worst[..]), ("Outside of layers", &outer[..outer.len() - more])]
        {
            if !list.is_empty() {
                put!(
                    out,
                    "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{caption}\">{}</div>",
                    tables::tensors(caption, list)
                );
            }
        }
        if more > 0 {
            put!(out, "<p class=\"mut\">{more} more outside of layers.</p>");
        }
        out.push_str("</div>");
    }
    out.push_str("</div>");
    out
}

/// The variant whose map is shown first: the one to look at, that is the first with broken limits, or else the worst.
fn first_shown(release: &Release) -> usize {
    let badness = |i: &usize| heat::badness(release.variants[*i].error.as_ref());
    let worse = |a: &usize, b: &usize| {
        let (x, y) = (badness(a), badness(b));
        x.0.cmp(&y.0).then(x.1.total_cmp(&y.1))
    };
    let broken = release.variants.iter().position(|v| !v.limits_broken.is_empty());
    broken.or_else(|| (0..release.variants.len()).max_by(worse)).unwrap_or(0)
}

fn stages(release: &Release) -> String {
    if release.stages.is_empty() {
        return String::new();
    }
    format!(
        "{}<details><summary>As numbers</summary><div class=\"scroll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"Table of stages\">{}</div></details>",
        both("stages-svg", &bars::draw(release, WIDE), &bars::draw(release, NARROW)),
        tables::stages(&release.stages)
    )
}

fn memory_section(release: &Release) -> String {
    if release.memory.is_empty() {
        return String::new();
    }
    both("memory-svg", &timeline::draw(release, WIDE), &timeline::draw(release, NARROW))
}

fn files(release: &Release) -> String {
    if release.variants.iter().all(|v| v.files.is_empty()) {
        return String::new();
    }
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-label=\"Table of files\">{}</div>",
        tables::files(release)
    )
}

const GLOSSARY: &str = "<section id=\"terms\"><h2>Terms</h2><dl class=\"terms\">\
<dt>SQNR</dt><dd>Signal to quantization noise ratio: 10 log<sub>10</sub> of the sum of squared source values over the \
sum of squared differences, in decibels. 6 dB more halve the error.</dd>\
<dt>RMSE</dt><dd>Root of the mean squared difference between written and source values.</dd>\
<dt>Max. abs.</dt><dd>Largest absolute difference of a single value.</dd>\
<dt>Cosine</dt><dd>Cosine of the angle between written and source values; 1 is the same direction.</dd>\
<dt>Exact</dt><dd>No value differs.</dd></dl></section>";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::colour::luminance;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_policy_allows_exactly_this_script() {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut base64 = String::new();
        for chunk in Sha256::digest(SCRIPT.as_bytes()).chunks(3) {
            let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..=chunk.len() {
                base64.push(ALPHABET[(word >> (18 - 6 * i) & 63) as usize] as char);
            }
        }
        base64.push_str(&"=".repeat((4 - base64.len() % 4) % 4));
        assert_eq!(SCRIPT_HASH.trim(), base64, "page.js has changed: put this into page.js.sha256");
    }

    #[test]
    fn text_is_readable_on_its_ground_in_both_themes() {
        let (light, dark) =
            STYLE.split_once("@media (prefers-color-scheme:dark)").expect("both themes are there");
        for theme in [light, dark] {
            let colour = |name: &str| -> f64 {
                let (_, rest) = theme.split_once(&format!("--{name}:#")).expect("the colour is set");
                let hex: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
                let hex = if hex.len() == 3 { hex.chars().flat_map(|c| [c, c]).collect() } else { hex };
                let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal");
                luminance([byte(0), byte(2), byte(4)])
            };
            for (ground, inks) in [
                ("ground", &["ink", "soft", "link", "bad", "good"][..]),
                ("panel", &["ink", "soft", "bad", "good"]),
                ("bad-ground", &["ink", "bad"]),
                ("good-ground", &["ink", "good"]),
            ] {
                for ink in inks {
                    let (a, b) = (colour(ground), colour(ink));
                    let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                    assert!(contrast >= 4.5, "--{ink} on --{ground}: {contrast:.2}");
                }
            }
        }
    }

    #[test]
    fn style_and_script_read_the_same_as_xml_and_html() {
        for text in [STYLE, SCRIPT, &svg::css()] {
            assert!(!text.contains(['<', '&']), "XML would take this for markup");
            assert!(!text.contains("]]>"));
        }
    }
}

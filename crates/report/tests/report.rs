//! Properties of what comes out: well-formed, escaped, self-contained, numbers everywhere, and not too large.

mod common;

use std::collections::HashSet;

use roxmltree::{Document, Node, ParsingOptions};
use tensormill_report::{
    Error, MemorySample, Release, Stage, heat_map_svg, html, memory_svg, size_vs_error_svg, stages_svg,
};

const SVG: &str = "http://www.w3.org/2000/svg";
const XHTML: &str = "http://www.w3.org/1999/xhtml";

/// What files and people may put into any name.
const HOSTILE: &str =
    "</title></script><b onclick='x'>\"&amp;]]>--><!--<style>{}\u{0}\u{1b}[31m\u{202e}\u{ffff}\r\n\tä";

fn parse(text: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, nodes_limit: u32::MAX, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).unwrap_or_else(|e| {
        let line = text.lines().nth(e.pos().row as usize - 1).unwrap_or_default();
        let around: String =
            line.chars().skip((e.pos().col as usize).saturating_sub(100)).take(200).collect();
        panic!("{e}: {around}")
    })
}

/// Everything that can be made of a release.
fn outputs(r: &Release) -> Vec<(String, String)> {
    let mut all = vec![
        ("html".to_owned(), html(r)),
        ("size against error".to_owned(), size_vs_error_svg(r)),
        ("stages".to_owned(), stages_svg(r)),
        ("memory".to_owned(), memory_svg(r)),
    ];
    all.extend(r.variants.iter().map(|v| (format!("heat map of {:?}", v.name), heat_map_svg(r, v))));
    all
}

fn hostile() -> Release {
    let mut r = common::release(3, 4, 3);
    r.title = HOSTILE.into();
    r.source = HOSTILE.into();
    r.revision = Some(HOSTILE.into());
    r.tool_version = HOSTILE.into();
    r.date = Some(HOSTILE.into());
    r.notes = vec![HOSTILE.into()];
    for s in &mut r.stages {
        s.name = HOSTILE.into();
    }
    for v in &mut r.variants {
        v.name = HOSTILE.into();
        v.limits_broken = vec![HOSTILE.into()];
        for f in &mut v.files {
            f.name = HOSTILE.into();
            f.sha256 = Some(HOSTILE.into());
        }
        for t in &mut v.tensors {
            t.name = HOSTILE.into();
            t.role = HOSTILE.into();
            t.encoding = HOSTILE.into();
        }
    }
    r
}

/// Numbers that no measurement should give.
fn extreme() -> Release {
    let mut r = common::release(4, 5, 6);
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 5e-324];
    for (i, v) in r.variants.iter_mut().enumerate() {
        let x = odd[i];
        v.bits_per_weight = x;
        v.error = Some(Error { max_abs: x, rmse: x, sqnr_db: x, cosine: x, non_finite: 0 });
        v.files[0].bytes = if i % 2 == 0 { u64::MAX } else { 1 };
        for (j, t) in v.tensors.iter_mut().enumerate() {
            let x = odd[(i + j) % odd.len()];
            t.error = Some(Error {
                max_abs: x,
                rmse: x,
                sqnr_db: x,
                cosine: x,
                non_finite: u64::MAX * (j as u64 % 2),
            });
            t.weights = u64::MAX;
            t.layer = t.layer.map(|l| u32::MAX - l);
        }
    }
    r.stages = odd.iter().map(|x| Stage { name: "s".into(), seconds: *x, bytes: u64::MAX }).collect();
    r.memory =
        odd.iter().map(|x| MemorySample { seconds: *x, resident_bytes: u64::MAX, tile_bytes: 0 }).collect();
    r.memory_limit = Some(0);
    r.peak_rss = Some(u64::MAX);
    r.wall_seconds = f64::NAN;
    r.source_bytes = u64::MAX;
    r
}

fn releases() -> Vec<(&'static str, Release)> {
    let mut flat = common::release(4, 5, 3);
    for v in &mut flat.variants {
        v.error = Some(common::error(f64::INFINITY));
        v.tensors.iter_mut().for_each(|t| t.error = Some(common::error(f64::INFINITY)));
    }
    let mut no_layers = common::release(4, 5, 3);
    no_layers.variants.iter_mut().for_each(|v| v.tensors.retain(|t| t.layer.is_none()));
    let mut same = common::release(2, 4, 30);
    for v in &mut same.variants {
        v.error = Some(common::error(20.0));
        v.files.truncate(1);
        v.files[0].bytes = 1000;
    }
    vec![
        ("empty", Release::default()),
        ("tiny", common::tiny()),
        ("sample", common::release(16, 9, 20)),
        ("everything exact", flat),
        ("no layers", no_layers),
        ("thirty variants at one point", same),
        ("hostile", hostile()),
        ("extreme", extreme()),
    ]
}

#[test]
fn everything_is_well_formed_and_refers_to_ids_that_are_there_once() {
    for (name, r) in releases() {
        for (what, text) in outputs(&r) {
            let doc = parse(&text);
            let mut ids = HashSet::new();
            for id in doc.descendants().filter_map(|n| n.attribute("id")) {
                assert!(ids.insert(id), "{name}, {what}: id {id} twice");
            }
            for n in doc.descendants() {
                let labels =
                    n.attribute("aria-labelledby").unwrap_or_default().split(' ').filter(|s| !s.is_empty());
                let target = n.attribute("href").and_then(|h| h.strip_prefix('#')).into_iter();
                for id in labels.chain(target).chain(n.attribute("for")) {
                    assert!(ids.contains(id), "{name}, {what}: no id {id}");
                }
            }
        }
    }
}

#[test]
fn html_reads_the_same_with_an_html_parser() {
    // HTML knows self-closing tags only for void elements and inside of SVG; anything else would swallow the page.
    let may = ["meta", "input", "path", "rect", "line", "circle"];
    for (name, r) in releases() {
        let text = html(&r);
        for (at, _) in text.match_indices("/>") {
            let open = text[..at].rfind('<').expect("a tag begins");
            let tag = text[open + 1..at].split([' ', '/']).next().unwrap_or_default();
            assert!(may.contains(&tag), "{name}: <{tag}/>");
        }
        assert!(!text.contains("<![CDATA[") && !text.contains("<?"), "{name}");
    }
}

#[test]
fn nothing_is_loaded_and_nothing_else_can_run() {
    for (name, r) in releases() {
        for (what, text) in outputs(&r) {
            let doc = parse(&text);
            for n in doc.descendants().filter(Node::is_element) {
                for a in n.attributes() {
                    let key = a.name();
                    assert!(!key.starts_with("on"), "{name}, {what}: {key}");
                    assert!(key != "src" && key != "style", "{name}, {what}: {key}");
                    assert!(key != "href" || a.value().starts_with('#'), "{name}, {what}: {}", a.value());
                }
                let tag = n.tag_name();
                assert!(
                    matches!(tag.namespace(), Some(SVG | XHTML)),
                    "{name}, {what}: element in {:?}",
                    tag.namespace()
                );
                assert!(
                    !["link", "img", "image", "iframe", "object", "use", "foreignObject"]
                        .contains(&tag.name()),
                    "{name}, {what}: <{}>",
                    tag.name()
                );
                if tag.name() == "style" {
                    let css = n.text().unwrap_or_default();
                    assert!(!css.contains("url(") && !css.contains("@import"), "{name}, {what}");
                }
            }
            let scripts = doc.descendants().filter(|n| n.has_tag_name((XHTML, "script"))).count();
            assert_eq!(scripts, usize::from(what == "html"), "{name}, {what}");
        }
    }
}

#[test]
fn hostile_names_stay_text() {
    let r = hostile();
    let seen: String = HOSTILE
        .chars()
        .map(|c| match c {
            '\r' | '\n' | '\t' => ' ',
            '\0' | '\u{1b}' | '\u{202e}' | '\u{ffff}' => '\u{fffd}',
            c => c,
        })
        .collect();
    let page = html(&r);
    let doc = parse(&page);
    let text_of = |tag: &str| -> Vec<String> {
        doc.descendants()
            .filter(|n| n.has_tag_name((XHTML, tag)))
            .map(|n| n.descendants().filter(Node::is_text).filter_map(|t| t.text()).collect())
            .collect()
    };
    assert_eq!(text_of("h1"), [seen.as_str()]);
    assert_eq!(text_of("title"), [seen.as_str()]);
    assert!(text_of("li").contains(&seen), "the note is there as it was given");
    // The verdict sets names in bold itself; no element came out of a name.
    assert_eq!(text_of("b").len(), r.variants.len());
    assert_eq!(text_of("style").len(), 1);
    for (what, svg) in outputs(&r).into_iter().skip(1) {
        let svg = parse(&svg);
        assert!(
            svg.descendants().all(|n| !n.is_element() || n.tag_name().namespace() == Some(SVG)),
            "{what}"
        );
        assert!(svg.descendants().all(|n| n.tag_name().name() != "b"), "{what}");
    }
}

#[test]
fn every_coordinate_is_a_number_inside_its_chart() {
    for (name, r) in releases() {
        for (what, text) in outputs(&r) {
            for svg in parse(&text).descendants().filter(|n| n.has_tag_name((SVG, "svg"))) {
                let view = numbers(svg.attribute("viewBox").expect("a view box"));
                let [_, _, w, h] = view[..] else { panic!("{name}, {what}: {view:?}") };
                assert!(w > 0.0 && h > 0.0 && w < 5000.0 && h < 5000.0, "{name}, {what}: {w} x {h}");
                for n in svg.descendants().filter(|n| n.is_element() && *n != svg) {
                    for (keys, most) in
                        [(["x", "x1", "x2", "cx", "width"], w), (["y", "y1", "y2", "cy", "height"], h)]
                    {
                        for v in keys.iter().filter_map(|k| n.attribute(*k)).flat_map(numbers) {
                            assert!(
                                v >= 0.0 && v <= most,
                                "{name}, {what}: {v} of {most} in {:?}",
                                n.tag_name()
                            );
                        }
                    }
                    if let Some(d) = n.attribute("d") {
                        assert!(
                            !d.contains("NaN") && !d.contains("inf") && d.starts_with('M'),
                            "{name}, {what}: {d}"
                        );
                    }
                }
            }
        }
    }
}

fn numbers(s: &str) -> Vec<f64> {
    s.split(' ').map(|v| v.parse().unwrap_or_else(|_| panic!("{v:?} is no number"))).collect()
}

#[test]
fn all_variants_of_the_sample_find_a_label() {
    let r = common::release(16, 9, 20);
    let svg = size_vs_error_svg(&r);
    let doc = parse(&svg);
    let texts: HashSet<&str> =
        doc.descendants().filter(|n| n.has_tag_name((SVG, "text"))).filter_map(|n| n.text()).collect();
    for v in &r.variants {
        assert!(texts.contains(v.name.as_str()), "{} has no label", v.name);
    }
}

#[test]
fn the_page_says_what_matters() {
    let r = common::release(16, 9, 20);
    let page = html(&r);
    for want in [
        "1 of 20 variants breaks its limits",
        "blk.1.ffn_down.weight has 7.12 dB",
        "read once",
        "Worst tensors",
        "Outside of layers",
        "token_embd.weight",
        "budget 1.00\u{a0}GiB",
        "Exact in every variant, and not shown: attn_norm, ffn_norm",
        r.variants[0].files[1].sha256.as_deref().expect("hashes were taken"),
    ] {
        assert!(page.contains(want), "{want:?} is not on the page");
    }
    let broken = r.variants.iter().position(|v| !v.limits_broken.is_empty()).expect("one is broken");
    assert!(
        page.contains(&format!("id=\"v{broken}\" checked=\"checked\"")),
        "the broken variant is shown first"
    );
}

#[test]
fn heat_maps_show_the_worst_tensor_of_a_cell() {
    let mut r = common::release(2, 4, 1);
    let v = &mut r.variants[0];
    let mut bias = v.tensors.iter().find(|t| t.role == "attn_q").expect("there is one").clone();
    bias.name = "blk.0.attn_q.bias".into();
    bias.encoding = "WORST".into();
    bias.error = Some(common::error(3.0));
    v.tensors.push(bias);
    let svg = heat_map_svg(&r, &r.variants[0]);
    assert!(svg.contains("layer 0 attn_q: WORST, 3.00 dB"));
    r.variants[0].tensors.rotate_right(1);
    assert_eq!(svg, heat_map_svg(&r, &r.variants[0]), "the order of tensors does not matter");
}

#[test]
fn large_models_stay_small_pages() {
    let lossy = |mut r: Release| {
        for t in r.variants.iter_mut().flat_map(|v| &mut v.tensors) {
            t.error.get_or_insert_with(|| common::error(20.0)).rmse += 1e-9;
        }
        r
    };
    let with_hover = html(&lossy(common::release(80, 12, 30)));
    assert!(with_hover.len() < 3_000_000, "{} bytes", with_hover.len());
    assert!(with_hover.contains("<title>79 ffn_down Q4_K "), "cells still tell their numbers");
    let without = html(&lossy(common::release(160, 14, 40)));
    assert!(without.len() < 3_000_000, "{} bytes", without.len());
    assert!(without.contains("Too many cells"));
}

#[test]
fn the_same_release_gives_the_same_text_and_serializes() {
    let r = common::release(16, 9, 20);
    assert_eq!(html(&r), html(&r));
    let json = serde_json::to_value(&r).expect("plain data");
    assert_eq!(json["variants"][2]["name"], "Q8_0");
}

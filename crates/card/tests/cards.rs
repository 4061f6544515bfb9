//! Cards against what huggingface_hub reads in them: golden/cards, made by golden/generators/model_cards.py.

#[path = "../examples/cards.rs"]
#[allow(dead_code, reason = "the example's own entry point")]
mod cards;

use serde_json::Value as Json;
use std::{collections::BTreeMap, fs, path::Path};
use tensormill_card::{
    check::{Finding, RULES, Severity, check},
    document::{Card, Field},
    yaml::Tree,
};

fn golden(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/cards")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn cases(kind: &str) -> BTreeMap<String, Json> {
    let all: Json = serde_json::from_str(&golden("cases.json")).unwrap();
    serde_json::from_value(all[kind].clone()).unwrap()
}

/// A front matter as JSON.
fn data(card: &Card) -> Json {
    let entry = |f: &Field| {
        let key = f.key.to_json();
        (key.as_str().map_or_else(|| key.to_string(), str::to_owned), f.value.to_json())
    };
    Json::Object(card.fields.iter().map(entry).collect())
}

/// Numbers beyond 64 bits are their digits here, and numbers to Python.
fn digits(json: &mut Json) {
    match json {
        Json::Number(n)
            if n.as_i64().is_none()
                && n.as_f64().is_some_and(|x| x.abs() > 1e18 && x.abs() < 1e21 * 1e21) =>
        {
            *json = Json::Null;
        }
        Json::String(s) if s.len() > 19 && s.bytes().all(|b| b.is_ascii_digit()) => *json = Json::Null,
        Json::Array(v) => v.iter_mut().for_each(digits),
        Json::Object(m) => m.values_mut().for_each(digits),
        _ => {}
    }
}

#[test]
fn foreign_front_matters_are_read_as_python_reads_them_and_survive() {
    let expected = cases("front");
    assert!(expected.len() > 20);
    let inputs = cards::inputs().unwrap();
    assert_eq!(inputs.len(), expected.len());
    for (file, card) in inputs {
        let (mut ours, mut theirs) = (data(&card), expected[file.trim_end_matches(".md")]["data"].clone());
        digits(&mut ours);
        digits(&mut theirs);
        assert_eq!(ours.to_string(), theirs.to_string(), "{file}, order of keys included");
        // The generator has compared these very texts with the inputs.
        assert_eq!(card.restyled().text(), golden(&format!("round/{file}")), "{file}");
        assert_eq!(card.text(), golden(&format!("kept/{file}")), "{file}");
        for text in [card.text(), card.restyled().text()] {
            let again = Card::parse(&text).unwrap();
            assert!(
                again.fields.len() == card.fields.len()
                    && again
                        .fields
                        .iter()
                        .zip(&card.fields)
                        .all(|(a, b)| a.key.same(&b.key) && a.value.same(&b.value)),
                "{file}\n{text}"
            );
            assert_eq!(again.body, card.body, "{file}");
        }
    }
}

#[test]
fn a_card_keeps_its_style_where_nothing_is_changed() {
    for name in ["plain", "comments", "all-minilm-l6-v2", "merge", "indented-lists"] {
        assert_eq!(golden(&format!("kept/{name}.md")), golden(&format!("front/{name}.md")), "{name}");
    }
}

#[test]
fn written_cards_hold_what_huggingface_hub_finds_in_them() {
    let expected = cases("written");
    let written = cards::written().unwrap();
    assert_eq!(written.len(), expected.len());
    for (file, text) in written {
        assert_eq!(text, golden(&format!("written/{file}")), "run the example `cards`, then the generator");
        let case = &expected[file.trim_end_matches(".md")];
        let card = Card::parse(&text).unwrap();
        let (ours, theirs) = (data(&card), case["data"].as_object().unwrap());
        for (key, value) in theirs {
            assert_eq!(&ours[key], value, "{file}: {key}");
        }
        assert_eq!(ours.as_object().unwrap().len(), theirs.len(), "{file}");
        let findings = check(text.as_bytes());
        let errors: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{file}: {errors:?}");
    }
    // As `EvalResult` has it, field by field.
    let result = &expected["training"]["results"][0];
    assert_eq!(
        (&result["task_type"], &result["dataset_config"], &result["metric_type"], &result["metric_value"]),
        (&"text-classification".into(), &"sst2".into(), &"accuracy".into(), &0.9231.into())
    );
    assert_eq!(expected["training"]["model_name"], "tuned");
    let small = &expected["training"]["results"][1];
    assert_eq!(small["metric_value"], 1e-7, "a small number stays one");
}

/// Findings as `line:column rule`.
fn found(card: &str) -> Vec<String> {
    check(card.as_bytes()).iter().map(|f| format!("{}:{} {}", f.line, f.column, f.rule)).collect()
}

/// A card of a front matter that has everything else.
fn with(front: &str) -> String {
    let has = |key: &str| front.lines().any(|l| l.starts_with(&format!("{key}:")));
    let rest = [
        ("license", "mit"),
        ("pipeline_tag", "text-generation"),
        ("library_name", "gguf"),
        ("language", "en"),
    ];
    let rest: Vec<String> =
        rest.iter().filter(|(k, _)| !has(k)).map(|(k, v)| format!("{k}: {v}\n")).collect();
    format!("---\n{front}{}---\n# A model\ntext\n", rest.concat())
}

#[test]
fn every_rule_finds_what_breaks_it_where_it_stands_and_nothing_else() {
    // Rule, what it breaks it, where.
    let cases: &[(&str, String, &[&str])] = &[
        ("front-matter", "# no front\n".into(), &["1:1"]),
        ("front-matter", "---\nlicense: mit\n# never ends\n".into(), &["1:1"]),
        ("yaml", with("model_name: a: b\n"), &["2:14"]),
        ("yaml", "---\n- a\n---\n# t\n".into(), &["2:1"]),
        ("duplicate-key", with("tags: [a]\nmodel_name: x\ntags: [b]\n"), &["4:1"]),
        (
            "required",
            "---\nlicense: mit\npipeline_tag: text-generation\nlibrary_name: gguf\n---\n# t\n".into(),
            &["2:1"],
        ),
        (
            "required",
            "---\nlanguage: en\npipeline_tag: text-generation\nlibrary_name: gguf\n---\n# t\n".into(),
            &["2:1"],
        ),
        ("type", with("pipeline_tag: [text-generation]\n"), &["2:15"]),
        ("type", with("datasets:\n- a/b\n-\n"), &["4:2"]),
        ("known-license", with("license: Apache-2.0\n"), &["2:10"]),
        ("known-license", with("license: [mit, gpl3x]\n"), &["2:16"]),
        ("other-license", with("license: other\nlicense_link: LICENSE\n"), &["2:10"]),
        ("other-license", with("license: other\nlicense_name: own\n"), &["2:10"]),
        ("other-license", with("license: mit\nlicense_name: own\n"), &["3:15"]),
        ("license-link", with("license: other\nlicense_name: own\nlicense_link: ftp://x\n"), &["4:15"]),
        ("known-pipeline", with("pipeline_tag: text_generation\n"), &["2:15"]),
        ("known-library", with("library_name: Transformers\n"), &["2:15"]),
        ("language-code", with("language:\n- en\n- english\n- en-US\n- EN\n"), &["4:3", "5:3", "6:3"]),
        ("bare-word", with("language: [en, no]\n"), &["2:16"]),
        ("bare-word", with("tags:\n- 1.10\n"), &["3:3"]),
        ("model-id", with("base_model: https://huggingface.co/a/b\n"), &["2:13"]),
        ("model-id", with("base_model: ./out\n"), &["2:13"]),
        ("model-id", with("base_model: outputs/checkpoint-5\n"), &["2:13"]),
        ("relation", with("base_model_relation: quantized\n"), &["2:22"]),
        ("relation", with("base_model: a/b\nbase_model_relation: quantised\n"), &["3:22"]),
        ("repeated", with("tags: [a, b, a]\n"), &["2:14"]),
        ("model-index", with("model-index: {}\n"), &["2:14"]),
        (
            "model-index",
            with("model-index:\n- name: m\n  results:\n  - task: {type: t}\n    metrics: []\n"),
            &["5:5", "6:14"],
        ),
        (
            "model-index",
            with(
                "model-index:\n- name: m\n  results:\n  - task: {}\n    dataset: {type: d, name: D}\n    metrics: [{type: x}]\n",
            ),
            &["5:11", "7:15"],
        ),
        ("metric-value", with(&metric("accuracy", "120")), &["7:39"]),
        ("metric-value", with(&metric("wer", "-1")), &["7:34"]),
        ("metric-value", with(&metric("x", ".nan")), &["7:32"]),
        ("metric-value", with(&metric("x", "null")), &["7:32"]),
        ("emissions", with("co2_eq_emissions: 3 kg\n"), &["2:19"]),
        ("emissions", with("co2_eq_emissions:\n  emissions: -1\n"), &["3:14"]),
        ("unknown-key", with("licence: mit\npipeline-tag: x\n"), &["2:1", "3:1"]),
        ("empty", "---\nlicense: mit\npipeline_tag: other\nlibrary_name: gguf\n---\n".into(), &["6:1"]),
        ("placeholder", with("tags: [a]\n") + "## Uses\n[More Information Needed]\n", &["11:1"]),
        ("private-path", with("tags: [a]\n") + "see /home/me/model.gguf\n", &["10:5"]),
        ("secret", with("tags: [a]\n") + "é hf_abcdefghijklmnopqrstuvwxyz\n", &["10:3"]),
    ];
    let mut wrong = Vec::new();
    for (rule, card, places) in cases {
        let expected: Vec<String> = places.iter().map(|p| format!("{p} {rule}")).collect();
        let got = found(card);
        if got != expected {
            wrong.push(format!("{got:?}, not {expected:?}\n{card}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let tried: Vec<&str> = cases.iter().map(|c| c.0).chain(["utf-8"]).collect();
    for (rule, _) in RULES {
        assert!(tried.contains(rule), "nothing breaks {rule} here");
    }
    assert_eq!(check(b"---\nlicense: \xff\n---\n")[0].rule, "utf-8");
    assert_eq!(
        found(&with("base_model: [a/b]\nbase_model_relation: quantized\nown: {x: y}\n")),
        Vec::<String>::new()
    );
    assert_eq!(
        found(&with("license: other\nlicense_name: own\nlicense_link: LICENSE\n").replace('\n', "\r\n")),
        Vec::<String>::new()
    );
}

fn metric(kind: &str, value: &str) -> String {
    format!(
        "model-index:\n- name: m\n  results:\n  - task: {{type: t}}\n    dataset: {{type: d, name: D}}\n    metrics: [{{type: {kind}, value: {value}}}]\n"
    )
}

#[test]
fn the_rules_are_those_of_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cards.md");
    let text = fs::read_to_string(path).unwrap();
    for (rule, what) in RULES {
        assert!(
            text.contains(&format!("| `{rule}` | {what} |")),
            "docs/cards.md has no row `{rule}` | {what}"
        );
    }
}

#[test]
fn no_card_panics_and_none_that_can_be_read_loses_anything() {
    const PIECES: [&str; 16] = [
        "---\n",
        "\n",
        ": ",
        "- ",
        "&a ",
        "*a",
        "|\n ",
        ">-\n",
        "\"",
        "'",
        "{",
        "]",
        "#",
        "\t",
        "!!str ",
        "é\u{2028}",
    ];
    let mut state = 1u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n.max(1)
    };
    let mut read = 0;
    for name in cases("front").keys() {
        let original = golden(&format!("front/{name}.md"));
        for _ in 0..60 {
            let mut text: Vec<char> = original.chars().collect();
            for _ in 0..=next(3) {
                let at = next(text.len());
                match next(3) {
                    0 => drop(text.remove(at)),
                    1 => drop(text.splice(at..at, PIECES[next(PIECES.len())].chars())),
                    _ => {
                        let from = next(text.len());
                        let piece: Vec<char> = text[from..text.len().min(from + next(20))].to_vec();
                        drop(text.splice(at..at, piece));
                    }
                }
            }
            let text: String = text.into_iter().collect();
            check(text.as_bytes());
            let Ok(card) = Card::parse(&text) else { continue };
            read += 1;
            for written in [card.text(), card.restyled().text()] {
                let again = Card::parse(&written)
                    .unwrap_or_else(|p| panic!("{p:?}\n{text}\nwas written as\n{written}"));
                let same = |(a, b): (&Field, &Field)| a.key.same(&b.key) && a.value.same(&b.value);
                assert!(
                    again.fields.len() == card.fields.len()
                        && again.fields.iter().zip(&card.fields).all(same),
                    "{text}\nwas written as\n{written}"
                );
            }
        }
    }
    assert!(read > 300, "only {read} were cards");
}

#[test]
fn hostile_cards_cost_nothing() {
    let deep = format!("---\na: {}\n---\n", "[".repeat(100_000));
    assert_eq!(check(deep.as_bytes())[0].rule, "yaml");
    let long = format!("---\nlicense: {}\n---\n# t\n", "x".repeat(1_000_000));
    assert!(check(long.as_bytes()).iter().any(|f| f.rule == "known-license" && f.message.len() < 200_0000));
    let tags = format!("---\nlicense: mit\ntags: [{}]\n---\n# t\n", "a,".repeat(50_000));
    check(tags.as_bytes());
    let mut card = Card::default();
    card.set("a", Tree::text("x: y ".repeat(20_000)));
    assert!(Card::parse(&card.text()).is_ok());
}

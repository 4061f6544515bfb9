//! A card's text by its headings: which section speaks of what, whatever its author called it.
//!
//! Sections keep their author's words; only what templates left unfilled goes.

use crate::check::PLACEHOLDERS;
use serde::Serialize;
use std::collections::BTreeMap;

/// A line of Markdown.
pub(crate) struct Line<'a> {
    /// The text without its end.
    pub text: &'a str,
    /// Level and text, where it is a heading.
    pub heading: Option<(usize, &'a str)>,
}

/// Lines of Markdown, which know what is code.
pub(crate) struct Lines<'a> {
    lines: std::str::Lines<'a>,
    fence: Option<&'a str>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { lines: text.lines(), fence: None }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let text = self.lines.next()?;
        let trimmed = text.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|m| trimmed.starts_with(m));
        match (self.fence, mark) {
            (None, Some(m)) => self.fence = Some(m),
            (Some(open), Some(m)) if open == m => self.fence = None,
            (Some(_), _) => return Some(Line { text, heading: None }),
            (None, None) => {
                let level = trimmed.bytes().take_while(|b| *b == b'#').count();
                let title = trimmed[level..].trim();
                let is = (1..=6).contains(&level)
                    && trimmed[level..].starts_with([' ', '\t'])
                    && !title.is_empty();
                return Some(Line {
                    text,
                    heading: is.then(|| (level, title.trim_end_matches('#').trim_end())),
                });
            }
        }
        Some(Line { text, heading: None })
    }
}

/// What sections speak of: key, and words that their headings hold, the first that fits counts.
const TOPICS: [(&str, &[&str]); 10] = [
    ("license", &["license", "licence"]),
    ("citation", &["citation", "citing", "cite", "bibtex"]),
    ("environment", &["environmental", "carbon", "co2", "emissions", "energy"]),
    ("ethics", &["ethic", "safety", "responsib"]),
    ("limitations", &["limitation", "bias", "risk", "out-of-scope", "out of scope", "caveat"]),
    (
        "training_data",
        &[
            "training data",
            "train data",
            "datasets used",
            "pretraining data",
            "pre-training data",
            "training corpus",
        ],
    ),
    ("training", &["training", "hyperparameter", "fine-tuning", "finetuning"]),
    ("evaluation", &["evaluation", "benchmark", "results", "performance"]),
    ("intended_use", &["intended use", "intended for", "direct use", "downstream use", "uses", "use case"]),
    (
        "description",
        &["description", "model summary", "overview", "introduction", "about", "model details", "background"],
    ),
];

/// A section of somebody's card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its heading.
    pub heading: String,
    /// Its text, without what templates left, headings below it made smaller.
    pub text: String,
}

/// The sections of a card's text that speak of something we have a place for. The text before the first heading below the
/// title is its `summary`.
pub fn sections(body: &str) -> BTreeMap<&'static str, Vec<Section>> {
    let mut out: BTreeMap<&'static str, Vec<Section>> = BTreeMap::new();
    let mut open: Option<(&'static str, usize, Section)> = Some(("summary", 1, Section::default()));
    let mut close = |open: Option<(&'static str, usize, Section)>| {
        if let Some((topic, _, section)) = open {
            let text = cleaned(&section.text);
            if !text.is_empty() {
                out.entry(topic).or_default().push(Section { text, ..section });
            }
        }
    };
    for line in Lines::new(&without_comments(body)) {
        let Some((level, title)) = line.heading else {
            if let Some((_, _, section)) = &mut open {
                section.text.push_str(line.text);
                section.text.push('\n');
            }
            continue;
        };
        // A title begins nothing: what stands below it is the summary still.
        if level == 1 && open.as_ref().is_some_and(|o| o.0 == "summary" && o.2.text.trim().is_empty()) {
            continue;
        }
        let topic = topic(title);
        match &mut open {
            // A part of a section that speaks of the same, or of nothing we know, stays in it.
            Some((of, outer, section))
                if level > *outer && *of != "summary" && topic.is_none_or(|t| t == *of) =>
            {
                section.text.extend(["\n#### ", title, "\n\n"]);
            }
            _ => {
                let begun =
                    topic.map(|t| (t, level, Section { heading: title.to_owned(), text: String::new() }));
                close(std::mem::replace(&mut open, begun));
            }
        }
    }
    close(open);
    out
}

fn topic(title: &str) -> Option<&'static str> {
    let title = title.to_lowercase();
    TOPICS.iter().find(|(_, words)| words.iter().any(|w| title.contains(w))).map(|(topic, _)| *topic)
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<!--") {
        let Some((_, behind)) = after.split_once("-->") else { break };
        out.push_str(before);
        rest = behind;
    }
    out + rest
}

/// Without lines that say nothing, and headings that nothing is left below; one empty line in place of several.
fn cleaned(text: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for line in text.lines().filter(|l| !PLACEHOLDERS.iter().any(|p| l.contains(p))) {
        let line = line.trim_end();
        if line.is_empty() && kept.last().is_none_or(|l| l.is_empty()) {
            continue;
        }
        if line.starts_with("#### ") {
            drop_bare_heading(&mut kept);
        }
        kept.push(line);
    }
    drop_bare_heading(&mut kept);
    kept.join("\n").trim().to_owned()
}

fn drop_bare_heading(kept: &mut Vec<&str>) {
    let last = kept.iter().rposition(|l| !l.is_empty());
    if let Some(at) = last.filter(|at| kept[*at].starts_with("#### ")) {
        kept.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_by_what_they_speak_of() {
        let body = "# M\nA mill.\n\n## Intended uses & limitations\nNone.\n```\n# no heading\n```\n### How to use\nx\n\
            ## Training data\n<!-- hint -->\n[More Information Needed]\n## Citation [optional]\n**BibTeX:**\n\n@x{}\n\
            ## Evaluation\n### Results\n[More Information Needed]\n";
        let s = sections(body);
        assert_eq!(s["summary"][0].text, "A mill.");
        assert_eq!(s["limitations"][0].heading, "Intended uses & limitations");
        assert!(
            s["limitations"][0].text.contains("# no heading")
                && s["limitations"][0].text.contains("#### How to use")
        );
        assert!(!s.contains_key("training_data") && !s.contains_key("evaluation"), "{s:?}");
        assert_eq!(s["citation"][0].text, "**BibTeX:**\n\n@x{}");
    }
}

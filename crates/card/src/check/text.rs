//! Rules of the whole file: what templates left, and what nobody wants to publish.

use super::{Findings, Severity};
use crate::{
    document::front_matter,
    privacy::{Kind, find},
    sections::Lines,
    yaml::Mark,
};

/// What templates leave where nothing was filled in.
pub(crate) const PLACEHOLDERS: [&str; 3] = ["[More Information Needed]", "More information needed", "[TODO]"];

pub(super) fn check(text: &str, found: &mut Findings) {
    let body = front_matter(text).map_or(text, |f| f.body);
    let above = text[..text.len() - body.len()].matches('\n').count();
    if body.trim().is_empty() {
        found.warn("empty", Mark { line: above + 1, column: 1 }, "the card has no text");
    } else if !Lines::new(body).any(|l| l.heading.is_some()) {
        found.warn("empty", Mark { line: above + 1, column: 1 }, "the card's text has no heading");
    }
    let left: Vec<usize> = body
        .lines()
        .enumerate()
        .filter(|(_, l)| PLACEHOLDERS.iter().any(|p| l.contains(p)))
        .map(|(i, _)| above + i + 1)
        .collect();
    if let Some(first) = left.first() {
        let more = if left.len() > 1 { format!(", and {} more", left.len() - 1) } else { String::new() };
        found
            .warn(
                "placeholder",
                Mark { line: *first, column: 1 },
                format!("a placeholder of a template{more}"),
            )
            .hint("fill it in, or take the section out");
    }
    let (mut line, mut line_start, mut at) = (1, 0, 0);
    for (place, kind) in find(text) {
        // Both go forward through the text.
        while let Some(next) = text[at..place].find('\n') {
            at += next + 1;
            (line, line_start) = (line + 1, at);
        }
        let mark = Mark { line, column: text[line_start..place].chars().count() + 1 };
        match kind {
            Kind::Path => {
                found.add(Severity::Warning, "private-path", mark, "a path of somebody's machine");
            }
            Kind::Secret => {
                found
                    .add(Severity::Error, "secret", mark, "what looks like a token")
                    .hint("take it out, and revoke it where it was issued");
            }
        }
    }
}

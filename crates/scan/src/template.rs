//! Chat templates: what no template of a chat needs, by rules on the text between Jinja's braces. Templates are not
//! rendered, and what they print outside of the braces is not code.

use crate::{
    finding::{Place, Sink},
    rules,
    text::line_of,
};
use regex::Regex;
use std::sync::LazyLock;

/// Longer texts are no templates.
pub(crate) const MOST: usize = 1 << 20;

struct Rules {
    dunder: Regex,
    pieces: Regex,
    object: Regex,
    attr: Regex,
    include: Regex,
    url: Regex,
    range: Regex,
    repeat: Regex,
}

static RULES: LazyLock<Option<Rules>> = LazyLock::new(|| {
    Some(Rules {
        // Attributes by which escapes climb from any object to the interpreter, also in strings and as escapes.
        dunder: Regex::new(
            r"__(?:class|globals|builtins|subclasses|mro|bases?|init|import|dict|getattribute|getattr|getitem|reduce|reduce_ex|code|self|module|call|loader|spec|func|closure|wrapped|doc|new|qualname|kwdefaults|defaults|annotations|init_subclass)__|\\x5f|\\u005f|\\137",
        )
        .ok()?,
        // The same from pieces.
        pieces: Regex::new(r#"['"](?:__[a-z]{1,12}|[a-z]{1,12}__|__)['"]\s*[~+%]|[~+]\s*['"](?:[a-z]{0,12}__)['"]"#).ok()?,
        object: Regex::new(
            r"\blipsum\b|\b(?:cycler|joiner|namespace|range|dict|self|caller|varargs|kwargs)\s*(?:\.\s*_|\[\s*['\x22]_)|\b(?:url_for|get_flashed_messages|os\.popen|subprocess)\b|\b(?:eval|exec|popen|getattr|__import__)\s*\(|_TemplateReference|\bgi_frame\b|\bf_globals\b|\bfunc_globals\b",
        )
        .ok()?,
        attr: Regex::new(r"\|\s*attr\s*\(").ok()?,
        include: Regex::new(r"\{%[-+]?\s*(?:include|import|from|extends)\s").ok()?,
        // Numbers for hosts, hidden services, places to leave data; `file:` and `data:` for what is no web site.
        url: Regex::new(
            r"(?i)(?:https?|ftp|wss?)://(?:\d{1,3}(?:\.\d{1,3}){3}|0x[0-9a-f]+|\[[0-9a-f:]+\]|[a-z0-9.-]+\.onion|[a-z0-9.-]*(?:ngrok|webhook\.site|requestbin|pipedream|burpcollaborator|oastify|interact\.sh|pastebin\.com|transfer\.sh|bit\.ly|tinyurl\.com|discord(?:app)?\.com/api/webhooks)[a-z0-9.-]*)|\b(?:file|gopher|javascript):/|\bdata:text/html",
        )
        .ok()?,
        range: Regex::new(r"\brange\s*\(([^)]*)\)").ok()?,
        // Powers, and texts repeated very often.
        repeat: Regex::new(r#"\d\s*\*\*\s*\d|['"\])]\s*\*\s*\d{6,}|\d{6,}\s*\*\s*['"\[(]"#).ok()?,
    })
});

/// Whether a character is not seen although it is there, or turns the direction of what is.
pub(crate) fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}'
        | '\u{e0000}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{180e}'
        | '\u{fff9}'..='\u{fffb}')
}

/// Looks at one template; `key` says where it stands, empty for a file of its own.
pub(crate) fn scan(text: &str, key: &str, sink: &mut Sink<'_>) {
    let Some(r) = &*RULES else { return };
    let place = |offset: usize| {
        let line = Some(line_of(text.as_bytes(), offset));
        Place { line, path: (!key.is_empty()).then(|| key.to_owned()), ..Place::default() }
    };
    let shown = |at: usize, len: usize| {
        let from = text[..at].char_indices().rev().nth(20).map_or(0, |(i, _)| i);
        text[from..].chars().take(40 + len.min(80)).collect::<String>()
    };
    if text.len() > MOST {
        sink.add(&rules::TEMPLATE_LONG, place(0), format!("{} bytes", text.len()));
    }
    let text_end = text.char_indices().map(|(i, _)| i).find(|i| *i >= MOST).unwrap_or(text.len());
    let looked = &text[..text_end];
    // One finding of a rule per template is enough to make somebody look.
    let code = blank(looked);
    for (rule, regex) in [
        (&rules::TEMPLATE_DUNDER, &r.dunder),
        (&rules::TEMPLATE_DUNDER, &r.pieces),
        (&rules::TEMPLATE_OBJECT, &r.object),
        (&rules::TEMPLATE_ATTR, &r.attr),
        (&rules::TEMPLATE_INCLUDE, &r.include),
        (&rules::TEMPLATE_LOOP, &r.repeat),
    ] {
        if let Some(m) = regex.find(&code) {
            sink.add(rule, place(m.start()), shown(m.start(), m.len()));
        }
    }
    if let Some(m) = r.range.captures_iter(&code).filter_map(|c| c.get(1)).find(|m| is_huge(m.as_str())) {
        sink.add(&rules::TEMPLATE_LOOP, place(m.start()), shown(m.start(), m.len()));
    }
    if let Some(m) = r.url.find(looked) {
        sink.add(&rules::TEMPLATE_URL, place(m.start()), shown(m.start(), m.len()));
    }
    if let Some((at, c)) = looked.char_indices().find(|(_, c)| is_hidden(*c)) {
        let n = looked.chars().filter(|c| is_hidden(*c)).count();
        sink.add(&rules::TEMPLATE_HIDDEN, place(at), format!("U+{:04X}, {n} such characters", u32::from(c)));
    }
}

/// Whether the bounds of a range make a loop of a million steps, or are computed from large numbers.
fn is_huge(bounds: &str) -> bool {
    let numbers = bounds.split(|c: char| !c.is_ascii_digit() && c != '_').map(|n| n.replace('_', ""));
    let numbers: Vec<f64> = numbers.filter_map(|n| n.parse().ok()).collect();
    let product: f64 = numbers.iter().filter(|n| **n > 0.0).product();
    let most = numbers.iter().copied().fold(0.0, f64::max);
    most >= 1e6 || (bounds.contains('*') && product >= 1e6)
}

/// The text with everything that is not code turned into spaces; places stay.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let spaces = |out: &mut String, s: &str| out.extend(std::iter::repeat_n(' ', s.len()));
    loop {
        let Some(at) = rest
            .match_indices('{')
            .map(|(i, _)| i)
            .find(|i| matches!(rest.as_bytes().get(i + 1), Some(b'{' | b'%' | b'#')))
        else {
            spaces(&mut out, rest);
            return out;
        };
        spaces(&mut out, &rest[..at]);
        let close = match rest.as_bytes()[at + 1] {
            b'{' => "}}",
            b'%' => "%}",
            _ => "#}",
        };
        let end = end_of(&rest[at + 2..], close).map_or(rest.len(), |n| at + 2 + n);
        if close == "#}" {
            spaces(&mut out, &rest[at..end]);
        } else {
            out.push_str(&rest[at..end]);
        }
        rest = &rest[end..];
    }
}

/// Where a block ends, strings left aside: they may hold what looks like its end.
fn end_of(text: &str, close: &str) -> Option<usize> {
    let (mut quote, mut skip) = (None, false);
    for (i, c) in text.char_indices() {
        if skip {
            skip = false;
            continue;
        }
        match (quote, c) {
            (Some(_), '\\') => skip = true,
            (Some(q), c) if q == c => quote = None,
            (None, '"' | '\'') if close != "#}" => quote = Some(c),
            (None, _) if text[i..].starts_with(close) => return Some(i + close.len()),
            _ => {}
        }
    }
    None
}

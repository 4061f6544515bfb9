//! The front matter of a model card: the YAML between the first line `---` and the next one.
//!
//! Source: `Metadata.load_model_card` (gguf-py/gguf/metadata.py), with its two mends: a list entry `- no` is the
//! language Norwegian and not a truth value, and tabs are two spaces.

use crate::yaml::{self, Node};

/// Reads a card. `None` where it has no front matter, or one that is not a map.
pub fn parse(bytes: &[u8]) -> Result<Option<Node>, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 from byte {} on", e.valid_up_to()))?;
    // A line ends with any of Python's line boundaries; CR LF counts once.
    let text = text.replace("\r\n", "\n");
    let mut lines = text.split(is_line_end);
    if lines.next() != Some("---") {
        return Ok(None);
    }
    let mut yaml = lines.take_while(|&l| l != "---").collect::<Vec<_>>().join("\n");
    yaml.push('\n');
    let yaml = yaml.replace("- no\n", "- \"no\"\n").replace('\t', "  ");
    Ok(match yaml::parse(&yaml)? {
        card @ Node::Map(_) => Some(card),
        _ => None,
    })
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_front_matter() {
        assert_eq!(parse(b"").unwrap(), None);
        assert_eq!(parse(b"# no card\n").unwrap(), None);
        assert_eq!(parse(b"--- \nlicense: mit\n---\n").unwrap(), None);
        assert_eq!(parse(b"---\n---\n").unwrap(), None);
        let card = parse(b"---\r\nlanguage:\r\n- no\r\n-\ten\r\n---\r\nrest: x\r\n").unwrap().unwrap();
        assert_eq!(
            card.get("language"),
            Some(&Node::Seq(vec![Node::Str("no".into()), Node::Str("en".into())]))
        );
        assert_eq!(card.get("rest"), None);
        assert!(parse(b"---\nname: \xff\n---\n").is_err());
    }
}

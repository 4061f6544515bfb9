//! A card as a file: the front matter's fields in order, and the Markdown after it.
//!
//! The front matter is found as the Hub finds it (`REGEX_YAML_BLOCK` of huggingface_hub/repocard.py). Fields that nobody
//! changes are written back as they stood, comments and style included, as long as that gives the same data in their new
//! surroundings; all others are written anew. Line ends become line feeds.
//!
//! This is not how llama.cpp reads cards: that is [`crate::general`]'s, which mends what it reads.

use crate::yaml::{Mark, Problem, Tree, emit, parse_tree};

/// A field of the front matter.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its key.
    pub key: Tree,
    /// Its value.
    pub value: Tree,
    /// How it stood, with comments before it, where it can be written like that again.
    raw: Option<String>,
}

/// A model card.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// The front matter, each key once.
    pub fields: Vec<Field>,
    /// Everything after the front matter.
    pub body: String,
}

/// The front matter of a text, as it stands.
#[derive(Clone, Copy, Debug)]
pub struct Front<'a> {
    /// Between the two lines of dashes, without the last line's end.
    pub yaml: &'a str,
    /// Lines before it.
    pub above: usize,
    /// What follows.
    pub body: &'a str,
}

/// Finds the front matter of a text whose lines end with line feeds. `None` where there is none, or it does not end.
pub fn front_matter(text: &str) -> Option<Front<'_>> {
    let trimmed = text.trim_start();
    let opening = trimmed.strip_prefix("---\n")?;
    let above = text[..text.len() - opening.len()].matches('\n').count();
    let mut at = 0;
    // The line of dashes must follow a line's end, so an empty front matter needs an empty line.
    for line in opening.split_inclusive('\n') {
        if at > 0 && line.trim_end_matches(['\n', ' ', '\t']) == "---" {
            let body = &opening[at + line.len()..];
            return Some(Front { yaml: &opening[..at - 1], above, body });
        }
        at += line.len();
    }
    None
}

/// A text with line feeds at its lines' ends, and without a byte order mark.
pub fn unix_lines(text: &str) -> String {
    text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n")
}

impl Card {
    /// Reads a card; one without front matter has no fields.
    ///
    /// # Errors
    /// A front matter that is not YAML, or not a map; lines are counted from the file's first.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let text = unix_lines(text);
        let Some(front) = front_matter(&text) else { return Ok(Self { fields: Vec::new(), body: text }) };
        let below = |p: Problem| Problem { at: Mark { line: p.at.line + front.above, ..p.at }, ..p };
        let parsed = parse_tree(front.yaml).map_err(below)?;
        let body = front.body.to_owned();
        if parsed.root.is_null() {
            return Ok(Self { fields: Vec::new(), body });
        }
        if parsed.root.entries().is_none() {
            let at = Mark { line: front.above + 1, column: 1 };
            return Err(Problem { at, message: "the front matter is not a map of keys to values".into() });
        }
        if let Some(at) = parsed.root.odd_key() {
            return Err(below(Problem { at, message: "a list or a map stands as a key".into() }));
        }
        let distinct = parsed.root.distinct();
        let lines: Vec<&str> = front.yaml.split('\n').collect();
        let whole = !parsed.entangled && distinct.len() == parsed.root.entries().map_or(0, <[_]>::len);
        // Comments and empty lines belong to the key below them.
        let starts: Vec<usize> = distinct
            .iter()
            .map(|(key, _)| {
                let own = key.at.line - 1;
                let remarks = lines[..own].iter().rev();
                own - remarks.take_while(|l| l.is_empty() || l.starts_with('#')).count()
            })
            .collect();
        let whole = whole
            && distinct.iter().all(|(key, _)| key.at.column == 1)
            && starts.windows(2).all(|w| w[0] < w[1]);
        let fields = distinct
            .iter()
            .enumerate()
            .map(|(i, (key, value))| {
                let end = starts.get(i + 1).copied().unwrap_or(lines.len());
                let raw = whole.then(|| lines[starts[i]..end].join("\n") + "\n");
                Field { key: (*key).clone(), value: (*value).clone(), raw }
            })
            .collect();
        Ok(Self { fields, body })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.fields.iter().find(|f| f.key.as_str() == Some(key)).map(|f| &f.value)
    }

    /// Sets a key where it stands, or at the end. What is the same already stays as it is written.
    pub fn set(&mut self, key: &str, value: Tree) {
        match self.fields.iter_mut().find(|f| f.key.as_str() == Some(key)) {
            Some(field) if field.value.same(&value) => {}
            Some(field) => *field = Field { key: field.key.clone(), value, raw: None },
            None => self.fields.push(Field { key: Tree::text(key), value, raw: None }),
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Tree> {
        let at = self.fields.iter().position(|f| f.key.as_str() == Some(key))?;
        Some(self.fields.remove(at).value)
    }

    /// Adds the fields of another card whose keys are not there.
    pub fn add_missing(&mut self, other: &Self) {
        for field in &other.fields {
            if !self.fields.iter().any(|f| f.key.same(&field.key)) {
                self.fields.push(field.clone());
            }
        }
    }

    /// The same data, every field written anew.
    #[must_use]
    pub fn restyled(&self) -> Self {
        let fields = self.fields.iter().map(|f| Field { raw: None, ..f.clone() }).collect();
        Self { fields, body: self.body.clone() }
    }

    /// Changes every text of the front matter, comments too.
    pub fn map_texts(&mut self, change: &dyn Fn(&str) -> String) {
        for field in &mut self.fields {
            field.key = field.key.map_texts(change);
            field.value = field.value.map_texts(change);
            if field.raw.as_deref().is_some_and(|raw| change(raw) != raw) {
                field.raw = None;
            }
        }
    }

    /// The front matter, without the lines of dashes, with a line feed at its end.
    pub fn front_text(&self) -> String {
        let mut fields = self.fields.clone();
        loop {
            let text: String =
                fields.iter().map(|f| f.raw.clone().unwrap_or_else(|| emit(&f.key, &f.value))).collect();
            // What stood in other surroundings may mean something else in these.
            let read = parse_tree(text.trim_end_matches('\n')).ok();
            let same = |f: &Field| {
                let entries = read.as_ref().and_then(|r| r.root.entries());
                entries.unwrap_or_default().iter().any(|e| e.key.same(&f.key) && e.value.same(&f.value))
            };
            let moved: Vec<bool> = fields.iter().map(|f| f.raw.is_some() && !same(f)).collect();
            if !moved.contains(&true) {
                return text;
            }
            for (field, moved) in fields.iter_mut().zip(moved) {
                if moved || read.is_none() {
                    field.raw = None;
                }
            }
        }
    }

    /// The whole file.
    pub fn text(&self) -> String {
        if self.fields.is_empty() {
            // A body that begins with lines of dashes would be taken for a front matter, if there were none.
            return match front_matter(&self.body) {
                Some(_) => format!("---\n\n---\n{}", self.body),
                None => self.body.clone(),
            };
        }
        format!("---\n{}---\n{}", self.front_text(), self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &str =
        "---\n# first\nlicense: mit   # why\n\nextra: |\n  a\n  b\ntags: [x,\n  y]\n---\n# Title\n";

    #[test]
    fn what_nobody_changes_stays_as_it_stood() {
        assert_eq!(Card::parse(CARD).unwrap().text(), CARD);
        let mut card = Card::parse(CARD).unwrap();
        card.set("license", Tree::text("mit"));
        card.set("language", Tree::text("no"));
        assert_eq!(card.text(), CARD.replace("  y]\n", "  y]\nlanguage: 'no'\n"));
        // Dashes at a body's beginning stay its own.
        let empty = Card::parse("---\n# nothing\n---\n---\na: 1\n---\n").unwrap();
        let back = Card::parse(&empty.text()).unwrap();
        assert!(back.fields.is_empty() && back.body == empty.body, "{}", empty.text());
        // Behind the last line of a literal block there is no line feed to belong to it.
        let last = "---\na: 1\nextra: |\n  b\n---\n";
        let mut card = Card::parse(last).unwrap();
        card.set("z", Tree::text("x"));
        let back = Card::parse(&card.text()).unwrap();
        assert!(
            back.get("extra").unwrap().same(Card::parse(last).unwrap().get("extra").unwrap()),
            "{}",
            card.text()
        );
    }

    #[test]
    fn the_front_matter_is_where_the_hub_finds_it() {
        assert!(front_matter("# Title\n---\na: b\n---\n").is_none());
        assert!(front_matter("---\na: b\n").is_none(), "it does not end");
        let f = front_matter("\n\n---\na: b\n--- \nbody").unwrap();
        assert_eq!((f.yaml, f.above, f.body), ("a: b", 3, "body"));
        let e = Card::parse("---\r\na: b\r\nc: [\r\n---\r\n").unwrap_err();
        assert!(e.at.line >= 3, "{e:?}");
        assert!(Card::parse("---\n- a\n---\n").is_err());
    }
}

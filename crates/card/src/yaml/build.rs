//! From a parser's events to a tree: anchors expanded, merge keys resolved.

use super::{
    Entry, Mark, Problem, Tree, Value,
    scalar::{MERGE, resolve},
};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashMap;

/// Deepest nesting of lists and maps.
const MAX_DEPTH: usize = 64;
/// Most nodes in a document, aliases expanded. Cards with evaluation results have some thousands.
const MAX_NODES: usize = 200_000;

/// A document.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Its value; null for an empty one.
    pub root: Tree,
    /// Whether parts of it refer to each other, or carry tags: then no part can be moved alone.
    pub entangled: bool,
}

/// An unfinished list or map.
enum Open {
    Seq(Vec<Tree>),
    Map { done: Vec<Entry>, merged: Vec<Entry>, key: Option<Tree> },
}

struct Builder {
    /// With the anchor and the place where each began.
    open: Vec<(Open, usize, Mark)>,
    anchors: HashMap<usize, (Tree, usize)>,
    nodes: usize,
    root: Option<Tree>,
    entangled: bool,
}

/// Parses the first document.
///
/// # Errors
/// What the parser says, and documents beyond the limits.
pub fn parse_tree(text: &str) -> Result<Parsed, Problem> {
    let mut b = Builder { open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None, entangled: false };
    let (cut_off, length) = (!text.ends_with('\n'), text.chars().count());
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|e| Problem { at: mark(*e.marker()), message: e.info().to_owned() })?;
        let at = mark(span.start);
        let event = match event {
            // The end of a text is no line feed to PyYAML.
            Event::Scalar(text, style @ (ScalarStyle::Literal | ScalarStyle::Folded), anchor, tag)
                if cut_off && span.end.index() >= length && text.ends_with('\n') =>
            {
                Event::Scalar(text[..text.len() - 1].to_owned().into(), style, anchor, tag)
            }
            other => other,
        };
        b.event(event, at).map_err(|message| Problem { at, message })?;
        if b.root.is_some() && b.open.is_empty() {
            break;
        }
    }
    Ok(Parsed { root: b.root.unwrap_or_else(|| Value::Null.into()), entangled: b.entangled })
}

fn mark(m: Marker) -> Mark {
    Mark { line: m.line(), column: m.col() + 1 }
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Mark) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.entangled |= anchor > 0 || tag.is_some();
                let value = resolve(text.into_owned(), style, tag.as_deref());
                self.add(Tree { at, value }, anchor, 1)
            }
            Event::Alias(id) => {
                self.entangled = true;
                let (tree, size) = self.anchors.get(&id).ok_or("an alias without its anchor")?.clone();
                self.add(Tree { at, ..tree }, 0, size)
            }
            Event::SequenceStart(anchor, tag) => {
                self.entangled |= anchor > 0 || tag.is_some();
                self.push(Open::Seq(Vec::new()), anchor, at)
            }
            Event::MappingStart(anchor, tag) => {
                self.entangled |= anchor > 0 || tag.is_some();
                self.push(Open::Map { done: Vec::new(), merged: Vec::new(), key: None }, anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.pop(),
            Event::DocumentEnd
            | Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn push(&mut self, open: Open, anchor: usize, at: Mark) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push((open, anchor, at));
        Ok(())
    }

    fn pop(&mut self) -> Result<(), String> {
        let (value, anchor, at) = match self.open.pop() {
            Some((Open::Seq(v), anchor, at)) => (Value::Seq(v), anchor, at),
            // Explicit keys win over merged ones; the last of equal keys wins.
            Some((Open::Map { done, mut merged, .. }, anchor, at)) => {
                merged.extend(done);
                (Value::Map(merged), anchor, at)
            }
            None => return Err("unbalanced lists or maps".into()),
        };
        self.add(Tree { at, value }, anchor, 1)
    }

    /// Puts a finished value where it belongs. `size` is what it adds to the count of nodes.
    fn add(&mut self, tree: Tree, anchor: usize, size: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} values"));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (tree.clone(), count(&tree)));
            self.nodes = self.nodes.saturating_add(size);
        }
        // Only as a key does `<<` mean a merge.
        let as_key = matches!(self.open.last(), Some((Open::Map { key: None, .. }, ..)));
        let tree = match tree.as_str() {
            Some(MERGE) if !as_key => Tree { at: tree.at, value: Value::Str("<<".into()) },
            _ => tree,
        };
        match self.open.last_mut() {
            None => {
                self.root.get_or_insert(tree);
            }
            Some((Open::Seq(v), ..)) => v.push(tree),
            Some((Open::Map { key: key @ None, .. }, ..)) => *key = Some(tree),
            Some((Open::Map { done, merged, key }, ..)) => match key.take() {
                Some(k) if k.as_str() == Some(MERGE) => {
                    self.entangled = true;
                    merge(merged, tree)?;
                }
                Some(key) => done.push(Entry { key, value: tree, merged: false }),
                None => {}
            },
        }
        Ok(())
    }
}

/// Adds what a merge key brings.
fn merge(merged: &mut Vec<Entry>, tree: Tree) -> Result<(), String> {
    let mut add = |m: Vec<Entry>| merged.extend(m.into_iter().map(|e| Entry { merged: true, ..e }));
    match tree.value {
        Value::Map(m) => add(m),
        // Of several maps, the first has precedence.
        Value::Seq(maps) => {
            for m in maps.into_iter().rev() {
                if let Value::Map(m) = m.value {
                    add(m);
                }
            }
        }
        _ => return Err("a merge key without a map".into()),
    }
    Ok(())
}

fn count(tree: &Tree) -> usize {
    1 + match &tree.value {
        Value::Seq(v) => v.iter().map(count).sum(),
        Value::Map(m) => m.iter().map(|e| count(&e.key) + count(&e.value)).sum(),
        _ => 0,
    }
}

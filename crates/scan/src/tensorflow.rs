//! TensorFlow graphs: `saved_model.pb`, and frozen graphs. Field numbers are those of `saved_model.proto`,
//! `meta_graph.proto`, `graph.proto` and `function.proto`.

use crate::{
    bytes::Cursor,
    finding::{Place, Sink},
    proto::{Field, Walker},
    rules,
};
use std::collections::BTreeMap;
use tensormill_model::{Result, Store};

const FILES: [&str; 6] =
    ["ReadFile", "WriteFile", "MatchingFiles", "ImmutableConst", "DebugIdentityV2", "DebugIdentity"];
const PYTHON: [&str; 5] = ["PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction", "PyCall"];

/// First node, its place, and how many, by operator.
type Seen = BTreeMap<String, (String, u64, u64)>;

/// Looks at a graph.
pub(crate) fn scan(store: &dyn Store, is_saved_model: bool, sink: &mut Sink<'_>) {
    let mut seen = Seen::new();
    let mut w = Walker::new(Cursor::new(store));
    let all = (0, store.len());
    let walked = if is_saved_model {
        w.message(all, 0, |w, number, f| match (number, f) {
            (2, Field::Bytes(at, n)) => w.message((at, n), 1, |w, number, f| match (number, f) {
                (2, Field::Bytes(at, n)) => graph(w, (at, n), 2, &mut seen),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })
    } else {
        graph(&mut w, all, 0, &mut seen)
    };
    for (op, (name, at, n)) in seen {
        let rule =
            if FILES.contains(&op.as_str()) { &rules::TENSORFLOW_FILE } else { &rules::TENSORFLOW_PYTHON };
        sink.add(rule, Place::at(at), format!("{op}, {n} nodes, the first is {name:?}"));
    }
    if let Err(e) = walked {
        sink.add(&rules::TENSORFLOW_BROKEN, Place::at(e.offset().unwrap_or(0)), e.message());
    }
}

fn graph(w: &mut Walker<'_>, range: (u64, u64), depth: u32, seen: &mut Seen) -> Result<()> {
    w.message(range, depth, |w, number, f| match (number, f) {
        (1, Field::Bytes(at, n)) => node(w, (at, n), depth + 1, seen),
        // The library of functions: each has nodes of its own.
        (2, Field::Bytes(at, n)) => w.message((at, n), depth + 1, |w, number, f| match (number, f) {
            (1, Field::Bytes(at, n)) => w.message((at, n), depth + 2, |w, number, f| match (number, f) {
                (3, Field::Bytes(at, n)) => node(w, (at, n), depth + 3, seen),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

fn node(w: &mut Walker<'_>, range: (u64, u64), depth: u32, seen: &mut Seen) -> Result<()> {
    let (mut name, mut op) = ((range.0, 0), None);
    w.message(range, depth, |_, number, f| {
        match (number, f) {
            (1, Field::Bytes(at, n)) => name = (at, n),
            (2, Field::Bytes(at, n)) => op = Some((at, n)),
            _ => {}
        }
        Ok(())
    })?;
    // Real names of operators are short.
    let Some(op) = op.filter(|(_, n)| *n <= 64) else { return Ok(()) };
    let op = w.text(op)?;
    if FILES.contains(&op.as_str()) || PYTHON.contains(&op.as_str()) {
        let name = w.text(name)?;
        seen.entry(op).or_insert_with(|| (name, range.0, 0)).2 += 1;
    }
    Ok(())
}

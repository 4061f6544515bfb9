//! ONNX models: operators that need foreign libraries, and weights in other files. Field numbers are `onnx.proto`'s.

use crate::{
    archive::leads_out,
    bytes::Cursor,
    finding::{Place, Sink},
    proto::{Field, Walker},
    rules,
    walk::leaves,
};
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};
use tensormill_model::{Result, Store};

/// Domains of operators that are ONNX's, or that ONNX Runtime has built in.
const KNOWN: [&str; 9] = [
    "",
    "ai.onnx",
    "ai.onnx.ml",
    "ai.onnx.training",
    "ai.onnx.preview",
    "ai.onnx.preview.training",
    "com.microsoft",
    "com.microsoft.nchwc",
    "com.microsoft.experimental",
];
/// Different operators that are told of.
const MOST: usize = 200;

/// Domain and name of an operator.
type Operator = (String, String);

/// What nodes were seen.
#[derive(Default)]
struct Seen {
    /// Place of the first node, and how many there are.
    operators: BTreeMap<Operator, (u64, u64)>,
    /// Functions that the model defines itself: nodes of these need nothing else.
    own: HashSet<Operator>,
}

/// Looks at a model. `folder` is where it lies.
pub(crate) fn scan(store: &dyn Store, folder: Option<&Path>, sink: &mut Sink<'_>) {
    let mut seen = Seen::default();
    let mut w = Walker::new(Cursor::new(store));
    let walked = model(&mut w, store.len(), &mut seen, folder, sink);
    for (operator, (at, n)) in &seen.operators {
        let (domain, op) = operator;
        let python = op.starts_with("Py") && (domain.contains("onnx.contrib") || domain.contains("pyop"));
        if python || op == "PyOp" {
            sink.add(&rules::ONNX_PYTHON, Place::at(*at), format!("{domain}::{op}, {n} nodes"));
        } else if !seen.own.contains(operator) {
            sink.add(&rules::ONNX_CUSTOM, Place::at(*at), format!("{domain}::{op}, {n} nodes"));
        }
    }
    if let Err(e) = walked {
        sink.add(&rules::ONNX_BROKEN, Place::at(e.offset().unwrap_or(0)), e.message());
    }
}

type Out<'a, 'b> = &'a mut Sink<'b>;

fn model(
    w: &mut Walker<'_>,
    len: u64,
    seen: &mut Seen,
    folder: Option<&Path>,
    sink: Out<'_, '_>,
) -> Result<()> {
    w.message((0, len), 0, |w, number, f| match (number, f) {
        (7, Field::Bytes(at, n)) => graph(w, (at, n), 1, seen, folder, sink),
        // Training: graphs of initialization and algorithm.
        (20, Field::Bytes(at, n)) => w.message((at, n), 1, |w, number, f| match (number, f) {
            (1 | 2, Field::Bytes(at, n)) => graph(w, (at, n), 2, seen, folder, sink),
            _ => Ok(()),
        }),
        (25, Field::Bytes(at, n)) => {
            let (mut name, mut domain) = (String::new(), String::new());
            w.message((at, n), 1, |w, number, f| match (number, f) {
                (1, Field::Bytes(at, n)) => w.text((at, n)).map(|t| name = t),
                (7, Field::Bytes(at, n)) => node(w, (at, n), 2, seen, folder, sink),
                (10, Field::Bytes(at, n)) => w.text((at, n)).map(|t| domain = t),
                _ => Ok(()),
            })?;
            if seen.own.len() < 100 * MOST {
                seen.own.insert((domain, name));
            }
            Ok(())
        }
        _ => Ok(()),
    })
}

fn graph(
    w: &mut Walker<'_>,
    range: (u64, u64),
    depth: u32,
    seen: &mut Seen,
    folder: Option<&Path>,
    sink: Out<'_, '_>,
) -> Result<()> {
    w.message(range, depth, |w, number, f| match (number, f) {
        (1, Field::Bytes(at, n)) => node(w, (at, n), depth + 1, seen, folder, sink),
        (5, Field::Bytes(at, n)) => tensor(w, (at, n), depth + 1, folder, sink),
        (15, Field::Bytes(at, n)) => sparse(w, (at, n), depth + 1, folder, sink),
        _ => Ok(()),
    })
}

fn node(
    w: &mut Walker<'_>,
    range: (u64, u64),
    depth: u32,
    seen: &mut Seen,
    folder: Option<&Path>,
    sink: Out<'_, '_>,
) -> Result<()> {
    let (mut op, mut domain) = (None, None);
    w.message(range, depth, |w, number, f| match (number, f) {
        (4, Field::Bytes(at, n)) => {
            op = Some((at, n));
            Ok(())
        }
        (7, Field::Bytes(at, n)) => {
            domain = Some((at, n));
            Ok(())
        }
        (5, Field::Bytes(at, n)) => attribute(w, (at, n), depth + 1, seen, folder, sink),
        _ => Ok(()),
    })?;
    let domain = domain.map_or(Ok(String::new()), |r| w.text(r))?;
    if KNOWN.contains(&domain.as_str()) && domain != "ai.onnx.contrib" {
        // A node of a standard domain is of interest only where it runs Python.
        let Some((at, 4)) = op else { return Ok(()) };
        if w.text((at, 4))? != "PyOp" {
            return Ok(());
        }
    }
    let op = op.map_or(Ok(String::new()), |r| w.text(r))?;
    let operator = (domain, op);
    if seen.operators.len() < MOST || seen.operators.contains_key(&operator) {
        seen.operators.entry(operator).or_insert((range.0, 0)).1 += 1;
    }
    Ok(())
}

fn attribute(
    w: &mut Walker<'_>,
    range: (u64, u64),
    depth: u32,
    seen: &mut Seen,
    folder: Option<&Path>,
    sink: Out<'_, '_>,
) -> Result<()> {
    w.message(range, depth, |w, number, f| match (number, f) {
        (5 | 10, Field::Bytes(at, n)) => tensor(w, (at, n), depth + 1, folder, sink),
        (6 | 11, Field::Bytes(at, n)) => graph(w, (at, n), depth + 1, seen, folder, sink),
        (22 | 23, Field::Bytes(at, n)) => sparse(w, (at, n), depth + 1, folder, sink),
        _ => Ok(()),
    })
}

fn sparse(
    w: &mut Walker<'_>,
    range: (u64, u64),
    depth: u32,
    folder: Option<&Path>,
    sink: Out<'_, '_>,
) -> Result<()> {
    w.message(range, depth, |w, number, f| match (number, f) {
        (1 | 2, Field::Bytes(at, n)) => tensor(w, (at, n), depth + 1, folder, sink),
        _ => Ok(()),
    })
}

/// Where a tensor's data lie, if not here.
fn tensor(
    w: &mut Walker<'_>,
    range: (u64, u64),
    depth: u32,
    folder: Option<&Path>,
    sink: Out<'_, '_>,
) -> Result<()> {
    w.message(range, depth, |w, number, f| {
        let (13, Field::Bytes(at, n)) = (number, f) else { return Ok(()) };
        let (mut key, mut value) = (String::new(), (at, 0));
        w.message((at, n), depth + 1, |w, number, f| {
            match (number, f) {
                (1, Field::Bytes(at, n)) => key = w.text((at, n))?,
                (2, Field::Bytes(at, n)) => value = (at, n),
                _ => {}
            }
            Ok(())
        })?;
        if key != "location" {
            return Ok(());
        }
        let location = w.text(value)?;
        if leads_out(&location) || value.1 > 1000 {
            sink.add(&rules::ONNX_PATH, Place::at(value.0), location);
        } else if folder.is_some_and(|dir| leaves(dir, &dir.join(&location))) {
            sink.add(&rules::ONNX_LINK, Place::at(value.0), location);
        }
        Ok(())
    })
}

//! Keras models: Lambda layers and modules that a configuration names, in `.keras` archives and HDF5 files.
//!
//! HDF5 is not parsed: Keras writes the model's configuration as one JSON text, which is looked for in the parts of a
//! file where attributes lie.

use crate::{
    finding::{Place, Sink},
    json::{self, Scalar, Step},
    names, rules,
};
use regex::bytes::Regex;
use std::sync::LazyLock;
use tensormill_model::Store;

pub(crate) const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Bytes looked at from an HDF5 file's start and before its end.
const START: u64 = 64 << 20;
const END: u64 = 16 << 20;
const STRETCH: usize = 1 << 20;
const OVERLAP: usize = 4 << 10;

/// Looks at `config.json` of a `.keras` archive.
pub(crate) fn config(text: &[u8], sink: &mut Sink<'_>) {
    let walked = json::walk(text, |path, value| {
        let (Some(Step::Key(key)), Scalar::Text(value)) = (path.last(), value) else { return };
        if key == "class_name" && (value == "Lambda" || value == "__lambda__") {
            sink.add(&rules::KERAS_LAMBDA, Place::path(json::path(path)), value);
        } else if key == "module" {
            module(value, Place::path(json::path(path)), sink);
        }
    });
    if let Err(e) = walked {
        sink.add(&rules::JSON_BROKEN, Place::default(), e.to_string());
    }
}

fn module(name: &str, place: Place, sink: &mut Sink<'_>) {
    let first = name.split('.').next().unwrap_or("");
    if names::is_dangerous_module(name) {
        sink.add(&rules::KERAS_DANGEROUS, place, name);
    } else if !matches!(
        first,
        "keras" | "tensorflow" | "tf_keras" | "keras_hub" | "keras_nlp" | "keras_cv" | "builtins" | ""
    ) {
        sink.add(&rules::KERAS_MODULE, place, name);
    }
}

static LAMBDA: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?-u)"class_name"\s*:\s*"(?:Lambda|__lambda__)""#).ok());
static MODULE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?-u)"module"\s*:\s*"([A-Za-z0-9_.]{1,200})""#).ok());

/// Looks at an HDF5 file.
pub(crate) fn hdf5(store: &dyn Store, sink: &mut Sink<'_>) {
    let len = store.len();
    let second = len.saturating_sub(END).max(START.min(len));
    let mut buf = vec![0; STRETCH + OVERLAP];
    let mut lambda = false;
    for (mut at, end) in [(0, START.min(len)), (second, len)] {
        while at < end {
            let n = (end - at).min(buf.len() as u64) as usize;
            let part = &mut buf[..n];
            if let Err(e) = store.read_at(at, part) {
                sink.add(&rules::FILE_UNREADABLE, Place::at(at), e.message());
                return;
            }
            if let Some(m) = LAMBDA.as_ref().and_then(|r| r.find(part)).filter(|_| !lambda) {
                lambda = true;
                let what = String::from_utf8_lossy(m.as_bytes());
                sink.add(&rules::KERAS_LAMBDA, Place::at(at + m.start() as u64), what);
            }
            for m in MODULE.iter().flat_map(|r| r.captures_iter(part)) {
                let Some(name) = m.get(1).filter(|g| g.start() < STRETCH) else { continue };
                module(&String::from_utf8_lossy(name.as_bytes()), Place::at(at + name.start() as u64), sink);
            }
            at += STRETCH as u64;
        }
    }
}

/// Looks at `keras_metadata.pb`, which holds the same JSON as strings.
pub(crate) fn metadata(store: &dyn Store, sink: &mut Sink<'_>) {
    hdf5(store, sink);
}

//! What lies behind the place where a pickle cannot be followed any further: joblib puts arrays there, with the rest of the
//! pickle behind them; others hide there what they do not want to be seen. It is searched for imports as bytes.

use crate::{
    finding::{Place, Sink},
    names::{self, Class},
    rules,
};
use regex::bytes::Regex;
use std::sync::LazyLock;
use tensormill_model::Store;

/// Bytes searched.
const MOST: u64 = 64 << 20;
const STRETCH: usize = 1 << 20;
/// Longer than any import.
const OVERLAP: usize = 1 << 10;

/// `GLOBAL` and `INST` with two lines; two short strings, in the memo or not, with `STACK_GLOBAL`.
static IMPORTS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?s-u)[ci]([A-Za-z_][A-Za-z0-9_.]{0,99})\n([A-Za-z_][A-Za-z0-9_.]{0,99})\n",
        r"|\x8c.([A-Za-z_][A-Za-z0-9_.]{0,99})(?:\x94|q.|r....)?\x8c.([A-Za-z_][A-Za-z0-9_.]{0,99})(?:\x94|q.|r....)?\x93",
    ))
    .ok()
});

/// Tells of dangerous imports from `start` on. Others may be numbers that look like names.
pub(crate) fn rest(store: &dyn Store, start: u64, sink: &mut Sink<'_>) {
    let Some(imports) = &*IMPORTS else { return };
    let end = store.len().min(start.saturating_add(MOST));
    let mut buf = Vec::new();
    let mut at = start;
    while at < end {
        buf.resize((end - at).min((STRETCH + OVERLAP) as u64) as usize, 0);
        if store.read_at(at, &mut buf).is_err() {
            return;
        }
        let last = at + buf.len() as u64 == end;
        for m in imports.captures_iter(&buf) {
            let group = |i: usize| m.get(i).map(|g| String::from_utf8_lossy(g.as_bytes()).into_owned());
            let found = (group(1).or_else(|| group(3)), group(2).or_else(|| group(4)));
            let (Some(module), Some(name), Some(all)) = (found.0, found.1, m.get(0)) else { continue };
            if (last || all.start() < STRETCH) && names::classify(&module, &name) == Class::Dangerous {
                let what = format!("{module}.{name}, behind the place where the pickle breaks off");
                sink.add(&rules::PICKLE_DANGEROUS, Place::at(at + all.start() as u64), what);
            }
        }
        at += if last { buf.len() as u64 } else { STRETCH as u64 };
    }
    if end < store.len() {
        sink.add(&rules::SCAN_LIMIT, Place::at(end), "what follows was not searched");
    }
}

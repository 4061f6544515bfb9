//! Pickles: what they import and call, by the machine of `tensormill-pickle`, which runs nothing; and opcode by opcode
//! where they are larger than that machine may get here.

use crate::{
    bytes::Window,
    finding::{Place, Sink},
    names::{self, Class},
    rules, salvage,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tensormill_model::{ErrorKind, Limits, Store};
use tensormill_pickle::{Argument, Audit, audit, instructions, pickles};

/// Pickles that follow each other in one file.
const MOST_PICKLES: usize = 256;
/// Pickles within pickles.
const MOST_DEPTH: u32 = 4;
/// Opcodes read of one pickle; those of the largest checkpoints have a tenth.
const MOST_OPCODES: u64 = 1 << 24;
/// Bytes of a line, as old protocols write numbers, texts and names.
const MOST_LINE: u64 = 1 << 20;
/// Different imports that are told of one pickle.
const MOST_NAMES: usize = 256;

/// The least that is called a pickle by its first bytes: protocols 2 to 5 say so.
pub(crate) fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
}

/// Bounds within which the machine follows a pickle: some tens of MB at most.
fn machine_limits() -> Limits {
    let mut limits = Limits::default();
    limits.opcodes = 1 << 17;
    limits.values = 1 << 19;
    limits.header_bytes = 64 << 20;
    limits.unpacked_bytes = 4 << 20;
    limits.string_bytes = MOST_LINE;
    limits
}

/// What is known before a pickle is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sure {
    /// It is one: that it cannot be followed is a finding.
    Yes,
    /// It may be one: nothing is said unless it imports something.
    No,
}

/// The pickles of a tar archive of torch 0.1, where the file is one; whether it is.
pub(crate) fn tar(store: &Arc<dyn Store>, sink: &mut Sink<'_>) -> bool {
    let parts = match pickles(store, &machine_limits()) {
        Ok(parts) => parts,
        Err(e) => {
            sink.add(&rules::PICKLE_BROKEN, Place::at(e.offset().unwrap_or(0)), e.message());
            return true;
        }
    };
    if parts.iter().all(|p| p.member.is_empty()) {
        return false;
    }
    for p in parts {
        sink.member = Some(p.member);
        one(&*p.store, p.start, Sure::Yes, 0, sink);
    }
    sink.member = None;
    true
}

/// The pickles that follow each other from the start of a file on; whether there was one.
pub(crate) fn sequence(store: &dyn Store, sure: Sure, sink: &mut Sink<'_>) -> bool {
    sequence_from(store, 0, sure, sink)
}

/// The same from a place in the file on.
pub(crate) fn sequence_from(store: &dyn Store, start: u64, sure: Sure, sink: &mut Sink<'_>) -> bool {
    let mut at = start;
    let mut legacy = None;
    for n in 0..MOST_PICKLES {
        if at >= store.len() {
            return n > 0;
        }
        // What torch wrote before 1.6 is five pickles, then storages.
        if legacy.is_some() && n == 5 {
            return true;
        }
        let first_sure = if n == 0 { sure } else { Sure::No };
        let mut first = [0; 2];
        let known = store.len() - at >= 2 && store.read_at(at, &mut first).is_ok() && is_pickle(&first);
        let must = if known && n > 0 { Sure::Yes } else { first_sure };
        let Some(end) = one(store, at, must, 0, sink) else {
            if n > 0 {
                sink.add(&rules::PICKLE_TRAILING, Place::at(at), format!("{} bytes", store.len() - at));
            }
            return n > 0;
        };
        if n == 0 {
            legacy = is_legacy(store, start).then_some(());
        }
        at = end;
    }
    sink.add(&rules::SCAN_LIMIT, Place::at(at), format!("more than {MOST_PICKLES} pickles in a row"));
    true
}

/// Whether a file starts with the number that torch wrote before 1.6.
fn is_legacy(store: &dyn Store, start: u64) -> bool {
    const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let limits = machine_limits();
    instructions(store, start, &limits).take(4).flatten().any(|i| match i.argument {
        Argument::Bytes(b) => b == MAGIC,
        Argument::Text(t) => t.starts_with("119547037146038801333356"),
        _ => false,
    })
}

/// One pickle; where it ends, unless it breaks off.
pub(crate) fn one(store: &dyn Store, at: u64, sure: Sure, depth: u32, sink: &mut Sink<'_>) -> Option<u64> {
    let limits = machine_limits();
    let told = audit(store, at, &limits);
    let over = told.error.as_ref().is_some_and(|e| e.kind() == ErrorKind::OverLimit);
    // What breaks off may look like a pickle by accident: only imports make it one then.
    if told.error.is_some() && !over && sure == Sure::No && told.imports.is_empty() {
        return None;
    }
    let (mut imports, nested) = (told_of(&told), needs_inner(&told));
    let (mut end, mut error) = (told.end, told.error);
    if over || error.is_some() {
        // Loaders may get further than the machine: read on by opcodes alone.
        let rest = by_opcodes(store, at);
        for (key, found) in rest.imports {
            imports.entry(key).or_insert(found);
        }
        if over {
            (end, error) = (rest.end, rest.error);
        }
    }
    for ((module, name), found) in &imports {
        report(module, name, found, sink);
    }
    if (nested || imports.keys().any(|(m, n)| loads(m, n))) && depth < MOST_DEPTH {
        inner(store, at, depth, sink);
    }
    match error {
        None => Some(end),
        Some(e) => {
            let over = e.kind() == ErrorKind::OverLimit;
            let rule = if over { &rules::SCAN_LIMIT } else { &rules::PICKLE_BROKEN };
            sink.add(rule, Place::at(e.offset().unwrap_or(end)), e.message());
            salvage::rest(store, end.min(store.len()), sink);
            None
        }
    }
}

/// Where a name is imported first, and what is called.
struct Found {
    at: u64,
    opcode: &'static str,
    calls: u64,
    first_call: Option<(u64, &'static str)>,
}

type Imports = BTreeMap<(String, String), Found>;

fn told_of(told: &Audit) -> Imports {
    let mut imports = Imports::new();
    for i in &told.imports {
        let key = (i.module.clone(), i.name.clone());
        if imports.len() < MOST_NAMES || names::classify(&i.module, &i.name) == Class::Dangerous {
            let new = Found { at: i.at, opcode: i.opcode, calls: 0, first_call: None };
            imports.entry(key).or_insert(new);
        }
    }
    let mut by_path: HashMap<String, &mut Found> =
        imports.iter_mut().map(|((m, n), f)| (format!("{m}.{n}"), f)).collect();
    for c in &told.calls {
        if let Some(f) = by_path.get_mut(&c.target) {
            f.calls += 1;
            f.first_call.get_or_insert((c.at, c.opcode));
        }
    }
    imports
}

fn report(module: &str, name: &str, found: &Found, sink: &mut Sink<'_>) {
    let called = match (found.calls, found.first_call) {
        (0, _) | (_, None) => String::new(),
        (1, Some((at, opcode))) => format!(", called by {opcode} at byte {at}"),
        (n, Some((at, opcode))) => format!(", called {n} times, first by {opcode} at byte {at}"),
    };
    let place = Place::at(found.at);
    let what = format!("{module}.{name} by {}{called}", found.opcode);
    if module == "?" || module == "copyreg.extension" {
        sink.add(&rules::PICKLE_COMPUTED, place, what);
    } else if loads_tensors(module, name) {
        sink.add(&rules::PICKLE_NESTED, place, what);
    } else {
        match names::classify(module, name) {
            Class::Harmless => {}
            Class::Unknown => sink.add(&rules::PICKLE_UNKNOWN, place, what),
            Class::Dangerous => sink.add(&rules::PICKLE_DANGEROUS, place, what),
        }
    }
}

/// What plain `pickle.dump` writes for a tensor.
fn loads_tensors(module: &str, name: &str) -> bool {
    module == "torch.storage" && name == "_load_from_bytes"
}

/// Whether a name unpickles bytes that it is given.
fn loads(module: &str, name: &str) -> bool {
    loads_tensors(module, name) || name.ends_with("load") || name.ends_with("loads")
}

fn needs_inner(told: &Audit) -> bool {
    told.imports.iter().any(|i| loads(&i.module, &i.name))
}

/// Pickles in the bytes that a pickle carries.
fn inner(store: &dyn Store, start: u64, depth: u32, sink: &mut Sink<'_>) {
    let limits = machine_limits();
    let mut ends = None;
    for i in instructions(store, start, &limits) {
        let Ok(i) = i else { break };
        // The argument ends where the next opcode starts.
        if let Some((from, len)) = ends.take() {
            let bytes_at = i.at - len;
            let mut head = [0; 2];
            if bytes_at > from && store.read_at(bytes_at, &mut head).is_ok() && is_pickle(&head) {
                let window = Window { store, start: bytes_at, len };
                one_inner(&window, bytes_at, depth, sink);
            }
        }
        ends = match &i.argument {
            Argument::Bytes(b) if b.len() > 2 => Some((i.at, b.len() as u64)),
            Argument::Long(len) => Some((i.at, *len)),
            _ => None,
        };
    }
}

/// An inner pickle's places are counted from its own start; its findings say where that is.
fn one_inner(window: &Window<'_>, place: u64, depth: u32, sink: &mut Sink<'_>) {
    let outer = sink.member.clone();
    let name = format!("pickle at byte {place}");
    sink.member = Some(outer.as_ref().map_or(name.clone(), |m| format!("{m}, {name}")));
    let mut at = 0;
    for _ in 0..5 {
        match one(window, at, Sure::No, depth + 1, sink) {
            Some(end) if end < window.len => at = end,
            _ => break,
        }
    }
    sink.member = outer;
}

struct ByOpcodes {
    imports: Imports,
    end: u64,
    error: Option<tensormill_model::Error>,
}

/// Imports by opcodes alone: names on the stack are taken to be the last two strings, as writers leave them. Memory is
/// bounded whatever the pickle's size.
fn by_opcodes(store: &dyn Store, start: u64) -> ByOpcodes {
    /// Strings remembered by memo key, and the longest that can be part of a name.
    const MEMO: usize = 1 << 14;
    const NAME: usize = 256;
    let mut limits = Limits::default();
    limits.header_bytes = u64::MAX;
    limits.opcodes = MOST_OPCODES;
    limits.string_bytes = MOST_LINE;
    let mut imports = Imports::new();
    let mut memo: HashMap<i64, String> = HashMap::new();
    let mut puts = 0;
    let mut last: [Option<String>; 2] = [None, None];
    let (mut end, mut error) = (start, None);
    for i in instructions(store, start, &limits) {
        let i = match i {
            Ok(i) => i,
            Err(e) => {
                error = Some(e);
                break;
            }
        };
        end = i.at + 1;
        let mut push = |s: Option<String>| last = [last[1].take(), s.filter(|s| s.len() <= NAME)];
        let import = match (i.name, i.argument) {
            ("GLOBAL" | "INST", Argument::Global(m, n)) => Some((m, n)),
            ("STACK_GLOBAL", _) => match &last {
                [Some(m), Some(n)] => Some((m.clone(), n.clone())),
                _ => Some(("?".to_owned(), "?".to_owned())),
            },
            ("EXT1" | "EXT2" | "EXT4", Argument::Int(n)) => {
                Some(("copyreg.extension".to_owned(), n.to_string()))
            }
            ("MEMOIZE" | "PUT" | "BINPUT" | "LONG_BINPUT", argument) => {
                let key = match argument {
                    Argument::Int(n) => n,
                    Argument::Text(t) => t.trim().parse().unwrap_or(-1),
                    _ => puts,
                };
                puts += 1;
                match &last[1] {
                    Some(s) if memo.len() < MEMO => drop(memo.insert(key, s.clone())),
                    _ => {}
                }
                None
            }
            ("GET" | "BINGET" | "LONG_BINGET", argument) => {
                let key = match argument {
                    Argument::Int(n) => n,
                    Argument::Text(t) => t.trim().parse().unwrap_or(-1),
                    _ => -1,
                };
                push(memo.get(&key).cloned());
                None
            }
            (_, Argument::Text(t)) => {
                push(Some(t));
                None
            }
            _ => None,
        };
        if let Some((m, n)) = import {
            last = [None, None];
            let class = names::classify(&m, &n);
            if class == Class::Harmless {
                continue;
            }
            // However many others there are, what is dangerous is told.
            let most = if class == Class::Dangerous { 4 * MOST_NAMES } else { MOST_NAMES };
            if imports.len() < most {
                let new = Found { at: i.at, opcode: i.name, calls: 0, first_call: None };
                let short = |s: String| s.chars().take(NAME).collect::<String>();
                imports.entry((short(m), short(n))).or_insert(new);
            }
        }
    }
    ByOpcodes { imports, end, error }
}

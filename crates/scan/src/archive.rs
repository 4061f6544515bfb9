//! What zip archives of models hold: pickles, arrays, code, configurations; and oddities of the archive itself.

use crate::{
    bytes::{Cursor, head},
    finding::{Place, Sink},
    keras, numpy,
    pickle::{self, Sure},
    rules, torchscript,
    zip::{self, Content, Entry},
};
use std::collections::HashSet;
use tensormill_model::Store;

/// Bytes that a packed member is unpacked to.
const UNPACKED: usize = 12 << 20;
/// Bytes of packed members that are unpacked, in all.
const UNPACKED_IN_ALL: u64 = 256 << 20;
/// Deflate cannot do better than this (RFC 1951: 258 bytes in two bits).
const MAX_RATIO: u64 = 1032;
/// What members may unpack to at a high ratio.
const LARGE: u64 = 1 << 30;

/// Looks at an archive; whether it holds pickles. `is_keras` where its name says that it is Keras's.
pub(crate) fn scan(store: &dyn Store, is_keras: bool, sink: &mut Sink<'_>) -> bool {
    let archive = match zip::open(store) {
        Ok(a) => a,
        Err(e) => {
            sink.add(&rules::ZIP_BROKEN, Place::at(e.offset().unwrap_or(0)), e.message());
            return false;
        }
    };
    if archive.truncated {
        sink.add(&rules::SCAN_LIMIT, Place::default(), "an archive of very many members");
    }
    oddities(&archive, sink);
    let is_keras = is_keras || archive.entries.iter().any(|e| e.name == "model.weights.h5");
    let mut c = Cursor::new(store);
    let (mut unpacked, mut has_pickles) = (0, false);
    let mut code = torchscript::Code::default();
    for e in &archive.entries {
        let local = match zip::local(&mut c, e) {
            Ok(l) => l,
            Err(x) => {
                sink.add(
                    &rules::ZIP_BROKEN,
                    Place { offset: x.offset(), ..Place::member(&e.name) },
                    x.message(),
                );
                continue;
            }
        };
        if local.name != e.name || local.method != e.method {
            let what = format!("its own header calls it {:?}, method {}", local.name, local.method);
            sink.add(&rules::ZIP_TWO_VIEWS, Place::member(&e.name), what);
        }
        let kind = kind(&e.name, is_keras);
        has_pickles |= kind == Kind::Pickle;
        if kind == Kind::Data {
            continue;
        }
        if unpacked > UNPACKED_IN_ALL {
            sink.add(
                &rules::SCAN_LIMIT,
                Place::member(&e.name),
                "so much was unpacked that the rest was left",
            );
            break;
        }
        // Of others, the first bytes tell whether they are pickles.
        let most = if kind == Kind::Other { 16 } else { UNPACKED };
        let content = match zip::content(store, e, local.start, most) {
            Ok(Some(c)) => c,
            Ok(None) => {
                let how = if e.encrypted { "encrypted".to_owned() } else { format!("method {}", e.method) };
                sink.add(&rules::ZIP_OPAQUE, Place::member(&e.name), how);
                continue;
            }
            Err(x) => {
                sink.add(&rules::ZIP_BROKEN, Place::member(&e.name), x.message());
                continue;
            }
        };
        if let Content::Unpacked { bytes, .. } = &content {
            unpacked += bytes.len();
        }
        sink.member = Some(e.name.clone());
        member(kind, store, e, local.start, &content, &mut code, sink);
        sink.member = None;
    }
    code.tell(sink);
    has_pickles
}

/// What a member may be, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pickle,
    Array,
    Config,
    Code,
    /// Storages: raw numbers that nobody interprets.
    Data,
    Other,
}

fn kind(name: &str, is_keras: bool) -> Kind {
    let lower = name.to_ascii_lowercase();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|s| lower.ends_with(s));
    let inner = name.split_once('/').map_or(name, |(_, rest)| rest);
    if ends(&[".pkl", ".pickle", ".debug_pkl", ".joblib"]) {
        Kind::Pickle
    } else if ends(&[".npy"]) {
        Kind::Array
    } else if is_keras && lower == "config.json" {
        Kind::Config
    } else if inner.starts_with("code/") && ends(&[".py"]) {
        Kind::Code
    } else if name.ends_with('/') || inner.starts_with("data/") || inner.starts_with("constants/") {
        Kind::Data
    } else {
        Kind::Other
    }
}

fn member(
    kind: Kind,
    archive: &dyn Store,
    e: &Entry,
    start: u64,
    content: &Content<'_>,
    code: &mut torchscript::Code,
    sink: &mut Sink<'_>,
) {
    let store = content.store();
    match kind {
        Kind::Pickle => {
            pickle::sequence(store, Sure::Yes, sink);
        }
        Kind::Array => numpy::scan(store, sink),
        Kind::Config => keras::config(&head(store, UNPACKED as u64).unwrap_or_default(), sink),
        Kind::Code => {
            code.member(&e.name, &head(store, torchscript::MOST as u64).unwrap_or_default(), sink);
        }
        Kind::Data => {}
        Kind::Other => {
            if head(store, 2).is_ok_and(|h| pickle::is_pickle(&h))
                && let Ok(Some(all)) = zip::content(archive, e, start, UNPACKED)
            {
                pickle::sequence(all.store(), Sure::No, sink);
            }
            return;
        }
    }
    if !content.is_whole() {
        let what = if store.len() >= UNPACKED as u64 { "more than is unpacked" } else { "damaged" };
        let rule = if store.len() >= UNPACKED as u64 { &rules::SCAN_LIMIT } else { &rules::ZIP_BROKEN };
        sink.add(rule, Place::default(), format!("{what}: {} bytes were looked at", store.len()));
    }
}

fn oddities(archive: &zip::Archive, sink: &mut Sink<'_>) {
    let mut names = HashSet::new();
    for e in &archive.entries {
        let here = || Place::member(&e.name);
        if leads_out(&e.name) {
            sink.add(&rules::ZIP_ESCAPE, here(), &e.name);
        }
        if !names.insert(e.name.as_str()) {
            sink.add(&rules::ZIP_DUPLICATE, here(), &e.name);
        }
        if e.is_link {
            sink.add(&rules::ZIP_LINK, here(), &e.name);
        }
        let deflated = e.method == 8;
        if deflated
            && (e.len > e.packed.saturating_mul(MAX_RATIO) || (e.len > LARGE && e.len / 200 > e.packed))
        {
            sink.add(&rules::ZIP_BOMB, here(), format!("{} bytes are to unpack to {}", e.packed, e.len));
        }
    }
    let mut spans: Vec<(u64, u64, usize)> =
        archive.entries.iter().enumerate().map(|(i, e)| (e.header, e.packed, i)).collect();
    spans.sort_unstable();
    for w in spans.windows(2) {
        let least = w[0].0.saturating_add(30).saturating_add(w[0].1);
        if least > w[1].0 {
            let name = &archive.entries[w[0].2].name;
            let what = format!("it overlaps {:?}", archive.entries[w[1].2].name);
            sink.add(&rules::ZIP_BOMB, Place::member(name), what);
            return;
        }
    }
    if let Some(&(at, packed, i)) = spans.last()
        && at.saturating_add(packed) > archive.directory
    {
        sink.add(&rules::ZIP_BROKEN, Place::member(&archive.entries[i].name), "it overlaps the directory");
    }
}

/// Whether unpacking under this name leaves the folder.
pub(crate) fn leads_out(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    name.starts_with(['/', '\\']) || drive || name.split(['/', '\\']).any(|part| part == "..")
}

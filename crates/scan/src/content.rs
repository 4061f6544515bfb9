//! Files: what one is, by its first bytes and its name, and how it is looked at.

use crate::{
    archive,
    bytes::{Wrap, head, inflated},
    config,
    finding::{Place, Report, Sink},
    gguf, keras, numpy, onnx,
    pickle::{self, Sure},
    rules, template, tensorflow, text,
};
use std::{
    collections::HashSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};
use tensormill_model::{Error, ErrorKind, Format, Limits, MemoryStore, Result, Store};
use tensormill_store::LocalFile;

const HEAD: u64 = 4096;
/// Bytes that a packed pickle is unpacked to.
const UNPACKED: usize = 12 << 20;
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// What a file's name promises.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// A format that is no pickle.
    Format(&'static str),
    /// A pickle in some form.
    Pickle,
    /// `.bin`: anything.
    Bin,
    None,
}

fn promise(extension: &str) -> Promise {
    match extension {
        "safetensors" => Promise::Format("safetensors"),
        "gguf" => Promise::Format("GGUF"),
        "onnx" => Promise::Format("ONNX"),
        "h5" | "hdf5" => Promise::Format("HDF5"),
        "npy" => Promise::Format("numpy"),
        "npz" | "keras" => Promise::Format("zip"),
        "json" | "txt" | "md" | "jinja" | "yaml" | "yml" | "toml" => Promise::Format("text"),
        "pt" | "pth" | "ckpt" | "pkl" | "pickle" | "p" | "joblib" | "dill" => Promise::Pickle,
        "bin" => Promise::Bin,
        _ => Promise::None,
    }
}

/// Looks at one file; gives the names of Python files that it makes a loader import, relative to its folder.
/// `named` are the Python files that configurations around it name.
pub(crate) fn file(path: &Path, named: &HashSet<PathBuf>, report: &mut Report) -> HashSet<String> {
    let io = |e| Error::io("read", e);
    let open = || -> Result<_> {
        let mut start = Vec::new();
        File::open(path).map_err(io)?.take(HEAD).read_to_end(&mut start).map_err(io)?;
        if start.starts_with(LFS) {
            // The store refuses these.
            let pointer = MemoryStore { name: String::new(), bytes: start.clone() };
            return Ok((Arc::new(pointer) as Arc<dyn Store>, start));
        }
        Ok((Arc::new(LocalFile::open(path)?) as Arc<dyn Store>, start))
    };
    looked_at(path, open(), named, report)
}

/// The same for one file that is not on a disk.
pub(crate) fn in_store(
    path: &Path,
    store: Result<Arc<dyn Store>>,
    named: &HashSet<PathBuf>,
    report: &mut Report,
) -> HashSet<String> {
    let opened = store.and_then(|store| {
        let start = head(&*store, HEAD)?;
        Ok((store, start))
    });
    looked_at(path, opened, named, report)
}

fn looked_at(
    path: &Path,
    opened: Result<(Arc<dyn Store>, Vec<u8>)>,
    named: &HashSet<PathBuf>,
    report: &mut Report,
) -> HashSet<String> {
    report.files += 1;
    report.bytes += opened.as_ref().map_or(0, |(store, _)| store.len());
    let mut sink = Sink::new(report, path.display().to_string());
    let looked = opened.and_then(|(store, start)| content(path, &store, &start, named, &mut sink));
    looked.unwrap_or_else(|e| {
        sink.add(&rules::FILE_UNREADABLE, Place { offset: e.offset(), ..Place::default() }, e.message());
        HashSet::new()
    })
}

fn content(
    path: &Path,
    store: &Arc<dyn Store>,
    start: &[u8],
    named: &HashSet<PathBuf>,
    sink: &mut Sink<'_>,
) -> Result<HashSet<String>> {
    let none = Ok(HashSet::new());
    let lower =
        |p: Option<&std::ffi::OsStr>| p.map_or_else(String::new, |n| n.to_string_lossy().to_lowercase());
    let (name, extension) = (lower(path.file_name()), lower(path.extension()));
    let promise = promise(&extension);
    let unlike = |sink: &mut Sink<'_>, what: &str, like: &str| {
        if let Promise::Format(format) = promise
            && format != like
        {
            sink.add(&rules::FILE_FORMAT, Place::at(0), format!("this is {what}, and called .{extension}"));
        }
    };
    if start.is_empty() {
        return none;
    }
    if start.starts_with(LFS) {
        let text = String::from_utf8_lossy(start);
        let size = text.lines().find_map(|l| l.strip_prefix("size ")).unwrap_or("unknown");
        sink.add(&rules::LFS_POINTER, Place::default(), format!("the file would have {size} bytes"));
        return none;
    }
    if start.starts_with(&crate::zip::LOCAL) {
        let has_pickles = archive::scan(&**store, extension == "keras", sink);
        match promise {
            Promise::Format("zip") => {}
            Promise::Format(_) if has_pickles => {
                let what = format!("an archive with pickles, called .{extension}");
                sink.add(&rules::FILE_PICKLE, Place::at(0), what);
            }
            _ => unlike(sink, "a zip archive", "zip"),
        }
        return none;
    }
    if start.starts_with(gguf::MAGIC) {
        gguf::scan(&**store, sink);
        unlike(sink, "a GGUF file", "GGUF");
        return none;
    }
    if start.starts_with(numpy::MAGIC) || extension == "npy" {
        numpy::scan(&**store, sink);
        if start.starts_with(numpy::MAGIC) {
            unlike(sink, "a numpy array", "numpy");
        }
        return none;
    }
    if start.starts_with(keras::HDF5) {
        keras::hdf5(&**store, sink);
        // `.keras` files may be either.
        if extension != "keras" {
            unlike(sink, "an HDF5 file", "HDF5");
        }
        return none;
    }
    let like_safetensors = start.len() > 8 && start[8] == b'{' && header_fits(start, store.len());
    if like_safetensors || (extension == "safetensors" && !pickle::is_pickle(start)) {
        safetensors(store, sink);
        unlike(sink, "a safetensors file", "safetensors");
        return none;
    }
    if pickle::is_pickle(start) {
        let sure = if promise == Promise::Pickle { Sure::Yes } else { Sure::No };
        let found = pickle::sequence(&**store, sure, sink);
        if found && matches!(promise, Promise::Format(_)) {
            sink.add(&rules::FILE_PICKLE, Place::at(0), format!("a pickle, called .{extension}"));
        } else if extension == "safetensors" {
            safetensors(store, sink);
        }
        return none;
    }
    if promise == Promise::Pickle && is_zlib(start) {
        // joblib unpacks such files by itself.
        let (bytes, whole) = inflated(&**store, (0, store.len()), Wrap::Zlib, UNPACKED)?;
        sink.member = Some("unpacked".to_owned());
        pickle::sequence(&bytes, Sure::Yes, sink);
        sink.member = None;
        if !whole {
            sink.add(
                &rules::SCAN_LIMIT,
                Place::default(),
                format!("only {} bytes were unpacked", bytes.len()),
            );
        }
        return none;
    }
    if let Some(what) = packed(start) {
        sink.add(&rules::ZIP_OPAQUE, Place::at(0), what);
        return none;
    }
    let is_tar = start.get(257..262).is_some_and(|m| m == b"ustar");
    if (is_tar || matches!(promise, Promise::Pickle | Promise::Bin)) && start.len() > 512 {
        if pickle::tar(store, sink) {
            return none;
        }
        if is_tar {
            sink.add(&rules::ZIP_OPAQUE, Place::at(0), "a tar archive");
            return none;
        }
    }
    match promise {
        // Protocols 0 and 1 start with anything.
        Promise::Pickle | Promise::Bin => {
            let sure = if promise == Promise::Pickle { Sure::Yes } else { Sure::No };
            if !pickle::sequence(&**store, sure, sink) && text::is_text(start) {
                text::scan(&**store, false, sink);
            }
            return none;
        }
        Promise::Format(format @ ("GGUF" | "HDF5" | "zip")) => {
            sink.add(&rules::FILE_FORMAT, Place::at(0), format!("this does not start like {format}"));
            return none;
        }
        Promise::Format("ONNX") => {
            onnx::scan(&**store, path.parent(), sink);
            return none;
        }
        _ => {}
    }
    if extension == "pb" {
        match name.as_str() {
            "keras_metadata.pb" => keras::metadata(&**store, sink),
            _ => tensorflow::scan(&**store, name == "saved_model.pb", sink),
        }
        return none;
    }
    if let Some(what) = program(start, &extension) {
        sink.add(&rules::CODE_NATIVE, Place::default(), what);
    }
    if extension == "py" {
        python(path, named, sink);
    }
    if !text::is_text(start) {
        return none;
    }
    texts(&**store, &name, &extension, sink)
}

/// Texts of every kind.
fn texts(store: &dyn Store, name: &str, extension: &str, sink: &mut Sink<'_>) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    let is_config =
        matches!(extension, "yaml" | "yml" | "toml" | "ini" | "cfg" | "conf" | "env" | "properties")
            || name.starts_with(".env");
    text::scan(store, is_config, sink);
    if matches!(extension, "jinja" | "jinja2" | "j2") {
        let text = head(store, template::MOST as u64 + 1)?;
        template::scan(&String::from_utf8_lossy(&text), "", sink);
    } else if extension == "json" && !config::is_vocabulary(name) {
        if store.len() <= config::MOST {
            config::scan(&head(store, config::MOST)?, name, &mut names, sink);
        } else if config::is_needed(name) {
            sink.add(
                &rules::SCAN_LIMIT,
                Place::default(),
                format!("a configuration of {} bytes", store.len()),
            );
        }
    }
    Ok(names)
}

fn python(path: &Path, named: &HashSet<PathBuf>, sink: &mut Sink<'_>) {
    // transformers runs `custom_generate/generate.py` by its name alone.
    let by_name = path.ends_with("custom_generate/generate.py");
    let rule = if by_name || named.contains(path) { &rules::CODE_NAMED } else { &rules::CODE_PYTHON };
    sink.add(rule, Place::default(), path.file_name().unwrap_or_default().to_string_lossy());
}

fn header_fits(start: &[u8], len: u64) -> bool {
    start.first_chunk().is_some_and(|n| u64::from_le_bytes(*n) <= len - 8)
}

fn safetensors(store: &Arc<dyn Store>, sink: &mut Sink<'_>) {
    let mut limits = Limits::default();
    limits.header_bytes = 8 << 20;
    limits.tensors = 1 << 17;
    let Err(e) = tensormill_safetensors::FORMAT.open(Arc::clone(store), &limits) else { return };
    let what = match e.tensor_name() {
        Some(t) => format!("tensor {t}: {}", e.message()),
        None => e.message().to_owned(),
    };
    let place = Place::at(e.offset().unwrap_or(0));
    match e.kind() {
        ErrorKind::OverLimit if e.message().contains("header") && store.len() > limits.header_bytes => {
            sink.add(&rules::SCAN_LIMIT, place, what);
        }
        // A type of elements that this version does not know is no fault.
        ErrorKind::Unsupported => {}
        _ => sink.add(&rules::SAFETENSORS_BROKEN, place, what),
    }
}

/// Whether a file starts as `zlib.compress` writes it (RFC 1950).
fn is_zlib(start: &[u8]) -> bool {
    matches!(start, [0x78, b, ..] if (0x7800 + u16::from(*b)).is_multiple_of(31))
}

/// Compressed files and archives that are not looked into.
fn packed(start: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "a gzip file"),
        (b"BZh", "a bzip2 file"),
        (b"\xfd7zXZ\0", "an xz file"),
        (b"\x28\xb5\x2f\xfd", "a zstd file"),
        (b"\x04\x22\x4d\x18", "an lz4 file"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07", "a rar archive"),
    ];
    kinds.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what)
}

/// Programs, by their first bytes or their names.
fn program(start: &[u8], extension: &str) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 6] = [
        (b"\x7fELF", "a Linux program or library"),
        (b"MZ", "a Windows program or library"),
        (b"\xcf\xfa\xed\xfe", "a macOS program or library"),
        (b"\xca\xfe\xba\xbe", "a macOS library or Java class"),
        (b"\0asm", "WebAssembly"),
        (b"#!", "a script that can be started"),
    ];
    let by_name = match extension {
        "so" | "dll" | "dylib" | "pyd" => Some("a native library"),
        "exe" | "com" | "scr" => Some("a Windows program"),
        "pyc" | "pyo" => Some("compiled Python"),
        "sh" | "bash" | "bat" | "cmd" | "ps1" | "vbs" => Some("a script"),
        "jar" | "class" => Some("Java code"),
        _ => None,
    };
    let by_start = kinds.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what);
    // Two letters are too few to go by where a name says otherwise.
    by_name.or(by_start.filter(|_| extension.is_empty() || !start.starts_with(b"MZ")))
}

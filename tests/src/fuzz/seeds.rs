//! What fuzzing starts from: golden files, and under `fuzz/seeds/TARGET/` inputs that once found something.

use super::{FILES, NAMES, TOKENIZERS};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tensormill_model::{Limits, MemoryStore, Store};

/// Larger files make fuzzing slow and find nothing that small ones do not.
const MOST: u64 = 64 << 10;

/// One input.
pub struct Seed {
    /// Where it is from, for messages.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The seeds of a target.
///
/// # Panics
/// When a file cannot be read: these are tests.
pub fn seeds(target: &str) -> Vec<Seed> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut out = Vec::new();
    let found = root.join("fuzz/seeds").join(target);
    if found.exists() {
        walk(&found, &mut |path| out.push(seed(&root, path, &[])));
    }
    walk(&root.join("golden"), &mut |path| {
        if fs::metadata(path).expect("golden file").len() <= MOST
            && let Some(prefix) = prefix(target, path)
        {
            out.push(seed(&root, path, prefix));
        }
    });
    if target == "training" {
        // One file of each folder, after the byte that says which.
        for (row, (folder, file, inner)) in FILES.iter().enumerate() {
            let path = root.join("golden/training").join(folder).join(file);
            let bytes = fs::read(&path).expect("golden file");
            let bytes = if *inner { pickle_in(&bytes) } else { bytes };
            let name = path.strip_prefix(&root).expect("under the root").display().to_string();
            out.push(Seed { name, bytes: [&[row as u8], &bytes[..]].concat() });
        }
    }
    if target == "schemes" {
        // One file of each golden folder, after its configuration.
        let folders = fs::read_dir(root.join("golden/quantized")).expect("golden folder");
        let mut folders: Vec<PathBuf> = folders.map(|f| f.expect("golden folder").path()).collect();
        folders.sort();
        for folder in folders {
            let (config, model) = (folder.join("config.json"), folder.join("model.safetensors"));
            if !config.exists() || !model.exists() {
                continue;
            }
            let (config, model) =
                (fs::read(config).expect("golden file"), fs::read(model).expect("golden file"));
            let len = u16::try_from(config.len()).expect("configurations are small").to_le_bytes();
            let name = folder.strip_prefix(&root).expect("under the root").display().to_string();
            out.push(Seed { name, bytes: [&len[..], &config, &model].concat() });
        }
    }
    if target == "release" {
        let text = include_str!("release.toml");
        out.push(Seed { name: "release.toml".into(), bytes: text.into() });
    }
    out
}

/// The pickle in an archive.
fn pickle_in(archive: &[u8]) -> Vec<u8> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore { name: "seed".into(), bytes: archive.to_vec() });
    let found = tensormill_pickle::pickles(&store, &Limits::default()).expect("golden archive");
    let inner = &found.first().expect("golden archive").store;
    let mut bytes = vec![0; inner.len() as usize];
    inner.read_at(0, &mut bytes).expect("golden archive");
    bytes
}

fn seed(root: &Path, path: &Path, prefix: &[u8]) -> Seed {
    let name = path.strip_prefix(root).expect("under the root").display().to_string();
    let mut bytes = prefix.to_vec();
    bytes.extend(fs::read(path).expect("seed"));
    Seed { name, bytes }
}

/// Whether a golden file is a seed of a target, and what stands before it there.
fn prefix(target: &str, path: &Path) -> Option<&'static [u8]> {
    /// First bytes that choose a row of [`TOKENIZERS`].
    const ROWS: &[u8] = &[0, 1, 2, 3, 4];
    let name = path.file_name()?.to_str()?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let fits = match target {
        "gguf" => extension == "gguf",
        "imatrix" => extension == "dat",
        "onnx" => {
            let small = |folder: &str| path.to_str().is_some_and(|p| p.contains(folder));
            extension == "onnx" && (small("onnx/formats/") || small("hostile/onnx/"))
        }
        "pickle" => ["pt", "pth", "ckpt", "bin", "pkl", "tar"].contains(&extension),
        "release" => extension == "toml",
        "safetensors" => extension == "safetensors" || name.ends_with(".index.json"),
        "scan" => return scanned(path, name, extension),
        "side_files" => name.ends_with("config.json") || name == "README.md",
        "hub" | "schemes" | "training" => return None,
        "tokenizer" => {
            let row = TOKENIZERS.iter().position(|(first, _)| *first == name)?;
            return Some(&ROWS[row..=row]);
        }
        _ => panic!("{target} has no seeds"),
    };
    fits.then_some(&[])
}

/// The first byte that chooses this name, or one with this suffix, of [`NAMES`]. Of what other targets start from, too,
/// only hostile ones: there are enough.
fn scanned(path: &Path, name: &str, extension: &str) -> Option<&'static [u8]> {
    const ROWS: [u8; 32] = {
        let mut rows = [0; 32];
        let mut i = 0;
        while i < rows.len() {
            rows[i] = i as u8;
            i += 1;
        }
        rows
    };
    let hostile = path.components().any(|c| c.as_os_str() == "hostile");
    let same = |n: &str| n == name;
    let like = |n: &str| n.rsplit_once('.').is_some_and(|(_, e)| e == extension) && extension != "json";
    let row = NAMES.iter().position(|n| same(n)).or_else(|| NAMES.iter().position(|n| like(n)))?;
    let few = ["pb", "onnx", "keras", "npy", "jinja"].contains(&extension) || hostile;
    (few || same(NAMES[row])).then(|| &ROWS[row..=row])
}

/// Every file under a folder, in order.
fn walk(folder: &Path, each: &mut impl FnMut(&Path)) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, each);
        } else {
            each(&path);
        }
    }
}

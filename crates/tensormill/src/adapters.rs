//! Adapters beside a source: opening what a user points at, and merging it into the source's model.

use crate::{
    Source,
    formats::{self, PICKLE, SAFETENSORS},
    report::AdapterReport,
};
use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};
use tensormill_adapters::{Adapter, merge};
use tensormill_model::{Assets, Error, Format, Limits, MemoryAssets, Metadata, Model, Reader, Result, Store};
use tensormill_store::{LocalDir, LocalFile};

pub use tensormill_adapters::{Options, Precision};

/// An adapter that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its folder, or its file of weights, with `adapter_config.json` beside it.
    pub path: PathBuf,
    /// What its change is multiplied by.
    pub scale: f64,
}

impl FromStr for Wanted {
    type Err = String;
    /// `PATH`, or `PATH=SCALE`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (path, scale) = match text.rsplit_once('=') {
            // A path may hold an equals sign: only a number behind it is a scale.
            Some((path, scale)) if scale.parse::<f64>().is_ok() => (path, scale.parse().unwrap_or(1.0)),
            _ => (text, 1.0),
        };
        if path.is_empty() || !f64::is_finite(scale) {
            return Err("expected PATH or PATH=SCALE, for example ./my-lora=0.5".into());
        }
        Ok(Self { path: path.into(), scale })
    }
}

/// Names of the weights in an adapter's folder, the safer one first.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

fn open(path: &Path) -> Result<(Box<dyn Reader>, LocalDir)> {
    let (dir, file) = if path.is_dir() {
        let dir = LocalDir::open(path)?;
        let file = WEIGHTS.into_iter().find(|n| dir.contains(n)).ok_or_else(|| {
            Error::malformed("there is no adapter in this folder")
                .file(path.display())
                .hint(format!("expected {} and adapter_config.json", WEIGHTS.join(" or ")))
        })?;
        (dir, path.join(file))
    } else {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        (LocalDir::open(parent)?, path.to_owned())
    };
    let store = LocalFile::open(&file)?;
    let mut head = vec![0; store.len().min(64) as usize];
    store.read_at(0, &mut head)?;
    let known: [&dyn Format; 2] = [&SAFETENSORS, &PICKLE];
    let format = formats::probe(&head, &file.to_string_lossy());
    let format = format.filter(|f| known.iter().any(|k| k.info().id == f.info().id)).ok_or_else(|| {
        Error::unsupported("not an adapter that this version reads").file(file.display()).hint(
            "known are those of PEFT: adapter_model.safetensors or .bin, with adapter_config.json beside it",
        )
    })?;
    let reader = format.open(Arc::new(store), &Limits::default()).map_err(|e| e.file(file.display()))?;
    Ok((reader, dir))
}

/// Merges adapters into a source's model, in their order; their readers become sources of the plan.
///
/// # Errors
/// Adapters that cannot be read, are not merged by this version, or belong to another model.
pub(crate) fn apply(
    source: &mut Source,
    wanted: &[Wanted],
    options: Options,
    notes: &mut Vec<String>,
) -> Result<Vec<AdapterReport>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    if source.is_gguf() {
        return Err(Error::unsupported(
            "adapters are merged into checkpoints, not into GGUF files, by this version",
        )
        .file(source.path.display())
        .hint("give the Hugging Face folder that the file was made from"));
    }
    let mut adapters = Vec::with_capacity(wanted.len());
    for w in wanted {
        let (reader, dir) = open(&w.path)?;
        let name = w.path.display().to_string();
        let number = source.readers.len();
        adapters.push(Adapter::peft(name, w.scale, number, reader.index(), &dir)?);
        source.readers.push(Arc::from(reader));
    }
    // The source keeps a model at all times; this one is not seen by anybody.
    let none: Arc<dyn Assets> = Arc::new(MemoryAssets::default());
    let empty = Model { tensors: Vec::new(), metadata: Metadata::new(), assets: none };
    let merged = merge(std::mem::replace(&mut source.model, empty), &adapters, options)?;
    source.model = merged.model;
    notes.extend(merged.notes);
    notes.push(format!("adapters change {} of {} tensors", merged.changed, source.model.tensors.len()));
    let report = |w: &Wanted| AdapterReport { path: w.path.display().to_string(), scale: w.scale };
    Ok(wanted.iter().map(report).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_stand_behind_paths() {
        let of = |t: &str| t.parse::<Wanted>().unwrap();
        assert_eq!(of("a/b"), Wanted { path: "a/b".into(), scale: 1.0 });
        assert_eq!(of("a=b/c=0.5"), Wanted { path: "a=b/c".into(), scale: 0.5 });
        assert_eq!(of("r=16/x").path, PathBuf::from("r=16/x"));
        assert!("=1".parse::<Wanted>().is_err() && "a=inf".parse::<Wanted>().is_err());
    }
}

//! Opening what a user points at: which scheme an adapter's names follow is told by its files.

use super::{Wanted, base::Base, gguf};
use crate::{
    formats::{self, GGUF, PICKLE, SAFETENSORS},
    location::{Access, Dir, Found, Location},
};
use std::sync::Arc;
use tensormill_adapters::Adapter;
use tensormill_model::{Error, Format, Limits, Reader, Result};

/// Names of the weights in an adapter's folder, the safer one first.
const WEIGHTS: [&str; 4] = [
    "adapter_model.safetensors",
    "adapters.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
];

/// Opens an adapter for a base, as source number `number` of a plan.
///
/// # Errors
/// Files that are no adapter, adapters that cannot be merged, and GGUF adapters where no base is known.
pub(super) fn adapter(
    wanted: &Wanted,
    base: Option<&Base>,
    number: usize,
    access: &Access,
) -> Result<(Adapter, Arc<dyn Reader>)> {
    let Weights { reader, dir, is_gguf } = open(&wanted.at, access)?;
    let name = wanted.at.to_string();
    let adapter = if is_gguf {
        let base = base.ok_or_else(|| {
            Error::usage("a GGUF adapter's names and rows depend on the base model")
                .file(&wanted.at)
                .hint("give it with --base")
        })?;
        gguf::adapter(name, wanted.scale, number, &*reader, &base.metadata()?)?
    } else {
        let names = base.map_or(&[][..], |b| &b.names).iter().map(String::as_str);
        Adapter::read(name, wanted.scale, number, &*reader, &*dir, names)?
    };
    Ok((adapter, dir.identified(Arc::from(reader))))
}

/// The file of weights.
struct Weights {
    reader: Box<dyn Reader>,
    /// The folder in which it is.
    dir: Arc<dyn Dir>,
    is_gguf: bool,
}

fn open(at: &Location, access: &Access) -> Result<Weights> {
    let (dir, file) = match at.find(access)?.1 {
        Found::Folder(dir) => {
            let file = WEIGHTS.into_iter().find(|n| dir.contains(n)).ok_or_else(|| {
                Error::malformed("there is no adapter in this folder")
                    .file(at)
                    .hint(format!("expected {} and adapter_config.json", WEIGHTS.join(" or ")))
            })?;
            (dir, file.to_owned())
        }
        Found::File { name, dir, .. } => (dir, name),
    };
    let store = dir.open_often(&file)?;
    let mut head = vec![0; store.len().min(64) as usize];
    store.read_at(0, &mut head)?;
    let known: [&dyn Format; 3] = [&SAFETENSORS, &PICKLE, &GGUF];
    let format = formats::probe(&head, &file);
    let format = format.filter(|f| known.iter().any(|k| k.info().id == f.info().id)).ok_or_else(|| {
        Error::unsupported("not an adapter that this version reads").file(store.name()).hint(
            "known are those of PEFT (adapter_model.safetensors or .bin, with adapter_config.json beside it) and GGUF \
             files",
        )
    })?;
    let reader = format.open(Arc::clone(&store), &Limits::default()).map_err(|e| e.file(store.name()))?;
    Ok(Weights { reader, dir, is_gguf: format.info().id == GGUF.info().id })
}

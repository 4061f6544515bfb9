//! Checkpoints that training leaves, as sources: where in a folder they are, and which files beside them say what the model
//! is.
//!
//! What people name is the folder of a run or the folder of its weights; configuration and tokenizer may be in either, or in
//! `huggingface/` where verl puts them.

use crate::{
    location::{Dir, named},
    source::Opened,
};
use std::sync::Arc;
use tensormill_model::{Assets, Error, Limits, Result};
use tensormill_pickle::{PickleOptions, Training};

/// The file in which DeepSpeed says what its newest checkpoint is called.
const LATEST: &str = "latest";
/// The folder in which accelerate and transformers put what FSDP divides.
const FSDP: &str = "pytorch_model_fsdp_0";
/// The folder with configuration and tokenizer in checkpoints of verl.
const HUGGING_FACE: &str = "huggingface";

/// The checkpoint that is in a folder, directly or where a trainer puts it.
pub(crate) fn of_folder(dir: &Arc<dyn Dir>, limits: &Limits, part: &PickleOptions) -> Result<Option<Opened>> {
    if let Some(training) = Training::of_folder(&dir.list())?
        && let Some(opened) = open(&training, dir, dir, limits, part)?
    {
        return Ok(Some(opened));
    }
    if let Some(tag) = dir.read(LATEST)? {
        let tag = String::from_utf8_lossy(&tag).trim().to_owned();
        let named = named(&**dir, LATEST);
        let inner = dir.inner(&tag).map_err(&named)?.ok_or_else(|| {
            named(Error::mismatch(format!("it names the checkpoint {tag:?}, which is not there")))
        })?;
        return within(&inner, dir, limits, part);
    }
    match dir.inner(FSDP)? {
        Some(inner) => within(&inner, dir, limits, part),
        None => Ok(None),
    }
}

fn within(
    dir: &Arc<dyn Dir>,
    outer: &Arc<dyn Dir>,
    limits: &Limits,
    part: &PickleOptions,
) -> Result<Option<Opened>> {
    match Training::of_folder(&dir.list())? {
        Some(training) => open(&training, dir, outer, limits, part),
        None => Ok(None),
    }
}

/// The checkpoint that a file of a folder is a part of; `None` where it is complete in itself, or a part of it is asked for
/// by a key that only a file can have.
pub(crate) fn of_file(
    dir: &Arc<dyn Dir>,
    name: &str,
    limits: &Limits,
    part: &PickleOptions,
) -> Result<Option<Opened>> {
    match Training::of_file(name, &dir.list()) {
        Some(training) if part.key.is_none() || !training.has_whole_files() => {
            open(&training, dir, dir, limits, part)
        }
        _ => Ok(None),
    }
}

fn open(
    training: &Training,
    dir: &Arc<dyn Dir>,
    named: &Arc<dyn Dir>,
    limits: &Limits,
    part: &PickleOptions,
) -> Result<Option<Opened>> {
    let Some(reader) = training.open(&**dir, limits, part)? else { return Ok(None) };
    Ok(Some(Opened {
        format: training.what().to_owned(),
        reader: Arc::from(reader),
        assets: beside(dir, named),
    }))
}

/// The folder with the configuration: the one that was named, that of the weights, the one around it.
fn beside(dir: &Arc<dyn Dir>, named: &Arc<dyn Dir>) -> Arc<dyn Assets> {
    let folders = [Some(Arc::clone(named)), Some(Arc::clone(dir)), dir.outer()];
    let candidates = folders.into_iter().flatten().flat_map(|f| {
        let inner = f.inner(HUGGING_FACE).ok().flatten();
        [Some(f), inner]
    });
    let found = candidates.flatten().find(|d| d.contains("config.json"));
    found.unwrap_or_else(|| Arc::clone(named))
}

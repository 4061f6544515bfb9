//! DeepSpeed's checkpoints, merged as its own `zero_to_fp32.py` does: master weights in F32.
//!
//! ZeRO keeps the parameters of a group one after another in one flat vector. In stages 1 and 2 the vector is cut among
//! processes; in stage 3 each parameter is, with padding behind its last part. Names and shapes are in the
//! `*_model_states.pt` files, the vectors in `*_optim_states.pt`. Without ZeRO the weights are in the former, whole.
//!
//! Definition: `deepspeed/utils/zero_to_fp32.py`, `deepspeed/checkpoint/constants.py` of DeepSpeed 0.19.8.

mod file;
mod flat;
mod merge;
mod zero;

use super::{
    Stores,
    merged::{Merged, Wanted},
    missing,
};
use crate::{PickleOptions, open_with};
use file::File;
use merge::Merge;
use std::collections::BTreeMap;
use tensormill_model::{Error, Folder, Limits, Reader, Result};
use zero::Zero;

/// The file of a model that is not divided.
const PLAIN: &str = "mp_rank_00_model_states.pt";

/// Whether a file is a part of such a checkpoint.
pub(in crate::training) fn is_part(name: &str) -> bool {
    name.ends_with("_model_states.pt")
        || name.ends_with("-model_states.pt")
        || name.ends_with("_optim_states.pt")
}

/// The files by rank; without one, the states of a model that is not divided.
#[derive(Default)]
struct Names {
    whole: bool,
    models: BTreeMap<u64, String>,
    optimizers: BTreeMap<u64, String>,
}

impl Names {
    fn of(names: &[String]) -> Result<Self> {
        let mut out = Self::default();
        for name in names.iter().filter(|n| is_part(n)) {
            let refused = |what: &str| {
                Error::unsupported(format!("{what} are not merged")).file(name).hint(
                    "convert the checkpoint with DeepSpeed's ds_to_universal.py or save a consolidated model",
                )
            };
            let optimizer = name.strip_suffix("_optim_states.pt");
            let stem = optimizer.or_else(|| name.strip_suffix("_model_states.pt"));
            let Some(stem) = stem else { return Err(refused("layers of pipeline parallelism")) };
            if stem.contains("expert") || stem.contains("expp_rank") {
                return Err(refused("expert-parallel weights"));
            }
            let stem = stem.strip_prefix("bf16_").unwrap_or(stem);
            let (rank, model) = match stem.strip_prefix("zero_pp_rank_") {
                Some(rest) => rest.split_once('_').map_or((None, stem), |(r, m)| (r.parse().ok(), m)),
                None => (None, stem),
            };
            if !model.strip_prefix("mp_rank_").is_some_and(|n| n.bytes().all(|b| b == b'0')) {
                return Err(refused("tensor-parallel weights, or others of this name,"));
            }
            let before = match (rank, optimizer) {
                (Some(rank), Some(_)) => out.optimizers.insert(rank, name.clone()),
                (Some(rank), None) => out.models.insert(rank, name.clone()),
                (None, None) => {
                    out.whole = true;
                    None
                }
                // Without ZeRO, an optimizer's own file says nothing of the weights.
                (None, Some(_)) => None,
            };
            if let Some(before) = before {
                return Err(Error::mismatch(format!("two files of one rank: the other is {before}"))
                    .file(name)
                    .hint("remove the files of other runs"));
            }
        }
        Ok(out)
    }

    /// Whether the files of ranks up to `count` are there, and no others.
    fn complete(files: &BTreeMap<u64, String>, count: u64) -> Result<()> {
        if let Some(rank) = (0..count).find(|r| !files.contains_key(r)) {
            // Named as the others are.
            let (first, name) = files.first_key_value().ok_or_else(|| missing(PLAIN))?;
            return Err(missing(&name.replacen(
                &format!("pp_rank_{first}_"),
                &format!("pp_rank_{rank}_"),
                1,
            )));
        }
        match files.range(count..).next() {
            Some((_, name)) => {
                Err(Error::mismatch(format!("a file too many: the checkpoint is of {count} processes"))
                    .file(name)
                    .hint("remove the files of other runs"))
            }
            None => Ok(()),
        }
    }
}

pub(in crate::training) fn open(
    folder: &dyn Folder,
    limits: &Limits,
    options: &PickleOptions,
) -> Result<Box<dyn Reader>> {
    let names = Names::of(&folder.names())?;
    let mut stores = Stores::new(folder);
    if names.optimizers.is_empty() {
        if names.whole {
            return whole(&mut stores, limits, options);
        }
        return Err(missing("zero_pp_rank_0_mp_rank_00_optim_states.pt"));
    }
    if options.all {
        return Err(
            Error::usage("the optimizer state that ZeRO divides is not merged").hint("leave --all out")
        );
    }
    let zero = Zero::read(&names, &mut stores, limits)?;
    let model = if zero.stage == 3 {
        Names::complete(&names.models, zero.world)?;
        names.models.get(&0).cloned().ok_or_else(|| missing("zero_pp_rank_0_mp_rank_00_model_states.pt"))?
    } else {
        PLAIN.to_owned()
    };
    let model = File::open(&mut stores, &model, limits)?;
    let mut merge = Merge { model, zero, limits, key: options.key.as_deref(), out: Merged::new(limits) };
    merge.all(&names, &mut stores).map_err(|e| e.file(&merge.model.name))?;
    if merge.out.is_empty() {
        let wanted = Wanted { key: options.key.as_deref(), all: false };
        return Err(wanted.nothing(merge.model.roots(), 0).file(&merge.model.name));
    }
    merge.out.finish(folder.label())
}

/// Without ZeRO: the module's state dict, and with `all` whatever else the file holds.
fn whole(stores: &mut Stores<'_>, limits: &Limits, options: &PickleOptions) -> Result<Box<dyn Reader>> {
    let (_, store) = stores.get(PLAIN)?;
    let key = match &options.key {
        _ if options.all => options.key.clone(),
        Some(key) => Some(format!("module.{key}")),
        None => Some("module".to_owned()),
    };
    open_with(&store, limits, &PickleOptions { key, ..options.clone() })
}

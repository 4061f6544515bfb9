//! One `torch.save` per rank: state dicts in which `DTensor`s and `ShardedTensor`s say what a rank holds, as verl and
//! training loops around FSDP write them.
//!
//! Tensors that are whole are expected to be the same in every file, as far as headers tell; the first file's counts.

use super::{
    Stores,
    merged::Merged,
    missing,
    pieces::{Piece, Pieced},
};
use crate::{
    PickleOptions,
    reader::{Found, find},
};
use std::collections::{BTreeMap, HashMap};
use tensormill_model::{Error, Folder, Limits, Reader, Result};
use tensormill_tensor::{DType, Encoding};

/// Files that differ in the number of the rank only.
#[derive(Debug)]
pub(super) struct Set {
    name: Name,
    files: BTreeMap<u64, String>,
}

/// A name with a rank in it, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    before: String,
    /// Digits of the number, where it is filled with zeros.
    width: usize,
    after: String,
}

impl Name {
    fn of(&self, rank: u64) -> String {
        format!("{}{rank:0width$}{}", self.before, self.after, width = self.width)
    }

    /// Number of processes, where the name says it.
    fn world(&self) -> Option<u64> {
        let (_, rest) = self.before.rsplit_once("world_size_")?;
        rest.split('_').next()?.parse().ok()
    }
}

/// `..._rank_0.pt`, `...rank00.bin` and the like.
fn parse(name: &str) -> Option<(Name, u64)> {
    let suffix = [".pt", ".pth", ".bin", ".ckpt"].into_iter().find(|s| name.ends_with(s))?;
    let stem = name.strip_suffix(suffix)?;
    let at = stem.rfind("rank")? + "rank".len();
    let at = at + usize::from(stem[at..].starts_with(['_', '-', '.']));
    let digits = stem[at..].bytes().take_while(u8::is_ascii_digit).count();
    let number = &stem[at..at + digits];
    let rank = number.parse().ok()?;
    let width = if number.starts_with('0') { digits } else { 0 };
    Some((Name { before: name[..at].to_owned(), width, after: name[at + digits..].to_owned() }, rank))
}

/// Sets of files by name, in order of names.
fn sets(names: &[String]) -> Vec<Set> {
    let mut sets: BTreeMap<(String, String), Set> = BTreeMap::new();
    for n in names {
        if let Some((name, rank)) = parse(n) {
            let key = (name.before.clone(), name.after.clone());
            let set = sets.entry(key).or_insert_with(|| Set { name: name.clone(), files: BTreeMap::new() });
            set.name.width = set.name.width.max(name.width);
            set.files.insert(rank, n.clone());
        }
    }
    sets.into_values().collect()
}

/// What stands beside a model's weights.
fn is_beside(set: &Set) -> bool {
    ["optim", "extra_state", "rng", "random", "scheduler"].iter().any(|p| set.name.before.starts_with(p))
}

pub(super) fn of_folder(names: &[String]) -> Result<Option<Set>> {
    let mut sets = sets(names);
    sets.retain(|s| !is_beside(s));
    if let (1.., Some(other)) = (sets.len(), sets.get(1)) {
        let names: Vec<&str> =
            [&sets[0], other].iter().filter_map(|s| s.files.values().next()).map(String::as_str).collect();
        return Err(Error::usage(
            "this folder holds files of ranks of several models or runs; name one of them",
        )
        .hint(format!("for example {}", names.join(" or "))));
    }
    Ok(sets.pop())
}

pub(super) fn of_file(name: &str, names: &[String]) -> Option<Set> {
    let (wanted, _) = parse(name)?;
    sets(names).into_iter().find(|s| s.name.before == wanted.before && s.name.after == wanted.after)
}

/// A tensor and what was found of it so far.
struct Gathered {
    dtype: DType,
    dims: Vec<u64>,
    pieces: Vec<Piece>,
    /// The first file that has it.
    first: usize,
}

pub(super) fn open(
    set: &Set,
    folder: &dyn Folder,
    limits: &Limits,
    options: &PickleOptions,
) -> Result<Option<Box<dyn Reader>>> {
    let mut stores = Stores::new(folder);
    let mut world = set.name.world();
    let mut order: Vec<String> = Vec::new();
    let mut gathered: HashMap<String, Gathered> = HashMap::new();
    let mut out = Merged::new(limits);
    for (i, file) in set.files.values().enumerate() {
        let (number, store) = stores.get(file)?;
        let named = |e: Error| e.file(store.name());
        let found = find(&store, limits, options, true).map_err(named)?;
        if i == 0 {
            // The rank of an adapter, perhaps.
            if found.shards.is_empty() {
                return Ok(None);
            }
            complete(set, world)?;
        }
        // A mesh may be a part of all processes.
        let said = found.shards.values().filter_map(|s| s.world).max();
        if said > world {
            world = said;
            complete(set, world)?;
        }
        gather(&found, number, &mut order, &mut gathered).map_err(named)?;
        if i == 0 {
            out.extras = found.extras;
        }
    }
    if let (Some(world), Some((rank, file))) = (world, set.files.last_key_value())
        && *rank >= world
    {
        return Err(Error::mismatch(format!(
            "the file of rank {rank}, where the others are of {world} processes"
        ))
        .file(file)
        .hint("remove the files of other runs"));
    }
    for name in order {
        let Some(t) = gathered.remove(&name) else { continue };
        Pieced::new(&t.dims, t.pieces, t.dtype)
            .and_then(|p| out.add(&name, t.dims, t.dtype, p))
            .map_err(|e| e.tensor(&name))?;
    }
    out.finish(folder.label()).map(Some)
}

/// Whether the files of all ranks are there.
fn complete(set: &Set, world: Option<u64>) -> Result<()> {
    let last = set.files.last_key_value().map_or(0, |(rank, _)| rank.saturating_add(1));
    // Ends at the first that is not there, whatever is claimed.
    match (0..world.unwrap_or(0).max(last)).find(|rank| !set.files.contains_key(rank)) {
        Some(rank) => Err(missing(&set.name.of(rank))),
        None => Ok(()),
    }
}

/// Takes what a file holds of each tensor.
fn gather(
    found: &Found,
    file: usize,
    order: &mut Vec<String>,
    gathered: &mut HashMap<String, Gathered>,
) -> Result<()> {
    let mut take = |name: &str, i: usize| -> Result<()> {
        let spec = &found.specs[i];
        let Encoding::Plain(dtype) = spec.encoding else { return Ok(()) };
        let last = name.rsplit('.').next().unwrap_or_default();
        if last == "_flat_param" || last == "flat_param" {
            return Err(Error::unsupported(
                "a flat parameter of FSDP, in which many parameters lie without names",
            )
            .hint("save with StateDictType.SHARDED_STATE_DICT or FULL_STATE_DICT"));
        }
        let t = gathered.entry(name.to_owned()).or_insert_with(|| {
            order.push(name.to_owned());
            Gathered { dtype, dims: spec.shape.dims().to_vec(), pieces: Vec::new(), first: file }
        });
        if t.dtype != dtype || t.dims != spec.shape.dims() {
            let shard = found.shards.contains_key(&i);
            let e = Error::mismatch(format!(
                "it is {dtype} {} here, and {} {:?} in the file of another rank",
                spec.shape, t.dtype, t.dims
            ));
            return Err(if shard {
                e
            } else {
                e.hint("only tensors that say how they are divided (DTensor, ShardedTensor) can be merged")
            });
        }
        match found.shards.get(&i) {
            Some(shard) => t.pieces.extend(shard.boxes.iter().map(|(at, size, data)| Piece {
                at: at.clone(),
                size: size.clone(),
                file,
                data: data.clone(),
            })),
            // Whole in every file: once is enough.
            None if t.first != file && !t.pieces.is_empty() => {}
            None => {
                let (at, size) = (vec![0; t.dims.len()].into(), t.dims.clone().into());
                t.pieces.push(Piece { at, size, file, data: found.data[i].clone() });
            }
        }
        Ok(())
    };
    let mut aliases = found.aliases.iter().peekable();
    let mut names = 0;
    for (i, spec) in found.specs.iter().enumerate() {
        while let Some(a) = aliases.next_if(|a| a.at <= names) {
            take(&a.name, a.tensor).map_err(|e| e.tensor(&a.name))?;
            names += 1;
        }
        take(&spec.name, i).map_err(|e| e.tensor(&spec.name))?;
        names += 1;
    }
    for a in aliases {
        take(&a.name, a.tensor).map_err(|e| e.tensor(&a.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_found_in_names() {
        let parsed = |n| parse(n).map(|(name, rank)| (rank, name.of(7), name.world()));
        let owned = |rank, s: &str, world| Some((rank, s.to_owned(), world));
        assert_eq!(parsed("model_world_size_8_rank_3.pt"), owned(3, "model_world_size_8_rank_7.pt", Some(8)));
        assert_eq!(parsed("rank0.bin"), owned(0, "rank7.bin", None));
        assert_eq!(parsed("ckpt-rank-00012.pth"), owned(12, "ckpt-rank-00007.pth", None));
        for other in
            ["rank.pt", "model.pt", "rank0.safetensors", "frank_sinatra.pt", "rank99999999999999999999.pt"]
        {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn one_set_of_a_folder_is_the_model() {
        let names = |n: &[&str]| n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let set = of_folder(&names(&["optim_rank_0.pt", "model_rank_0.pt", "extra_state_rank_0.pt", "x.pt"]))
            .unwrap()
            .unwrap();
        assert_eq!(set.files[&0], "model_rank_0.pt");
        assert!(of_folder(&names(&["model.pt"])).unwrap().is_none());
        let e = of_folder(&names(&["a_rank_0.pt", "b_rank_0.pt"])).unwrap_err();
        assert!(e.hint_text().unwrap().contains("a_rank_0.pt or b_rank_0.pt"), "{e}");
        let e = complete(&set, Some(1 << 40)).unwrap_err();
        assert_eq!(e.file_name(), Some("model_rank_1.pt"));
    }
}

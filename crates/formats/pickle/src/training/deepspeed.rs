//! DeepSpeed's checkpoints, merged as its own `zero_to_fp32.py` does: master weights in F32.
//!
//! ZeRO keeps the parameters of a group one after another in one flat vector. In stages 1 and 2 the vector is cut among
//! processes; in stage 3 each parameter is, with padding behind its last part. Names and shapes are in the
//! `*_model_states.pt` files, the vectors in `*_optim_states.pt`. Without ZeRO the weights are in the former, whole.
//!
//! Definition: `deepspeed/utils/zero_to_fp32.py`, `deepspeed/checkpoint/constants.py` of DeepSpeed 0.19.8.

use super::{
    Stores,
    merged::Merged,
    missing,
    pieces::{Piece, Pieced},
};
use crate::{
    PickleOptions,
    data::Part,
    files::{self, Opened, Program},
    machine::heap::{Object, Value},
    open_with,
    tensors::Collector,
};
use std::collections::BTreeMap;
use tensormill_model::{Error, Folder, Limits, Reader, Result};
use tensormill_tensor::{DType, Shape};

const PLAIN: &str = "mp_rank_00_model_states.pt";

/// Whether a file is a part of such a checkpoint.
pub(super) fn is_part(name: &str) -> bool {
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
            match (rank, optimizer) {
                (Some(rank), Some(_)) => drop(out.optimizers.insert(rank, name.clone())),
                (Some(rank), None) => drop(out.models.insert(rank, name.clone())),
                (None, None) => out.whole = true,
                // Without ZeRO, an optimizer's own file says nothing of the weights.
                (None, Some(_)) => {}
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

/// An opened file and what its one program made.
struct File {
    number: usize,
    name: String,
    opened: Opened,
}

impl File {
    fn open(stores: &mut Stores<'_>, name: &str, limits: &Limits) -> Result<Self> {
        let (number, store) = stores.get(name)?;
        let opened = files::open(&store, limits).map_err(|e| e.file(store.name()))?;
        Ok(Self { number, name: store.name().to_owned(), opened })
    }

    fn program(&self) -> Result<&Program> {
        self.opened
            .programs
            .first()
            .ok_or_else(|| Error::malformed("there is no pickle in it").file(&self.name))
    }

    /// A value at the root, or in a dict there; `None` where it is not there or is `None`.
    fn get(&self, path: &[&str]) -> Result<Option<Value>> {
        let program = self.program()?;
        let mut v = program.root;
        for key in path {
            match program.entry(v, key) {
                Some(next) if next != Value::None => v = next,
                _ => return Ok(None),
            }
        }
        Ok(Some(v))
    }

    /// Keys and values of a dict; nothing where there is none.
    fn entries(&self, v: Option<Value>) -> Result<Vec<(&str, Value)>> {
        let heap = &self.program()?.heap;
        match v.map(|v| (v, heap.get(v))) {
            None => Ok(Vec::new()),
            Some((_, Some(Object::Dict(d)))) => {
                Ok(d.iter().filter_map(|(k, v)| Some((heap.str(*k)?, *v))).collect())
            }
            Some((v, _)) => {
                Err(Error::malformed(format!("{} in place of a dict of parameters", heap.kind(v)))
                    .file(&self.name))
            }
        }
    }

    fn items(&self, v: Option<Value>) -> Result<&[Value]> {
        Ok(v.and_then(|v| self.program().ok()?.heap.items(v)).unwrap_or_default())
    }

    /// A number, which may be that of an enum.
    fn int(&self, v: Value) -> Result<Option<u64>> {
        let heap = &self.program()?.heap;
        let v = match heap.get(v) {
            Some(Object::Opaque(o)) => {
                o.parts.first().and_then(|a| heap.items(*a)?.first()).copied().unwrap_or(v)
            }
            _ => v,
        };
        Ok(match v {
            Value::Int(n) => u64::try_from(n).ok(),
            _ => None,
        })
    }
}

pub(super) fn open(folder: &dyn Folder, limits: &Limits, options: &PickleOptions) -> Result<Box<dyn Reader>> {
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

/// The flat vectors of all processes.
struct Zero {
    stage: u64,
    world: u64,
    dtype: DType,
    /// Number of the file and vector of each group, by rank.
    ranks: Vec<(usize, Vec<Part>)>,
    /// Elements of padding behind each parameter of each group, where the checkpoint has any.
    paddings: Option<Vec<Vec<u64>>>,
}

impl Zero {
    fn read(names: &Names, stores: &mut Stores<'_>, limits: &Limits) -> Result<Self> {
        let mut out = Self { stage: 0, world: 0, dtype: DType::F32, ranks: Vec::new(), paddings: None };
        for (i, name) in names.optimizers.values().enumerate() {
            let file = File::open(stores, name, limits)?;
            out.rank(i, &file, names, limits).map_err(|e| e.file(&file.name))?;
        }
        Ok(out)
    }

    fn rank(&mut self, i: usize, file: &File, names: &Names, limits: &Limits) -> Result<()> {
        if i == 0 {
            self.header(file)?;
            Names::complete(&names.optimizers, self.world)?;
        }
        let key = if self.stage == 3 { "fp32_flat_groups" } else { "single_partition_of_fp32_groups" };
        let groups = file.get(&["optimizer_state_dict", key])?;
        let groups = groups.ok_or_else(|| Error::malformed(format!("there is no {key} in it")))?;
        let mut collector = Collector::new(&file.opened, &file.name, limits);
        let mut parts = Vec::new();
        for (g, v) in file.items(Some(groups))?.iter().enumerate() {
            let named = |e: Error| e.tensor(format!("{key}.{g}"));
            let part = collector.part(file.program()?, 0, *v).map_err(named)?;
            if i == 0 && g == 0 {
                self.dtype = part.dtype;
            }
            if part.dims.len() != 1 || part.dtype != self.dtype {
                return Err(named(Error::malformed(format!(
                    "a flat vector of type {} and shape {:?}",
                    part.dtype, part.dims
                ))));
            }
            // In stage 3 every process has the same share of every parameter.
            if let Some((_, first)) = self.ranks.first().filter(|_| self.stage == 3)
                && first.get(g).is_none_or(|f| f.dims != part.dims)
            {
                return Err(named(Error::malformed("its length is not that of rank 0")));
            }
            parts.push(part);
        }
        if self.ranks.first().is_some_and(|(_, first)| first.len() != parts.len()) {
            return Err(Error::malformed(format!("{} parameter groups, unlike rank 0", parts.len())));
        }
        self.ranks.push((file.number, parts));
        Ok(())
    }

    /// What the first file says of all.
    fn header(&mut self, file: &File) -> Result<()> {
        let state = |key: &str| file.get(&["optimizer_state_dict", key]);
        let stage = state("zero_stage")?.map(|v| file.int(v)).transpose()?.flatten();
        self.stage = stage.filter(|s| (1..=3).contains(s)).ok_or_else(|| {
            Error::unsupported("it has no ZeRO stage from 1 to 3")
                .hint("without ZeRO, leave only mp_rank_00_model_states.pt in the folder")
        })?;
        let count = state("partition_count")?.ok_or_else(|| Error::malformed("it has no partition_count"))?;
        // Parameter groups may differ in it.
        let counts = match file.int(count)? {
            Some(n) => vec![Some(n)],
            None => file.items(Some(count))?.iter().map(|v| file.int(*v)).collect::<Result<_>>()?,
        };
        self.world = counts
            .into_iter()
            .flatten()
            .max()
            .filter(|n| *n > 0)
            .ok_or_else(|| Error::malformed("its partition_count is no number"))?;
        if let Some(v) = state("param_alignment_paddings")? {
            let heap = &file.program()?.heap;
            let lists = file.items(Some(v))?.iter().map(|g| {
                let numbers =
                    file.items(Some(*g))?.iter().map(|n| file.int(*n).map(Option::unwrap_or_default));
                numbers.collect::<Result<Vec<u64>>>()
            });
            let lists = lists.collect::<Result<Vec<_>>>()?;
            if heap.items(v).is_some() && self.stage < 3 {
                self.paddings = Some(lists);
            }
        }
        Ok(())
    }
}

/// A merge that is under way.
struct Merge<'a> {
    /// Names, shapes and buffers: the first rank's.
    model: File,
    zero: Zero,
    limits: &'a Limits,
    key: Option<&'a str>,
    out: Merged,
}

impl Merge<'_> {
    /// Buffers, frozen parameters, trained ones, ties: in the order of `zero_to_fp32.py`.
    fn all(&mut self, names: &Names, stores: &mut Stores<'_>) -> Result<()> {
        for key in ["ds_autoep_layers", "autoep_layers"] {
            if !self.model.items(self.model.get(&[key])?)?.is_empty() {
                return Err(Error::unsupported("expert-parallel weights (AutoEP) are not merged")
                    .hint("convert the checkpoint with DeepSpeed's ds_to_universal.py"));
            }
        }
        self.module(true)?;
        self.frozen(names, stores)?;
        self.trained()?;
        let ties: Vec<(String, String)> = {
            let heap = &self.model.program()?.heap;
            let shared = self.model.entries(self.model.get(&["shared_params"])?)?;
            shared
                .iter()
                .filter_map(|(name, to)| Some(((*name).to_owned(), heap.str(*to)?.to_owned())))
                .collect()
        };
        for (name, to) in ties {
            if let (Some(name), Some(to)) = (below(self.key, &name), below(self.key, &to))
                && !self.out.has(name)
            {
                self.out.tie(name, to).map_err(|e| e.tensor(name))?;
            }
        }
        self.module(false)?;
        let what =
            format!("optimizer state of {} processes (ZeRO stage {})", self.zero.world, self.zero.stage);
        self.out.extras.leave_out("(optimizer)", what);
        Ok(())
    }

    /// What the module's own state dict has. Buffers, as F32 where they are floats; or what nothing else has: stage 1
    /// does not list frozen parameters, and the merge of DeepSpeed loses them.
    fn module(&mut self, buffers: bool) -> Result<()> {
        let listed = self.model.items(self.model.get(&["buffer_names"])?)?;
        let program = self.model.program()?;
        let mut listed: Vec<&str> = listed.iter().filter_map(|v| program.heap.str(*v)).collect();
        listed.sort_unstable();
        let mut collector = Collector::new(&self.model.opened, &self.model.name, self.limits);
        for (full, v) in self.model.entries(self.model.get(&["module"])?)? {
            let Some(name) = below(self.key, full) else { continue };
            let is_buffer = listed.binary_search(&full).is_ok();
            if is_buffer != buffers || self.out.has(name) {
                continue;
            }
            if !matches!(program.heap.get(v), Some(Object::Tensor(_) | Object::Refused(_))) {
                self.out.extras.leave_out(name, program.heap.kind(v));
                continue;
            }
            let part = collector.part(program, 0, v).map_err(|e| e.tensor(name))?;
            if !buffers && part.dims.contains(&0) {
                continue;
            }
            let dims = part.dims.clone();
            let size: Box<[u64]> = dims.clone().into();
            let piece =
                Piece { at: vec![0; dims.len()].into(), size, file: self.model.number, data: part.data };
            let pieced = Pieced::new(&dims, vec![piece], part.dtype).map_err(|e| e.tensor(name))?;
            let widened = buffers && part.dtype.is_float() && part.dtype != DType::F32;
            let (dtype, pieced) =
                if widened { (DType::F32, pieced.widened(part.dtype)) } else { (part.dtype, pieced) };
            self.out.add(name, dims, dtype, pieced).map_err(|e| e.tensor(name))?;
        }
        Ok(())
    }

    /// Parameters that were not trained; as they were saved, with their parts in all model files in stage 3.
    fn frozen(&mut self, names: &Names, stores: &mut Stores<'_>) -> Result<()> {
        let shapes = shapes(&self.model, self.model.get(&["frozen_param_shapes"])?)?;
        if shapes.is_empty() {
            return Ok(());
        }
        let divided = self.zero.stage == 3;
        let mut parts: Vec<Vec<(usize, Part)>> = shapes.iter().map(|_| Vec::new()).collect();
        let mut collect = |file: &File| -> Result<()> {
            let fragments = file.get(&["frozen_param_fragments"])?;
            let program = file.program()?;
            let mut collector = Collector::new(&file.opened, &file.name, self.limits);
            for ((name, _), parts) in shapes.iter().zip(&mut parts) {
                let part = fragments.and_then(|d| program.entry(d, name));
                let part = part.ok_or_else(|| Error::malformed("its frozen values are not there"));
                let part = part.and_then(|v| collector.part(program, 0, v));
                parts.push((file.number, part.map_err(|e| e.tensor(name).file(&file.name))?));
            }
            Ok(())
        };
        if divided {
            for name in names.models.values() {
                collect(&File::open(stores, name, self.limits)?)?;
            }
        } else {
            collect(&self.model)?;
        }
        for ((full, dims), parts) in shapes.into_iter().zip(parts) {
            let Some(name) = below(self.key, &full) else { continue };
            let run = || -> Result<(DType, Pieced)> {
                let dtype = parts.first().map_or(DType::F32, |(_, p)| p.dtype);
                if parts.iter().any(|(_, p)| {
                    p.dtype != dtype || (!divided && p.dims != dims) || (divided && p.dims.len() != 1)
                }) {
                    return Err(Error::malformed(format!(
                        "its frozen values have other types or shapes than {dims:?}"
                    )));
                }
                if divided {
                    let flat: Vec<Segment<'_>> =
                        parts.iter().map(|(file, p)| (*file, p, 0, p.dims[0])).collect();
                    return Ok((dtype, flat_pieces(&dims, dtype, &flat)?));
                }
                let size: Box<[u64]> = dims.clone().into();
                let whole = |(file, p): &(usize, Part)| Piece {
                    at: vec![0; dims.len()].into(),
                    size: size.clone(),
                    file: *file,
                    data: p.data.clone(),
                };
                Ok((dtype, Pieced::new(&dims, parts.iter().map(whole).collect(), dtype)?))
            };
            run()
                .and_then(|(dtype, p)| self.out.add(name, dims.clone(), dtype, p))
                .map_err(|e| e.tensor(name))?;
        }
        Ok(())
    }

    fn trained(&mut self) -> Result<()> {
        let groups = self.model.items(self.model.get(&["param_shapes"])?)?;
        let groups = groups.iter().map(|g| shapes(&self.model, Some(*g))).collect::<Result<Vec<_>>>()?;
        if groups.is_empty() {
            return Err(Error::malformed("it has no param_shapes"));
        }
        if self.zero.stage == 3 { self.stage3(groups) } else { self.stage2(groups) }
    }

    fn add(&mut self, full: &str, dims: Vec<u64>, segments: &[(usize, usize, u64, u64)]) -> Result<()> {
        let Some(name) = below(self.key, full) else { return Ok(()) };
        let dtype = self.zero.dtype;
        let segments: Vec<Segment<'_>> = segments
            .iter()
            .map(|(rank, group, start, len)| {
                let (file, parts) = &self.zero.ranks[*rank];
                (*file, &parts[*group], *start, *len)
            })
            .collect();
        flat_pieces(&dims, dtype, &segments)
            .and_then(|p| self.out.add(name, dims, dtype, p))
            .map_err(|e| e.tensor(name))
    }

    /// The vectors of all processes behind each other are the parameters behind each other.
    fn stage2(&mut self, groups: Vec<Vec<(String, Vec<u64>)>>) -> Result<()> {
        let count = self.zero.ranks.first().map_or(0, |(_, parts)| parts.len());
        if groups.len() != count {
            return Err(Error::malformed(format!(
                "shapes of {} parameter groups, vectors of {count}",
                groups.len()
            )));
        }
        let align = self.zero.world.saturating_mul(2);
        for (g, shapes) in groups.into_iter().enumerate() {
            // Where the vector of each rank starts; at the end, where all end.
            let mut starts = vec![0u64];
            for (_, parts) in &self.zero.ranks {
                let next = starts.last().copied().unwrap_or(0).checked_add(parts[g].dims[0]);
                starts.push(next.ok_or_else(too_long)?);
            }
            let have = starts.last().copied().unwrap_or(0);
            let padding = match &self.zero.paddings {
                None => None,
                Some(p) => match p.get(g) {
                    Some(p) if p.len() == shapes.len() => Some(p.clone()),
                    _ => {
                        return Err(Error::malformed(format!(
                            "the paddings of group {g} are not those of its parameters"
                        )));
                    }
                },
            };
            let mut offset = 0u64;
            for (i, (name, dims)) in shapes.into_iter().enumerate() {
                let len = elements(&dims).map_err(|e| e.tensor(&name))?;
                let end = offset.checked_add(len).filter(|e| *e <= have).ok_or_else(|| {
                    Error::malformed(format!(
                        "shape {dims:?} from element {offset} on, of {have} in the vectors of all processes"
                    ))
                    .tensor(&name)
                    .hint("files of different runs may be in one folder")
                })?;
                let first = starts.partition_point(|s| *s <= offset) - 1;
                let segments: Vec<_> = (first..self.zero.ranks.len())
                    .take_while(|r| starts[*r] < end)
                    .map(|r| {
                        let (from, to) = (offset.max(starts[r]), end.min(starts[r + 1]));
                        (r, g, from - starts[r], to.saturating_sub(from))
                    })
                    .filter(|(_, _, _, len)| *len > 0)
                    .collect();
                self.add(&name, dims, &segments)?;
                offset = end.saturating_add(padding.as_ref().map_or(0, |p| p[i]));
            }
            if offset.div_ceil(align) != have.div_ceil(align) {
                return Err(Error::malformed(format!(
                    "the parameters of group {g} have {offset} elements, its vectors {have}"
                )));
            }
        }
        Ok(())
    }

    /// Every process has the same share of each parameter, at the same place of its vectors.
    fn stage3(&mut self, groups: Vec<Vec<(String, Vec<u64>)>>) -> Result<()> {
        let mut starts = vec![0u64];
        for part in self.zero.ranks.first().map_or(&[][..], |(_, parts)| parts.as_slice()) {
            let next = starts.last().copied().unwrap_or(0).checked_add(part.dims[0]);
            starts.push(next.ok_or_else(too_long)?);
        }
        let have = starts.last().copied().unwrap_or(0);
        let mut offset = 0u64;
        for (name, dims) in groups.into_iter().flatten() {
            let len = elements(&dims).map_err(|e| e.tensor(&name))?;
            let share = len.div_ceil(self.zero.world);
            let end = offset.checked_add(share).filter(|e| *e <= have).ok_or_else(|| {
                Error::malformed(format!(
                    "shape {dims:?} takes {share} elements of each process from {offset} on, of {have}"
                ))
                .tensor(&name)
                .hint("files of different runs may be in one folder")
            })?;
            let mut left = len;
            let mut segments = Vec::new();
            let first = starts.partition_point(|s| *s <= offset) - 1;
            for rank in 0..self.zero.ranks.len() {
                for g in (first..starts.len() - 1).take_while(|g| starts[*g] < end) {
                    let (from, to) = (offset.max(starts[g]), end.min(starts[g + 1]));
                    let take = to.saturating_sub(from).min(left);
                    if take > 0 {
                        segments.push((rank, g, from - starts[g], take));
                        left -= take;
                    }
                }
            }
            self.add(&name, dims, &segments)?;
            offset = end;
        }
        if offset != have {
            return Err(Error::malformed(format!(
                "the parameters take {offset} elements of each process, which has {have}"
            )));
        }
        Ok(())
    }
}

/// File, vector, first element, length.
type Segment<'a> = (usize, &'a Part, u64, u64);

/// A tensor of these dimensions from stretches behind each other, as many as it has elements.
fn flat_pieces(dims: &[u64], dtype: DType, segments: &[Segment<'_>]) -> Result<Pieced> {
    let total = elements(dims)?;
    let mut at = 0;
    let mut pieces = Vec::with_capacity(segments.len());
    for (file, part, start, len) in segments {
        // What is behind the last element is padding.
        let len = (*len).min(total - at);
        if len > 0 {
            let data = part.narrow(&[*start], &[len]);
            pieces.push(Piece { at: [at].into(), size: [len].into(), file: *file, data });
            at += len;
        }
    }
    Pieced::new(&[total], pieces, dtype)
}

fn too_long() -> Error {
    Error::malformed("its vectors are longer than 64 bits can count")
}

fn elements(dims: &[u64]) -> Result<u64> {
    Ok(Shape::new(dims.to_vec())?.elements())
}

/// Names and shapes of parameters.
fn shapes(file: &File, v: Option<Value>) -> Result<Vec<(String, Vec<u64>)>> {
    let heap = &file.program()?.heap;
    let sizes = |(name, v): (&str, Value)| {
        let dims = heap.sizes(v).map_err(|e| e.tensor(name))?;
        Ok((name.to_owned(), dims.to_vec()))
    };
    file.entries(v)?.into_iter().map(sizes).collect()
}

/// The name below the part that is asked for.
fn below<'n>(key: Option<&str>, name: &'n str) -> Option<&'n str> {
    match key {
        None => Some(name),
        Some(key) => name.strip_prefix(key)?.strip_prefix('.').filter(|n| !n.is_empty()),
    }
}

//! Folders of `torch.distributed.checkpoint`: `.metadata`, a pickle that says which box of which tensor lies where, and
//! `.distcp` files in which each box is a small archive of `torch.save`.
//!
//! Definition: `torch/distributed/checkpoint/{metadata,filesystem,default_planner}.py` of torch 2.15. FSDP's sharded state
//! dicts, and what accelerate and others write with them, are such folders.

use super::{
    Folder, Stores,
    merged::{Merged, Wanted},
    pieces::{Piece, Pieced},
};
use crate::{
    PickleOptions,
    data::Part,
    files::{self, Program, Window},
    machine::{
        self, Persistent,
        globals::Known,
        heap::{Object, Value},
    },
    tensors::{self, Collector},
    types::TorchType,
};
use std::{cell::Cell, collections::HashMap, sync::Arc};
use tensormill_model::{Error, Limits, Reader, Result, Store};
use tensormill_tensor::DType;

/// The file that makes a folder one of these.
pub(super) const METADATA: &str = ".metadata";

/// One tensor as `.metadata` has it.
struct Listed<'a> {
    /// Its full name: names of containers and its own, joined by dots.
    name: &'a str,
    /// Where the name that it gets starts.
    start: usize,
    ty: &'static TorchType,
    size: Box<[u64]>,
    chunks: &'a [Value],
}

pub(super) fn open(folder: &dyn Folder, limits: &Limits, options: &PickleOptions) -> Result<Box<dyn Reader>> {
    let mut stores = Stores::new(folder);
    let (_, store) = stores.get(METADATA)?;
    let name = store.name().to_owned();
    // A run of hundreds of processes lists hundreds of thousands of parts, each of a hundred values in two hundred bytes.
    let mut wide = *limits;
    wide.values = limits.values.max(store.len().min(LISTED.saturating_mul(limits.values)));
    let done = machine::run(&*store, 0, METADATA, Persistent::Storages, &wide).map_err(|e| e.file(&name))?;
    let program = Program::new(done, store, 0);
    Metadata::read(&program, limits)
        .and_then(|m| m.merge(&mut stores, limits, options))
        .map_err(|e| e.file(&name))?
        .finish(folder.label())
}

/// What `.metadata` says.
struct Metadata<'a> {
    program: &'a Program,
    /// Names and what they stand for, in order.
    entries: Vec<(&'a str, Value)>,
    /// Containers' names and its own, of each name.
    paths: HashMap<&'a str, Vec<&'a str>>,
    /// Where the boxes are, by name and first element.
    places: HashMap<(&'a str, Box<[u64]>), Value>,
    /// What may still be looked at: lists are shared at no cost, by any number of tensors.
    steps: Cell<u64>,
}

/// How many times the values of another pickle that of a large run may make: one for each of its bytes, up to this.
const LISTED: u64 = 4;
/// How often the bytes of a file may be covered by parts of tensors: each has its own.
const COVERED: u64 = 4;

impl<'a> Metadata<'a> {
    fn read(program: &'a Program, limits: &Limits) -> Result<Self> {
        let heap = &program.heap;
        let dict = |field: &str| match program.field(program.root, field).map(|v| (v, heap.get(v))) {
            Some((_, Some(Object::Dict(d)))) => Ok(Some(d)),
            None | Some((Value::None, _)) => Ok(None),
            Some((v, _)) => Err(Error::malformed(format!("its {field} is {}", heap.kind(v)))),
        };
        let text = |v: Value| {
            heap.str(v).ok_or_else(|| Error::malformed(format!("{} in place of a name", heap.kind(v))))
        };
        let listed = dict("state_dict_metadata")?.ok_or_else(|| {
            Error::malformed(
                "this is no metadata of torch.distributed.checkpoint: it has no state_dict_metadata",
            )
        })?;
        if listed.len() as u64 > limits.tensors {
            return Err(Error::over_limit(format!("more than {} tensors", limits.tensors)));
        }
        let entries = listed.iter().map(|(k, v)| Ok((text(*k)?, *v))).collect::<Result<Vec<_>>>()?;
        let steps = Cell::new(limits.values);
        let mut paths = HashMap::new();
        for (name, path) in dict("planner_data")?.into_iter().flatten() {
            let (Some(name), Some(path)) = (heap.str(*name), heap.items(*path)) else { continue };
            spend(&steps, 1 + name.len() as u64 / 16)?;
            if let Some(path) = split(program, name, path) {
                paths.insert(name, path);
            }
        }
        let mut places = HashMap::new();
        for (index, info) in dict("storage_data")?.into_iter().flatten() {
            let name = program.field(*index, "fqn");
            let name =
                name.ok_or_else(|| Error::malformed(format!("{} in place of an index", heap.kind(*index))))?;
            // Without an offset it is no tensor.
            if let Some(offset) = program.field(*index, "offset").filter(|o| *o != Value::None) {
                places.insert((text(name)?, heap.sizes(offset)?), *info);
            }
        }
        Ok(Self { program, entries, paths, places, steps })
    }

    /// Every tensor that is wanted, with its pieces.
    fn merge(&self, stores: &mut Stores<'_>, limits: &Limits, options: &PickleOptions) -> Result<Merged> {
        let wanted = Wanted { key: options.key.as_deref(), all: options.all };
        let mut out = Merged::new(limits);
        let mut listed = Vec::new();
        let mut optimizers = (0, 0);
        for (name, v) in &self.entries {
            let guess: Vec<&str>;
            let path = if let Some(path) = self.paths.get(name) {
                path
            } else {
                // Nothing says what is a container: for an optimizer, only the first part may be one.
                guess = if wanted.key.is_some() {
                    name.split('.').collect()
                } else {
                    name.splitn(2, '.').collect()
                };
                &guess
            };
            let Some((start, optimizer)) = wanted.find(path) else { continue };
            let tensor = self.tensor(name, start, *v).map_err(|e| e.tensor(name))?;
            match tensor {
                _ if optimizer => {
                    let n = if tensor.is_some() { &mut optimizers.0 } else { &mut optimizers.1 };
                    *n += 1;
                }
                Some(tensor) => listed.push(tensor),
                None => out.extras.leave_out(&name[start..], "a value that is no tensor"),
            }
        }
        if optimizers != (0, 0) {
            let what = format!(
                "optimizer state ({} tensors, {} other values); --all keeps it",
                optimizers.0, optimizers.1
            );
            out.extras.leave_out("(optimizer)", what);
        }
        if listed.is_empty() {
            let roots = self.entries.iter().map(|(name, _)| match self.paths.get(name) {
                Some(path) => path[0],
                None => name,
            });
            return Err(wanted.nothing(roots, optimizers.0 + optimizers.1));
        }
        if options.key.is_none() && !options.all {
            self.unwrap(&mut listed);
        }
        for t in listed {
            self.pieced(&t, stores, limits)
                .and_then(|(dims, dtype, p)| out.add(&t.name[t.start..], dims, dtype, p))
                .map_err(|e| e.tensor(t.name))?;
        }
        Ok(out)
    }

    /// Where all tensors are in one container, their names start below it, as accelerate's merge has it.
    fn unwrap(&self, listed: &mut [Listed<'a>]) {
        let root = |t: &Listed<'a>| match self.paths.get(t.name).map(Vec::as_slice) {
            Some([first, _, ..]) => Some(*first),
            _ => None,
        };
        let Some(first) = listed.first().and_then(root) else { return };
        if listed.iter().all(|t| root(t) == Some(first)) {
            for t in listed {
                t.start = first.len() + 1;
            }
        }
    }

    /// What an entry says of a tensor; `None` where it is something else.
    fn tensor(&self, name: &'a str, start: usize, v: Value) -> Result<Option<Listed<'a>>> {
        let (program, heap) = (self.program, &self.program.heap);
        let Some(properties) = program.field(v, "properties") else { return Ok(None) };
        // A tuple that starts with the dtype.
        let dtype = match heap.get(properties) {
            Some(Object::Opaque(o)) => o.state.and_then(|s| heap.items(s)).and_then(|s| s.first().copied()),
            _ => None,
        };
        let dtype = dtype.ok_or_else(|| Error::malformed("its properties have no dtype"))?;
        let Some(Known::Type(ty)) = heap.known(dtype) else {
            return Err(Error::unsupported(format!("{} is no dtype that is known", heap.kind(dtype))));
        };
        let (Some(size), Some(chunks)) = (program.field(v, "size"), program.field(v, "chunks")) else {
            return Err(Error::malformed("its size or its chunks are not there"));
        };
        let chunks = heap
            .items(chunks)
            .ok_or_else(|| Error::malformed(format!("its chunks are {}", heap.kind(chunks))))?;
        Ok(Some(Listed { name, start, ty, size: heap.sizes(size)?, chunks }))
    }

    fn pieced(
        &self,
        t: &Listed<'_>,
        stores: &mut Stores<'_>,
        limits: &Limits,
    ) -> Result<(Vec<u64>, DType, Pieced)> {
        let (program, heap) = (self.program, &self.program.heap);
        let (dtype, dims) = t.ty.held(&t.size)?;
        // No part is looked for before the whole can be counted.
        tensors::spec(t.name, dims.clone(), dtype)?;
        // A chunk is an object with two tuples: what it costs to look at, and more than it cost to list.
        spend(&self.steps, 16 * t.chunks.len() as u64)?;
        let mut pieces = Vec::new();
        for chunk in t.chunks {
            let sizes = |field: &str| {
                let v = program.field(*chunk, field);
                v.map(|v| heap.sizes(v))
                    .transpose()?
                    .ok_or_else(|| Error::malformed(format!("a chunk without {field}")))
            };
            let (at, size) = (sizes("offsets")?, sizes("sizes")?);
            if size.contains(&0) {
                continue;
            }
            let info = self
                .places
                .get(&(t.name, at.clone()))
                .ok_or_else(|| Error::malformed(format!("nothing says where its part from {at:?} on is")))?;
            let (file, part) = self.part(*info, stores, limits)?;
            if part.dtype != dtype || part.dims != *size {
                return Err(Error::malformed(format!(
                    "its part from {at:?} on is {} {:?}, not {dtype} {size:?}",
                    part.dtype, part.dims
                )));
            }
            pieces.push(Piece { at, size, file, data: part.data });
        }
        let pieced = Pieced::new(&dims, pieces, dtype)?;
        Ok((dims, dtype, pieced))
    }

    /// The tensor of a small archive within a file.
    fn part(&self, info: Value, stores: &mut Stores<'_>, limits: &Limits) -> Result<(usize, Part)> {
        let (program, heap) = (self.program, &self.program.heap);
        let number = |field: &str| match program.field(info, field) {
            Some(Value::Int(n)) => u64::try_from(n).ok(),
            _ => None,
        };
        let path = program.field(info, "relative_path").and_then(|v| heap.str(v));
        let (Some(path), Some(start), Some(len)) = (path, number("offset"), number("length")) else {
            return Err(Error::malformed("a place without path, offset and length"));
        };
        if let Some(how) = program.field(info, "transform_descriptors").filter(|v| *v != Value::None)
            && !heap.items(how).is_some_and(<[Value]>::is_empty)
        {
            let names: Vec<&str> =
                heap.items(how).into_iter().flatten().filter_map(|v| heap.str(*v)).collect();
            return Err(Error::unsupported(format!("its parts are transformed ({})", names.join(", ")))
                .hint("save the checkpoint without extensions, or merge it with dcp_to_torch_save"));
        }
        let (file, store) = stores.get(path)?;
        let name = store.name().to_owned();
        if start.checked_add(len).is_none_or(|end| end > store.len()) {
            return Err(Error::malformed(format!(
                "a part of {len} bytes from byte {start} on, of a file of {}",
                store.len()
            ))
            .hint("the file is probably incomplete: copy it again")
            .file(name));
        }
        if !stores.cover(file, len, COVERED.saturating_mul(store.len())) {
            return Err(Error::malformed("parts of tensors lie over each other").file(name));
        }
        let window: Arc<dyn Store> = Arc::new(Window { store, start, len });
        let read = || {
            let opened = files::open(&window, limits)?;
            let root =
                opened.programs.first().ok_or_else(|| Error::malformed("an archive without a pickle"))?;
            Collector::new(&opened, &name, limits).part(root, 0, root.root)
        };
        let mut part = read().map_err(|e| e.file(&name).at(start))?;
        part.data.place = part.data.place.saturating_add(start);
        Ok((file, part))
    }
}

fn spend(steps: &Cell<u64>, n: u64) -> Result<()> {
    let left =
        steps.get().checked_sub(n).ok_or_else(|| Error::over_limit("its lists of parts are too long"))?;
    steps.set(left);
    Ok(())
}

/// A path as parts of the name that it makes; `None` where it does not.
fn split<'a>(program: &Program, name: &'a str, path: &[Value]) -> Option<Vec<&'a str>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = name;
    for (i, v) in path.iter().enumerate() {
        let len = match v {
            Value::Int(n) => n.to_string().len(),
            v => program.heap.str(*v)?.len(),
        };
        let (head, tail) = (rest.get(..len)?, rest.get(len..)?);
        out.push(head);
        rest = if i + 1 < path.len() { tail.strip_prefix('.')? } else { tail };
    }
    (rest.is_empty() && !out.is_empty()).then_some(out)
}

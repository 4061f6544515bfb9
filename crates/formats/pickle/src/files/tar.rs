//! The tar archives of torch 0.1: `storages` (pickled descriptions, each followed by its data), `tensors` (views), and
//! `pickle`, whose persistent ids are the numbers of tensors. Definition: `_legacy_load` in `torch/serialization.py`.

use super::{Opened, Pickled, Program, Record, Records, Window, legacy::measured};
use crate::{
    cursor::Cursor,
    machine::{
        self, Machine, Persistent,
        globals::Known,
        heap::{Heap, Object, Storage, Tensor, Value},
    },
};
use std::{collections::HashMap, sync::Arc};
use tensormill_model::{Error, Limits, Result, Store};

const BLOCK: u64 = 512;
/// Members looked at: torch writes four.
const MEMBERS: usize = 64;
const NAMES: [&str; 4] = ["sys_info", "pickle", "tensors", "storages"];

/// Whether the first block is the header of a member that torch writes.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.get(..BLOCK as usize).and_then(member).is_some_and(|(name, _)| NAMES.contains(&name.as_str()))
}

/// Name and size of a member; `None` for blocks that are no header.
fn member(block: &[u8]) -> Option<(String, u64)> {
    let field = |from: usize, n: usize| &block[from..from + n];
    let octal = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok()?.trim_matches(['\0', ' ']);
        u64::from_str_radix(text, 8).ok()
    };
    let sum = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u64::from(*b) });
    if octal(field(148, 8)) != Some(sum.sum()) {
        return None;
    }
    let size = field(124, 12);
    let size = match size[0] {
        // Sizes of eight GiB and more, in base 256 (GNU).
        0x80 if size[1..4] == [0; 3] => u64::from_be_bytes(size[4..].try_into().ok()?),
        _ => octal(size)?,
    };
    let name = field(0, 100).split(|b| *b == 0).next()?;
    let name = std::str::from_utf8(name).ok()?;
    Some((name.strip_prefix("./").unwrap_or(name).to_owned(), size))
}

/// The members that torch writes, by name.
fn members(store: &Arc<dyn Store>) -> Result<HashMap<String, Arc<Window>>> {
    let mut found = HashMap::new();
    let mut at = 0u64;
    for _ in 0..MEMBERS {
        let mut block = [0; BLOCK as usize];
        if store.len().saturating_sub(at) < BLOCK {
            break;
        }
        store.read_at(at, &mut block)?;
        if block == [0; BLOCK as usize] {
            break;
        }
        let bad = |what: &str| Error::malformed(what.to_owned()).at(at);
        let (name, size) =
            member(&block).ok_or_else(|| bad("a member of the tar archive without a header"))?;
        let start = at + BLOCK;
        let next = size.checked_next_multiple_of(BLOCK).and_then(|n| n.checked_add(start));
        let Some(next) = next.filter(|_| size <= store.len() - start) else {
            return Err(bad("a member of the tar archive ends after the file"));
        };
        if NAMES.contains(&name.as_str()) {
            let window = Arc::new(Window { store: Arc::clone(store), start, len: size });
            if found.insert(name, window).is_some() {
                return Err(bad("a member of the tar archive occurs twice"));
            }
        }
        at = next;
    }
    Ok(found)
}

struct TarRecords {
    storages: Arc<Window>,
    places: HashMap<String, (u64, u64)>,
}

impl Records for TarRecords {
    fn find(&self, _: usize, key: &str) -> Result<Option<Record>> {
        Ok(self.places.get(key).map(|&(at, len)| {
            let at = self.storages.start + at;
            Record { store: Arc::clone(&self.storages.store), at, len, place: at }
        }))
    }
}

pub(super) fn open(store: &Arc<dyn Store>, limits: &Limits) -> Result<Opened> {
    let members = members(store)?;
    let get = |name: &str| {
        members.get(name).cloned().ok_or_else(|| Error::malformed(format!("the tar archive has no {name:?}")))
    };
    let (storages, tensors, pickle) = (get("storages")?, get("tensors")?, get("pickle")?);
    let mut heap = Heap::new(limits, "pickle".to_owned(), 0);
    let mut places = HashMap::new();
    let mut known: HashMap<i64, Storage> = HashMap::new();

    let mut at = 0;
    let mut r = Parts { store: &storages, name: "storages", limits };
    for _ in 0..r.count(&mut at)? {
        let (key, ty) = r.storage(&mut at)?;
        let numel = Cursor::new(&*storages, at).u64()?;
        let storage = Storage { key: heap.key(&key.to_string())?, ty, numel, view: None };
        let (start, len) = measured(&*storages, at, &storage, &key.to_string())?;
        places.insert(key.to_string(), (start, len));
        if known.insert(key, storage).is_some() {
            return Err(Error::malformed(format!("the storage {key} is there twice")));
        }
        at = start + len;
    }
    for [target, root, offset, numel] in r.views(&mut at)? {
        let size = |n: i64| u64::try_from(n).map_err(|_| Error::malformed("a negative view of a storage"));
        let root = known.get(&root).filter(|s| s.view.is_none());
        let mut storage = root.cloned().ok_or_else(|| Error::malformed("a view of no storage"))?;
        storage.view = Some((size(offset)?, size(numel)?));
        known.insert(target, storage);
    }

    let mut objects = HashMap::new();
    let mut at = 0;
    let mut r = Parts { store: &tensors, name: "tensors", limits };
    for _ in 0..r.count(&mut at)? {
        let (key, storage) = r.tensor(&mut at)?;
        let storage = known.get(&storage).ok_or_else(|| Error::malformed("a tensor of no storage"))?;
        let tensor = view(&tensors, &mut at, storage, limits)?;
        let object = match tensor.end() {
            Ok(_) => Object::Tensor(Box::new(tensor)),
            Err(e) => Object::Refused(Box::new(e)),
        };
        objects.insert(key, heap.object(object)?);
    }
    let done = Machine::new(&*pickle, 0, heap, Persistent::Objects(objects), limits).finish()?;
    let place = pickle.start;
    let program = Program::new(done, pickle, place);
    let records = Box::new(TarRecords { storages, places });
    Ok(Opened { programs: vec![program], records, big_endian: false })
}

/// The pickles of every member that a loader reads, as far as they can be followed.
pub(super) fn pickles(store: &Arc<dyn Store>, limits: &Limits) -> Result<Vec<Pickled>> {
    let mut found = Vec::new();
    for (name, window) in members(store)? {
        let mut starts = vec![0];
        let mut at = 0;
        let mut r = Parts { store: &window, name: &name, limits };
        let mut follow = || -> Result<()> {
            let is_storages = name == "storages";
            if !is_storages && name != "tensors" {
                return Ok(());
            }
            for _ in 0..r.count(&mut at)? {
                starts.push(at);
                if is_storages {
                    let (_, ty) = r.storage(&mut at)?;
                    let storage = Storage { key: 0, ty, numel: Cursor::new(&*window, at).u64()?, view: None };
                    let (start, len) = measured(&*window, at, &storage, "")?;
                    at = start + len;
                } else {
                    r.tensor(&mut at)?;
                    let rank = u64::from(Cursor::new(&*window, at).u32()?);
                    at += 8 + 16 * rank + 8;
                }
            }
            if is_storages {
                starts.push(at);
            }
            Ok(())
        };
        // The one that cannot be followed is on the list.
        let _ = follow();
        found.push((name.clone(), window as Arc<dyn Store>, starts));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Small pickles one after another in a member, with other data between them.
struct Parts<'a> {
    store: &'a Window,
    name: &'a str,
    limits: &'a Limits,
}

impl Parts<'_> {
    fn next(&mut self, at: &mut u64) -> Result<machine::Finished> {
        let heap = Heap::new(self.limits, self.name.to_owned(), 0);
        let none = Persistent::Objects(HashMap::new());
        let done = Machine::new(self.store, *at, heap, none, self.limits).finish()?;
        *at = done.end;
        Ok(done)
    }

    fn bad(&self, what: &str) -> Error {
        Error::malformed(format!("{what} in the member {:?} of the tar archive", self.name))
    }

    fn count(&mut self, at: &mut u64) -> Result<u64> {
        let n = match self.next(at)?.root {
            Value::Int(n) => u64::try_from(n).ok(),
            _ => None,
        };
        let n = n.ok_or_else(|| self.bad("no number of parts"))?;
        if n > self.limits.tensors {
            return Err(Error::over_limit(format!(
                "{n} {}; the limit is {}",
                self.name, self.limits.tensors
            )));
        }
        Ok(n)
    }

    /// `(key, location, storage type)`.
    fn storage(&mut self, at: &mut u64) -> Result<(i64, &'static crate::types::TorchType)> {
        let done = self.next(at)?;
        match done.heap.items(done.root) {
            Some([Value::Int(key), _, class]) => match done.heap.known(*class) {
                Some(Known::Storage(ty)) => Ok((*key, ty)),
                _ => Err(Error::unsupported(format!(
                    "{} is not a class of storages that is known",
                    done.heap.kind(*class)
                ))),
            },
            _ => Err(self.bad("an odd description of a storage")),
        }
    }

    /// `(key, storage, tensor type)`.
    fn tensor(&mut self, at: &mut u64) -> Result<(i64, i64)> {
        let done = self.next(at)?;
        match done.heap.items(done.root) {
            Some([Value::Int(key), Value::Int(storage), _]) => Ok((*key, *storage)),
            _ => Err(self.bad("an odd description of a tensor")),
        }
    }

    /// A list of `(key, storage, offset, number of elements)`.
    fn views(&mut self, at: &mut u64) -> Result<Vec<[i64; 4]>> {
        let done = self.next(at)?;
        let heap = &done.heap;
        let list = heap.items(done.root).ok_or_else(|| self.bad("no list of views"))?;
        list.iter()
            .map(|v| match heap.items(*v) {
                Some([Value::Int(a), Value::Int(b), Value::Int(c), Value::Int(d)]) => Ok([*a, *b, *c, *d]),
                _ => Err(self.bad("an odd view of a storage")),
            })
            .collect()
    }
}

/// Dimensions, strides and offset as they follow the description of a tensor.
fn view(store: &Window, at: &mut u64, storage: &Storage, limits: &Limits) -> Result<Tensor> {
    let mut c = Cursor::new(store, *at);
    let rank = c.u32()?;
    if rank > limits.rank {
        return Err(Error::over_limit(format!(
            "a tensor of {rank} dimensions; the limit is {}",
            limits.rank
        )));
    }
    c.skip(4)?;
    let mut list = || (0..rank).map(|_| c.u64()).collect::<Result<Box<[u64]>>>();
    let (size, stride) = (list()?, list()?);
    let offset = c.u64()?;
    *at = c.position();
    let negative = size.iter().chain(&stride).chain([&offset]).any(|n| *n > i64::MAX as u64);
    if negative {
        return Err(Error::malformed("a tensor with a negative dimension, stride or offset"));
    }
    Ok(Tensor {
        storage: storage.clone(),
        ty: storage.ty,
        offset,
        size,
        stride,
        quantizer: None,
        class: None,
    })
}

//! The stream that `torch.save` wrote before 1.6: pickles of a magic number, a version, facts about the system, the
//! object and the list of storages; then the storages, each with its number of elements in front. All of it
//! little-endian, whatever machine wrote it. A pickle without that frame is read as such: it can hold numpy arrays.

use super::{Opened, Program, Record, Records};
use crate::{
    cursor::Cursor,
    machine::{
        self, Persistent,
        heap::{Object, Storage, Value},
    },
};
use std::{collections::HashMap, sync::Arc};
use tensormill_model::{Error, Limits, Result, Store};

/// 0x1950a86a20f9469cfc6c, little-endian as `LONG1` stores it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The same as protocols 0 and 1 write it.
const MAGIC_TEXT: &[u8] = b"L119547037146038801333356L\n";
const VERSION: i64 = 1001;

/// Pickles in a legacy file.
pub(super) const PICKLES: usize = 5;

const THE_FILE: &str = "the file";

pub(super) fn is_legacy(head: &[u8]) -> bool {
    let bare = match head {
        // Protocols 4 and 5 put the length of a frame in front.
        [0x80, _, 0x95, _, _, _, _, _, _, _, _, rest @ ..] | [0x80, _, rest @ ..] => rest,
        _ => head,
    };
    bare.starts_with(MAGIC_TEXT) || bare.strip_prefix(&[0x8a, 10]).is_some_and(|b| b.starts_with(&MAGIC))
}

struct LegacyRecords {
    store: Arc<dyn Store>,
    places: HashMap<String, (u64, u64)>,
}

impl Records for LegacyRecords {
    fn find(&self, _: usize, key: &str) -> Result<Option<Record>> {
        Ok(self.places.get(key).map(|&(at, len)| Record {
            store: Arc::clone(&self.store),
            at,
            len,
            place: at,
        }))
    }
}

pub(super) fn open(store: &Arc<dyn Store>, limits: &Limits) -> Result<Opened> {
    let run = |at: u64| {
        // All pickles of the stream count bytes from the start of the file, as error messages do.
        let heap = machine::heap::Heap::new(limits, THE_FILE.to_owned(), 0);
        machine::Machine::new(&**store, at, heap, Persistent::Storages, limits).finish()
    };
    let first = run(0)?;
    let is_magic = matches!(first.root, Value::Huge(t) if first.heap.bytes(t) == MAGIC);
    let mut places = HashMap::new();
    let object = if is_magic {
        let version = run(first.end)?;
        if version.root != Value::Int(VERSION) {
            let found = version.heap.kind(version.root);
            return Err(Error::unsupported(format!("a legacy file of version {found}; {VERSION} is known"))
                .at(first.end));
        }
        // Byte order and sizes of C types of the machine that wrote the file; the data does not depend on them.
        let system = run(version.end)?;
        let object = run(system.end)?;
        let keys = run(object.end)?;
        let Some(list) = keys.heap.items(keys.root) else {
            return Err(Error::malformed("the list of storages is no list").at(object.end));
        };
        let storages = by_key(&object.heap.objects);
        let mut at = keys.end;
        for key in list {
            let key = keys
                .heap
                .str(*key)
                .ok_or_else(|| Error::malformed("a storage's key that is no text").at(object.end))?;
            let storage = object.heap.find_key(key).and_then(|n| storages.get(&n)).ok_or_else(|| {
                Error::malformed(format!("the storage {key:?} belongs to no tensor")).at(at)
            })?;
            let (start, len) = measured(&**store, at, storage, key)?;
            if places.insert(key.to_owned(), (start, len)).is_some() {
                return Err(Error::malformed(format!("the storage {key:?} is listed twice")).at(at));
            }
            at = start + len;
        }
        object
    } else {
        first
    };
    let records = LegacyRecords { store: Arc::clone(store), places };
    let program = Program::new(object, Arc::clone(store), 0);
    Ok(Opened { programs: vec![program], records: Box::new(records), big_endian: false })
}

/// The first mention of every storage.
fn by_key(objects: &[Object]) -> HashMap<u32, &Storage> {
    let mut found = HashMap::new();
    for o in objects {
        if let Object::Storage(s) = o {
            found.entry(s.key).or_insert(&**s);
        }
    }
    found
}

/// First byte and length of the storage whose number of elements stands at `at`.
pub(super) fn measured(store: &dyn Store, at: u64, storage: &Storage, key: &str) -> Result<(u64, u64)> {
    let numel = Cursor::new(store, at).u64()?;
    if numel != storage.numel {
        return Err(Error::malformed(format!(
            "the storage {key:?} has {numel} elements; its tensors take it to have {}",
            storage.numel
        ))
        .at(at));
    }
    let bytes = storage.bytes().filter(|n| *n <= store.len() - at - 8).ok_or_else(|| {
        Error::malformed(format!("the file ends inside the storage {key:?} of {numel} elements"))
            .at(at)
            .hint("the file is probably incomplete: download or copy it again")
    })?;
    Ok((at + 8, bytes))
}

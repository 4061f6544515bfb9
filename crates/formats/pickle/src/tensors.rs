//! Tensors by name: where their bytes lie, checked against the records that hold them; which names mean the same bytes.

use crate::{
    data::{Data, Part, View},
    files::{
        Opened, Program, Record,
        sequential::{Packing, Pool, Sequential, latin1_len},
    },
    machine::heap::{Array, LongKind, Object, Quantizer, Storage, Tensor, Text, Value},
    sharded::{self, Shard},
    types::{self, Becomes},
    walk::Extras,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tensormill_model::{Alias, Error, Limits, MemoryStore, Result};
use tensormill_tensor::{DType, Encoding, Shape, TensorSpec};

/// Names for tensors that have one already. Models tie a few; shared containers can make any number of them.
const MAX_ALIASES: usize = 1 << 16;

/// Boxes of all parts of tensors in a file. A part is one; tensor parallelism under FSDP makes it a few.
const MAX_BOXES: usize = 1 << 17;

/// Bytes of all names: so many, and so many times what the pickles have.
const NAME_BYTES: u64 = 4 << 20;
const NAME_RATIO: u64 = 16;

/// What makes two tensors the same: record, first byte, type, view.
type Identity = (usize, u64, DType, View);

pub(crate) struct Collector<'a> {
    opened: &'a Opened,
    file: String,
    limits: &'a Limits,
    pub specs: Vec<TensorSpec>,
    pub data: Vec<Data>,
    pub aliases: Vec<Alias>,
    pub extras: Extras,
    /// Parts of tensors that several processes hold, by number of the tensor; `None` where they are not wanted.
    pub shards: Option<HashMap<usize, Shard>>,
    /// Boxes that these have together.
    boxes: usize,
    names: HashSet<String>,
    name_bytes: u64,
    max_name_bytes: u64,
    seen: HashMap<Identity, usize>,
    records: Vec<Record>,
    /// Record of a storage or of an array's bytes, by program and what they are.
    by_key: HashMap<(usize, Source), usize>,
    /// Decoders of arrays, by program.
    pools: Vec<Arc<Pool>>,
}

/// What has bytes.
#[derive(PartialEq, Eq, Hash)]
enum Source {
    Storage(u32),
    Kept(Text),
    Long(u64),
}

/// Where a tensor's bytes are and what they are.
struct Found {
    record: usize,
    /// First byte in the record.
    at: u64,
    dtype: DType,
    view: View,
    swap: bool,
    /// Whether another name for the same bytes is the same tensor.
    may_be_tied: bool,
}

impl<'a> Collector<'a> {
    pub fn new(opened: &'a Opened, file: &str, limits: &'a Limits) -> Self {
        let pickled = opened.programs.iter().map(|p| p.source.len()).sum::<u64>().min(1 << 32);
        Self {
            opened,
            file: file.to_owned(),
            limits,
            specs: Vec::new(),
            data: Vec::new(),
            aliases: Vec::new(),
            extras: Extras::default(),
            shards: None,
            boxes: 0,
            names: HashSet::new(),
            name_bytes: 0,
            max_name_bytes: limits.string_bytes.min(NAME_BYTES + NAME_RATIO * pickled),
            seen: HashMap::new(),
            records: Vec::new(),
            by_key: HashMap::new(),
            pools: opened.programs.iter().map(|_| Arc::default()).collect(),
        }
    }

    /// Takes the tensor that `v` of program number `number` is.
    pub fn add(&mut self, program: &Program, number: usize, v: Value, name: &str) -> Result<()> {
        match program.heap.get(v) {
            Some(Object::Tensor(t)) => self.tensor(program, number, t, name),
            Some(Object::Array(a)) => self.array(program, number, a, name),
            Some(Object::Opaque(_)) => self.shard(program, number, v, name),
            Some(Object::Refused(e)) => Err((**e).clone().hint(
                "leave it out by naming another part of the file with --key, or save it as a plain tensor",
            )),
            _ => Err(Error::malformed("this is no tensor")),
        }
    }

    /// Makes sure that a name is new and that there are not too many.
    fn claim(&mut self, name: &str) -> Result<()> {
        self.name_bytes += name.len() as u64;
        if self.names.len() as u64 >= self.limits.tensors {
            return Err(Error::over_limit(format!("more than {} tensors", self.limits.tensors)));
        }
        if self.name_bytes > self.max_name_bytes {
            return Err(Error::over_limit(format!(
                "names of tensors take more than {} bytes",
                self.max_name_bytes
            )));
        }
        if !self.names.insert(name.to_owned()) {
            return Err(Error::malformed("two tensors have this name"));
        }
        Ok(())
    }

    fn tensor(&mut self, program: &Program, number: usize, t: &Tensor, name: &str) -> Result<()> {
        let (dtype, dims) = t.ty.held(&t.size)?;
        if t.size.contains(&0) {
            self.empty(name, dims, dtype)?;
        } else {
            let found = self.found(program, number, t, dtype)?;
            self.place(name, dims, found)?;
        }
        if let Becomes::Raw(kept) = t.ty.becomes {
            self.extras
                .leave_out(name, format!("the dtype torch.{}: its bytes are kept as {kept}", t.ty.name));
        }
        if let Some(class) = t.class {
            let class = program.heap.globals[class as usize].path();
            self.extras.leave_out(name, format!("its class {class} and attributes; the tensor is kept"));
        }
        match &t.quantizer {
            Some(q) => self.quantizer(program, number, q, name),
            None => Ok(()),
        }
    }

    /// Where the bytes of a tensor are that has some.
    fn found(&mut self, program: &Program, number: usize, t: &Tensor, dtype: DType) -> Result<Found> {
        let view = View::new(t.ty.unit, &t.size, &t.stride);
        let record = self.storage(program, number, &t.storage)?;
        // No overflow: `end` was checked when the tensor was made, and the storage against the record just now.
        let at = t.storage.first()? + t.offset * t.ty.unit;
        Ok(Found {
            record,
            at,
            dtype,
            view,
            swap: self.opened.big_endian,
            may_be_tied: t.quantizer.is_none(),
        })
    }

    /// One tensor by itself, under no name: a part of another.
    pub fn part(&mut self, program: &Program, number: usize, v: Value) -> Result<Part> {
        let t = match program.heap.get(v) {
            Some(Object::Tensor(t)) => t,
            Some(Object::Refused(e)) => return Err((**e).clone()),
            _ => return Err(Error::malformed(format!("{} in place of a tensor", program.heap.kind(v)))),
        };
        if t.quantizer.is_some() || matches!(t.ty.becomes, Becomes::Pairs(_)) {
            return Err(Error::unsupported(format!("parts of dtype torch.{} cannot be joined", t.ty.name))
                .hint("merge the checkpoint in torch"));
        }
        let (dtype, dims) = t.ty.held(&t.size)?;
        spec("", dims.clone(), dtype)?;
        let data = if t.size.contains(&0) {
            Data::in_memory(&self.file, Vec::new())
        } else {
            let found = self.found(program, number, t, dtype)?;
            self.data_of(found)
        };
        Ok(Part { dtype, dims, data })
    }

    /// One process's part of a tensor. Where parts are not wanted, it must be all of it.
    fn shard(&mut self, program: &Program, number: usize, v: Value, name: &str) -> Result<()> {
        let shard = sharded::shard(program, v, |local| self.part(program, number, local))?;
        // One part can be there under many names.
        self.boxes += shard.boxes.len();
        if self.boxes > MAX_BOXES {
            return Err(Error::over_limit(format!("tensors in more than {MAX_BOXES} boxes")));
        }
        let (dtype, dims) = (shard.dtype, shard.dims.to_vec());
        let spec = spec(name, dims, dtype)?;
        self.claim(name)?;
        if let Some(shards) = &mut self.shards {
            shards.insert(self.specs.len(), shard);
            self.data.push(Data::in_memory(&self.file, Vec::new()));
        } else {
            let kind = shard.kind;
            let whole = shard.whole().ok_or_else(|| {
                Error::unsupported(format!("one process's part of a tensor of shape {} (a {kind})", spec.shape))
                    .hint("name the folder with the files of all ranks, or one that is called like model_world_size_8_rank_0.pt")
            })?;
            self.data.push(whole);
        }
        self.specs.push(spec);
        Ok(())
    }

    /// Scale and zero point as tensors beside the integers, named as torch's functions that give them.
    fn quantizer(&mut self, program: &Program, number: usize, q: &Quantizer, name: &str) -> Result<()> {
        match q {
            Quantizer::PerTensor { scale, zero_point } => {
                self.inline(&format!("{name}.q_scale"), vec![], DType::F64, scale.to_le_bytes().to_vec())?;
                let zero_point = zero_point.to_le_bytes().to_vec();
                self.inline(&format!("{name}.q_zero_point"), vec![], DType::I64, zero_point)
            }
            Quantizer::PerChannel { scales, zero_points, axis } => {
                for (v, what) in
                    [(*scales, "q_per_channel_scales"), (*zero_points, "q_per_channel_zero_points")]
                {
                    let name = format!("{name}.{what}");
                    match program.heap.get(v) {
                        Some(Object::Tensor(t)) if t.quantizer.is_none() => {
                            self.tensor(program, number, t, &name)?;
                        }
                        _ => {
                            let kind = program.heap.kind(v);
                            return Err(Error::unsupported(format!("its {what} are {kind}")));
                        }
                    }
                }
                let axis = axis.to_le_bytes().to_vec();
                self.inline(&format!("{name}.q_per_channel_axis"), vec![], DType::I64, axis)
            }
        }
    }

    fn array(&mut self, program: &Program, number: usize, a: &Array, name: &str) -> Result<()> {
        let ty = a.ty.torch_type().ok_or_else(|| {
            Error::unsupported(format!("a numpy array of dtype {:?} cannot be read", a.ty.name))
        })?;
        let (dtype, dims) = ty.held(&a.shape)?;
        if a.shape.contains(&0) {
            return self.empty(name, dims, dtype);
        }
        let elements = Shape::new(a.shape.to_vec())?.elements();
        let record = self.bytes(program, number, a.data)?;
        let have = self.records[record].len;
        if elements.checked_mul(ty.unit) != Some(have) {
            return Err(Error::malformed(format!(
                "a numpy array of shape {:?} and dtype {} with {have} bytes",
                a.shape, a.ty.name
            )));
        }
        let mut stride = vec![1; a.shape.len()];
        let mut step = 1;
        for i in 0..a.shape.len() {
            // C order counts from the last dimension, Fortran order from the first.
            let i = if a.fortran { i } else { a.shape.len() - 1 - i };
            stride[i] = step;
            step *= a.shape[i];
        }
        let view = View::new(ty.unit, &a.shape, &stride);
        let found = Found { record, at: 0, dtype, view, swap: a.ty.big_endian, may_be_tied: true };
        self.place(name, dims, found)
    }

    /// Adds a tensor, or another name for one that is there.
    fn place(&mut self, name: &str, dims: Vec<u64>, found: Found) -> Result<()> {
        let spec = spec(name, dims, found.dtype)?;
        self.claim(name)?;
        if found.may_be_tied {
            let identity = (found.record, found.at, found.dtype, found.view.clone());
            if let Some(tensor) = self.seen.get(&identity) {
                if self.aliases.len() >= MAX_ALIASES {
                    return Err(Error::over_limit(format!(
                        "more than {MAX_ALIASES} further names for its tensors"
                    )));
                }
                let at = self.specs.len() + self.aliases.len();
                self.aliases.push(Alias { name: name.to_owned(), tensor: *tensor, at });
                return Ok(());
            }
            self.seen.insert(identity, self.specs.len());
        }
        let data = self.data_of(found);
        self.data.push(data);
        self.specs.push(spec);
        Ok(())
    }

    fn data_of(&self, found: Found) -> Data {
        let r = &self.records[found.record];
        Data {
            store: Arc::clone(&r.store),
            at: r.at + found.at,
            place: r.place + found.at,
            swap: if found.swap { types::swap_width(found.dtype) } else { 1 },
            view: (!found.view.is_contiguous()).then(|| Box::new(found.view)),
        }
    }

    fn empty(&mut self, name: &str, dims: Vec<u64>, dtype: DType) -> Result<()> {
        self.inline(name, dims, dtype, Vec::new())
    }

    /// A tensor whose bytes are in memory.
    fn inline(&mut self, name: &str, dims: Vec<u64>, dtype: DType, bytes: Vec<u8>) -> Result<()> {
        let spec = spec(name, dims, dtype)?;
        self.claim(name)?;
        self.data.push(Data::in_memory(&self.file, bytes));
        self.specs.push(spec);
        Ok(())
    }

    /// The record of a storage, which must be as long as its persistent id says.
    fn storage(&mut self, program: &Program, number: usize, s: &Storage) -> Result<usize> {
        let key = &program.heap.keys[s.key as usize];
        let source = (number, Source::Storage(s.key));
        let record = if let Some(r) = self.by_key.get(&source) {
            *r
        } else {
            let found = self.opened.records.find(number, key)?;
            let found = found.ok_or_else(|| {
                Error::malformed(format!("its storage {key:?} is not in the file"))
                    .hint("the file is probably incomplete: download or copy it again")
            })?;
            self.remember(source, found)
        };
        let have = self.records[record].len;
        if s.bytes().is_none_or(|n| n > have) {
            return Err(Error::malformed(format!(
                "its storage {key:?} has {have} bytes, but is said to hold {} elements of {}",
                s.numel, s.ty.unit
            )));
        }
        Ok(record)
    }

    fn remember(&mut self, source: (usize, Source), record: Record) -> usize {
        self.records.push(record);
        self.by_key.insert(source, self.records.len() - 1);
        self.records.len() - 1
    }

    /// The record of bytes that are in the pickle itself.
    fn bytes(&mut self, program: &Program, number: usize, v: Value) -> Result<usize> {
        let long = match program.heap.get(v) {
            Some(&Object::Long { at, len, kind }) => Some((at, len, kind)),
            _ => None,
        };
        let source = match (v, long) {
            (Value::Bytes(t) | Value::Text(t), _) => Source::Kept(t),
            (_, Some((at, _, _))) => Source::Long(at),
            _ => {
                let kind = program.heap.kind(v);
                return Err(Error::unsupported(format!("a numpy array whose elements are {kind}")));
            }
        };
        let source = (number, source);
        if let Some(r) = self.by_key.get(&source) {
            return Ok(*r);
        }
        let record = match (v, long) {
            (Value::Bytes(t) | Value::Text(t), _) => {
                let bytes = program.heap.bytes(t).to_vec();
                let len = bytes.len() as u64;
                let store = Arc::new(MemoryStore { name: self.file.clone(), bytes });
                Record { store, at: 0, len, place: program.place }
            }
            (_, Some((at, len, LongKind::Latin1))) => {
                let end = at.saturating_add(len);
                let n = latin1_len(&*program.source, at, end)?;
                let source = Arc::clone(&program.source);
                let decoded = Sequential::new(source, Packing::Latin1, (at, end), n, &self.pools[number]);
                Record { store: Arc::new(decoded), at: 0, len: n, place: program.place + at }
            }
            (_, Some((at, len, _))) => {
                Record { store: Arc::clone(&program.source), at, len, place: program.place + at }
            }
            _ => return Err(Error::malformed("a numpy array without elements")),
        };
        Ok(self.remember(source, record))
    }
}

pub(crate) fn spec(name: &str, dims: Vec<u64>, dtype: DType) -> Result<TensorSpec> {
    let shape = Shape::new(dims)?;
    // An empty tensor may have rows too long to count, and nothing behind this gate expects that.
    if shape.row_len().checked_mul(dtype.bits()).is_none() || dtype.bytes(shape.elements()).is_none() {
        return Err(Error::malformed(format!("shape {shape} is larger than 64 bits can count")));
    }
    Ok(TensorSpec::new(name, shape, Encoding::Plain(dtype)))
}

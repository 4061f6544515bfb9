//! The reader: an index, and positional reads.

use crate::{
    PickleOptions,
    data::Data,
    files,
    sharded::Shard,
    tensors::Collector,
    walk::{Extras, walk},
};
use std::{collections::HashMap, sync::Arc};
use tensormill_model::{Alias, Error, Index, Limits, Metadata, Place, Reader, Result, Rows, Store};
use tensormill_tensor::{DType, Encoding, TensorSpec};

/// One opened file.
pub(crate) struct PickleReader {
    name: String,
    index: Index,
    data: Vec<Data>,
}

/// What was found in a file.
pub(crate) struct Found {
    pub specs: Vec<TensorSpec>,
    pub data: Vec<Data>,
    pub aliases: Vec<Alias>,
    pub extras: Extras,
    /// Parts of tensors, by number of the tensor.
    pub shards: HashMap<usize, Shard>,
}

/// Opens a file and walks through it. Parts of tensors that several processes hold are errors, unless `shards` is set.
pub(crate) fn find(
    store: &Arc<dyn Store>,
    limits: &Limits,
    options: &PickleOptions,
    shards: bool,
) -> Result<Found> {
    let limits = &bounded(limits, store.len());
    let opened = files::open(store, limits)?;
    let mut found = Collector::new(&opened, store.name(), limits);
    found.shards = shards.then(HashMap::new);
    for (number, program) in opened.programs.iter().enumerate() {
        let root = match &options.key {
            Some(_) if number > 0 => continue,
            Some(key) => program.select(key)?,
            None => program.root,
        };
        walk(program, number, root, options, limits, &mut found)?;
    }
    let Collector { specs, data, aliases, extras, shards, .. } = found;
    Ok(Found { specs, data, aliases, extras, shards: shards.unwrap_or_default() })
}

impl PickleReader {
    pub fn open(store: &Arc<dyn Store>, limits: &Limits, options: &PickleOptions) -> Result<Self> {
        let Found { specs, data, aliases, mut extras, .. } = find(store, limits, options, false)?;
        extras.finish();
        let metadata = Metadata::from_entries(extras.metadata)
            .map_err(|k| Error::malformed(format!("metadata key {k:?} occurs twice")))?;
        let index = Index { tensors: specs, metadata, aliases, left_out: extras.left_out };
        Ok(Self { name: store.name().to_owned(), index, data })
    }
}

/// The same limits, and no more values than a file of this length needs: every value takes bytes of its own unless the
/// pickle is packed, and a packed one stands beside weights. So a few bytes cannot ask for much memory.
fn bounded(limits: &Limits, len: u64) -> Limits {
    const FREE: u64 = 1 << 18;
    let mut limits = *limits;
    limits.values = limits.values.min(len.saturating_mul(4).saturating_add(FREE));
    limits
}

impl Reader for PickleReader {
    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let spec = &self.index.tensors[tensor];
        let fail = |e: Error| e.tensor(&spec.name).file(&self.name);
        let first = first_byte(spec, &rows, out).map_err(fail)?;
        if out.is_empty() {
            return Ok(());
        }
        self.data[tensor].read(first, out).map_err(fail)
    }

    fn place(&self, tensor: usize) -> Place {
        Place { file: 0, offset: self.data[tensor].place }
    }
}

/// The first byte of these rows of a tensor, whose bytes `out` is to take.
pub(crate) fn first_byte(spec: &TensorSpec, rows: &Rows, out: &[u8]) -> Result<u64> {
    let dtype = match spec.encoding {
        Encoding::Plain(d) => d,
        Encoding::Block(_) => DType::U8,
    };
    let within = rows.start <= rows.end && rows.end <= spec.shape.rows();
    // Rows are whole bytes: pairs of sub-byte elements are what torch counts. No overflow: the tensor was counted.
    let row = spec.shape.row_len() * dtype.bits() / 8;
    if !within || out.len() as u64 != (rows.end - rows.start) * row {
        return Err(Error::usage(format!(
            "{} bytes for rows {}..{} of {}",
            out.len(),
            rows.start,
            rows.end,
            spec.shape.rows()
        )));
    }
    Ok(rows.start * row)
}

//! Opening a file: the header against the file's length, then positional reads.

use crate::{
    MAX_HEADER_BYTES, dtypes,
    header::{self, Entry},
};
use std::sync::Arc;
use tensormill_model::{Error, Index, Limits, Metadata, Place, Reader, Result, Rows, Store, Value};
use tensormill_tensor::{Encoding, Shape, TensorSpec};

/// One opened file.
pub(crate) struct SafetensorsReader {
    store: Arc<dyn Store>,
    index: Index,
    /// First byte of each tensor in the file.
    offsets: Vec<u64>,
}

impl SafetensorsReader {
    pub fn open(store: Arc<dyn Store>, limits: &Limits) -> Result<Self> {
        let len = store.len();
        if len < 8 {
            return Err(Error::malformed(format!("{len} bytes are too few for a safetensors file")));
        }
        let mut n = [0; 8];
        store.read_at(0, &mut n)?;
        let n = u64::from_le_bytes(n);
        let max = MAX_HEADER_BYTES.min(limits.header_bytes);
        if n > max {
            return Err(Error::over_limit(format!("a header of {n} bytes; the limit is {max}")).at(0));
        }
        if n > len - 8 {
            return Err(Error::malformed(format!(
                "the file ends inside its header: {n} bytes are announced, {} are there",
                len - 8
            ))
            .at(8)
            .hint(INCOMPLETE));
        }
        let mut json = vec![0; n as usize];
        store.read_at(8, &mut json)?;
        let header = header::parse(&json, limits)?;
        drop(json);

        contiguous(&header.tensors, len - 8 - n)?;
        let mut tensors = header
            .tensors
            .into_iter()
            .map(|(name, entry)| spec(name, &entry))
            .collect::<Result<Vec<(TensorSpec, u64)>>>()?;
        tensors.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let (specs, offsets) = tensors.into_iter().map(|(s, first)| (s, 8 + n + first)).unzip();

        let entries = header.metadata.into_iter().map(|(k, v)| (k, Value::Str(v))).collect();
        let metadata = Metadata::from_entries(entries)
            .map_err(|k| Error::malformed(format!("metadata key {k:?} occurs twice")))?;
        Ok(Self { store, index: Index { tensors: specs, metadata, ..Index::default() }, offsets })
    }
}

const INCOMPLETE: &str = "the file is probably incomplete: download or copy it again";

/// Data must fill the space behind the header: no holes, no overlaps, nothing left over.
fn contiguous(tensors: &[(String, Entry)], len: u64) -> Result<()> {
    let mut spans: Vec<(u64, u64, usize)> =
        tensors.iter().enumerate().map(|(i, (_, e))| (e.span.0, e.span.1, i)).collect();
    spans.sort_unstable();
    let mut end = 0;
    for (a, b, i) in spans {
        let fail = |what: &str| {
            Err(Error::malformed(format!("its data, bytes {a}..{b}, {what}")).tensor(&tensors[i].0))
        };
        if b < a {
            return fail("ends before it begins");
        }
        if a < end {
            return fail("overlaps that of another tensor");
        }
        if a > end {
            return fail("begins after a hole");
        }
        if b > len {
            return Err(Error::malformed(format!(
                "its data, bytes {a}..{b}, ends after the file, which has {len}"
            ))
            .tensor(&tensors[i].0)
            .hint(INCOMPLETE));
        }
        end = b;
    }
    if end < len {
        return Err(Error::malformed(format!("{} bytes at the end belong to no tensor", len - end)));
    }
    Ok(())
}

/// Spec and first byte behind the header, once dtype, shape and size agree.
fn spec(name: String, entry: &Entry) -> Result<(TensorSpec, u64)> {
    let checked = || {
        let dtype = dtypes::by_name(&entry.dtype).ok_or_else(|| {
            Error::unsupported(format!("the dtype {:?} is unknown to this version", entry.dtype))
        })?;
        let shape = Shape::new(entry.shape.clone())?;
        let bytes = dtype.bytes(shape.elements());
        let have = entry.span.1 - entry.span.0;
        if bytes != Some(have) {
            let need = bytes.map_or_else(|| "no whole number of bytes".to_owned(), |n| format!("{n} bytes"));
            return Err(Error::malformed(format!(
                "{} {shape} takes {need}; its data has {have}",
                entry.dtype
            )));
        }
        // An empty tensor may have rows too long to count, and nothing behind this gate expects that.
        if shape.row_len().checked_mul(dtype.bits()).is_none() {
            return Err(Error::malformed(format!("rows of shape {shape} are larger than 64 bits can count")));
        }
        Ok((shape, Encoding::Plain(dtype)))
    };
    let (shape, encoding) = checked().map_err(|e: Error| e.tensor(&name))?;
    Ok((TensorSpec::new(name, shape, encoding), entry.span.0))
}

impl Reader for SafetensorsReader {
    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let spec = &self.index.tensors[tensor];
        let fail = |e: Error| e.tensor(&spec.name).file(self.store.name());
        // In bits: rows of 4- and 6-bit types may begin or end inside a byte.
        let row = match spec.encoding {
            Encoding::Plain(d) => spec.shape.row_len().checked_mul(d.bits()),
            Encoding::Block(_) => None,
        };
        let (Some(row), true) = (row, rows.start <= rows.end && rows.end <= spec.shape.rows()) else {
            return Err(fail(Error::usage(format!(
                "rows {}..{} of {}",
                rows.start,
                rows.end,
                spec.shape.rows()
            ))));
        };
        // No overflow: the whole tensor's bits were counted when it was opened.
        let (first, bits) = (rows.start * row, (rows.end - rows.start) * row);
        if !first.is_multiple_of(8) || !bits.is_multiple_of(8) {
            return Err(fail(Error::unsupported(format!(
                "rows {}..{} of {} {} do not start and end on a byte",
                rows.start, rows.end, spec.encoding, spec.shape
            ))));
        }
        if out.len() as u64 != bits / 8 {
            return Err(fail(Error::usage(format!("{} bytes of output for {}", out.len(), bits / 8))));
        }
        if out.is_empty() {
            return Ok(());
        }
        self.store.read_at(self.offsets[tensor] + first / 8, out).map_err(fail)
    }

    fn place(&self, tensor: usize) -> Place {
        Place { file: 0, offset: self.offsets[tensor] }
    }
}

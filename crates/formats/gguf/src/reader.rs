//! Header parsing and positional reads.

use crate::{
    cursor::Cursor,
    swap,
    wire::{self, ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_RANK},
};
use std::{collections::HashSet, sync::Arc};
use tensormill_model::{Error, Index, Limits, Metadata, Place, Reader, Result, Rows, Store};
use tensormill_tensor::{Shape, TensorSpec};

/// One opened file.
pub(crate) struct GgufReader {
    store: Arc<dyn Store>,
    index: Index,
    /// First byte of each tensor in the file.
    offsets: Vec<u64>,
    big: bool,
}

impl GgufReader {
    pub fn open(store: Arc<dyn Store>, limits: &Limits) -> Result<Self> {
        let mut c = Cursor::new(&*store, limits);
        if c.take::<4>("the magic number")? != wire::MAGIC {
            return Err(Error::malformed("this is not a GGUF file: it does not start with \"GGUF\"").at(0));
        }
        let version = u32::from_le_bytes(c.take("the version")?);
        let version = match (version, version.swap_bytes()) {
            (v @ 1..=wire::VERSION, _) => v,
            (_, v @ 1..=wire::VERSION) => {
                c.big = true;
                v
            }
            (v, _) => {
                return Err(Error::unsupported(format!(
                    "GGUF version {v}; versions 1 to {} are known",
                    wire::VERSION
                ))
                .at(4));
            }
        };
        c.short = version == 1;
        let tensors = c.count("the number of tensors")?;
        let entries = c.count("the number of metadata entries")?;
        within(tensors, limits.tensors, "tensors")?;
        within(entries, limits.metadata, "metadata entries")?;

        let metadata = metadata(&mut c, entries)?;
        let alignment = alignment(&metadata)?;
        let (specs, relative) = infos(&mut c, tensors, limits)?;
        let start = align(c.position(), alignment).ok_or_else(|| {
            Error::malformed(format!("alignment {alignment} puts the data past any file's end"))
        })?;
        let offsets = places(&specs, &relative, start, alignment, store.len())?;
        let big = c.big;
        Ok(Self { store, index: Index { tensors: specs, metadata, ..Index::default() }, offsets, big })
    }
}

/// `n` rounded up to a multiple of the power of two `alignment`.
pub(crate) fn align(n: u64, alignment: u64) -> Option<u64> {
    Some(n.checked_add(alignment - 1)? & !(alignment - 1))
}

fn within(n: u64, limit: u64, what: &str) -> Result<()> {
    if n > limit {
        return Err(Error::over_limit(format!("the header announces {n} {what}; the limit is {limit}")));
    }
    Ok(())
}

fn metadata(c: &mut Cursor<'_>, n: u64) -> Result<Metadata> {
    let mut entries = Vec::new();
    for i in 0..n {
        let at = c.position();
        let key = c.text(&format!("the key of metadata entry {i}"))?;
        if key.is_empty() {
            return Err(Error::malformed(format!("metadata entry {i} has an empty key")).at(at));
        }
        let what = format!("metadata {key:?}");
        let code = c.u32(&what)?;
        let value = c.value(code, &what)?;
        entries.push((key, value));
    }
    Metadata::from_entries(entries)
        .map_err(|key| Error::malformed(format!("metadata key {key:?} occurs twice")))
}

/// The alignment that a file's metadata asks for.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u64> {
    /// A few bytes must not ask for gigabytes between tensors; pages of processors and blocks of disks are smaller.
    const MOST: u64 = 1 << 20;
    let Some(v) = metadata.get(ALIGNMENT_KEY) else { return Ok(DEFAULT_ALIGNMENT) };
    match v.as_u64().filter(|a| a.is_power_of_two() && u32::try_from(*a).is_ok()) {
        None => Err(Error::malformed(format!("{ALIGNMENT_KEY} is {v}; it must be a power of two"))),
        Some(a) if a > MOST => {
            Err(Error::over_limit(format!("{ALIGNMENT_KEY} is {a}; at most {MOST} are taken")))
        }
        Some(a) => Ok(a),
    }
}

fn infos(c: &mut Cursor<'_>, n: u64, limits: &Limits) -> Result<(Vec<TensorSpec>, Vec<u64>)> {
    let (mut specs, mut offsets, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for i in 0..n {
        let at = c.position();
        let name = c.text(&format!("the name of tensor {i}"))?;
        let (spec, offset) = info(c, &name, limits).map_err(|e| e.tensor(&name))?;
        if !seen.insert(name) {
            return Err(Error::malformed("two tensors have this name").tensor(&spec.name).at(at));
        }
        specs.push(spec);
        offsets.push(offset);
    }
    Ok((specs, offsets))
}

fn info(c: &mut Cursor<'_>, name: &str, limits: &Limits) -> Result<(TensorSpec, u64)> {
    let at = c.position();
    let rank = c.u32("the tensor's rank")?;
    if rank as usize > MAX_RANK {
        return Err(Error::malformed(format!("{rank} dimensions; GGUF allows {MAX_RANK}")).at(at));
    }
    within(rank.into(), limits.rank.into(), "dimensions")?;
    let mut dims = Vec::with_capacity(rank as usize);
    for _ in 0..rank {
        dims.push(c.count("the tensor's dimensions")?);
    }
    dims.reverse(); // the file stores the innermost first
    let shape = Shape::new(dims).map_err(|e| Error::from(e).at(at))?;
    let at = c.position();
    let code = c.u32("the tensor's type")?;
    let encoding = wire::encoding_of(code).ok_or_else(|| match wire::removed(code) {
        Some(old) => Error::unsupported(format!("type {old} was removed from GGUF"))
            .at(at)
            .hint("quantize again from the original model"),
        None => Error::unsupported(format!("tensor type code {code} is unknown to this version")).at(at),
    })?;
    let offset = c.u64("the tensor's offset")?;
    Ok((TensorSpec::new(name, shape, encoding), offset))
}

/// First bytes in the file, checked: aligned, inside the file, apart from each other.
fn places(specs: &[TensorSpec], relative: &[u64], start: u64, alignment: u64, len: u64) -> Result<Vec<u64>> {
    let mut offsets = Vec::with_capacity(specs.len());
    let mut spans = Vec::with_capacity(specs.len());
    for (i, (spec, &rel)) in specs.iter().zip(relative).enumerate() {
        let fail = |e: Error| e.tensor(&spec.name);
        if !rel.is_multiple_of(alignment) {
            return Err(fail(Error::malformed(format!(
                "data offset {rel} is not a multiple of {alignment}"
            ))));
        }
        // Rows too: those of an empty tensor may be too long to count although the whole takes no bytes.
        let bytes = spec.row_bytes().and_then(|_| spec.bytes()).map_err(|e| fail(e.into()))?;
        let place = start.checked_add(rel).and_then(|first| Some((first, first.checked_add(bytes)?)));
        let Some((first, end)) = place.filter(|(_, end)| bytes == 0 || *end <= len) else {
            return Err(fail(
                Error::malformed(format!(
                    "its {bytes} bytes at data offset {rel} end after the file, which has {len} bytes"
                ))
                .hint("the file is probably incomplete: download or copy it again"),
            ));
        };
        offsets.push(first);
        if bytes > 0 {
            spans.push((first, end, i));
        }
    }
    spans.sort_unstable();
    for w in spans.windows(2) {
        if w[1].0 < w[0].1 {
            let (a, b) = (&specs[w[0].2].name, &specs[w[1].2].name);
            return Err(Error::malformed(format!("its data overlaps that of {a}")).tensor(b).at(w[1].0));
        }
    }
    Ok(offsets)
}

impl Reader for GgufReader {
    fn index(&self) -> &Index {
        &self.index
    }

    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let spec = &self.index.tensors[tensor];
        let fail = |e: Error| e.tensor(&spec.name).file(self.store.name());
        let row = spec.row_bytes().map_err(|e| fail(e.into()))?;
        let wanted = rows.end.checked_sub(rows.start).and_then(|n| n.checked_mul(row));
        if rows.end > spec.shape.rows() || wanted != Some(out.len() as u64) {
            return Err(fail(Error::usage(format!(
                "rows {}..{} of {} into {} bytes",
                rows.start,
                rows.end,
                spec.shape.rows(),
                out.len()
            ))));
        }
        if out.is_empty() {
            return Ok(());
        }
        self.store.read_at(self.offsets[tensor] + rows.start * row, out).map_err(fail)?;
        if self.big {
            swap::to_little_endian(spec.encoding, out).map_err(fail)?;
        }
        Ok(())
    }

    fn place(&self, tensor: usize) -> Place {
        Place { file: 0, offset: self.offsets[tensor] }
    }
}

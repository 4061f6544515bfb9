//! Header bytes and tensor positions of version 3, little-endian.
//!
//! Byte for byte what `GGUFWriter` of `gguf-py` emits: `write_header_to_file`, `write_kv_data_to_file`,
//! `write_ti_data_to_file`, and `add_tensor_info` for where a new shard starts.

use crate::{
    reader::{align, alignment},
    split,
    wire::{self, ALIGNMENT_KEY, DEFAULT_ALIGNMENT, value_type as ty},
};
use tensormill_model::{
    Array, Error, FileLayout, Layout, Metadata, Model, Place, Result, ShardLimits, Value, WriteOptions,
};

pub(crate) fn layout(model: &Model, options: &WriteOptions) -> Result<Layout> {
    let alignment = alignment(&model.metadata)?;
    if !matches!(model.metadata.get(ALIGNMENT_KEY), None | Some(Value::U32(_))) {
        return Err(Error::malformed(format!("{ALIGNMENT_KEY} must be a 32-bit unsigned integer")));
    }
    let sizes = model
        .tensors
        .iter()
        .map(|t| t.spec.bytes().map_err(|e| Error::from(e).tensor(t.name())))
        .collect::<Result<Vec<u64>>>()?;
    let firsts = shards(&sizes, options.shards);
    let count = firsts.len();
    if count > usize::from(u16::MAX) {
        return Err(Error::unsupported(format!("a set of {count} files; GGUF allows {}", u16::MAX))
            .hint("choose a larger --max-shard-size or --max-shard-tensors"));
    }
    let mut files = Vec::with_capacity(count);
    let mut places = Vec::with_capacity(sizes.len());
    for (no, &first) in firsts.iter().enumerate() {
        let range = first..firsts.get(no + 1).copied().unwrap_or(sizes.len());
        // Only the first file carries the model's metadata, and with it an unusual alignment.
        let mut metadata = if no == 0 { model.metadata.clone() } else { Metadata::new() };
        let alignment = if no == 0 { alignment } else { DEFAULT_ALIGNMENT };
        let mut name = options.file_name.clone();
        if count > 1 {
            metadata.set(split::NO, no as u16);
            metadata.set(split::COUNT, count as u16);
            let total = i32::try_from(sizes.len())
                .map_err(|_| Error::unsupported("more tensors than a split set can count"))?;
            metadata.set(split::TENSORS, total);
            name = split::file_name(stem(&options.file_name), no + 1, count);
        }
        let (header, relative, data) = header(model, range, &sizes, &metadata, alignment)?;
        let too_large = || Error::malformed("the file would be larger than 64 bits can count").file(&name);
        let start = align(header.len() as u64, alignment).ok_or_else(too_large)?;
        let len = start.checked_add(data).ok_or_else(too_large)?;
        places.extend(relative.into_iter().map(|r| Place { file: no, offset: start + r }));
        files.push(FileLayout { name, header, len, ..FileLayout::default() });
    }
    Ok(Layout { files, places, ..Layout::default() })
}

/// Python's `Path.stem`: the name without its last extension.
fn stem(name: &str) -> &str {
    match name.rfind('.') {
        Some(i) if i > 0 && i + 1 < name.len() => &name[..i],
        _ => name,
    }
}

/// First tensor of each file. A file takes tensors until the next one would put the sum of their unpadded bytes
/// over the limit, or until it has as many as it may; it takes at least one.
fn shards(sizes: &[u64], max: ShardLimits) -> Vec<usize> {
    let mut firsts = vec![0];
    let (mut first, mut sum) = (0, 0u64);
    for (i, &bytes) in sizes.iter().enumerate() {
        let next = sum.saturating_add(bytes);
        if i > first && !max.allow((i - first) as u64 + 1, next) {
            firsts.push(i);
            (first, sum) = (i, bytes);
        } else {
            sum = next;
        }
    }
    firsts
}

/// Header bytes (unpadded), offsets of the tensors in `range` relative to the data, and the data's length.
fn header(
    model: &Model,
    range: std::ops::Range<usize>,
    sizes: &[u64],
    metadata: &Metadata,
    alignment: u64,
) -> Result<(Vec<u8>, Vec<u64>, u64)> {
    let mut out = Vec::new();
    out.extend(wire::MAGIC);
    out.extend(wire::VERSION.to_le_bytes());
    out.extend((range.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        if key.is_empty() {
            return Err(Error::malformed("a metadata entry has an empty key"));
        }
        put_string(&mut out, key.as_bytes());
        out.extend(value_code(value).to_le_bytes());
        put_value(&mut out, value);
    }
    let mut relative = Vec::with_capacity(range.len());
    let mut offset = 0u64;
    for (t, &bytes) in model.tensors[range.clone()].iter().zip(&sizes[range]) {
        put_string(&mut out, t.name().as_bytes());
        let dims = t.spec.shape.dims();
        out.extend((dims.len() as u32).to_le_bytes());
        for d in dims.iter().rev() {
            out.extend(d.to_le_bytes());
        }
        let code = wire::code_of(t.spec.encoding).ok_or_else(|| {
            Error::unsupported(format!("GGUF cannot hold {} tensors", t.spec.encoding)).tensor(t.name())
        })?;
        out.extend(code.to_le_bytes());
        out.extend(offset.to_le_bytes());
        relative.push(offset);
        offset = align(bytes, alignment)
            .and_then(|b| offset.checked_add(b))
            .ok_or_else(|| Error::malformed("its end cannot be counted in 64 bits").tensor(t.name()))?;
    }
    Ok((out, relative, offset))
}

fn put_string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

fn value_code(v: &Value) -> u32 {
    match v {
        Value::U8(_) => ty::U8,
        Value::I8(_) => ty::I8,
        Value::U16(_) => ty::U16,
        Value::I16(_) => ty::I16,
        Value::U32(_) => ty::U32,
        Value::I32(_) => ty::I32,
        Value::U64(_) => ty::U64,
        Value::I64(_) => ty::I64,
        Value::F32(_) => ty::F32,
        Value::F64(_) => ty::F64,
        Value::Bool(_) => ty::BOOL,
        Value::Str(_) | Value::Bytes(_) => ty::STRING,
        Value::Array(_) => ty::ARRAY,
    }
}

fn put_value(out: &mut Vec<u8>, v: &Value) {
    match v {
        Value::U8(x) => out.push(*x),
        Value::I8(x) => out.push(*x as u8),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push(u8::from(*x)),
        Value::Str(x) => put_string(out, x.as_bytes()),
        Value::Bytes(x) => put_string(out, x),
        Value::Array(a) => put_array(out, a),
    }
}

fn put_array(out: &mut Vec<u8>, a: &Array) {
    let code = match a {
        Array::U8(_) => ty::U8,
        Array::I8(_) => ty::I8,
        Array::U16(_) => ty::U16,
        Array::I16(_) => ty::I16,
        Array::U32(_) => ty::U32,
        Array::I32(_) => ty::I32,
        Array::U64(_) => ty::U64,
        Array::I64(_) => ty::I64,
        Array::F32(_) => ty::F32,
        Array::F64(_) => ty::F64,
        Array::Bool(_) => ty::BOOL,
        Array::Str(_) | Array::Bytes(_) => ty::STRING,
        Array::Array(_) => ty::ARRAY,
    };
    out.extend(code.to_le_bytes());
    out.extend((a.len() as u64).to_le_bytes());
    macro_rules! numbers {
        ($v:expr) => {
            for x in $v {
                out.extend(x.to_le_bytes());
            }
        };
    }
    match a {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => out.extend(v.iter().map(|x| *x as u8)),
        Array::U16(v) => numbers!(v),
        Array::I16(v) => numbers!(v),
        Array::U32(v) => numbers!(v),
        Array::I32(v) => numbers!(v),
        Array::U64(v) => numbers!(v),
        Array::I64(v) => numbers!(v),
        Array::F32(v) => numbers!(v),
        Array::F64(v) => numbers!(v),
        Array::Bool(v) => out.extend(v.iter().map(|x| u8::from(*x))),
        Array::Str(v) => v.iter().for_each(|s| put_string(out, s.as_bytes())),
        Array::Bytes(v) => v.iter().for_each(|s| put_string(out, s)),
        Array::Array(v) => v.iter().for_each(|inner| put_array(out, inner)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_unpadded_bytes_and_hold_at_least_one_tensor() {
        let bytes = |n| ShardLimits { bytes: Some(n), tensors: None };
        assert_eq!(shards(&[5, 5, 5], ShardLimits::default()), [0]);
        assert_eq!(shards(&[5, 5, 5], bytes(10)), [0, 2]);
        assert_eq!(shards(&[50, 1, 1, 50, 50], bytes(10)), [0, 1, 3, 4]);
        assert_eq!(shards(&[], bytes(10)), [0]);
        assert_eq!(shards(&[1, 1, 1, 9, 9], ShardLimits { tensors: Some(2), ..bytes(10) }), [0, 2, 4]);
    }

    #[test]
    fn stems_are_pythons() {
        for (name, want) in [("a.gguf", "a"), ("a.b.gguf", "a.b"), ("a", "a"), (".gguf", ".gguf")] {
            assert_eq!(stem(name), want);
        }
    }
}

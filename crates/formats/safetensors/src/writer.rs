//! The canonical layout of one file, or of several with an index.

use crate::{MAX_HEADER_BYTES, dtypes};
use serde_json::json;
use std::{collections::BTreeMap, io::Write};
use tensormill_model::{Error, FileLayout, Layout, Model, Place, Result, Value, WriteOptions, shards};
use tensormill_tensor::Encoding;

pub(crate) fn layout(model: &Model, options: &WriteOptions) -> Result<Layout> {
    let sizes = model
        .tensors
        .iter()
        .map(|t| t.spec.bytes().map_err(|e| Error::from(e).tensor(t.name())))
        .collect::<Result<Vec<u64>>>()?;
    let (file_of, count) = shards::divide(&sizes, options.shards);
    let mut shards = vec![Vec::new(); count];
    for (tensor, file) in file_of.into_iter().enumerate() {
        shards[file].push(tensor);
    }
    let mut places = vec![Place { file: 0, offset: 0 }; sizes.len()];
    let mut files = Vec::with_capacity(shards.len() + 1);
    for (number, tensors) in shards.iter().enumerate() {
        let name = if count == 1 {
            options.file_name.clone()
        } else {
            shards::shard_name(&options.file_name, number + 1, count)
        };
        let (header, spans, data) = header(model, tensors, &sizes)?;
        let start = header.len() as u64;
        let len = start
            .checked_add(data)
            .ok_or_else(|| Error::malformed("the file would be larger than 64 bits can count").file(&name))?;
        for (&tensor, span) in tensors.iter().zip(spans) {
            places[tensor] = Place { file: number, offset: start + span };
        }
        files.push(FileLayout { name, header, len, ..FileLayout::default() });
    }
    if count > 1 {
        let index = index(model, &shards, &sizes, &files)?;
        let len = index.len() as u64;
        files.push(FileLayout {
            name: format!("{}.index.json", options.file_name),
            header: index,
            len,
            ..FileLayout::default()
        });
    }
    Ok(Layout { files, places, ..Layout::default() })
}

/// What says which file holds which tensor, as huggingface_hub writes it: sorted keys, two spaces.
fn index(model: &Model, shards: &[Vec<usize>], sizes: &[u64], files: &[FileLayout]) -> Result<Vec<u8>> {
    let mut map: BTreeMap<&str, &str> = BTreeMap::new();
    for (tensors, file) in shards.iter().zip(files) {
        map.extend(tensors.iter().map(|&t| (model.tensors[t].name(), file.name.as_str())));
    }
    let total = sizes.iter().fold(0u64, |a, b| a.saturating_add(*b));
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let mut text = serde_json::to_vec_pretty(&index).map_err(|e| Error::io("encode the index", e.into()))?;
    text.push(b'\n');
    Ok(text)
}

/// Header of one file, where its tensors' data begin behind it, and how long the data is.
fn header(model: &Model, tensors: &[usize], sizes: &[u64]) -> Result<(Vec<u8>, Vec<u64>, u64)> {
    let mut order = Vec::with_capacity(tensors.len());
    for (i, t) in tensors.iter().map(|&t| &model.tensors[t]).enumerate() {
        let fail = |e: Error| e.tensor(t.name());
        let Some((dtype, rank)) = (match t.spec.encoding {
            Encoding::Plain(d) => dtypes::name_and_rank(d),
            Encoding::Block(_) => None,
        }) else {
            return Err(fail(Error::unsupported(format!(
                "safetensors cannot hold {} tensors",
                t.spec.encoding
            ))));
        };
        if t.name() == "__metadata__" {
            return Err(fail(Error::unsupported("safetensors reserves this name")));
        }
        order.push((std::cmp::Reverse(rank), t.name(), dtype, i));
    }
    order.sort_unstable();

    // Written by hand, entry by entry: a JSON object in memory would cost several times the header.
    let mut header = vec![0; 8];
    header.push(b'{');
    if !model.metadata.is_empty() {
        let mut map = serde_json::Map::new();
        for (k, v) in model.metadata.iter() {
            let Value::Str(text) = v else {
                return Err(Error::unsupported(format!(
                    "metadata {k:?} is of type {}; safetensors holds text only",
                    v.value_type().0
                )));
            };
            map.insert(k.to_owned(), text.clone().into());
        }
        put(&mut header, "__metadata__", &map.into())?;
    }
    let mut spans = vec![0; tensors.len()];
    let mut end = 0u64;
    for (_, name, dtype, i) in order {
        spans[i] = end;
        let next = end
            .checked_add(sizes[tensors[i]])
            .ok_or_else(|| Error::malformed("the model is too large").tensor(name))?;
        let shape = model.tensors[tensors[i]].spec.shape.dims();
        put(&mut header, name, &json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, next] }))?;
        end = next;
    }
    header.push(b'}');
    header.resize(header.len().next_multiple_of(8), b' ');
    let n = header.len() as u64 - 8;
    if n > MAX_HEADER_BYTES {
        return Err(Error::unsupported(format!(
            "the header would have {n} bytes; safetensors allows {MAX_HEADER_BYTES}"
        ))
        .hint("spread the tensors over several files with --max-shard-size"));
    }
    header[..8].copy_from_slice(&n.to_le_bytes());
    Ok((header, spans, end))
}

/// Appends `"key":value` to an object that is being written.
fn put(out: &mut Vec<u8>, key: &str, value: &serde_json::Value) -> Result<()> {
    let write = |out: &mut Vec<u8>| -> std::io::Result<()> {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, value)?;
        out.flush()
    };
    write(out).map_err(|e| Error::io("encode the header", e))
}

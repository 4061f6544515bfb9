//! The canonical layout of one file.

use crate::{MAX_HEADER_BYTES, dtypes};
use serde_json::json;
use std::io::Write;
use tensormill_model::{Error, FileLayout, Layout, Model, Place, Result, Value, WriteOptions};
use tensormill_tensor::Encoding;

pub(crate) fn layout(model: &Model, options: &WriteOptions) -> Result<Layout> {
    let mut order = Vec::with_capacity(model.tensors.len());
    for (i, t) in model.tensors.iter().enumerate() {
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
    let mut spans = vec![0; model.tensors.len()];
    let mut end = 0u64;
    for (_, name, dtype, i) in order {
        let spec = &model.tensors[i].spec;
        let bytes = spec.bytes().map_err(|e| Error::from(e).tensor(name))?;
        spans[i] = end;
        let next =
            end.checked_add(bytes).ok_or_else(|| Error::malformed("the model is too large").tensor(name))?;
        put(
            &mut header,
            name,
            &json!({ "dtype": dtype, "shape": spec.shape.dims(), "data_offsets": [end, next] }),
        )?;
        end = next;
    }
    header.push(b'}');
    header.resize(header.len().next_multiple_of(8), b' ');
    let n = header.len() as u64 - 8;
    if n > MAX_HEADER_BYTES {
        return Err(Error::unsupported(format!(
            "the header would have {n} bytes; safetensors allows {MAX_HEADER_BYTES}"
        )));
    }
    header[..8].copy_from_slice(&n.to_le_bytes());
    if options.max_shard_bytes.is_some_and(|max| max < end) {
        return Err(Error::unsupported("safetensors output is written as one file")
            .hint("leave --max-shard-size out, or choose a larger one"));
    }
    let len = end
        .checked_add(header.len() as u64)
        .ok_or_else(|| Error::malformed("the file would be larger than 64 bits can count"))?;
    let places = spans.into_iter().map(|s| Place { file: 0, offset: header.len() as u64 + s }).collect();
    Ok(Layout { files: vec![FileLayout { name: options.file_name.clone(), header, len }], places })
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

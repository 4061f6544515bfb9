//! Layout of what `torch.load` opens: one archive per file, or several with an index.

mod pickler;
mod zip;

use crate::types::{self, Becomes, TorchType};
use pickler::{Item, pickle};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use tensormill_model::{
    ChecksumSlot, Error, Expr, FileLayout, Layout, Model, Place, Result, Tensor, WriteOptions, fingerprint,
    shards,
};
use tensormill_tensor::Encoding;
use zip::{ALIGNMENT, Zip};

pub(crate) fn layout(model: &Model, options: &WriteOptions) -> Result<Layout> {
    if let Some((key, _)) = model.metadata.iter().next() {
        return Err(Error::unsupported(format!(
            "metadata {key:?}: a state dict holds tensors only, or load_state_dict would stumble over the rest"
        ))
        .hint("leave the metadata out"));
    }
    let owners = owners(model);
    let mut sizes = Vec::new();
    for (i, t) in model.tensors.iter().enumerate() {
        if owners[i] == i {
            sizes.push(t.spec.bytes().map_err(|e| Error::from(e).tensor(t.name()))?);
        }
    }
    let total = sizes.iter().try_fold(0u64, |a, n| a.checked_add(*n));
    let total = total.ok_or_else(|| Error::malformed("the model is larger than 64 bits can count"))?;
    let (divided, count) = shards::divide(&sizes, options.shards);
    // Of all tensors, tied ones being with those that hold their bytes.
    let mut of_owner = divided.into_iter();
    let mut file_of = vec![0; owners.len()];
    for i in 0..owners.len() {
        file_of[i] = if owners[i] == i { of_owner.next().unwrap_or(0) } else { file_of[owners[i]] };
    }

    let mut layout = Layout {
        files: Vec::with_capacity(count + 1),
        places: vec![Place { file: 0, offset: 0 }; owners.len()],
        checksums: Vec::new(),
    };
    let mut members = vec![Vec::new(); count];
    for (i, file) in file_of.iter().enumerate() {
        members[*file].push(i);
    }
    for (file, tensors) in members.iter().enumerate() {
        let name = if count > 1 {
            shards::shard_name(&options.file_name, file + 1, count)
        } else {
            options.file_name.clone()
        };
        let (file, slots) = archive(model, &owners, tensors, &name, file, &mut layout.places)?;
        layout.files.push(file);
        layout.checksums.extend(slots);
    }
    if count > 1 {
        layout.files.push(index(model, options, total, &file_of, count)?);
    }
    Ok(layout)
}

/// For every tensor the first with the same expression, which holds its bytes.
fn owners(model: &Model) -> Vec<usize> {
    let mut first: HashMap<String, usize> = HashMap::new();
    let owner = |(i, t): (usize, &Tensor)| {
        // Constants print as a hash, which is no proof of anything.
        if constant(&t.expr) {
            return i;
        }
        let text = format!("{} {} {}", t.spec.encoding, t.spec.shape, t.expr);
        *first.entry(text).or_insert(i)
    };
    model.tensors.iter().enumerate().map(owner).collect()
}

fn constant(expr: &Expr) -> bool {
    match expr {
        Expr::Read { .. } => false,
        Expr::Const { .. } => true,
        Expr::Rows { input, .. } | Expr::Reshape { input, .. } | Expr::Transpose { input } => constant(input),
        Expr::Concat { inputs, .. } | Expr::Apply { inputs, .. } => inputs.iter().any(constant),
    }
}

fn torch_type(t: &Tensor) -> Result<&'static TorchType> {
    let ty = match t.spec.encoding {
        Encoding::Plain(d) => types::of(d),
        Encoding::Block(_) => None,
    };
    ty.ok_or_else(|| {
        Error::unsupported(format!("torch has no dtype for {} tensors", t.spec.encoding)).tensor(t.name())
    })
}

/// Dimensions in torch's elements, of which some hold two of ours.
fn torch_size(t: &Tensor, ty: &TorchType) -> Result<Vec<u64>> {
    let mut size = t.spec.shape.dims().to_vec();
    if let Becomes::Pairs(d) = ty.becomes {
        match size.last_mut() {
            Some(n) if n.is_multiple_of(2) => *n /= 2,
            _ => {
                return Err(Error::unsupported(format!(
                    "torch stores {d} in pairs along the last dimension; this shape, {}, has none",
                    t.spec.shape
                ))
                .tensor(t.name()));
            }
        }
    }
    Ok(size)
}

/// One file of the tensors with these numbers.
fn archive(
    model: &Model,
    owners: &[usize],
    tensors: &[usize],
    name: &str,
    file: usize,
    places: &mut [Place],
) -> Result<(FileLayout, Vec<ChecksumSlot>)> {
    let mut keys = HashMap::new();
    let mut items = Vec::with_capacity(tensors.len());
    for i in tensors {
        let t = &model.tensors[*i];
        let ty = torch_type(t)?;
        let next = keys.len();
        let storage = *keys.entry(owners[*i]).or_insert(next);
        items.push(Item { name: t.name(), ty, size: torch_size(t, ty)?, storage });
    }
    let data = pickle(&items);
    // As torch names it; its writer takes ASCII only, and says `archive` otherwise.
    let stem = shards::stem(name);
    let usable = stem.is_ascii() && !stem.is_empty() && stem.len() < 1 << 10;
    let mut zip = Zip::new(name.to_owned(), if usable { stem } else { "archive" }, file);
    zip.bytes("data.pkl", &data);
    zip.bytes(".format_version", b"1");
    zip.bytes(".storage_alignment", ALIGNMENT.to_string().as_bytes());
    zip.bytes("byteorder", b"little");
    for i in tensors {
        let owner = owners[*i];
        if owner == *i {
            let t = &model.tensors[*i];
            let bytes = t.spec.bytes().map_err(|e| Error::from(e).tensor(t.name()))?;
            places[*i] =
                zip.tensor(&format!("data/{}", keys[&owner]), *i, bytes).map_err(|e| e.file(name))?;
        } else {
            places[*i] = places[owner];
        }
    }
    zip.bytes("version", b"3\n");
    // torch hashes names and checksums here; the latter are not known yet. Of the same form, and the same for the same
    // tensors.
    let id = fingerprint(data.iter().copied());
    let id = format!("{id:020}{:020}", fingerprint(name.bytes().chain(id.to_le_bytes())));
    zip.bytes(".data/serialization_id", id.as_bytes());
    Ok(zip.finish())
}

/// `*.index.json` as huggingface_hub writes it.
fn index(
    model: &Model,
    options: &WriteOptions,
    total: u64,
    file_of: &[usize],
    count: usize,
) -> Result<FileLayout> {
    let map: BTreeMap<&str, String> = model
        .tensors
        .iter()
        .zip(file_of)
        .map(|(t, file)| (t.name(), shards::shard_name(&options.file_name, file + 1, count)))
        .collect();
    let json = json!({ "metadata": { "total_size": total }, "weight_map": map });
    let mut header = serde_json::to_vec_pretty(&json)
        .map_err(|e| Error::malformed(format!("the index cannot be written: {e}")))?;
    header.push(b'\n');
    let len = header.len() as u64;
    Ok(FileLayout { name: format!("{}.index.json", options.file_name), header, len, ..FileLayout::default() })
}

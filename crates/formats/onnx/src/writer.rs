//! Laying out a model: one file, or a graph with weights in files beside it.

use crate::{
    codec::Message,
    data::{Placed, Placing, SMALL},
    wire::Out,
};
use std::collections::HashMap;
use tensormill_graph::{Elem, Program};
use tensormill_model::{Error, FileLayout, Layout, Model, Piece, Place, Result, WriteOptions, shards};
use tensormill_tensor::{DType, Encoding};

/// Protocol buffers end at 2 GiB; some room for what readers add.
const MOST: u64 = (1 << 31) - (1 << 20);
/// Where large tensors begin, so that they can be mapped (`onnx.proto` recommends it).
const PAGE: u64 = 4096;
/// Where smaller ones begin: a cache line.
const LINE: u64 = 64;

pub(crate) fn layout(model: &Model, options: &WriteOptions) -> Result<Layout> {
    let Some(program) = &model.program else {
        return Err(Error::unsupported("ONNX files are graphs, and this model has none")
            .hint("graphs are built for the architectures that `tensormill list graphs` shows"));
    };
    let mut slots = slots(program, model)?;
    let mut layout =
        Layout { places: vec![Place { file: 0, offset: 0 }; model.tensors.len()], ..Layout::default() };
    let all: u64 = slots.iter().fold(0, |n, (_, p)| n.saturating_add(p.bytes));
    let mut data = Vec::new();
    // A graph is one file: what has to be divided can only lie beside it.
    let divided = !options.shards.allow(slots.len() as u64, all);
    if options.external || divided || all > MOST {
        data = place_outside(&mut slots, model, options, &mut layout.places)?;
    }
    let (tensors, placed): (Vec<usize>, Vec<Placed>) = slots.into_iter().unzip();
    let out = program.encoded(&Placing { slots: &placed });
    if out.len() > MOST {
        return Err(Error::unsupported(format!(
            "the graph alone would take {} bytes; protocol buffers end at 2 GiB",
            out.len()
        )));
    }
    let file = inline(out, options.file_name.clone(), &tensors, &mut layout.places);
    layout.files.push(file);
    layout.files.extend(data);
    Ok(layout)
}

/// The model's tensor of every slot, and how it is written: within the graph as far as this function goes.
fn slots(program: &Program, model: &Model) -> Result<Vec<(usize, Placed)>> {
    let by_name: HashMap<&str, usize> =
        model.tensors.iter().enumerate().map(|(i, t)| (t.name(), i)).collect();
    let mut declared = vec![None; program.weights.len()];
    program.tensors(|_, _, t| {
        if let Some(d) = t.slot.and_then(|slot| declared.get_mut(slot)) {
            *d = Some((t.elem, t.dims.clone(), t.dtype()));
        }
    });
    let mut used = vec![false; model.tensors.len()];
    let mut slots = Vec::with_capacity(declared.len());
    for (weight, declared) in program.weights.iter().zip(declared) {
        let fail = |e: Error| e.tensor(&weight.tensor);
        let Some(&tensor) = by_name.get(weight.tensor.as_str()) else {
            return Err(fail(Error::mismatch(
                "the graph needs this tensor, and the model has none of its name",
            )));
        };
        if std::mem::replace(&mut used[tensor], true) {
            return Err(fail(Error::mismatch("two initializers of the graph are this tensor")));
        }
        let spec = &model.tensors[tensor].spec;
        let bytes = spec.bytes().map_err(|e| fail(e.into()))?;
        let (elem, dims) = match (spec.encoding, declared) {
            // The file's bytes, which are elements of no type here.
            (Encoding::Plain(DType::U8), Some((elem, dims, None)))
                if weight.keep_type && size(elem, &dims) == Some(bytes) =>
            {
                (elem, dims)
            }
            (Encoding::Plain(d), _) => {
                let elem = Elem::of(d)
                    .ok_or_else(|| fail(Error::unsupported(format!("ONNX has no type for {d} elements"))))?;
                (elem, spec.shape.dims().iter().map(|d| *d as i64).collect())
            }
            (Encoding::Block(_), _) => {
                return Err(fail(Error::unsupported(format!("ONNX cannot hold {} tensors", spec.encoding))));
            }
        };
        slots.push((tensor, Placed { elem, dims, bytes, external: None }));
    }
    if let Some(i) = used.iter().position(|u| !u) {
        return Err(Error::mismatch("the graph has no place for it").tensor(model.tensors[i].name()));
    }
    Ok(slots)
}

/// Bytes of elements.
fn size(elem: Elem, dims: &[i64]) -> Option<u64> {
    elem.bytes(dims.iter().try_fold(1u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?))?)
}

/// Gives larger tensors places in files beside the graph: `model.onnx_data`, and where sizes are bounded `model.onnx_data_1`
/// and so on, as optimum and transformers.js have it. Tensors that come about alike lie there once.
fn place_outside(
    slots: &mut [(usize, Placed)],
    model: &Model,
    options: &WriteOptions,
    places: &mut [Place],
) -> Result<Vec<FileLayout>> {
    let outside: Vec<usize> = (0..slots.len()).filter(|i| slots[*i].1.bytes >= SMALL).collect();
    let mut known: HashMap<String, usize> = HashMap::new();
    let (mut own, mut tied) = (Vec::new(), Vec::new());
    for i in outside {
        match known.entry(model.tensors[slots[i].0].expr.to_string()) {
            std::collections::hash_map::Entry::Occupied(first) => tied.push((i, *first.get())),
            std::collections::hash_map::Entry::Vacant(v) => {
                v.insert(i);
                own.push(i);
            }
        }
    }
    let sizes: Vec<u64> = own.iter().map(|&i| slots[i].1.bytes).collect();
    let (file_of, count) = shards::divide(&sizes, options.shards);
    let name = |file: usize| match file {
        0 => format!("{}_data", options.file_name),
        n => format!("{}_data_{n}", options.file_name),
    };
    let mut files: Vec<FileLayout> = if own.is_empty() {
        Vec::new()
    } else {
        (0..count).map(|n| FileLayout { name: name(n), ..FileLayout::default() }).collect()
    };
    for (&i, file) in own.iter().zip(file_of) {
        let (tensor, placed) = &mut slots[i];
        let align = if placed.bytes >= PAGE { PAGE } else { LINE };
        let end = files[file].len.checked_next_multiple_of(align);
        let ends = end.and_then(|offset| Some((offset, offset.checked_add(placed.bytes)?)));
        let (offset, end) = ends.ok_or_else(|| Error::malformed("the model is too large"))?;
        files[file].len = end;
        places[*tensor] = Place { file: file + 1, offset };
        placed.external = Some((name(file), offset));
    }
    for (i, first) in tied {
        places[slots[i].0] = places[slots[first].0];
        let external = slots[first].1.external.clone();
        slots[i].1.external = external;
    }
    Ok(files)
}

/// The file of the graph: encoded bytes around the weights that stay in it.
fn inline(out: Out, name: String, tensors: &[usize], places: &mut [Place]) -> FileLayout {
    let len = out.len();
    let Out { mut bytes, holes } = out;
    let mut pieces = Vec::with_capacity(holes.len());
    let mut offset = 0u64;
    let mut from = holes.first().map_or(bytes.len(), |h| h.at);
    offset += from as u64;
    for (i, hole) in holes.iter().enumerate() {
        places[tensors[hole.slot]] = Place { file: 0, offset };
        offset += hole.len;
        let to = holes.get(i + 1).map_or(bytes.len(), |h| h.at);
        if to > from {
            pieces.push(Piece { offset, bytes: bytes[from..to].to_vec() });
            offset += (to - from) as u64;
        }
        from = to;
    }
    bytes.truncate(holes.first().map_or(bytes.len(), |h| h.at));
    FileLayout { name, header: bytes, pieces, len }
}

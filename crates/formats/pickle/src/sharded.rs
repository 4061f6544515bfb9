//! Parts of tensors as processes of `torch.distributed` pickle them: `DTensor`, `ShardedTensor`.
//!
//! Both are tensor subclasses around a local tensor, with a description of where that belongs in the whole. A `DTensor`
//! says how each dimension of a mesh of processes divides the tensor; one after another, from the first to the last
//! (`_compute_local_shape_and_global_offset` in `torch/distributed/tensor/_utils.py` of torch 2.15; `_StridedShard` is what
//! FSDP writes over tensor parallelism). A `ShardedTensor` gives offsets and sizes.
//!
//! Must not know files, and not which processes there are.

use crate::{
    data::{Data, Part},
    files::Program,
    machine::{
        globals::Known,
        heap::{Object, Value},
    },
};
use tensormill_model::{Error, Result};
use tensormill_tensor::DType;

/// Stretches of one dimension that a process may hold; `_StridedShard` makes as many as there are processes.
const MAX_STRETCHES: u64 = 1024;

/// Boxes of a tensor: first element, size, and where their bytes are.
type Boxes = Vec<(Box<[u64]>, Box<[u64]>, Data)>;

/// What one process holds of a tensor.
pub(crate) struct Shard {
    /// `DTensor` or `ShardedTensor`.
    pub kind: &'static str,
    pub dtype: DType,
    /// Dimensions of the whole.
    pub dims: Box<[u64]>,
    pub boxes: Boxes,
    /// Processes that there are, where it says so.
    pub world: Option<u64>,
}

impl Shard {
    /// The bytes of the tensor, where this is all of it.
    pub fn whole(&self) -> Option<Data> {
        match self.boxes.as_slice() {
            [(at, size, data)] if at.iter().all(|a| *a == 0) && *size == self.dims => Some(data.clone()),
            _ => None,
        }
    }
}

/// The kind of distributed tensor that a class is.
pub(crate) fn kind(module: &str, name: &str) -> Option<&'static str> {
    match name {
        "DTensor" if module.starts_with("torch.distributed") => Some("DTensor"),
        "ShardedTensor" if module.starts_with("torch.distributed") => Some("ShardedTensor"),
        _ => None,
    }
}

/// Arguments of the call that would have made it: `(func, class, args, state)`.
fn parts(program: &Program, v: Value) -> Option<(&'static str, &[Value], Value)> {
    let Some(Object::Opaque(o)) = program.heap.get(v) else { return None };
    let heap = &program.heap;
    let called = o.global.and_then(|g| heap.globals[g as usize].known);
    let [args] = o.parts.as_slice() else { return None };
    match (called, heap.items(*args)?) {
        (Some(Known::RebuildFromType), [_, class, args, state]) => {
            let class = heap.global(*class)?;
            Some((kind(&class.module, &class.name)?, heap.items(*args)?, *state))
        }
        _ => None,
    }
}

/// Whether a value is a part of a tensor.
pub(crate) fn is_shard(program: &Program, v: Value) -> bool {
    parts(program, v).is_some()
}

/// What a process holds of a tensor; `local` finds the tensors inside.
pub(crate) fn shard(program: &Program, v: Value, local: impl FnMut(Value) -> Result<Part>) -> Result<Shard> {
    let Some((kind, args, state)) = parts(program, v) else {
        return Err(Error::malformed("this is no tensor"));
    };
    // `_rebuild_wrapper_subclass(class, dtype, size, strides, ...)`.
    let [_, ty, size, ..] = *args else {
        return Err(Error::malformed(format!("a {kind} with {} arguments", args.len())));
    };
    let Some(Known::Type(ty)) = program.heap.known(ty) else {
        return Err(Error::unsupported(format!("{} is no dtype that is known", program.heap.kind(ty))));
    };
    let (dtype, dims) = ty.held(&program.heap.sizes(size)?)?;
    let dims: Box<[u64]> = dims.into();
    let mut of = Of { program, kind, dtype, dims, local };
    let (boxes, world) = if kind == "DTensor" { of.mesh(state)? } else { of.listed(state)? };
    Ok(Shard { kind, dtype, dims: of.dims, boxes, world })
}

/// A tensor whose part is looked at.
struct Of<'a, F> {
    program: &'a Program,
    kind: &'static str,
    dtype: DType,
    dims: Box<[u64]>,
    local: F,
}

impl<F: FnMut(Value) -> Result<Part>> Of<'_, F> {
    fn odd(&self, what: &str) -> Error {
        Error::unsupported(format!("a {} {what}", self.kind))
            .hint("merge the checkpoint in torch, with full_tensor() or dcp_to_torch_save")
    }

    /// A part that must be of these dimensions.
    fn part(&mut self, v: Value, want: &[u64]) -> Result<Part> {
        let part = (self.local)(v)?;
        if part.dtype != self.dtype || part.dims != want {
            return Err(Error::malformed(format!(
                "the part that this process holds is {} {:?}, where its place in the whole is {} {want:?}",
                part.dtype, part.dims, self.dtype
            )));
        }
        Ok(part)
    }

    /// `{"_local_tensor": ..., "_spec": DTensorSpec(mesh, placements, ...)}`.
    fn mesh(&mut self, state: Value) -> Result<(Boxes, Option<u64>)> {
        let p = self.program;
        let spec = p.state_field(state, "_spec").ok_or_else(|| self.odd("without a _spec"))?;
        let (Some(mesh), Some(placements)) = (p.field(spec, "mesh"), p.field(spec, "placements")) else {
            return Err(self.odd("without a mesh and placements"));
        };
        if !self.in_order(p.field(spec, "shard_order")) {
            return Err(self.odd("that is divided in another order than that of its mesh"));
        }
        let (sizes, world) = self.mesh_sizes(mesh)?;
        let coordinate = p.field(mesh, "_coordinate_on_dim").unwrap_or(Value::None);
        let placements = p.heap.items(placements).unwrap_or_default();
        if placements.len() != sizes.len() {
            return Err(Error::malformed(format!(
                "a {} of {} placements on a mesh of {} dimensions",
                self.kind,
                placements.len(),
                sizes.len()
            )));
        }
        if coordinate == Value::None {
            // This process is not in the mesh: it holds nothing.
            return Ok((Vec::new(), world));
        }
        let coordinate = p.heap.sizes(coordinate)?;
        if coordinate.len() != sizes.len() || coordinate.iter().zip(&sizes).any(|(c, n)| c >= n) {
            return Err(Error::malformed(format!("the process {coordinate:?} of a mesh of {sizes:?}")));
        }
        let mut held: Vec<Vec<(u64, u64)>> = self.dims.iter().map(|d| vec![(0, *d)]).collect();
        for ((placement, n), c) in placements.iter().zip(&sizes).zip(&coordinate) {
            self.place(*placement, *n, *c, &mut held)?;
        }
        let local =
            p.state_field(state, "_local_tensor").ok_or_else(|| self.odd("without a local tensor"))?;
        let want: Vec<u64> = held.iter().map(|d| d.iter().map(|(_, n)| n).sum()).collect();
        let part = self.part(local, &want)?;
        Ok((boxes(&held, &part)?, world))
    }

    /// Applies the placement of one dimension of the mesh, of `n` processes, to what process `c` of them holds.
    fn place(&self, placement: Value, n: u64, c: u64, held: &mut [Vec<(u64, u64)>]) -> Result<()> {
        let p = self.program;
        let class = match p.heap.get(placement) {
            Some(Object::Opaque(o)) => o.global.map(|g| p.heap.globals[g as usize].name.as_str()),
            _ => None,
        };
        let class =
            class.ok_or_else(|| self.odd(&format!("whose placement is {}", p.heap.kind(placement))))?;
        let number = |field: &str| match p.field(placement, field) {
            Some(Value::Int(n)) => u64::try_from(n).ok(),
            _ => None,
        };
        let factor = match class {
            "Replicate" => return Ok(()),
            "Shard" => 1,
            "_StridedShard" => number("split_factor")
                .filter(|f| *f > 0)
                .ok_or_else(|| Error::malformed("a _StridedShard without a split factor"))?,
            name => {
                return Err(
                    self.odd(&format!("whose placement is {name}: its processes do not hold parts of it"))
                );
            }
        };
        let dim = number("dim").and_then(|d| held.get_mut(d as usize));
        let dim = dim
            .ok_or_else(|| Error::malformed(format!("a {} divided along a dimension it lacks", self.kind)))?;
        let total: u64 = dim.iter().map(|(_, n)| n).sum();
        let mut out = Vec::new();
        // No more than one stretch per element.
        for piece in 0..factor.min(total.max(1)) {
            if piece >= MAX_STRETCHES {
                return Err(Error::over_limit(format!("a dimension in more than {MAX_STRETCHES} stretches")));
            }
            let (start, len) = chunk(total, factor, piece);
            let (inner, len) = chunk(len, n, c);
            cut(dim, start + inner, len, &mut out);
        }
        if out.len() as u64 > MAX_STRETCHES {
            return Err(Error::over_limit(format!("a dimension in more than {MAX_STRETCHES} stretches")));
        }
        *dim = out;
        Ok(())
    }

    /// Processes along each dimension of a mesh, and in the whole run where that is known. What a mesh is called inside
    /// has changed: a tensor of ranks up to torch 2.8, then a layout over one.
    fn mesh_sizes(&self, mesh: Value) -> Result<(Vec<u64>, Option<u64>)> {
        let p = self.program;
        let tensor = |field: &str| match p.field(mesh, field).and_then(|v| p.heap.get(v)) {
            Some(Object::Tensor(t)) => Some(&t.size),
            _ => None,
        };
        if let Some(size) = tensor("mesh") {
            return Ok((size.to_vec(), size.iter().try_fold(1u64, |a, n| a.checked_mul(*n))));
        }
        let world = tensor("_rank_map").and_then(|size| size.iter().try_fold(1u64, |a, n| a.checked_mul(*n)));
        let odd = || self.odd("on a mesh of an unknown form");
        let layout = p.field(mesh, "_layout").ok_or_else(odd)?;
        let axes: Vec<Value> = if let Some(axes) = p.field(layout, "axes") {
            let axes = p.heap.items(axes).ok_or_else(odd)?;
            axes.iter().map(|a| p.field(*a, "shape").ok_or_else(odd)).collect::<Result<_>>()?
        } else {
            let shape = p.field(layout, "shape").ok_or_else(odd)?;
            p.heap.items(shape).map_or_else(|| vec![shape], <[Value]>::to_vec)
        };
        let size = |v: &Value| match v {
            Value::Int(n) => u64::try_from(*n).ok(),
            v => p.heap.sizes(*v).ok()?.iter().try_fold(1u64, |a, n| a.checked_mul(*n)),
        };
        let sizes = axes.iter().map(|v| size(v).filter(|n| *n > 0).ok_or_else(odd)).collect::<Result<_>>()?;
        Ok((sizes, world))
    }

    /// Whether the dimensions of the mesh divide each dimension of the tensor in ascending order.
    fn in_order(&self, order: Option<Value>) -> bool {
        let heap = &self.program.heap;
        let Some(order) = order.filter(|o| *o != Value::None) else { return true };
        let Some(entries) = heap.items(order) else { return false };
        entries.iter().all(|e| {
            // A named tuple: its arguments are its fields.
            let fields = match heap.get(*e) {
                Some(Object::Opaque(o)) => o.parts.first().and_then(|a| heap.items(*a)),
                _ => heap.items(*e),
            };
            let Some([_, dims]) = fields else { return false };
            heap.sizes(*dims).is_ok_and(|d| d.is_sorted())
        })
    }

    /// `([Shard(tensor, metadata), ...], metadata, ...)`.
    fn listed(&mut self, state: Value) -> Result<(Boxes, Option<u64>)> {
        let p = self.program;
        let Some([shards, _, group, ..]) = p.heap.items(state) else {
            return Err(self.odd("with an odd state"));
        };
        let world = match p.field(*group, "global_world_size") {
            Some(Value::Int(n)) => u64::try_from(n).ok(),
            _ => None,
        };
        let mut boxes = Vec::new();
        for shard in p.heap.items(*shards).unwrap_or_default() {
            let metadata = p.field(*shard, "metadata").unwrap_or(Value::None);
            let sizes = |field| p.field(metadata, field).map(|v| p.heap.sizes(v)).transpose();
            let (Some(at), Some(size), Some(tensor)) =
                (sizes("shard_offsets")?, sizes("shard_sizes")?, p.field(*shard, "tensor"))
            else {
                return Err(self.odd("with an odd shard"));
            };
            let part = self.part(tensor, &size)?;
            boxes.push((at, size, part.data));
        }
        Ok((boxes, world))
    }
}

/// Part number `i` of `n` as `torch.chunk` makes them: first element and length.
fn chunk(total: u64, n: u64, i: u64) -> (u64, u64) {
    let each = total.div_ceil(n.max(1));
    let start = each.saturating_mul(i).min(total);
    (start, each.min(total - start))
}

/// Adds elements `start..start + len` of a list of stretches to another.
fn cut(stretches: &[(u64, u64)], start: u64, len: u64, out: &mut Vec<(u64, u64)>) {
    let (mut skip, mut want) = (start, len);
    for (first, n) in stretches {
        let from = skip.min(*n);
        let take = (n - from).min(want);
        skip -= from;
        want -= take;
        if take > 0 {
            match out.last_mut() {
                Some((a, b)) if *a + *b == first + from => *b += take,
                _ => out.push((first + from, take)),
            }
        }
    }
}

/// The boxes that stretches of each dimension make, as boxes of the local tensor.
fn boxes(held: &[Vec<(u64, u64)>], part: &Part) -> Result<Boxes> {
    let count = held.iter().try_fold(1u64, |n, d| n.checked_mul(d.len() as u64));
    if count.is_none_or(|n| n > MAX_STRETCHES) {
        return Err(Error::over_limit(format!("a part of more than {MAX_STRETCHES} boxes")));
    }
    let mut out = vec![(Vec::new(), Vec::new(), Vec::new())];
    for dim in held {
        let mut next = Vec::with_capacity(out.len() * dim.len());
        for (at, size, local) in &out {
            let mut inside = 0;
            for (start, len) in dim {
                let with = |v: &Vec<u64>, n: u64| [v.as_slice(), &[n]].concat();
                next.push((with(at, *start), with(size, *len), with(local, inside)));
                inside += len;
            }
        }
        out = next;
    }
    Ok(out
        .into_iter()
        .filter(|(_, size, _)| !size.contains(&0))
        .map(|(at, size, local)| {
            let data = part.narrow(&local, &size);
            (at.into(), size.into(), data)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_those_of_torch() {
        // Shard(0) over 3, then over 2: torch.chunk twice.
        let held = |placements: &[(u64, u64, u64)]| {
            let mut dim = vec![(0, 10)];
            for (factor, n, c) in placements {
                let total = dim.iter().map(|(_, n)| n).sum();
                let mut out = Vec::new();
                for piece in 0..*factor {
                    let (start, len) = chunk(total, *factor, piece);
                    let (inner, len) = chunk(len, *n, *c);
                    cut(&dim, start + inner, len, &mut out);
                }
                dim = out;
            }
            dim
        };
        assert_eq!(held(&[(1, 3, 2)]), [(8, 2)]);
        assert_eq!(held(&[(1, 3, 0), (1, 2, 1)]), [(2, 2)]);
        assert_eq!(held(&[(1, 8, 6)]), []);
        // _StridedShard(0, split_factor=2): two pieces of each of two halves.
        assert_eq!(held(&[(2, 2, 0)]), [(0, 3), (5, 3)]);
        assert_eq!(held(&[(2, 2, 1), (1, 2, 1)]), [(8, 2)]);
        assert_eq!(chunk(10, u64::MAX, u64::MAX - 1), (10, 0));
    }
}

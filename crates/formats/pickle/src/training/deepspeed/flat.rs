//! Trained parameters: which stretches of which vectors each one is.

use super::{
    file::shapes,
    merge::{Merge, below},
};
use crate::{
    data::Part,
    training::pieces::{Piece, Pieced},
};
use tensormill_model::{Error, Result};
use tensormill_tensor::{DType, Shape};

impl Merge<'_> {
    pub fn trained(&mut self) -> Result<()> {
        let groups = self.model.items(self.model.get(&["param_shapes"]));
        // Dicts are shared at no cost, by any number of groups.
        let count: u64 = groups.iter().map(|g| self.model.dict_len(*g)).sum();
        if count > self.limits.tensors {
            return Err(Error::over_limit(format!("it lists {count} parameters")));
        }
        let groups = groups.iter().map(|g| shapes(&self.model, Some(*g))).collect::<Result<Vec<_>>>()?;
        if groups.is_empty() {
            return Err(Error::malformed("it has no param_shapes"));
        }
        if self.zero.stage == 3 { self.stage3(groups) } else { self.stage2(groups) }
    }

    fn add(&mut self, full: &str, dims: Vec<u64>, segments: &[(usize, usize, u64, u64)]) -> Result<()> {
        let Some(name) = below(self.key, full) else { return Ok(()) };
        let dtype = self.zero.dtype;
        let segments: Vec<Segment<'_>> = segments
            .iter()
            .map(|(rank, group, start, len)| {
                let (file, parts) = &self.zero.ranks[*rank];
                (*file, &parts[*group], *start, *len)
            })
            .collect();
        flat_pieces(&dims, dtype, &segments)
            .and_then(|p| self.out.add(name, dims, dtype, p))
            .map_err(|e| e.tensor(name))
    }

    /// The vectors of all processes behind each other are the parameters behind each other.
    fn stage2(&mut self, groups: Vec<Vec<(String, Vec<u64>)>>) -> Result<()> {
        let count = self.zero.ranks.first().map_or(0, |(_, parts)| parts.len());
        if groups.len() != count {
            return Err(Error::malformed(format!(
                "shapes of {} parameter groups, vectors of {count}",
                groups.len()
            )));
        }
        let align = self.zero.world.saturating_mul(2);
        for (g, shapes) in groups.into_iter().enumerate() {
            // Where the vector of each rank starts; at the end, where all end.
            let mut starts = vec![0u64];
            for (_, parts) in &self.zero.ranks {
                let next = starts.last().copied().unwrap_or(0).checked_add(parts[g].dims[0]);
                starts.push(next.ok_or_else(too_long)?);
            }
            let have = starts.last().copied().unwrap_or(0);
            let padding = match &self.zero.paddings {
                None => None,
                Some(p) => match p.get(g) {
                    Some(p) if p.len() == shapes.len() => Some(p.clone()),
                    _ => {
                        return Err(Error::malformed(format!(
                            "the paddings of group {g} are not those of its parameters"
                        )));
                    }
                },
            };
            let mut offset = 0u64;
            for (i, (name, dims)) in shapes.into_iter().enumerate() {
                let len = elements(&dims).map_err(|e| e.tensor(&name))?;
                let end = offset.checked_add(len).filter(|e| *e <= have).ok_or_else(|| {
                    Error::malformed(format!(
                        "shape {dims:?} from element {offset} on, of {have} in the vectors of all processes"
                    ))
                    .tensor(&name)
                    .hint("files of different runs may be in one folder")
                })?;
                let first = starts.partition_point(|s| *s <= offset) - 1;
                let segments: Vec<_> = (first..self.zero.ranks.len())
                    .take_while(|r| starts[*r] < end)
                    .map(|r| {
                        let (from, to) = (offset.max(starts[r]), end.min(starts[r + 1]));
                        (r, g, from - starts[r], to.saturating_sub(from))
                    })
                    .filter(|(_, _, _, len)| *len > 0)
                    .collect();
                self.add(&name, dims, &segments)?;
                offset = end.saturating_add(padding.as_ref().map_or(0, |p| p[i]));
            }
            if offset.div_ceil(align) != have.div_ceil(align) {
                return Err(Error::malformed(format!(
                    "the parameters of group {g} have {offset} elements, its vectors {have}"
                )));
            }
        }
        Ok(())
    }

    /// Every process has the same share of each parameter, at the same place of its vectors.
    fn stage3(&mut self, groups: Vec<Vec<(String, Vec<u64>)>>) -> Result<()> {
        let mut starts = vec![0u64];
        for part in self.zero.ranks.first().map_or(&[][..], |(_, parts)| parts.as_slice()) {
            let next = starts.last().copied().unwrap_or(0).checked_add(part.dims[0]);
            starts.push(next.ok_or_else(too_long)?);
        }
        let have = starts.last().copied().unwrap_or(0);
        let mut offset = 0u64;
        for (name, dims) in groups.into_iter().flatten() {
            let len = elements(&dims).map_err(|e| e.tensor(&name))?;
            let share = len.div_ceil(self.zero.world);
            let end = offset.checked_add(share).filter(|e| *e <= have).ok_or_else(|| {
                Error::malformed(format!(
                    "shape {dims:?} takes {share} elements of each process from {offset} on, of {have}"
                ))
                .tensor(&name)
                .hint("files of different runs may be in one folder")
            })?;
            let mut left = len;
            let mut segments = Vec::new();
            let first = starts.partition_point(|s| *s <= offset) - 1;
            for rank in 0..self.zero.ranks.len() {
                for g in (first..starts.len() - 1).take_while(|g| starts[*g] < end) {
                    let (from, to) = (offset.max(starts[g]), end.min(starts[g + 1]));
                    let take = to.saturating_sub(from).min(left);
                    if take > 0 {
                        segments.push((rank, g, from - starts[g], take));
                        left -= take;
                    }
                }
            }
            self.add(&name, dims, &segments)?;
            offset = end;
        }
        if offset != have {
            return Err(Error::malformed(format!(
                "the parameters take {offset} elements of each process, which has {have}"
            )));
        }
        Ok(())
    }
}

/// File, vector, first element, length.
pub(super) type Segment<'a> = (usize, &'a Part, u64, u64);

/// A tensor of these dimensions from stretches behind each other, as many as it has elements.
pub(super) fn flat_pieces(dims: &[u64], dtype: DType, segments: &[Segment<'_>]) -> Result<Pieced> {
    let total = elements(dims)?;
    let mut at = 0;
    let mut pieces = Vec::with_capacity(segments.len());
    for (file, part, start, len) in segments {
        // What is behind the last element is padding.
        let len = (*len).min(total - at);
        if len > 0 {
            let data = part.narrow(&[*start], &[len]);
            pieces.push(Piece { at: [at].into(), size: [len].into(), file: *file, data });
            at += len;
        }
    }
    Pieced::new(&[total], pieces, dtype)
}

fn too_long() -> Error {
    Error::malformed("its vectors are longer than 64 bits can count")
}

fn elements(dims: &[u64]) -> Result<u64> {
    Ok(Shape::new(dims.to_vec())?.elements())
}

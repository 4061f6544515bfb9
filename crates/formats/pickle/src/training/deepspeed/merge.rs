//! What a checkpoint of ZeRO holds, in the order of `zero_to_fp32.py`: buffers, frozen parameters, trained ones, ties.

use super::{
    Names, Stores,
    file::{File, shapes},
    flat::{Segment, flat_pieces},
    zero::Zero,
};
use crate::{
    data::Part,
    machine::heap::{Object, Value},
    tensors::Collector,
    training::{
        merged::Merged,
        pieces::{Piece, Pieced},
    },
};
use std::collections::HashMap;
use tensormill_model::{Error, Limits, Result};
use tensormill_tensor::DType;

/// A merge that is under way.
pub(super) struct Merge<'a> {
    /// Names, shapes and buffers: the first rank's.
    pub model: File,
    pub zero: Zero,
    pub limits: &'a Limits,
    pub key: Option<&'a str>,
    pub out: Merged,
}

impl Merge<'_> {
    /// Buffers, frozen parameters, trained ones, ties: in the order of `zero_to_fp32.py`.
    pub fn all(&mut self, names: &Names, stores: &mut Stores<'_>) -> Result<()> {
        for key in ["ds_autoep_layers", "autoep_layers"] {
            if !self.model.items(self.model.get(&[key])).is_empty() {
                return Err(Error::unsupported("expert-parallel weights (AutoEP) are not merged")
                    .hint("convert the checkpoint with DeepSpeed's ds_to_universal.py"));
            }
        }
        self.module(true)?;
        self.frozen(names, stores)?;
        self.trained()?;
        let ties: Vec<(String, String)> = {
            let heap = &self.model.program().heap;
            let shared = self.model.entries(self.model.get(&["shared_params"]))?;
            shared
                .iter()
                .filter_map(|(name, to)| Some(((*name).to_owned(), heap.str(*to)?.to_owned())))
                .collect()
        };
        for (name, to) in ties {
            if let (Some(name), Some(to)) = (below(self.key, &name), below(self.key, &to))
                && !self.out.has(name)
            {
                self.out.tie(name, to).map_err(|e| e.tensor(name))?;
            }
        }
        self.module(false)?;
        let what =
            format!("optimizer state of {} processes (ZeRO stage {})", self.zero.world, self.zero.stage);
        self.out.extras.leave_out("(optimizer)", what);
        Ok(())
    }

    /// What the module's own state dict has. Buffers, as F32 where they are floats; or what nothing else has: stage 1
    /// does not list frozen parameters, and the merge of DeepSpeed loses them.
    fn module(&mut self, buffers: bool) -> Result<()> {
        let listed = self.model.items(self.model.get(&["buffer_names"]));
        let program = self.model.program();
        let mut listed: Vec<&str> = listed.iter().filter_map(|v| program.heap.str(*v)).collect();
        listed.sort_unstable();
        let mut collector = Collector::new(&self.model.opened, &self.model.name, self.limits);
        for (full, v) in self.model.entries(self.model.get(&["module"]))? {
            let Some(name) = below(self.key, full) else { continue };
            let is_buffer = listed.binary_search(&full).is_ok();
            if is_buffer != buffers || self.out.has(name) {
                continue;
            }
            if !matches!(program.heap.get(v), Some(Object::Tensor(_) | Object::Refused(_))) {
                self.out.extras.leave_out(name, program.heap.kind(v));
                continue;
            }
            let part = collector.part(program, 0, v).map_err(|e| e.tensor(name))?;
            if !buffers && part.dims.contains(&0) {
                continue;
            }
            let dims = part.dims.clone();
            let size: Box<[u64]> = dims.clone().into();
            let piece =
                Piece { at: vec![0; dims.len()].into(), size, file: self.model.number, data: part.data };
            let pieced = Pieced::new(&dims, vec![piece], part.dtype).map_err(|e| e.tensor(name))?;
            let widened = buffers && part.dtype.is_float() && part.dtype != DType::F32;
            let (dtype, pieced) =
                if widened { (DType::F32, pieced.widened(part.dtype)) } else { (part.dtype, pieced) };
            self.out.add(name, dims, dtype, pieced).map_err(|e| e.tensor(name))?;
        }
        Ok(())
    }

    /// Parameters that were not trained; as they were saved, with their parts in all model files in stage 3.
    fn frozen(&mut self, names: &Names, stores: &mut Stores<'_>) -> Result<()> {
        let shapes = shapes(&self.model, self.model.get(&["frozen_param_shapes"]))?;
        if shapes.is_empty() {
            return Ok(());
        }
        let divided = self.zero.stage == 3;
        let mut parts: Vec<Vec<(usize, Part)>> = shapes.iter().map(|_| Vec::new()).collect();
        let mut collect = |file: &File| -> Result<()> {
            let fragments = file.entries(file.get(&["frozen_param_fragments"]))?;
            let fragments: HashMap<&str, Value> = fragments.into_iter().collect();
            let program = file.program();
            let mut collector = Collector::new(&file.opened, &file.name, self.limits);
            for ((name, _), parts) in shapes.iter().zip(&mut parts) {
                let part = fragments.get(name.as_str());
                let part = part.ok_or_else(|| Error::malformed("its frozen values are not there"));
                let part = part.and_then(|v| collector.part(program, 0, *v));
                parts.push((file.number, part.map_err(|e| e.tensor(name).file(&file.name))?));
            }
            Ok(())
        };
        if divided {
            for name in names.models.values() {
                collect(&File::open(stores, name, self.limits)?)?;
            }
        } else {
            collect(&self.model)?;
        }
        for ((full, dims), parts) in shapes.into_iter().zip(parts) {
            let Some(name) = below(self.key, &full) else { continue };
            let run = || -> Result<(DType, Pieced)> {
                let dtype = parts.first().map_or(DType::F32, |(_, p)| p.dtype);
                if parts.iter().any(|(_, p)| {
                    p.dtype != dtype || (!divided && p.dims != dims) || (divided && p.dims.len() != 1)
                }) {
                    return Err(Error::malformed(format!(
                        "its frozen values have other types or shapes than {dims:?}"
                    )));
                }
                if divided {
                    let flat: Vec<Segment<'_>> =
                        parts.iter().map(|(file, p)| (*file, p, 0, p.dims[0])).collect();
                    return Ok((dtype, flat_pieces(&dims, dtype, &flat)?));
                }
                let size: Box<[u64]> = dims.clone().into();
                let whole = |(file, p): &(usize, Part)| Piece {
                    at: vec![0; dims.len()].into(),
                    size: size.clone(),
                    file: *file,
                    data: p.data.clone(),
                };
                Ok((dtype, Pieced::new(&dims, parts.iter().map(whole).collect(), dtype)?))
            };
            run()
                .and_then(|(dtype, p)| self.out.add(name, dims.clone(), dtype, p))
                .map_err(|e| e.tensor(name))?;
        }
        Ok(())
    }
}

/// The name below the part that is asked for.
pub(super) fn below<'n>(key: Option<&str>, name: &'n str) -> Option<&'n str> {
    match key {
        None => Some(name),
        Some(key) => name.strip_prefix(key)?.strip_prefix('.').filter(|n| !n.is_empty()),
    }
}

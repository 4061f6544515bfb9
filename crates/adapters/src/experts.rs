//! Products on the weights of experts (`target_parameters` of PEFT): one pair of factors for all experts of a layer, and
//! weights that stand in one tensor, or in one per expert as checkpoints have them.
//!
//! `A` is `[experts * rank, in]`, an expert's rows together; `B` is `[out, rank * experts]`, an expert's columns apart
//! (`ParamWrapper.get_delta_weight`). Names do not say which parameter of a module is meant: shapes do.

use crate::{
    adapter::{Adapter, Layer, LowRank},
    merge::{Work, finite, matrix, named, refuse},
    ops::{Columns, Floats, MergeLora},
};
use std::sync::Arc;
use tensormill_model::{Error, Expr, Result, RowMap};
use tensormill_tensor::DType;

/// What a fused parameter's parts are called where every expert has tensors of its own: in order of rows.
const PARTS: &[(&str, &[&str])] = &[
    ("gate_up_proj", &["gate_proj", "up_proj"]),
    ("gate_up_proj", &["w1", "w3"]),
    ("down_proj", &["down_proj"]),
    ("down_proj", &["w2"]),
];

/// Where a layer's weights are.
enum Found {
    /// In one tensor `[experts, out, in]`, or `[experts, in, out]`.
    Stacked { tensor: usize, transposed: bool },
    /// In one or more tensors per expert, `[part of out, in]`.
    Apart(Vec<Vec<usize>>),
}

impl Work {
    /// Changes all experts of a layer; `false` where the model has no such parameter.
    pub(crate) fn experts(
        &mut self,
        adapter: &Adapter,
        layer: &Layer,
        low: &LowRank,
        experts: u64,
    ) -> Result<bool> {
        let (rank, inner) = {
            let a = low.a.form()?.shape;
            (a.rows().checked_div(experts).unwrap_or(0), a.row_len())
        };
        let outer = low.b.form()?.shape.rows();
        let mut found = Vec::new();
        let mut seen = false;
        for parameter in &low.parameters {
            for candidate in self.candidates(&layer.module, parameter, experts) {
                seen = true;
                found.extend(self.fits(candidate, experts, (outer, inner)));
            }
        }
        let choice = match found.len() {
            0 if !seen => return Ok(false),
            1 => found.remove(0),
            n => {
                let parameters = low.parameters.join(", ");
                return Err(Error::mismatch(if n == 0 {
                    format!("factors for {experts} experts of [{outer}, {inner}] fit none of {parameters}")
                } else {
                    format!("factors of [{outer}, {inner}] fit more than one of {parameters}, or both of its sides")
                })
                .tensor(layer.tensor())
                .hint("the adapter belongs to another base model, or must be merged with PEFT (merge_and_unload)"));
            }
        };
        if low.magnitude.is_some() || low.bias.is_some() {
            return refuse(layer, "DoRA and biases on experts' parameters are not merged by this version");
        }
        let factors = |e: u64| -> LowRank {
            let columns = Columns { start: e, step: experts, len: rank };
            let op = Arc::new(Floats { compute: columns, out: DType::F32 });
            LowRank {
                a: low.a.clone().rows(RowMap::Slice { start: e * rank, len: rank }),
                b: Expr::Apply { op, inputs: vec![low.b.clone()] },
                experts: None,
                ..low.clone()
            }
        };
        match choice {
            Found::Stacked { tensor, transposed } => {
                let scale = finite(low.scale * adapter.weight, layer)?;
                let op = self.product(low, transposed, scale, tensor)?;
                let weight = &self.model.tensors[tensor];
                let (base, shape) = (weight.expr.clone(), weight.spec.shape.clone());
                let rows = shape.rows() / experts;
                let inputs = (0..experts).map(|e| {
                    let own = factors(e);
                    vec![base.clone().rows(RowMap::Slice { start: e * rows, len: rows }), own.b, own.a]
                });
                let inputs: Vec<Vec<Expr>> = inputs.collect();
                let last = move |out| {
                    let each = inputs.iter().map(|inputs| Expr::Apply {
                        op: Arc::new(MergeLora { out, ..op }),
                        inputs: inputs.clone(),
                    });
                    Ok(Expr::Concat { inputs: each.collect(), shape: shape.clone() })
                };
                self.change(tensor, Box::new(last)).map_err(|e| named(e, layer))?;
            }
            Found::Apart(all) => {
                for (e, tensors) in (0..).zip(all) {
                    let own = factors(e);
                    let b = matrix(own.b.clone())?;
                    let mut start = 0;
                    for tensor in tensors {
                        let len = self.model.tensors[tensor].spec.shape.rows();
                        let part = LowRank { b: b.clone().rows(RowMap::Slice { start, len }), ..own.clone() };
                        self.low_rank(adapter, layer, &part, tensor)?;
                        start += len;
                    }
                }
            }
        }
        Ok(true)
    }

    /// Tensors that a parameter of a module may be.
    fn candidates(&self, module: &str, parameter: &str, experts: u64) -> Vec<Found> {
        let mut all = Vec::new();
        // Mixtral's layers have another name in its checkpoints than in the library.
        let other = module.replace(".mlp.", ".block_sparse_moe.");
        for module in std::iter::once(module).chain((other != module).then_some(other.as_str())) {
            if let Some(tensor) = self.find(&format!("{module}.{parameter}")) {
                return vec![Found::Stacked { tensor, transposed: false }];
            }
            for (_, parts) in PARTS.iter().filter(|(name, _)| *name == parameter) {
                let of = |e: u64| {
                    let each = parts.iter().map(|part| self.find(&format!("{module}.{e}.{part}.weight")));
                    each.collect::<Option<Vec<usize>>>()
                };
                if let Some(tensors) = (0..experts).map(of).collect::<Option<Vec<_>>>() {
                    all.push(Found::Apart(tensors));
                }
            }
        }
        all
    }

    /// The candidate the way that factors of these sizes fit it; both ways for a square.
    fn fits(&self, candidate: Found, experts: u64, (outer, inner): (u64, u64)) -> Vec<Found> {
        let shape = |i: usize| self.model.tensors[i].spec.shape.dims();
        match candidate {
            Found::Stacked { tensor, .. } => {
                let sides = match *shape(tensor) {
                    [e, d1, d2] if e == experts => (d1, d2),
                    [d1, d2] if experts == 1 => (d1, d2),
                    _ => return Vec::new(),
                };
                let ways = [(false, (outer, inner)), (true, (inner, outer))];
                let fitting = ways.into_iter().filter(|(_, want)| *want == sides);
                fitting.map(|(transposed, _)| Found::Stacked { tensor, transposed }).collect()
            }
            Found::Apart(all) => {
                let fit = all.iter().all(|tensors| {
                    let rows = tensors.iter().map(|t| shape(*t).first().copied().unwrap_or(0)).sum::<u64>();
                    rows == outer && tensors.iter().all(|t| shape(*t).len() == 2 && shape(*t)[1] == inner)
                });
                if fit { vec![Found::Apart(all)] } else { Vec::new() }
            }
        }
    }
}

//! What a tensor of the result is computed by: types, parameters, and the method's op with its inputs.

use super::{Group, Work};
use crate::{
    Method,
    ops::{Angle, Delta, Linear, Prune, Same, Scale, Slerp, Sparsify},
    random,
    recipe::{Parameters, Part},
    round::is_float,
};
use std::{collections::BTreeSet, sync::Arc};
use tensormill_model::{Cast, Error, Expr, Op, Result, Tensor};
use tensormill_tensor::{DType, Encoding};

impl<'a> Work<'a> {
    /// What a tensor of the result is computed by.
    pub(super) fn expr(&mut self, name: &str, group: &Group<'a>) -> Result<Expr> {
        let first = group.members.first().ok_or_else(|| Error::usage("nothing to merge"))?.2;
        if let Some((part, _, other)) =
            group.members.iter().find(|(_, _, t)| t.spec.shape != first.spec.shape)
        {
            return Err(Error::mismatch(format!(
                "it is {} in {}, and {} in {}",
                first.spec.shape,
                self.inputs[group.members[0].0.model].name,
                other.spec.shape,
                self.inputs[part.model].name
            ))
            .hint(
                if name.contains("emb") || name.contains("lm_head") || name == "output.weight" {
                    "the vocabularies are of different sizes: resize the models' embeddings first"
                } else {
                    "models of different sizes cannot be merged"
                },
            ));
        }
        let encodings: Vec<Encoding> = group.members.iter().map(|(_, _, t)| t.spec.encoding).collect();
        let floats: Option<Vec<DType>> = encodings
            .iter()
            .map(|e| match e {
                Encoding::Plain(d) if is_float(*d) => Some(*d),
                _ => None,
            })
            .collect();
        let Some(types) = floats else {
            let (part, own, tensor) = &group.members[0];
            if self.recipe.method == Method::Passthrough && self.own(group, part, "scale", own).is_none() {
                return Ok(tensor.expr.clone());
            }
            if encodings.iter().all(|e| matches!(e, Encoding::Plain(d) if !d.is_float())) {
                return Ok(apply(Same, group.members.iter().map(|(_, _, t)| t.expr.clone()).collect()));
            }
            let text = encodings.iter().map(|e| e.name()).collect::<BTreeSet<_>>();
            let text = text.into_iter().collect::<Vec<_>>().join(" and ");
            return Err(Error::unsupported(format!("{text} elements cannot be merged")).hint(
                "convert the models first: tensormill convert MODEL -o FOLDER --to safetensors --dtype bf16",
            ));
        };
        let dtype = self.recipe.dtype.map_or_else(|| promoted(&types), Ok)?;
        let expr = match self.recipe.method {
            Method::Linear => self.linear(group, dtype, name)?,
            Method::Slerp => self.slerp(group, dtype, name)?,
            Method::Passthrough => self.passthrough(group, types[0], dtype),
            _ => self.delta(group, dtype, name)?,
        };
        match self.recipe.out_dtype {
            Some(out) if out != dtype => Ok(expr.apply(Cast(out))),
            _ => Ok(expr),
        }
    }

    /// The value of a parameter of the whole slice.
    fn shared(&self, group: &Group<'a>, parameter: &str, name: &str) -> Option<f64> {
        resolve(&[&group.slice.parameters, &self.recipe.parameters], parameter, name, group.t)
    }

    /// The value of a parameter of one model.
    fn own(&self, group: &Group<'a>, part: &Part, parameter: &str, name: &str) -> Option<f64> {
        let places = [&part.parameters, &group.slice.parameters, &self.recipe.parameters];
        resolve(&places, parameter, name, group.t)
    }

    fn needed(&self, value: Option<f64>, parameter: &str, part: Option<&Part>) -> Result<f64> {
        value.ok_or_else(|| {
            let of = part.map_or_else(String::new, |p| format!(" for {}", self.inputs[p.model].name));
            Error::usage(format!("there is no {parameter}{of}"))
                .hint(format!("set {parameter} under parameters, of the model or of the recipe"))
        })
    }

    fn linear(&self, group: &Group<'a>, dtype: DType, name: &str) -> Result<Expr> {
        let weight = |(part, own, _): &(&'a Part, String, &'a Tensor)| {
            let value = self.own(group, part, "weight", own);
            self.needed(value, "weight", Some(part)).map(|w| w as f32)
        };
        let op = Linear {
            weights: group.members.iter().map(weight).collect::<Result<_>>()?,
            normalize: self.shared(group, "normalize", name).is_none_or(|v| v != 0.0),
            dtype,
        };
        if op.normalize && op.weights.iter().sum::<f32>() == 0.0 {
            return Err(Error::usage("the weights sum up to zero, and nothing can be divided by that")
                .hint("set normalize to false, or choose other weights"));
        }
        Ok(apply(op, group.members.iter().map(|(_, _, t)| t.expr.clone()).collect()))
    }

    fn slerp(&self, group: &Group<'a>, dtype: DType, name: &str) -> Result<Expr> {
        let t = self.needed(self.shared(group, "t", name), "t", None)? as f32;
        let base = self.recipe.base_of(group.slice);
        let (base, others): (Vec<_>, Vec<_>) =
            group.members.iter().partition(|(p, _, _)| Some(p.model) == base);
        let mut inputs: Vec<Expr> = base.into_iter().chain(others).map(|(_, _, t)| t.expr.clone()).collect();
        inputs.push(apply(Angle { dtype }, inputs.clone()));
        Ok(apply(Slerp { t, dtype }, inputs))
    }

    fn passthrough(&self, group: &Group<'a>, from: DType, dtype: DType) -> Expr {
        let (part, name, tensor) = &group.members[0];
        let expr = tensor.expr.clone();
        match self.own(group, part, "scale", name) {
            Some(by) => expr.apply(Scale { by: by as f32, dtype }),
            None if from == dtype => expr,
            None => expr.apply(Cast(dtype)),
        }
    }

    fn delta(&mut self, group: &Group<'a>, dtype: DType, name: &str) -> Result<Expr> {
        let method = self.recipe.method;
        let base = self.recipe.base_of(group.slice);
        let (base, others): (Vec<_>, Vec<_>) =
            group.members.iter().partition(|(p, _, _)| Some(p.model) == base);
        let mut inputs: Vec<Expr> =
            base.into_iter().chain(others.iter().copied()).map(|(_, _, t)| t.expr.clone()).collect();
        if others.is_empty() {
            let expr = inputs.remove(0);
            let same = expr.form()?.encoding == Encoding::Plain(dtype);
            return Ok(if same { expr } else { expr.apply(Cast(dtype)) });
        }
        let text = inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let lot = self.first_of.entry(text).or_insert_with(|| name.to_owned()).clone();
        let flag = |key: &str, usual: bool| self.shared(group, key, name).map_or(usual, |v| v != 0.0);
        let (mut weights, mut sparsify) = (Vec::new(), Vec::new());
        for (part, own, _) in &others {
            let weight = self.own(group, part, "weight", own);
            weights.push(self.needed(weight, "weight", Some(part))?);
            let density = self.own(group, part, "density", own).unwrap_or(1.0);
            sparsify.push(match method {
                Method::TaskArithmetic => Sparsify::All,
                _ if density >= 1.0 => Sparsify::All,
                _ if density <= 0.0 => Sparsify::Nothing,
                Method::Ties => Sparsify::Largest(density),
                _ => Sparsify::Random(density, random::key(self.seed, &lot, part.model)),
            });
        }
        let rescale = flag("rescale", method.rescales());
        let acting = sparsify.iter().any(|s| s.acts());
        let searching = sparsify.iter().any(|s| matches!(s, Sparsify::Largest(_)));
        let surveyed = acting && (rescale || searching);
        if surveyed {
            let survey = Prune { sparsify: sparsify.clone(), rescale, dtype };
            inputs.push(apply(survey, inputs.clone()));
        }
        let op = Delta {
            weights,
            sparsify,
            elect: method.elects(),
            normalize: flag("normalize", method.normalizes()),
            lambda: self.shared(group, "lambda", name).unwrap_or(1.0),
            surveyed,
            dtype,
        };
        Ok(apply(op, inputs))
    }
}

fn apply(op: impl Op + 'static, inputs: Vec<Expr>) -> Expr {
    Expr::Apply { op: Arc::new(op), inputs }
}

/// The first value that is given, from the closest place to the farthest.
fn resolve(places: &[&Parameters], parameter: &str, name: &str, t: f64) -> Option<f64> {
    places.iter().find_map(|p| p.get(parameter)?.at(name, t))
}

/// The type to which torch promotes several.
fn promoted(types: &[DType]) -> Result<DType> {
    let first = types.first().copied().unwrap_or(DType::F32);
    if types.contains(&DType::F64) {
        return Err(Error::unsupported("f64 elements are not merged as such")
            .hint("choose a type in the recipe, for example `dtype: float32`"));
    }
    Ok(if types.iter().all(|t| *t == first) { first } else { DType::F32 })
}

//! From a recipe and models to one model: which tensors become which, by what, with which parameters.
//!
//! Follows mergekit's `plan.py`: in a slice of several layers, gradients run from its first layer (0) to its last (1); what
//! is outside layers has the gradients' first values. Without a `dtype`, tensors are computed in the type to which torch
//! promotes theirs.

mod exprs;

use crate::{
    Recipe, Slice,
    layers::{before_layers, is_constant, layer_count, layer_of, tied_names},
    recipe::Part,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tensormill_model::{Error, Model, Result, Tensor};

/// A model to merge: as its reader gives it, under the number that its reader has in the plan.
pub struct Input {
    /// Its name for messages.
    pub name: String,
    /// The model.
    pub model: Model,
}

/// What [`merge`] gives.
pub struct Merged {
    /// The merged model: the metadata and side files are those of [`Recipe::donor`].
    pub model: Model,
    /// Where layers were restacked, the model and layer that each of the result comes from first.
    pub layers: Option<Vec<(usize, u64)>>,
    /// Whether an output matrix is there that the donor does not have, being tied.
    pub untied: bool,
    /// What a user should see.
    pub notes: Vec<String>,
}

/// Merges models as a recipe says; `inputs` are its models, in its order.
///
/// # Errors
/// `Usage` for parameters that are missing, `Mismatch` for models that do not fit together, listing names, `Unsupported`
/// for elements that cannot be merged.
pub fn merge(recipe: &Recipe, inputs: &[Input], seed: u64) -> Result<Merged> {
    if inputs.len() != recipe.models.len() {
        return Err(Error::usage("a merge takes the models of its recipe"));
    }
    let tables = inputs.iter().map(|i| i.model.tensors.iter().map(|t| (t.name(), t)).collect()).collect();
    let mut work = Work {
        recipe,
        inputs,
        tables,
        seed,
        first_of: HashMap::new(),
        tensors: Vec::new(),
        dropped: BTreeSet::new(),
        untied: false,
    };
    let layers = if recipe.restacks() {
        Some(work.stack()?)
    } else {
        work.whole()?;
        None
    };
    let mut notes = recipe.notes.clone();
    if !work.dropped.is_empty() {
        let names: Vec<String> = work.dropped.iter().map(|n| (*n).to_owned()).collect();
        notes.push(format!("left aside, since they can be computed: {}", abridged(&names)));
    }
    let donor = &inputs[recipe.donor()].model;
    let model = Model {
        tensors: work.tensors,
        metadata: donor.metadata.clone(),
        assets: Arc::clone(&donor.assets),
        program: None,
    };
    Ok(Merged { model, layers, untied: work.untied, notes })
}

struct Work<'a> {
    recipe: &'a Recipe,
    inputs: &'a [Input],
    tables: Vec<HashMap<&'a str, &'a Tensor>>,
    seed: u64,
    /// The first tensor made from some, whose name random numbers follow: tied tensors stay tied.
    first_of: HashMap<String, String>,
    tensors: Vec<Tensor>,
    dropped: BTreeSet<&'a str>,
    untied: bool,
}

/// More layers than any model has.
const MOST_LAYERS: u64 = 10_000;

/// What one tensor is made of.
struct Group<'a> {
    slice: &'a Slice,
    /// Part, name in its model, tensor.
    members: Vec<(&'a Part, String, &'a Tensor)>,
    /// Between the first layer and the last.
    t: f64,
}

impl<'a> Work<'a> {
    /// Merges models tensor by tensor, each with those of the same name.
    fn whole(&mut self) -> Result<()> {
        let slice = &self.recipe.slices[0];
        let donor = self.recipe.donor();
        let all = &self.inputs[donor].model.tensors;
        let mut names: Vec<&'a str> = all.iter().map(Tensor::name).collect();
        // What others have beyond that: an output matrix that the donor has tied, or too much.
        for part in &slice.parts {
            let table = &self.tables[donor];
            let more = self.inputs[part.model].model.tensors.iter().map(Tensor::name);
            names.extend(more.filter(|n| !table.contains_key(n)));
        }
        let mut seen = BTreeSet::new();
        names.retain(|n| seen.insert(*n));
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for name in &names {
            if let Some((front, n, _)) = layer_of(name) {
                let count = counts.entry(front).or_default();
                *count = (*count).max(n.saturating_add(1));
            }
        }
        let mut missing = Vec::new();
        for name in names {
            if is_constant(name) {
                self.dropped.insert(name);
                continue;
            }
            let t = match layer_of(name) {
                Some((front, n, _)) => place(n, counts.get(front).copied().unwrap_or(1)),
                None => 0.0,
            };
            let members = slice.parts.iter().map(|p| (p, name.to_owned()));
            if let Some(group) = self.gather(slice, members, t, &mut missing) {
                self.untied |= !self.tables[donor].contains_key(name);
                self.add(name, &group)?;
            }
        }
        complain(&missing)
    }

    /// Stacks slices of layers.
    fn stack(&mut self) -> Result<Vec<(usize, u64)>> {
        let donor = self.recipe.donor();
        let all = &self.inputs[donor].model.tensors;
        let fronts: BTreeSet<&str> =
            all.iter().filter_map(|t| layer_of(t.name())).map(|(front, _, _)| front).collect();
        let mut each = fronts.iter();
        let (Some(front), None) = (each.next().copied(), each.next()) else {
            let fronts: Vec<&str> = fronts.into_iter().collect();
            return Err(Error::unsupported(format!(
                "layers of {} are under several names, or none: {}",
                self.inputs[donor].name,
                fronts.join(", ")
            ))
            .hint("slices are for models with one stack of layers; list models instead"));
        };
        self.check_ranges(front)?;
        let (mut layers, mut missing) = (Vec::new(), Vec::new());
        let mut stacked = false;
        for t in all {
            let name = t.name();
            if layer_of(name).is_some() {
                if !stacked {
                    self.stack_layers(front, &mut layers, &mut missing)?;
                    stacked = true;
                }
                continue;
            }
            if is_constant(name) {
                self.dropped.insert(name);
                continue;
            }
            let slices = &self.recipe.slices;
            let slice = if before_layers(name) { slices.first() } else { slices.last() };
            let Some(slice) = slice else { continue };
            let members = slice.parts.iter().map(|p| (p, name.to_owned()));
            if let Some(group) = self.gather(slice, members, 0.0, &mut missing) {
                self.add(name, &group)?;
            }
        }
        complain(&missing)?;
        Ok(layers)
    }

    fn check_ranges(&self, front: &str) -> Result<()> {
        let lengths = self.recipe.slices.iter().filter_map(|s| s.parts.first()?.layers);
        let layers = lengths.map(|(first, end)| end - first).fold(0, u64::saturating_add);
        if layers > MOST_LAYERS {
            return Err(Error::over_limit(format!("{layers} layers; at most {MOST_LAYERS} are stacked")));
        }
        for (number, slice) in self.recipe.slices.iter().enumerate() {
            for part in &slice.parts {
                let input = &self.inputs[part.model];
                let count = layer_count(input.model.tensors.iter().map(Tensor::name), front);
                if let Some((first, end)) = part.layers.filter(|(_, end)| *end > count) {
                    return Err(Error::usage(format!(
                        "slices[{number}]: layer_range [{first}, {end}] of {}, which has {count} layers",
                        input.name
                    )));
                }
            }
        }
        Ok(())
    }

    fn stack_layers(
        &mut self,
        front: &str,
        layers: &mut Vec<(usize, u64)>,
        missing: &mut Vec<String>,
    ) -> Result<()> {
        // What each layer of each model has, in the model's order.
        let mut rests: Vec<HashMap<u64, Vec<&'a str>>> = Vec::new();
        for input in self.inputs {
            let mut of: HashMap<u64, Vec<&'a str>> = HashMap::new();
            let named = input.model.tensors.iter().filter_map(|t| layer_of(t.name()));
            for (_, n, rest) in named.filter(|(f, _, _)| *f == front) {
                of.entry(n).or_default().push(rest);
            }
            rests.push(of);
        }
        for slice in &self.recipe.slices {
            let firsts: Vec<(&'a Part, u64, u64)> =
                slice.parts.iter().filter_map(|p| p.layers.map(|(a, b)| (p, a, b - a))).collect();
            let Some((first, start, count)) = firsts.first().copied() else { continue };
            for i in 0..count {
                let out = layers.len();
                let wanted: Vec<&'a str> = rests[first.model].get(&(start + i)).cloned().unwrap_or_default();
                for rest in wanted {
                    let name = format!("{front}{out}{rest}");
                    if is_constant(&name) {
                        continue;
                    }
                    let members = firsts.iter().map(|(p, a, _)| (*p, format!("{front}{}{rest}", a + i)));
                    if let Some(group) = self.gather(slice, members, place(i, count), missing) {
                        self.add(&name, &group)?;
                    }
                }
                layers.push((first.model, start + i));
            }
        }
        Ok(())
    }

    /// The tensors that one is made of; notes those that are not there.
    fn gather(
        &self,
        slice: &'a Slice,
        members: impl Iterator<Item = (&'a Part, String)>,
        t: f64,
        missing: &mut Vec<String>,
    ) -> Option<Group<'a>> {
        let mut found = Vec::new();
        let mut whole = true;
        for (part, name) in members {
            let table = &self.tables[part.model];
            let tied = || tied_names(&name).iter().find_map(|n| table.get(n));
            if let Some(tensor) = table.get(name.as_str()).or_else(tied).copied() {
                found.push((part, name, tensor));
            } else {
                missing.push(format!("{name} of {}", self.inputs[part.model].name));
                whole = false;
            }
        }
        whole.then_some(Group { slice, members: found, t })
    }

    /// Adds a tensor of the result.
    fn add(&mut self, name: &str, group: &Group<'a>) -> Result<()> {
        let expr = self.expr(name, group).map_err(|e| e.tensor(name))?;
        self.tensors.push(Tensor::new(name, expr)?);
        Ok(())
    }
}

/// Where a layer is between the first one and the last one; a single layer is the last one.
fn place(layer: u64, count: u64) -> f64 {
    if count > 1 { layer as f64 / (count - 1) as f64 } else { 1.0 }
}

fn complain(missing: &[String]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::mismatch(format!("{} tensors are not there: {}", missing.len(), abridged(missing)))
        .hint("models can be merged that have the same tensors"))
}

fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, and {} more", names.len() - SHOWN) } else { shown }
}

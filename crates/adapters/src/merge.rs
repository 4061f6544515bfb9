//! From adapters to expressions: which tensors of the model change, by what, and what is left over.

use crate::{
    Combination,
    adapter::{Adapter, Change, Layer, LowRank, RowsAre, Whole},
    ops::{
        AddScaled, Along, ColumnLengths, Columns, Compute, Floats, MergeLora, Ratio, Rotate, Scale, in_f32,
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tensormill_model::{Cast, Error, Expr, Form, Model, Op, Result, RowMap, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};

/// How sums are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// All products and sums in `f32`, one rounding at the end.
    #[default]
    Single,
    /// As PEFT on a CPU: products of 16-bit factors are rounded to their type, and every adapter's sum to the base's.
    Peft,
}

/// How to merge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How sums are rounded.
    pub precision: Precision,
    /// Go on where an adapter has tensors that belong to no tensor of the model.
    pub allow_unused: bool,
    /// Make one adapter of all first.
    pub combine: Option<Combination>,
}

/// What [`merge`] gives.
pub struct Merged {
    /// The model with its expressions changed.
    pub model: Model,
    /// Numbers of the tensors that changed.
    pub changed: Vec<usize>,
    /// What a user should see.
    pub notes: Vec<String>,
}

/// How embeddings are called that may serve as output, too: most decoders', GPT-2's, BLOOM's and Falcon's, GPT-NeoX'.
const EMBEDDINGS: [&str; 4] =
    ["embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight"];

/// What became of a tensor.
struct Changed {
    /// The type that it had, and gets again.
    dtype: DType,
    /// The last sum, which is rounded to that type at once.
    last: Option<Last>,
}

/// A computation whose result's type is not decided yet.
type Last = Box<dyn Fn(DType) -> Result<Expr>>;

/// Merges adapters into a model, in their order.
///
/// # Errors
/// `Mismatch` for an adapter that belongs to another base, listing names; `Unsupported` for what is not merged.
pub fn merge(model: Model, adapters: &[Adapter], options: Options) -> Result<Merged> {
    let mut work = Work::new(model, options, adapters.len());
    for adapter in adapters {
        work.adapter(adapter).map_err(|e| e.context(format!("adapter {}", adapter.name)))?;
    }
    work.finish()
}

pub(crate) struct Work {
    pub(crate) model: Model,
    options: Options,
    several: bool,
    /// Numbers of tensors by name.
    places: HashMap<String, usize>,
    /// For tensors that are one with others: all of them.
    ties: HashMap<usize, Vec<usize>>,
    /// Changed tensors.
    changed: BTreeMap<usize, Changed>,
    /// Tensors that have been given lengths by an adapter.
    dora: Vec<usize>,
    notes: Vec<String>,
}

impl Work {
    fn new(model: Model, options: Options, adapters: usize) -> Self {
        let places = model.tensors.iter().enumerate().map(|(i, t)| (t.spec.name.clone(), i)).collect();
        let mut texts: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, t) in model.tensors.iter().enumerate() {
            texts.entry(t.expr.to_string()).or_default().push(i);
        }
        let groups = texts.into_values().filter(|group| group.len() > 1);
        let ties =
            groups.flat_map(|group| group.clone().into_iter().map(move |i| (i, group.clone()))).collect();
        Self {
            model,
            options,
            several: adapters > 1,
            places,
            ties,
            changed: BTreeMap::new(),
            dora: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn adapter(&mut self, adapter: &Adapter) -> Result<()> {
        self.notes.extend(adapter.notes.iter().map(|n| format!("adapter {}: {n}", adapter.name)));
        let mut unused = adapter.unknown.clone();
        // What was trained as a whole comes first: products are added to it.
        for whole in &adapter.whole {
            match self.find(&whole.parameter) {
                Some(i) => self.replace(i, whole)?,
                None => unused.push(whole.tensor.clone()),
            }
        }
        for layer in &adapter.layers {
            if !self.layer(adapter, layer)? {
                unused.extend(layer.tensors.iter().cloned());
            }
        }
        if adapter.layers.is_empty() && adapter.whole.is_empty() {
            return Err(Error::mismatch("it has no tensors of such an adapter")
                .hint("names are like base_model.model.MODULE.lora_A.weight"));
        }
        if unused.is_empty() {
            return Ok(());
        }
        unused.sort_unstable();
        let text = format!(
            "{} of its tensors belong to no tensor of the model: {}",
            unused.len(),
            abridged(&unused)
        );
        if self.options.allow_unused {
            self.notes.push(format!("adapter {}: {text}", adapter.name));
            return Ok(());
        }
        Err(Error::mismatch(text)
            .hint("this is not the adapter's base model; or go on without them with --allow-unused"))
    }

    /// The tensor of the model that an adapter means: by its name, or by the only one that ends like it, where one of
    /// the two has a prefix more (`model.`, `bert.`).
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        if let Some(i) = self.places.get(name) {
            return Some(*i);
        }
        let shorter = name.split_once('.').and_then(|(_, rest)| self.places.get(rest)).copied();
        let tail = format!(".{name}");
        let mut longer = self.places.iter().filter(|(n, _)| n.ends_with(&tail)).map(|(_, i)| *i);
        match (shorter, longer.next(), longer.next()) {
            (Some(i), None, _) | (None, Some(i), None) => Some(i),
            _ if name == "lm_head.weight" => self.tied_embedding(),
            _ => None,
        }
    }

    /// The embedding that serves as output where there is no `lm_head`.
    fn tied_embedding(&self) -> Option<usize> {
        let mut found =
            self.places.iter().filter(|(n, _)| EMBEDDINGS.iter().any(|e| n.ends_with(e))).map(|(_, i)| *i);
        found.next().filter(|_| found.next().is_none())
    }

    /// The tensor and those that are tied to it.
    fn tied(&mut self, i: usize, module: &str) -> Vec<usize> {
        let all = self.ties.get(&i).cloned().unwrap_or_else(|| vec![i]);
        let name = self.model.tensors[i].name();
        if all.len() > 1 {
            let names: Vec<&str> = all.iter().map(|i| self.model.tensors[*i].name()).collect();
            self.notes
                .push(format!("{} are one tensor: the adapter changes all of them", names.join(" and ")));
        } else if module == "lm_head" && !name.ends_with("lm_head.weight") {
            self.notes.push(format!("the output is tied to {name}: the adapter of lm_head changes both"));
        }
        all
    }

    /// Changes a module's weight, and its bias where it belongs to that; `false` where the model has no such module.
    fn layer(&mut self, adapter: &Adapter, layer: &Layer) -> Result<bool> {
        if let Change::LowRank(low) = &layer.change
            && let Some(experts) = low.experts
        {
            return self.experts(adapter, layer, low, experts);
        }
        let Some(i) = self.find(&format!("{}.{}", layer.module, layer.parameter)) else { return Ok(false) };
        self.exclusive(i, layer)?;
        match &layer.change {
            Change::LowRank(low) => self.low_rank(adapter, layer, low, i)?,
            Change::Sum { delta, scale } => {
                let scale = finite(scale * adapter.weight, layer)?;
                for i in self.tied(i, &layer.module) {
                    let shape = self.model.tensors[i].spec.shape.clone();
                    let same = delta.form()?.shape == shape;
                    let delta = if same { delta.clone() } else { delta.clone().reshape(shape) };
                    self.apply(i, |base| Ok(vec![base, delta.clone()]), AddScaled { scale })
                        .map_err(|e| named(e, layer))?;
                }
            }
            Change::Scale { by, outputs, transposed } => {
                whole_weight(adapter, layer)?;
                for i in self.tied(i, &layer.module) {
                    let matrix = self.model.tensors[i].spec.shape.rank() == 2;
                    let along =
                        if *outputs == (matrix && *transposed) { Along::Columns } else { Along::Rows };
                    self.rows(i, |base| vec![base, by.clone()], Scale { along })
                        .map_err(|e| named(e, layer))?;
                }
                if let Some(bias) = self.find(&format!("{}.bias", layer.module)).filter(|_| *outputs) {
                    self.apply(bias, |base| Ok(vec![base, by.clone()]), Scale { along: Along::Columns })
                        .map_err(|e| named(e, layer))?;
                }
            }
            Change::Rotate { steps, lengths } => {
                whole_weight(adapter, layer)?;
                for i in self.tied(i, &layer.module) {
                    self.rotate(i, steps, lengths.as_ref()).map_err(|e| named(e, layer))?;
                }
            }
        }
        Ok(true)
    }

    /// Nothing else may change a tensor to which an adapter has given lengths, nor the other way round.
    fn exclusive(&mut self, i: usize, layer: &Layer) -> Result<()> {
        let dora = matches!(&layer.change, Change::LowRank(low) if low.magnitude.is_some());
        if self.dora.contains(&i) || (dora && self.several && self.changed.contains_key(&i)) {
            return refuse(layer, "DoRA beside another adapter on one tensor is not merged by this version");
        }
        if dora {
            self.dora.push(i);
        }
        Ok(())
    }

    pub(crate) fn low_rank(
        &mut self,
        adapter: &Adapter,
        layer: &Layer,
        low: &LowRank,
        i: usize,
    ) -> Result<()> {
        let target = &self.model.tensors[i];
        let shape = target.spec.shape.clone();
        let transposed = match low.rows {
            RowsAre::Outputs => false,
            RowsAre::Inputs => shape.rank() == 2,
            RowsAre::Tokens => true,
        };
        if shape.rank() < 2 {
            return Err(
                Error::mismatch(format!("a weight {shape} cannot have an adapter")).tensor(target.name())
            );
        }
        let scale = finite(low.scale * adapter.weight, layer)?;
        let b = matrix(low.b.clone())?;
        let mut a = matrix(low.a.clone())?;
        if low.corner {
            let len = if transposed { shape.rows() } else { shape.row_len() };
            let columns = Columns { start: 0, step: 1, len };
            a = Expr::Apply { op: Arc::new(Floats { compute: columns, out: DType::F32 }), inputs: vec![a] };
        }
        for i in self.tied(i, &layer.module) {
            let op = self.product(low, transposed, scale, i)?;
            let inputs = vec![matrix(self.model.tensors[i].expr.clone())?, b.clone(), a.clone()];
            let (shape, magnitude) = (shape.clone(), low.magnitude.clone());
            let last = move |out| match &magnitude {
                None => shaped(op_of(MergeLora { out, ..op }), inputs.clone(), &shape),
                Some(m) if !op.transposed => {
                    let inputs = [inputs.as_slice(), std::slice::from_ref(m)].concat();
                    shaped(op_of(MergeLora { out, dora: true, ..op }), inputs, &shape)
                }
                // Lengths belong to outputs, which are columns here.
                Some(m) => {
                    let sum = Expr::Apply {
                        op: op_of(MergeLora { out: DType::F32, ..op }),
                        inputs: inputs.clone(),
                    };
                    let lengths = Expr::Apply { op: op_of(ColumnLengths), inputs: vec![sum.clone()] };
                    let by = in_f32(Ratio, vec![m.clone(), lengths])?;
                    let op = op_of(Floats { compute: Scale { along: Along::Columns }, out });
                    shaped(op, vec![sum, by], &shape)
                }
            };
            self.change(i, Box::new(last)).map_err(|e| named(e, layer))?;
        }
        if let Some(bias) = &low.bias {
            let Some(i) = self.find(&format!("{}.bias", layer.module)) else {
                return Err(Error::mismatch("the adapter adds to a bias that the model does not have")
                    .tensor(layer.tensor()));
            };
            self.apply(i, |base| Ok(vec![base, bias.clone()]), AddScaled { scale })
                .map_err(|e| named(e, layer))?;
        }
        Ok(())
    }

    /// The sum that a product makes of tensor `i`.
    pub(crate) fn product(
        &mut self,
        low: &LowRank,
        transposed: bool,
        scale: f32,
        i: usize,
    ) -> Result<MergeLora> {
        let from = self.remember(i)?;
        let peft = self.options.precision == Precision::Peft;
        Ok(MergeLora {
            scale,
            divide: low.divide,
            transposed,
            dora: false,
            round_product: [
                (peft && low.product != DType::F32).then_some(low.product),
                (peft && low.cast && from != DType::F32).then_some(from),
            ],
            out: DType::F32,
        })
    }

    /// Changes a tensor as it stands, biases and weights of any dimensions.
    fn apply<C>(&mut self, i: usize, inputs: impl Fn(Expr) -> Result<Vec<Expr>>, compute: C) -> Result<()>
    where
        C: Compute + 'static,
    {
        let tensor = &self.model.tensors[i];
        let (inputs, shape) = (inputs(tensor.expr.clone())?, tensor.spec.shape.clone());
        self.change(
            i,
            Box::new(move |out| {
                shaped(op_of(Floats { compute: compute.clone(), out }), inputs.clone(), &shape)
            }),
        )
    }

    /// Changes a tensor as a matrix: kernels of convolutions are longer rows.
    fn rows<C>(&mut self, i: usize, inputs: impl Fn(Expr) -> Vec<Expr>, compute: C) -> Result<()>
    where
        C: Compute + 'static,
    {
        self.apply(i, |base| Ok(inputs(matrix(base)?)), compute)
    }

    /// Rotates a weight's rows, step by step without rounding, and gives them their lengths.
    fn rotate(&mut self, i: usize, steps: &[(Expr, Rotate)], lengths: Option<&Expr>) -> Result<()> {
        let tensor = &self.model.tensors[i];
        let (base, shape) = (matrix(tensor.expr.clone())?, tensor.spec.shape.clone());
        let (steps, lengths) = (steps.to_vec(), lengths.cloned());
        self.change(
            i,
            Box::new(move |out| {
                let mut expr = base.clone();
                for (n, (rotations, compute)) in steps.iter().enumerate() {
                    let last = n + 1 == steps.len() && lengths.is_none();
                    let out = if last { out } else { DType::F32 };
                    let op = op_of(Floats { compute: *compute, out });
                    expr = Expr::Apply { op, inputs: vec![expr, rotations.clone()] };
                }
                if let Some(lengths) = &lengths {
                    let op = op_of(Floats { compute: Scale { along: Along::Rows }, out });
                    expr = Expr::Apply { op, inputs: vec![expr, lengths.clone()] };
                }
                under(expr, &shape)
            }),
        )
    }

    /// Notes a tensor's type before its first change.
    pub(crate) fn remember(&mut self, i: usize) -> Result<DType> {
        let tensor = &self.model.tensors[i];
        let now = plain(&tensor.expr.form()?, tensor.name())?;
        Ok(self.changed.entry(i).or_insert(Changed { dtype: now, last: None }).dtype)
    }

    /// Makes a tensor a computation's result, for the time being as `f32`, or as PEFT has it in between.
    pub(crate) fn change(&mut self, i: usize, last: Last) -> Result<()> {
        let dtype = self.remember(i)?;
        let out = if self.options.precision == Precision::Peft { dtype } else { DType::F32 };
        self.model.tensors[i].set_expr(last(out)?)?;
        if let Some(change) = self.changed.get_mut(&i) {
            change.last = Some(last);
        }
        Ok(())
    }

    /// A parameter that was trained as a whole, or some of its rows.
    fn replace(&mut self, i: usize, by: &Whole) -> Result<()> {
        let old = &self.model.tensors[i];
        let (form, shape) = (by.value.form()?, old.spec.shape.clone());
        let fits = match &by.rows {
            None => form.shape == shape,
            Some(rows) => {
                (form.shape.rows(), form.shape.row_len()) == (rows.len() as u64, shape.row_len())
                    && rows.iter().all(|r| *r < shape.rows())
            }
        };
        if !fits {
            return Err(Error::mismatch(format!(
                "the adapter holds {} for {}, which is {}",
                form.shape,
                old.name(),
                old.spec.shape
            ))
            .tensor(&by.tensor)
            .hint("the vocabulary grew, or this is not the adapter's base model: resize the base first"));
        }
        plain(&form, &by.tensor)?;
        let module = old.name().trim_end_matches(".weight").to_owned();
        for i in self.tied(i, &module) {
            let dtype = self.remember(i)?;
            let expr = match &by.rows {
                None => by.value.clone(),
                Some(rows) => spliced(&self.model.tensors[i], dtype, rows, &by.value)?,
            };
            self.model.tensors[i].set_expr(expr)?;
            if let Some(change) = self.changed.get_mut(&i) {
                change.last = None;
            }
        }
        Ok(())
    }

    /// Rounds what changed to the type that it had.
    fn finish(mut self) -> Result<Merged> {
        for (&i, Changed { dtype, last }) in &self.changed {
            let tensor = &mut self.model.tensors[i];
            match last {
                Some(last) => tensor.set_expr(last(*dtype)?)?,
                None if tensor.spec.encoding == Encoding::Plain(*dtype) => {}
                None => tensor.set_expr(tensor.expr.clone().apply(Cast(*dtype)))?,
            }
        }
        Ok(Merged { model: self.model, changed: self.changed.into_keys().collect(), notes: self.notes })
    }
}

/// A tensor with some of its rows replaced.
fn spliced(old: &Tensor, dtype: DType, rows: &[u64], by: &Expr) -> Result<Expr> {
    let shape = old.spec.shape.clone();
    let cast = |e: Expr| -> Result<Expr> {
        Ok(if e.form()?.encoding == Encoding::Plain(dtype) { e } else { e.apply(Cast(dtype)) })
    };
    let (base, by) = (cast(old.expr.clone())?, cast(by.clone())?);
    let slice = |e: &Expr, start: u64, len: u64| e.clone().rows(RowMap::Slice { start, len });
    let mut order: Vec<(u64, u64)> = rows.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let (mut inputs, mut at) = (Vec::new(), 0);
    for (row, from) in order {
        if row < at {
            return Err(Error::malformed(format!("token {row} is there twice")).tensor(old.name()));
        }
        if row > at {
            inputs.push(slice(&base, at, row - at));
        }
        inputs.push(slice(&by, from, 1));
        at = row + 1;
    }
    if at < shape.rows() {
        inputs.push(slice(&base, at, shape.rows() - at));
    }
    Ok(Expr::Concat { inputs, shape })
}

fn op_of(op: impl Op + 'static) -> Arc<dyn Op> {
    Arc::new(op)
}

/// A computation's result under the dimensions of the tensor that it changes.
fn shaped(op: Arc<dyn Op>, inputs: Vec<Expr>, shape: &Shape) -> Result<Expr> {
    under(Expr::Apply { op, inputs }, shape)
}

fn under(expr: Expr, shape: &Shape) -> Result<Expr> {
    Ok(if expr.form()?.shape == *shape { expr } else { expr.reshape(shape.clone()) })
}

/// Kernels of convolutions are matrices with longer rows.
pub(crate) fn matrix(e: Expr) -> Result<Expr> {
    let shape = e.form()?.shape;
    if shape.rank() == 2 {
        return Ok(e);
    }
    let first = shape.dims().first().copied().unwrap_or(1);
    Ok(e.reshape(Shape::new(vec![first, shape.elements().checked_div(first).unwrap_or(0)])?))
}

pub(crate) fn refuse<T>(layer: &Layer, what: &str) -> Result<T> {
    Err(Error::unsupported(what.to_owned())
        .tensor(layer.tensor())
        .hint("merge it with PEFT (merge_and_unload) and convert the result"))
}

/// What multiplies or turns a weight has no share that could be added.
fn whole_weight(adapter: &Adapter, layer: &Layer) -> Result<()> {
    if adapter.weight == 1.0 {
        return Ok(());
    }
    Err(Error::usage(format!(
        "a scale of {} for an adapter that multiplies weights; it can be merged as a whole only",
        adapter.weight
    ))
    .tensor(layer.tensor()))
}

pub(crate) fn finite(scale: f64, layer: &Layer) -> Result<f32> {
    let scale = scale as f32;
    if scale.is_finite() {
        return Ok(scale);
    }
    Err(Error::malformed("its scale (alpha / rank) is beyond what can be computed with")
        .tensor(layer.tensor()))
}

/// An error that names the adapter's tensor.
pub(crate) fn named(e: Error, layer: &Layer) -> Error {
    if e.tensor_name().is_some() { e } else { e.tensor(layer.tensor()) }
}

fn plain(form: &Form, tensor: &str) -> Result<DType> {
    match form.encoding {
        Encoding::Plain(d) if matches!(d, DType::F32 | DType::F16 | DType::BF16) => Ok(d),
        other => Err(Error::unsupported(format!("adapters cannot be merged with {other} elements"))
            .tensor(tensor)
            .hint("merge into the model that was not quantized")),
    }
}

fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, and {} more", names.len() - SHOWN) } else { shown }
}

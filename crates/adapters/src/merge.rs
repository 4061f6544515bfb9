//! From adapters to expressions: which tensors of the model change, by what, and what is left over.

use crate::{
    Config,
    config::FILE,
    keys::{self, Part},
    ops::{AddScaled, MergeLora},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tensormill_model::{Assets, Cast, Error, Expr, Form, Index, Model, Result, Tensor};
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
}

/// An opened adapter: headers read, factors on demand.
pub struct Adapter {
    /// Name for messages.
    pub name: String,
    /// What the user multiplies it by.
    pub weight: f64,
    /// Number of its reader in the plan's list of sources.
    pub source: usize,
    config: Config,
    tensors: Vec<Tensor>,
}

impl Adapter {
    /// Reads the configuration of an adapter whose tensors `index` lists.
    ///
    /// # Errors
    /// When it has no configuration, or as [`Config::parse`].
    pub fn new(name: String, weight: f64, source: usize, index: &Index, assets: &dyn Assets) -> Result<Self> {
        let json = assets.read(FILE)?.ok_or_else(|| {
            Error::malformed(format!("there is no {FILE}"))
                .file(&name)
                .hint("point at the folder that PEFT's save_pretrained wrote")
        })?;
        let config = Config::parse(&json).map_err(|e| e.context(format!("adapter {name}")))?;
        let none = std::sync::Arc::new(tensormill_model::MemoryAssets::default());
        let tensors = Model::from_index(index, source, none).tensors;
        Ok(Self { name, weight, source, config, tensors })
    }
}

/// What [`merge`] gives.
pub struct Merged {
    /// The model with its expressions changed.
    pub model: Model,
    /// Number of tensors that changed.
    pub changed: usize,
    /// What a user should see.
    pub notes: Vec<String>,
}

/// What became of a tensor.
struct Change {
    /// The type that it had, and gets again.
    dtype: DType,
    /// The last sum, which is rounded to that type at once.
    last: Option<Last>,
}

/// A sum whose result's type is not decided yet.
enum Last {
    Product { op: MergeLora, inputs: Vec<Expr>, shape: Shape },
    Bias { op: AddScaled, inputs: Vec<Expr> },
}

impl Last {
    /// The sum, in a type.
    fn expr(&self, out: DType) -> Expr {
        match self {
            Self::Product { op, inputs, shape } => {
                let sum = Expr::Apply { op: Arc::new(MergeLora { out, ..*op }), inputs: inputs.clone() };
                if shape.dims().len() == 2 { sum } else { sum.reshape(shape.clone()) }
            }
            Self::Bias { op, inputs } => {
                Expr::Apply { op: Arc::new(AddScaled { out, ..*op }), inputs: inputs.clone() }
            }
        }
    }
}

/// What an adapter has for one module.
#[derive(Default)]
struct Layer<'a> {
    a: Option<&'a Tensor>,
    b: Option<&'a Tensor>,
    bias: Option<&'a Tensor>,
    magnitude: Option<&'a Tensor>,
    embedding: bool,
}

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

struct Work {
    model: Model,
    options: Options,
    several: bool,
    /// Numbers of tensors by name.
    places: HashMap<String, usize>,
    /// Text of every expression, to find ties.
    ties: HashMap<String, Vec<usize>>,
    /// Changed tensors.
    changed: BTreeMap<usize, Change>,
    /// Tensors that have been given lengths by an adapter.
    dora: Vec<usize>,
    notes: Vec<String>,
}

impl Work {
    fn new(model: Model, options: Options, adapters: usize) -> Self {
        let places = model.tensors.iter().enumerate().map(|(i, t)| (t.spec.name.clone(), i)).collect();
        let mut ties: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, t) in model.tensors.iter().enumerate() {
            ties.entry(t.expr.to_string()).or_default().push(i);
        }
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
        self.notes.extend(adapter.config.notes.iter().map(|n| format!("adapter {}: {n}", adapter.name)));
        let mut layers: BTreeMap<String, Layer<'_>> = BTreeMap::new();
        let (mut whole, mut unused) = (Vec::new(), Vec::new());
        for t in &adapter.tensors {
            let Some((module, part)) = keys::parse(t.name()) else {
                unused.push(t.name().to_owned());
                continue;
            };
            if part == Part::Whole {
                whole.push((module, t));
                continue;
            }
            let layer = layers.entry(module).or_default();
            layer.embedding |= matches!(part, Part::EmbeddingA | Part::EmbeddingB);
            let slot = match part {
                Part::A | Part::EmbeddingA => &mut layer.a,
                Part::B | Part::EmbeddingB => &mut layer.b,
                Part::BiasOfB => &mut layer.bias,
                Part::Magnitude | Part::Whole => &mut layer.magnitude,
            };
            if slot.replace(t).is_some() {
                return Err(Error::malformed("two tensors of the adapter are the same part of a module")
                    .tensor(t.name()));
            }
        }
        // What was trained as a whole comes first: products are added to it.
        for (name, t) in whole {
            match self.find(&name) {
                Some(i) => self.replace(i, t)?,
                None => unused.push(t.name().to_owned()),
            }
        }
        for (module, layer) in &layers {
            match self.find(&format!("{module}.weight")) {
                Some(i) => self.layer(adapter, module, layer, i)?,
                None => unused.extend(
                    [layer.a, layer.b, layer.bias, layer.magnitude]
                        .into_iter()
                        .flatten()
                        .map(|t| t.name().to_owned()),
                ),
            }
        }
        if layers.is_empty() && self.changed.is_empty() {
            return Err(Error::mismatch("it has no tensors of a LoRA adapter")
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
    fn find(&self, name: &str) -> Option<usize> {
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
            self.places.iter().filter(|(n, _)| n.ends_with("embed_tokens.weight")).map(|(_, i)| *i);
        found.next().filter(|_| found.next().is_none())
    }

    /// The tensor and those that are tied to it.
    fn tied(&mut self, i: usize, module: &str) -> Vec<usize> {
        let all = self.ties.values().find(|group| group.contains(&i)).cloned().unwrap_or_else(|| vec![i]);
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

    fn layer(&mut self, adapter: &Adapter, module: &str, layer: &Layer<'_>, i: usize) -> Result<()> {
        let (Some(a), Some(b)) = (layer.a, layer.b) else {
            let there = layer.a.or(layer.b).or(layer.magnitude).or(layer.bias);
            return Err(Error::malformed("the other factor of this module is missing")
                .tensor(there.map_or(module, |t| t.name())));
        };
        let config = &adapter.config;
        let rank = config.rank(module);
        let dims = a.spec.shape.dims();
        if dims.first() != Some(&rank) {
            return Err(Error::mismatch(format!(
                "lora_A is {}, but the configuration says rank {rank}",
                a.spec.shape
            ))
            .tensor(a.name()));
        }
        let target = &self.model.tensors[i];
        let shape = target.spec.shape.clone();
        let dora = config.dora;
        let refuse = |what: &str| {
            Err(Error::unsupported(what.to_owned())
                .tensor(a.name())
                .hint("merge it with PEFT (merge_and_unload) and convert the result"))
        };
        if dora != layer.magnitude.is_some() {
            return Err(
                Error::malformed("use_dora and lora_magnitude_vector must come together").tensor(a.name())
            );
        }
        let transposed = layer.embedding || (config.fan_in_fan_out && shape.dims().len() == 2);
        if dora && transposed {
            return refuse("DoRA on embeddings and transposed weights is not merged by this version");
        }
        if self.dora.contains(&i) || (dora && self.several && self.changed.contains_key(&i)) {
            return refuse("DoRA beside another adapter on one tensor is not merged by this version");
        }
        // Kernels of convolutions are matrices with longer rows.
        let (rows, flat) = match shape.dims() {
            [] | [_] => {
                return Err(
                    Error::mismatch(format!("a weight {shape} cannot have an adapter")).tensor(target.name())
                );
            }
            [rows, rest @ ..] => (*rows, rest.iter().product::<u64>()),
        };
        let matrix = |t: &Tensor| -> Result<Expr> {
            let dims = t.spec.shape.dims();
            let first = dims.first().copied().unwrap_or(1);
            let rest = dims.iter().skip(1).product::<u64>();
            let flat = dims.len() != 2;
            Ok(if flat { t.expr.clone().reshape(Shape::new(vec![first, rest])?) } else { t.expr.clone() })
        };
        let scale = (config.scale(module) * adapter.weight) as f32;
        if !scale.is_finite() {
            return Err(Error::malformed("its scale (alpha / rank) is beyond what can be computed with")
                .tensor(a.name()));
        }
        let of_b = plain(b)?;
        for i in self.tied(i, module) {
            let from = self.remember(i)?;
            let peft = self.options.precision == Precision::Peft;
            let tensor = &mut self.model.tensors[i];
            let op = MergeLora {
                scale,
                transposed,
                dora,
                round_product: [
                    (peft && of_b != DType::F32).then_some(of_b),
                    (peft && layer.embedding && from != DType::F32).then_some(from),
                ],
                out: if peft { from } else { DType::F32 },
            };
            let mut weight = tensor.expr.clone();
            if shape.dims().len() != 2 {
                weight = weight.reshape(Shape::new(vec![rows, flat])?);
            }
            let mut inputs = vec![weight, matrix(b)?, matrix(a)?];
            inputs.extend(layer.magnitude.map(|m| m.expr.clone()));
            self.sum(i, op.out, Last::Product { op, inputs, shape: shape.clone() })?;
            if dora {
                self.dora.push(i);
            }
        }
        if let Some(bias) = layer.bias {
            let Some(i) = self.find(&format!("{module}.bias")) else {
                return Err(Error::mismatch("the adapter adds to a bias that the model does not have")
                    .tensor(bias.name()));
            };
            let from = self.remember(i)?;
            let out = if self.options.precision == Precision::Peft { from } else { DType::F32 };
            let inputs = vec![self.model.tensors[i].expr.clone(), bias.expr.clone()];
            self.sum(i, out, Last::Bias { op: AddScaled { scale, out }, inputs })?;
        }
        Ok(())
    }

    /// Notes a tensor's type before its first change.
    fn remember(&mut self, i: usize) -> Result<DType> {
        let now = plain(&self.model.tensors[i])?;
        Ok(self.changed.entry(i).or_insert(Change { dtype: now, last: None }).dtype)
    }

    /// Makes a tensor a sum, for the time being in type `out`.
    fn sum(&mut self, i: usize, out: DType, last: Last) -> Result<()> {
        self.model.tensors[i].set_expr(last.expr(out))?;
        if let Some(change) = self.changed.get_mut(&i) {
            change.last = Some(last);
        }
        Ok(())
    }

    /// A parameter that was trained as a whole.
    fn replace(&mut self, i: usize, by: &Tensor) -> Result<()> {
        let old = &self.model.tensors[i];
        if old.spec.shape != by.spec.shape {
            return Err(Error::mismatch(format!(
                "the adapter holds {} for {}, which is {}",
                by.spec.shape,
                old.name(),
                old.spec.shape
            ))
            .tensor(by.name())
            .hint("the vocabulary grew, or this is not the adapter's base model: resize the base first"));
        }
        plain(by)?;
        let module = old.name().trim_end_matches(".weight").to_owned();
        for i in self.tied(i, &module) {
            self.remember(i)?;
            self.model.tensors[i].set_expr(by.expr.clone())?;
            if let Some(change) = self.changed.get_mut(&i) {
                change.last = None;
            }
        }
        Ok(())
    }

    /// Rounds what changed to the type that it had.
    fn finish(mut self) -> Result<Merged> {
        for (&i, Change { dtype, last }) in &self.changed {
            let tensor = &mut self.model.tensors[i];
            match last {
                Some(last) => tensor.set_expr(last.expr(*dtype))?,
                None if tensor.spec.encoding == Encoding::Plain(*dtype) => {}
                None => tensor.set_expr(tensor.expr.clone().apply(Cast(*dtype)))?,
            }
        }
        Ok(Merged { model: self.model, changed: self.changed.len(), notes: self.notes })
    }
}

fn plain(t: &Tensor) -> Result<DType> {
    let Form { encoding, .. } = t.expr.form()?;
    match encoding {
        Encoding::Plain(d) if matches!(d, DType::F32 | DType::F16 | DType::BF16) => Ok(d),
        other => Err(Error::unsupported(format!("adapters cannot be merged with {other} elements"))
            .tensor(t.name())
            .hint("merge into the model that was not quantized")),
    }
}

fn abridged(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, and {} more", names.len() - SHOWN) } else { shown }
}

//! A model's weights become the tensors of schemes.

use crate::{
    layout::{File, OfMatrix, floats},
    ops::{Encode, Feedback, Give, MaxAbs, MaxOf, Narrow, Part, TensorScale, What, scale_type},
    repack::{CodedExpr, check_plain, kept_note, same_codes},
    scaling::{Scaled, Scaling},
    scheme::Scheme,
};
use regex::Regex;
use serde_json::{Map, Value as Json};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};
use tensormill_kernels::groups::{Fit, Grid, ScaleType};
use tensormill_model::{Cast, Error, Expr, Model, Result, Tensor};
use tensormill_tensor::{DType, Encoding, Shape};
use tensormill_transforms::TensorImportance;

/// A weight as codes, for a layout to make tensors of.
#[derive(Clone, Debug)]
pub struct Coded<'a> {
    /// Name of the module: the weight's without `.weight`.
    pub module: &'a str,
    /// The scheme.
    pub scheme: &'a Scheme,
    /// Rows of the matrix (output features), columns (input features).
    pub rows: u64,
    /// Columns.
    pub columns: u64,
    /// The weight's shape; bundles are those of [`crate::layout::Layout::view`] of it.
    pub shape: &'a Shape,
    /// What the source has it in.
    pub encoding: Encoding,
    /// What bundles hold: the scheme's grid.
    pub grid: Grid,
    /// The type of scales.
    pub scale: ScaleType,
    /// The bundles, `[rows, bundle bytes]`.
    pub bundle: Expr,
    /// The number that is the same for the whole matrix, where the scheme has one.
    pub outer: Option<Outer>,
}

impl Coded<'_> {
    /// A part of its bundles, where these are those of its own rows.
    pub fn part(&self, what: What) -> Expr {
        self.bundle.clone().apply(Part { grid: self.grid, columns: self.columns, what })
    }

    /// A tensor of the module.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn tensor(&self, name: &str, expr: Expr) -> Result<Tensor> {
        Tensor::new(format!("{}.{name}", self.module), expr)
    }
}

/// A number about a whole matrix, one element.
#[derive(Clone, Debug)]
pub struct Outer {
    /// The number.
    pub expr: Expr,
    /// Whether scales are divided by it; otherwise they are multiplied by it.
    pub divides: bool,
}

/// Names that a rule speaks of.
#[derive(Clone, Debug)]
pub enum Names {
    /// Those in which this is found.
    Like(Regex),
    /// These.
    Exactly(HashSet<String>),
}

impl Names {
    /// Whether a name is one of them.
    pub fn hold(&self, name: &str) -> bool {
        match self {
            Self::Like(pattern) => pattern.is_match(name),
            Self::Exactly(names) => names.contains(name),
        }
    }
}

/// A rule of the user: tensors that it speaks of are quantized otherwise, or not at all.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which.
    pub names: Names,
    /// `None`: they stay plain.
    pub scheme: Option<&'static Scheme>,
}

/// What a model's tensor is to schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The weight of a linear layer within the blocks: what schemes quantize.
    Linear,
    /// That of another linear layer: the output, a router, a head. Schemes leave it alone, and say so in `config.json`.
    OtherLinear,
    /// A table of embeddings.
    Table,
    /// Anything else.
    Other,
}

/// Quantizes a model that stands under the names of its modules.
pub struct Quantize<'a> {
    /// The scheme of weights that no rule speaks of.
    pub scheme: &'static Scheme,
    /// Rules; the first that matches wins.
    pub rules: Vec<Rule>,
    /// How numbers are found.
    pub fit: Fit,
    /// What a tensor is, by its name and shape.
    pub place: &'a dyn Fn(&Tensor) -> Place,
    /// The modules that run as one with a module, itself among them: they share numbers about whole matrices.
    pub fused: &'a dyn Fn(&str) -> Vec<String>,
    /// Modules of linear layers that have no weight of their own: an output that shares the embeddings.
    pub shared: Vec<String>,
    /// Importance of a weight's columns, by the weight's name and role.
    pub importance: &'a dyn Fn(&Tensor) -> Result<Option<TensorImportance>>,
    /// What makes up for errors of a weight's codes.
    pub feedback: &'a dyn Fn(&Tensor) -> Result<Option<Feedback>>,
    /// Columns that are to be scaled before.
    pub scaling: Option<Scaling<'a>>,
    /// Let weights that are quantized already be decoded and quantized again, losing twice.
    pub allow_requantize: bool,
}

/// What was made of a linear layer's weight.
#[derive(Clone, Debug)]
pub struct Used {
    /// Name of the module.
    pub module: String,
    /// How it is quantized; `None`: it stays plain.
    pub scheme: Option<&'static Scheme>,
    /// Whether its codes are the source's.
    pub repacked: bool,
}

/// A quantized model.
pub struct Made {
    /// The tensors; metadata and assets are those of the model.
    pub model: Model,
    /// What was made of every linear layer's weight.
    pub used: Vec<Used>,
    /// Entries of `config.json`, to be set in it.
    pub config: Map<String, Json>,
    /// Files beside it.
    pub files: Vec<File>,
    /// What should be said.
    pub notes: Vec<String>,
}

impl Quantize<'_> {
    /// The scheme of a tensor.
    fn choose(&self, t: &Tensor) -> Option<&'static Scheme> {
        if let Some(rule) = self.rules.iter().find(|r| r.names.hold(t.name())) {
            return rule.scheme;
        }
        self.scheme.layout.quantizes((self.place)(t)).then_some(self.scheme)
    }

    /// Rewrites the model.
    ///
    /// # Errors
    /// Names the tensor that cannot be quantized as it should.
    pub fn rewrite(&self, mut model: Model) -> Result<Made> {
        let mut used = Vec::new();
        let mut notes = Vec::new();
        notes.extend(self.idle_rules(&model));
        let mut unfit: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut tensors = Vec::with_capacity(model.tensors.len() * 2);
        let scaled = self.scale(&mut model, &mut notes)?;
        let weights: HashMap<String, Tensor> = model
            .tensors
            .iter()
            .filter_map(|t| Some((t.name().strip_suffix(".weight")?.to_owned(), t.clone())))
            .collect();
        for mut t in std::mem::take(&mut model.tensors) {
            let Some(module) = t.name().strip_suffix(".weight").map(str::to_owned) else {
                round(&mut t, &scaled)?;
                tensors.push(t);
                continue;
            };
            let named = self.rules.iter().any(|r| r.names.hold(t.name()));
            let mut chosen = self.choose(&t).filter(|_| t.spec.shape.rank() == 2);
            if let Some(scheme) = chosen
                && let Err(why) = scheme.layout.takes(scheme, &t.spec.shape)
            {
                if named {
                    return Err(why.tensor(t.name()));
                }
                unfit.entry(why.message().to_owned()).or_default().push(module.clone());
                chosen = None;
            }
            let Some(scheme) = chosen else {
                if matches!((self.place)(&t), Place::Linear | Place::OtherLinear) || named {
                    used.push(Used { module, scheme: None, repacked: false });
                }
                round(&mut t, &scaled)?;
                tensors.push(t);
                continue;
            };
            if let Some(dtype) = scheme.layout.cast(scheme) {
                check_plain(&t, self.allow_requantize).map_err(|e| e.tensor(t.name()))?;
                let mut cast = Tensor::new(t.name(), t.expr.clone().apply(Narrow(dtype)))?;
                cast.role.clone_from(&t.role);
                tensors.push(cast);
                used.push(Used { module, scheme: Some(scheme), repacked: false });
                continue;
            }
            let (coded, repacked) =
                self.coded(&t, &module, scheme, &weights).map_err(|e| e.tensor(t.name()))?;
            let made = scheme.layout.siblings(&coded).map_err(|e| e.tensor(t.name()))?;
            tensors.extend(made.into_iter().map(|mut s| {
                s.role.clone_from(&t.role);
                s
            }));
            used.push(Used { module, scheme: Some(scheme), repacked });
        }
        used.extend(self.shared.iter().map(|m| Used { module: m.clone(), scheme: None, repacked: false }));
        for (why, modules) in unfit {
            notes.push(format!("{} weights stay plain: {why}, for example {}", modules.len(), modules[0]));
        }
        if used.iter().all(|u| u.scheme.is_none()) {
            let why = notes.iter().fold(String::new(), |why, n| why + "; " + n);
            return Err(Error::unsupported(format!(
                "{}: no weight of this model can be quantized so{why}",
                self.scheme.name
            ))
            .hint("`tensormill inspect` shows its tensors; --tensor-type REGEX=SCHEME names weights"));
        }
        notes.extend(kept_note(used.iter().filter(|u| u.repacked).count()));
        let family = self.scheme.layout.family();
        if let Some(other) = used.iter().find_map(|u| u.scheme.filter(|s| s.layout.family() != family)) {
            return Err(Error::unsupported(format!(
                "one checkpoint cannot hold both {} and {}",
                self.scheme.name, other.name
            ))
            .hint("choose schemes of one library for all weights"));
        }
        model.tensors = tensors;
        let config = self.scheme.layout.config(self.scheme, &used)?;
        self.scheme.layout.finish(&mut model)?;
        let files = self.scheme.layout.files(&config);
        Ok(Made { model, used, config, files, notes })
    }

    /// What is said of names that no tensor has: mostly a slip.
    fn idle_rules(&self, model: &Model) -> Vec<String> {
        let idle = self.rules.iter().filter_map(|rule| match &rule.names {
            Names::Like(p) if !model.tensors.iter().any(|t| p.is_match(t.name())) => Some(p),
            _ => None,
        });
        idle.map(|p| format!("no tensor has a name like {p}: what is said of it does nothing")).collect()
    }

    /// Scales what is to be scaled: expressions are then of `f32`, whatever the tensors' types are. Gives their names.
    fn scale(&self, model: &mut Model, notes: &mut Vec<String>) -> Result<Scaled> {
        let Some(scaling) = &self.scaling else { return Ok(Scaled::new()) };
        let choose = |t: &Tensor| {
            let shape = &t.spec.shape;
            self.choose(t).filter(|s| shape.rank() == 2 && s.layout.takes(s, shape).is_ok())
        };
        let scaled = scaling.rewrite(model, &choose, self.fit, notes)?;
        for t in &mut model.tensors {
            if let Some(expr) = scaled.get(t.name()) {
                t.expr = expr.clone();
            }
        }
        Ok(scaled)
    }

    /// The bundles of a weight, and whether they hold the source's codes.
    fn coded<'a>(
        &self,
        t: &'a Tensor,
        module: &'a str,
        scheme: &'static Scheme,
        weights: &HashMap<String, Tensor>,
    ) -> Result<(Coded<'a>, bool)> {
        let (shape, encoding) = (&t.spec.shape, t.spec.encoding);
        let (rows, columns) = (shape.rows(), shape.row_len());
        let made = |grid, scale, bundle, outer| Coded {
            module,
            scheme,
            rows,
            columns,
            shape,
            encoding,
            grid,
            scale,
            bundle,
            outer,
        };
        let view = scheme.layout.view(scheme, shape)?;
        let seen = if view == *shape { t.expr.clone() } else { t.expr.clone().reshape(view.clone()) };
        let same = same_codes(&seen, scheme.grid, scheme.scale, view.row_len());
        if let Some(CodedExpr { bundle, grid, scale, outer, .. }) = same {
            if scheme.layout.rounds_scales(scheme) {
                check_plain(t, self.allow_requantize)?;
            }
            return Ok((made(grid, scheme.scale.unwrap_or(scale), bundle, outer), true));
        }
        check_plain(t, self.allow_requantize)?;
        let quantizer = scheme.quantizer(scale_type(t.spec.encoding), self.fit);
        let outer = match scheme.layout.outer(scheme) {
            None => None,
            Some(OfMatrix::Constant(x)) => Some(Outer { expr: floats(&[x])?, divides: false }),
            Some(OfMatrix::Scale) => {
                let scale = TensorScale { quantizer, to: DType::F32 };
                let expr = largest(&t.expr, Give::Magnitude).apply(scale);
                Some(Outer { expr, divides: false })
            }
            Some(OfMatrix::Divisor(by)) => {
                let give = Give::Divided(by, dtype_of(scale_type(t.spec.encoding)));
                let shared: Vec<Expr> = (self.fused)(module)
                    .iter()
                    .filter_map(|m| weights.get(m))
                    .filter(|w| w.name() != t.name() && self.shares(w, scheme))
                    .map(|w| largest(&w.expr, Give::Magnitude))
                    .collect();
                let expr = if shared.is_empty() {
                    largest(&t.expr, give)
                } else {
                    let own = std::iter::once(largest(&t.expr, Give::Magnitude));
                    Expr::Apply { op: Arc::new(MaxOf { give }), inputs: own.chain(shared).collect() }
                };
                Some(Outer { expr, divides: true })
            }
        };
        let divides = outer.as_ref().is_some_and(|o| o.divides);
        let seen = match scheme.layout.rounded() {
            Some(to) if encoding != Encoding::Plain(to) => seen.apply(Cast(to)),
            _ => seen,
        };
        let (importance, feedback) = ((self.importance)(t)?, (self.feedback)(t)?);
        // A Hessian is that of the weight's own columns.
        if feedback.is_some() && view != *shape {
            return Err(Error::unsupported(format!(
                "{} has blocks that run on from row to row here, which error feedback cannot follow",
                scheme.name
            ))
            .hint("leave the weight plain (--tensor-type 'REGEX=plain'), or take another --search"));
        }
        let op = Encode { quantizer, importance, divides, feedback };
        let inputs = std::iter::once(seen).chain(outer.iter().map(|o| o.expr.clone())).collect();
        let bundle = Expr::Apply { op: Arc::new(op), inputs };
        Ok((made(quantizer.grid, quantizer.scale, bundle, outer), false))
    }

    /// Whether a weight is encoded by this scheme, and so has a say in what is shared.
    fn shares(&self, t: &Tensor, scheme: &'static Scheme) -> bool {
        t.spec.shape.rank() == 2
            && self.choose(t).is_some_and(|s| std::ptr::eq(s, scheme))
            && scheme.layout.takes(scheme, &t.spec.shape).is_ok()
            && same_codes(&t.expr, scheme.grid, scheme.scale, t.spec.shape.row_len()).is_none()
    }
}

/// Gives a scaled tensor that is not quantized its type back.
fn round(t: &mut Tensor, scaled: &Scaled) -> Result<()> {
    match t.spec.encoding {
        Encoding::Plain(dtype) if scaled.contains_key(t.name()) => {
            let expr = t.expr.clone();
            t.set_expr(if dtype == DType::F32 { expr } else { expr.apply(Cast(dtype)) })
        }
        _ => Ok(()),
    }
}

/// The largest magnitude of a tensor, as something.
fn largest(expr: &Expr, give: Give) -> Expr {
    expr.clone().apply(MaxAbs { give })
}

/// What scales are stored as.
pub(crate) fn dtype_of(scale: ScaleType) -> DType {
    match scale {
        ScaleType::F32 => DType::F32,
        ScaleType::F16 => DType::F16,
        ScaleType::BF16 => DType::BF16,
        ScaleType::E4M3 => DType::F8E4M3,
        ScaleType::E8M0 => DType::F8E8M0,
    }
}

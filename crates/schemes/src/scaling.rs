//! Scaling of columns before weights are quantized: which tensors of a model change, and to what. See `ops::scaling` for the
//! scales; which layers see one input is the caller's to say.
//!
//! What a model computes stays the same: columns of weights are multiplied by what is divided out of the norm or of the rows
//! that make their input.

use crate::{
    calibration::Columns,
    ops::scale_type,
    ops::{Activity, Norm, PickScales, ScaleLoss, ScaleWeights, Unscale},
    repack,
    scheme::Scheme,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tensormill_kernels::groups::Fit;
use tensormill_model::{Error, Expr, Model, Op, Result, Tensor};
use tensormill_tensor::{DType, Encoding};

/// What makes an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Before {
    /// A norm; what is added to its weights when they are used.
    Norm(String, f32),
    /// The rows of a linear layer.
    Rows(String),
}

/// Linear layers that see one input.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What makes it.
    pub before: Before,
    /// The layers.
    pub modules: Vec<String>,
}

/// What is to be scaled, and by which statistics.
pub struct Scaling<'a> {
    /// Layers that see one input each.
    pub groups: Vec<Group>,
    /// What is known of the columns of a module's input.
    pub columns: &'a dyn Fn(&str) -> Result<Option<Columns>>,
}

/// What becomes of a model's tensors, by name: `f32` expressions.
pub(crate) type Scaled = HashMap<String, Expr>;

/// Scales of a weight's columns and rows.
#[derive(Default)]
struct Factors {
    columns: Option<Expr>,
    rows: Option<Expr>,
}

impl Scaling<'_> {
    /// The tensors that change; `choose` says what weights become.
    ///
    /// # Errors
    /// Statistics that are no numbers or of other widths; that there are none.
    pub(crate) fn rewrite(
        &self,
        model: &Model,
        choose: &dyn Fn(&Tensor) -> Option<&'static Scheme>,
        fit: Fit,
        notes: &mut Vec<String>,
    ) -> Result<Scaled> {
        let tensors: HashMap<&str, &Tensor> = model.tensors.iter().map(|t| (t.name(), t)).collect();
        let mut factors: BTreeMap<String, Factors> = BTreeMap::new();
        let mut scaled = Scaled::new();
        let (mut done, mut unknown) = (0, Vec::new());
        for group in &self.groups {
            let weights: Option<Vec<&Tensor>> =
                group.modules.iter().map(|m| tensors.get(&*format!("{m}.weight")).copied()).collect();
            let Some(weights) = weights.filter(|w| w.iter().all(|t| may_be_scaled(t))) else { continue };
            let losing: Vec<(&Tensor, &Scheme)> =
                weights.iter().filter_map(|t| Some((*t, choose(t)?))).collect();
            if losing.is_empty() {
                continue;
            }
            let before = match &group.before {
                Before::Norm(m, _) | Before::Rows(m) => m,
            };
            let Some(from) = tensors.get(&*format!("{before}.weight")).copied() else { continue };
            let columns = weights[0].spec.shape.row_len();
            let fits = match group.before {
                Before::Norm(..) => {
                    from.spec.shape.rank() == 1
                        && from.spec.shape.elements() == columns
                        && plain(from).is_some()
                }
                // Where heads share values, rows of one and columns of the other are not the same.
                Before::Rows(_) => may_be_scaled(from) && from.spec.shape.rows() == columns,
            };
            if !fits {
                continue;
            }
            let Some(known) = self.known(&group.modules)? else {
                unknown.push(group.modules[0].clone());
                continue;
            };
            let activity = Activity::new(known.mean_square, known.mean_abs);
            let mut inputs = Vec::new();
            for (t, scheme) in losing {
                let quantizer = scheme.quantizer(scale_type(t.spec.encoding), fit);
                inputs.push(t.expr.clone().apply(ScaleLoss { quantizer, activity: activity.clone() }));
            }
            let norm = match (&group.before, plain(from)) {
                (Before::Norm(_, plus), Some(dtype)) => {
                    inputs.push(from.expr.clone());
                    Some(Norm { plus: *plus, dtype })
                }
                _ => None,
            };
            let op: Arc<dyn Op> = Arc::new(PickScales { activity, norm });
            let scales = Expr::Apply { op, inputs };
            scales.form().map_err(|e| e.tensor(weights[0].name()))?;
            match &group.before {
                Before::Norm(module, plus) => {
                    scaled.insert(from.name().to_owned(), unscaled(from, &scales, *plus));
                    unscale_bias(module, &tensors, &scales, &mut scaled);
                }
                Before::Rows(module) => {
                    factors.entry(from.name().to_owned()).or_default().rows = Some(scales.clone());
                    unscale_bias(module, &tensors, &scales, &mut scaled);
                }
            }
            for t in weights {
                factors.entry(t.name().to_owned()).or_default().columns = Some(scales.clone());
            }
            done += 1;
        }
        if done == 0 {
            let missing = unknown.first().map_or_else(
                || "no layers of this model can be scaled".to_owned(),
                |m| format!("nothing is known of the inputs of {m}"),
            );
            return Err(Error::usage(format!("--search awq: {missing}"))
                .hint("give statistics of this very model with --calibration or --imatrix"));
        }
        if let Some(example) = unknown.first() {
            let n = unknown.len();
            notes.push(format!(
                "{n} inputs are not scaled, since nothing is known of them, for example that of {example}"
            ));
        }
        for (name, f) in factors {
            let Some(t) = tensors.get(&*name) else { continue };
            let op = ScaleWeights { columns: f.columns.is_some(), rows: f.rows.is_some() };
            let inputs = std::iter::once(t.expr.clone()).chain(f.columns).chain(f.rows).collect();
            scaled.insert(name, Expr::Apply { op: Arc::new(op), inputs });
        }
        Ok(scaled)
    }

    /// What is known of the input that some modules see.
    fn known(&self, modules: &[String]) -> Result<Option<Columns>> {
        for module in modules {
            if let Some(known) = (self.columns)(module)? {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }
}

/// The type of a tensor that is stored in floats.
fn plain(t: &Tensor) -> Option<DType> {
    match t.spec.encoding {
        Encoding::Plain(d @ (DType::F32 | DType::F16 | DType::BF16)) => Some(d),
        _ => None,
    }
}

/// Whether a weight is a matrix of floats that no codes stand for.
fn may_be_scaled(t: &Tensor) -> bool {
    t.spec.shape.rank() == 2 && plain(t).is_some() && !repack::is_quantized(&t.expr)
}

fn unscaled(t: &Tensor, scales: &Expr, plus: f32) -> Expr {
    Expr::Apply { op: Arc::new(Unscale { plus }), inputs: vec![t.expr.clone(), scales.clone()] }
}

fn unscale_bias(module: &str, tensors: &HashMap<&str, &Tensor>, scales: &Expr, scaled: &mut Scaled) {
    if let Some(bias) = tensors.get(&*format!("{module}.bias")) {
        scaled.insert(bias.name().to_owned(), unscaled(bias, scales, 0.0));
    }
}

//! What an adapter is once its names are understood: changes of modules' weights, in the terms of no naming scheme.

use crate::ops::{Mix, Prune, Rotate};
use tensormill_model::{Expr, Result};
use tensormill_tensor::{DType, Encoding};

/// An opened adapter: headers read, factors on demand.
#[derive(Debug)]
pub struct Adapter {
    /// Name for messages.
    pub name: String,
    /// What the user multiplies it by.
    pub weight: f64,
    /// What it changes, module by module.
    pub(crate) layers: Vec<Layer>,
    /// Parameters that were trained as a whole: names in the model, and values.
    pub(crate) whole: Vec<Whole>,
    /// Its tensors that are no part of an adapter.
    pub(crate) unknown: Vec<String>,
    /// What a user may want to know.
    pub(crate) notes: Vec<String>,
}

/// A parameter that was trained as a whole, or some of its rows.
#[derive(Debug)]
pub(crate) struct Whole {
    /// The parameter's name in the model.
    pub(crate) parameter: String,
    /// The name in the adapter, for messages.
    pub(crate) tensor: String,
    /// Its values.
    pub(crate) value: Expr,
    /// Which rows these are, where they are not all.
    pub(crate) rows: Option<Vec<u64>>,
}

/// What an adapter changes about one module's weight.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The module's name in the model.
    pub(crate) module: String,
    /// Which of its parameters: `weight` for nearly all.
    pub(crate) parameter: &'static str,
    /// The adapter's tensors that it is made of, for messages.
    pub(crate) tensors: Vec<String>,
    /// How the weight changes.
    pub(crate) change: Change,
}

impl Layer {
    /// A tensor to name in a message.
    pub(crate) fn tensor(&self) -> &str {
        self.tensors.first().map_or(self.module.as_str(), String::as_str)
    }
}

/// How a weight changes.
#[derive(Debug)]
pub(crate) enum Change {
    /// A product of two factors is added.
    LowRank(Box<LowRank>),
    /// A difference is added, of as many elements as the weight.
    Sum {
        /// The difference.
        delta: Expr,
        /// What it is multiplied by.
        scale: f64,
    },
    /// Rows or columns are multiplied.
    Scale {
        /// The numbers.
        by: Expr,
        /// Whether they belong to outputs. The bias is then multiplied, too.
        outputs: bool,
        /// Whether the weight's rows are inputs, where it is a matrix.
        transposed: bool,
    },
    /// Rows are rotated.
    Rotate {
        /// Rotations `[blocks, size, size]`, one after another.
        steps: Vec<(Expr, Rotate)>,
        /// What rows are multiplied by afterwards.
        lengths: Option<Expr>,
    },
}

/// What the rows of a weight are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowsAre {
    /// A layer's outputs.
    Outputs,
    /// Its inputs, where it is a matrix (`fan_in_fan_out`).
    Inputs,
    /// Those of an embedding, which are its inputs as well.
    Tokens,
}

/// Two factors whose product is added.
#[derive(Clone, Debug)]
pub(crate) struct LowRank {
    /// `[rank, in]`, kernels' dimensions behind it.
    pub(crate) a: Expr,
    /// `[out, rank]`.
    pub(crate) b: Expr,
    /// Type of the product where PEFT's rounding is asked for.
    pub(crate) product: DType,
    /// What the product is multiplied by.
    pub(crate) scale: f64,
    /// What it is divided by after that.
    pub(crate) divide: Option<f32>,
    /// Added to the module's bias, times [`Self::scale`].
    pub(crate) bias: Option<Expr>,
    /// Lengths of rows (DoRA).
    pub(crate) magnitude: Option<Expr>,
    /// What the weight's rows are.
    pub(crate) rows: RowsAre,
    /// PEFT casts the product to the weight's type before it adds them.
    pub(crate) cast: bool,
    /// `a` may be wider than the weight, whose corner is meant (VeRA).
    pub(crate) corner: bool,
    /// Factors of how many experts stand one above the other in `a`, and beside each other in `b`.
    pub(crate) experts: Option<u64>,
    /// Parameters of the module that it may be meant for, in place of `weight` (`target_parameters`).
    pub(crate) parameters: Vec<String>,
}

impl LowRank {
    /// Factors and scale, and nothing else.
    pub(crate) fn new(a: Expr, b: Expr, product: DType, scale: f64) -> Self {
        Self {
            a,
            b,
            product,
            scale,
            divide: None,
            bias: None,
            magnitude: None,
            rows: RowsAre::Outputs,
            cast: false,
            corner: false,
            experts: None,
            parameters: Vec::new(),
        }
    }
}

/// Two factors whose product is added to a module's weight, as schemes without a configuration have them.
#[derive(Clone, Debug)]
pub struct Factors {
    /// The module's name in the model.
    pub module: String,
    /// The adapter's tensors, for messages.
    pub tensors: Vec<String>,
    /// `[rank, in]`, kernels' dimensions behind it; of an embedding `[rank, tokens]`.
    pub a: Expr,
    /// `[out, rank]`; of an embedding `[columns, rank]`.
    pub b: Expr,
    /// What the product is multiplied by.
    pub scale: f64,
    /// Whether the module is an embedding, whose rows are tokens.
    pub embedding: bool,
}

impl Adapter {
    /// An adapter of pairs of factors, multiplied by `weight`.
    ///
    /// # Errors
    /// When factors are no matrices of plain floats.
    pub fn from_factors(name: String, weight: f64, factors: Vec<Factors>) -> Result<Self> {
        let layers = factors.into_iter().map(|f| {
            let product = product_type(&f.b)?;
            let rows = if f.embedding { RowsAre::Tokens } else { RowsAre::Outputs };
            let low = LowRank { rows, cast: f.embedding, ..LowRank::new(f.a, f.b, product, f.scale) };
            Ok(Layer {
                module: f.module,
                parameter: "weight",
                tensors: f.tensors,
                change: Change::LowRank(Box::new(low)),
            })
        });
        let layers = layers.collect::<Result<_>>()?;
        Ok(Self { name, weight, layers, whole: Vec::new(), unknown: Vec::new(), notes: Vec::new() })
    }
}

/// The type of a product where PEFT's rounding is asked for: that of a factor of 16 bits.
pub(crate) fn product_type(factor: &Expr) -> Result<DType> {
    Ok(match factor.form()?.encoding {
        Encoding::Plain(d @ (DType::F16 | DType::BF16)) => d,
        _ => DType::F32,
    })
}

/// What an adapter is made of, for writing it in another scheme.
#[derive(Debug)]
pub struct Parts {
    /// Pairs of factors; the user's scale is in theirs.
    pub factors: Vec<Factors>,
    /// Parameters that were trained as a whole: names in the model, and values.
    pub whole: Vec<(String, Expr)>,
    /// What no scheme of factors can hold, in words.
    pub left: Vec<String>,
}

impl Adapter {
    /// Takes an adapter apart. Factors come out whatever family they are of: AdaLoRA's have its singular values in them.
    pub fn into_parts(self) -> Parts {
        let mut parts = Parts { factors: Vec::new(), whole: Vec::new(), left: self.unknown };
        for w in self.whole {
            match w.rows {
                None => parts.whole.push((w.parameter, w.value)),
                Some(_) => parts.left.push(format!("{} (some rows of {})", w.tensor, w.parameter)),
            }
        }
        for layer in self.layers {
            let why = match &layer.change {
                Change::LowRank(low) if low.magnitude.is_some() => "lengths (DoRA)",
                Change::LowRank(low) if low.bias.is_some() => "a bias behind its factors",
                Change::LowRank(low) if low.experts.is_some() => "experts in one tensor",
                Change::LowRank(low) if low.corner => "factors that all modules share",
                Change::LowRank(low) if low.rows == RowsAre::Inputs => "a transposed weight",
                Change::LowRank(_) => "",
                Change::Sum { .. } => "a difference that is no product of two factors",
                Change::Scale { .. } | Change::Rotate { .. } => "a factor of the whole weight",
            };
            match layer.change {
                Change::LowRank(low) if why.is_empty() => parts.factors.push(Factors {
                    module: layer.module,
                    tensors: layer.tensors,
                    scale: low.scale / low.divide.map_or(1.0, f64::from) * self.weight,
                    embedding: low.rows == RowsAre::Tokens,
                    a: low.a,
                    b: low.b,
                }),
                _ => parts.left.push(format!("{} ({why})", layer.module)),
            }
        }
        parts
    }
}

/// A factor times a number, in `f32`.
///
/// # Errors
/// When its elements are no plain floats.
pub fn scaled(factor: Expr, by: f64) -> Result<Expr> {
    let mix = Mix { prune: Prune::Nothing, elect: None, weights: vec![by as f32] };
    crate::ops::in_f32(mix, vec![factor])
}

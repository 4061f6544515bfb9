//! Activation functions by the names that configurations give them (`ACT2FN` in transformers).

use crate::{Config, layers};
use tensormill_graph::{Attribute, Builder, Value};
use tensormill_model::Result;

/// An activation function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Activation {
    Identity,
    /// By the error function.
    Gelu,
    /// The same between -10 and 10.
    Gelu10,
    /// By the hyperbolic tangent.
    GeluTanh,
    /// By the logistic function.
    QuickGelu,
    Relu,
    /// Squared.
    Relu2,
    /// Up to 6.
    Relu6,
    LeakyRelu,
    Silu,
    Mish,
    HardSwish,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// By transformers' name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_10" => Self::Gelu10,
            // One function; transformers' forms of it round differently.
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
                Self::GeluTanh
            }
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            "relu2" => Self::Relu2,
            "relu6" => Self::Relu6,
            "leaky_relu" => Self::LeakyRelu,
            "silu" | "swish" => Self::Silu,
            "mish" => Self::Mish,
            "hardswish" => Self::HardSwish,
            "sigmoid" => Self::Sigmoid,
            "tanh" => Self::Tanh,
            "linear" => Self::Identity,
            _ => return None,
        })
    }

    /// By the path of PyTorch's class, with its usual arguments.
    pub(crate) fn of_class(path: &str) -> Option<Self> {
        let class = path.strip_prefix("torch.nn.modules.")?.rsplit('.').next()?;
        Some(match class {
            "Identity" => Self::Identity,
            "GELU" => Self::Gelu,
            "ReLU" => Self::Relu,
            "ReLU6" => Self::Relu6,
            "LeakyReLU" => Self::LeakyRelu,
            "SiLU" => Self::Silu,
            "Mish" => Self::Mish,
            "Hardswish" => Self::HardSwish,
            "Sigmoid" => Self::Sigmoid,
            "Tanh" => Self::Tanh,
            _ => return None,
        })
    }

    /// What a configuration asks for, `usual` where it says nothing.
    ///
    /// # Errors
    /// Where it asks for something that is not known.
    pub(crate) fn of(config: &Config, key: &str, usual: Self) -> Result<Self> {
        let Some(name) = config.text(key)? else { return Ok(usual) };
        Self::named(name).ok_or_else(|| config.unsupported(key, &format!("is {name:?}, which no graph has")))
    }

    /// Adds its nodes.
    pub(crate) fn apply(self, b: &mut Builder, x: &Value) -> Value {
        match self {
            Self::Identity => x.clone(),
            Self::Gelu => gelu(b, x),
            Self::Gelu10 => {
                let y = gelu(b, x);
                clip(b, &y, -10.0, 10.0)
            }
            Self::GeluTanh => gelu_tanh(b, x),
            Self::QuickGelu => {
                let factor = b.scalar(1.702);
                let y = b.node("Mul", &[x, &factor], vec![]);
                let y = b.node("Sigmoid", &[&y], vec![]);
                b.node("Mul", &[x, &y], vec![])
            }
            Self::Relu => b.node("Relu", &[x], vec![]),
            Self::Relu2 => {
                let y = b.node("Relu", &[x], vec![]);
                b.node("Mul", &[&y, &y], vec![])
            }
            Self::Relu6 => clip(b, x, 0.0, 6.0),
            Self::LeakyRelu => {
                held(b, 16, x, |b, x| b.node("LeakyRelu", &[x], vec![Attribute::float("alpha", 0.01)]))
            }
            Self::Silu => {
                let y = b.node("Sigmoid", &[x], vec![]);
                b.node("Mul", &[x, &y], vec![])
            }
            Self::Mish => held(b, 22, x, |b, x| {
                if b.opset() >= 18 {
                    return b.node("Mish", &[x], vec![]);
                }
                let y = b.node("Softplus", &[x], vec![]);
                let y = b.node("Tanh", &[&y], vec![]);
                b.node("Mul", &[x, &y], vec![])
            }),
            Self::HardSwish => held(b, 22, x, |b, x| b.node("HardSwish", &[x], vec![])),
            Self::Sigmoid => b.node("Sigmoid", &[x], vec![]),
            Self::Tanh => b.node("Tanh", &[x], vec![]),
        }
    }
}

/// Operators that take `bf16` since a version only are used on `f32` before.
fn held(b: &mut Builder, since: i64, x: &Value, build: impl FnOnce(&mut Builder, &Value) -> Value) -> Value {
    let (float, elem) = (b.float(), layers::held(b, since));
    let x = layers::cast(b, x, float, elem);
    let y = build(b, &x);
    layers::cast(b, &y, elem, float)
}

fn clip(b: &mut Builder, x: &Value, low: f32, high: f32) -> Value {
    let (low, high) = (b.scalar(low), b.scalar(high));
    b.node("Clip", &[x, &low, &high], vec![])
}

/// `x * (1 + erf(x / sqrt(2))) / 2`: before opset 20 in the order of nodes that runtimes know and make one of.
fn gelu(b: &mut Builder, x: &Value) -> Value {
    if b.opset() >= 20 {
        return b.node("Gelu", &[x], vec![]);
    }
    let (root, one, half) = (b.scalar(std::f32::consts::SQRT_2), b.scalar(1.0), b.scalar(0.5));
    let y = b.node("Div", &[x, &root], vec![]);
    let y = b.node("Erf", &[&y], vec![]);
    let y = b.node("Add", &[&y, &one], vec![]);
    let y = b.node("Mul", &[x, &y], vec![]);
    b.node("Mul", &[&y, &half], vec![])
}

/// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2`.
fn gelu_tanh(b: &mut Builder, x: &Value) -> Value {
    if b.opset() >= 20 {
        return b.node("Gelu", &[x], vec![Attribute::string("approximate", "tanh")]);
    }
    let (cubic, factor) = (b.scalar(0.044715), b.scalar(0.797_884_6));
    let (one, half) = (b.scalar(1.0), b.scalar(0.5));
    let y = b.node("Mul", &[x, x], vec![]);
    let y = b.node("Mul", &[&y, x], vec![]);
    let y = b.node("Mul", &[&y, &cubic], vec![]);
    let y = b.node("Add", &[x, &y], vec![]);
    let y = b.node("Mul", &[&y, &factor], vec![]);
    let y = b.node("Tanh", &[&y], vec![]);
    let y = b.node("Add", &[&y, &one], vec![]);
    let y = b.node("Mul", &[x, &y], vec![]);
    b.node("Mul", &[&y, &half], vec![])
}

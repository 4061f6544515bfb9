//! Folders of sentence-transformers: what makes one vector of an encoder's many, module by module of `modules.json`.

use crate::{
    activation::Activation,
    layers::{Layers, cast, length, reduce, unsqueeze},
};
use serde_json::{Map, Value as Json};
use tensormill_graph::{Attribute, Builder, Elem, Value};
use tensormill_model::{Assets, Error, Result};

/// Modules that follow the encoder; pooling is the first of them.
pub(super) struct Sentence {
    pooling: Vec<Mode>,
    rest: Vec<Module>,
}

enum Module {
    /// Makes vectors one long.
    Normalize,
    Dense {
        /// Its folder, with which its tensors' names begin here.
        folder: String,
        dims: (u64, u64),
        bias: bool,
        activation: Activation,
        residual: bool,
    },
}

/// How positions become one; several stand beside each other.
#[derive(Clone, Copy)]
enum Mode {
    First,
    Max,
    Mean,
    /// The sum over the square root of their number.
    MeanSqrt,
    /// Later ones weigh more.
    Weighted,
    Last,
}

/// Modes by the switches of older folders and by their names, in the order in which they stand beside each other where
/// switches say so.
const MODES: [(&str, &str, Mode); 6] = [
    ("pooling_mode_cls_token", "cls", Mode::First),
    ("pooling_mode_max_tokens", "max", Mode::Max),
    ("pooling_mode_mean_tokens", "mean", Mode::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Mode::MeanSqrt),
    ("pooling_mode_weightedmean_tokens", "weightedmean", Mode::Weighted),
    ("pooling_mode_lasttoken", "lasttoken", Mode::Last),
];

const LIST: &str = "modules.json";

impl Sentence {
    /// What the folder says; `None` where it is none of sentence-transformers, or one without pooling.
    pub(super) fn read(assets: &dyn Assets) -> Result<Option<Self>> {
        let Some(bytes) = assets.read(LIST)? else { return Ok(None) };
        let bad = |what: &str| Error::malformed(what).file(LIST);
        let list: Vec<Map<String, Json>> =
            serde_json::from_slice(&bytes).map_err(|e| bad(&format!("not a list of modules: {e}")))?;
        let mut pooling = None;
        let mut rest = Vec::new();
        for module in &list {
            let text = |key: &str| module.get(key).and_then(Json::as_str);
            let kind = text("type").ok_or_else(|| bad("a module without type"))?;
            let folder = text("path").ok_or_else(|| bad("a module without path"))?.trim_end_matches('/');
            // The path comes from a file: it may only lead downwards.
            if folder.starts_with('/') || folder.contains('\\') || folder.split('/').any(|p| p == "..") {
                return Err(bad("a module's path leads out of the folder"));
            }
            let others = || {
                Error::unsupported(format!("{kind} in {folder:?}, for which graphs have no place"))
                    .file(LIST)
                    .hint("graphs have a Transformer in the folder itself, then Pooling, Dense and Normalize")
            };
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" if folder.is_empty() => {}
                "Pooling" if pooling.is_none() && rest.is_empty() => pooling = Some(modes(assets, folder)?),
                "Dense" if pooling.is_some() => rest.push(dense(assets, folder)?),
                "Normalize" if pooling.is_some() => {
                    if let Some(config) = maybe_config(assets, folder)? {
                        refuse_other_features(&config, folder)?;
                    }
                    rest.push(Module::Normalize);
                }
                // Something happens there in training only.
                "Dropout" => {}
                _ => return Err(others()),
            }
        }
        Ok(pooling.map(|pooling| Self { pooling, rest }))
    }

    /// Adds the modules: the vector, of which type it is, and how long.
    pub(super) fn build(
        &self,
        l: &mut Layers<'_>,
        x: &Value,
        mask: &Value,
        hidden: u64,
    ) -> Result<(Value, Elem, u64)> {
        // Sums over many positions, and of squares, need the range of f32.
        let float = l.request.float;
        let mut y = l.b.scoped("pooling", |b| pool(b, x, mask, &self.pooling));
        let (mut elem, mut dim) = (Elem::F32, hidden.saturating_mul(self.pooling.len() as u64));
        for module in &self.rest {
            match module {
                Module::Normalize => {
                    y = l.b.scoped("normalize", |b| {
                        let x = cast(b, &y, elem, Elem::F32);
                        normalize(b, &x)
                    });
                    elem = Elem::F32;
                }
                Module::Dense { folder, dims, bias, activation, residual } => {
                    if dims.1 != dim {
                        return Err(Error::mismatch(format!(
                            "in_features is {}, and what goes in has {dim} numbers",
                            dims.1
                        ))
                        .file(format!("{folder}/config.json")));
                    }
                    let x = cast(&mut l.b, &y, elem, float);
                    let linear = format!("{folder}/linear");
                    y = l.linear(&x, &linear, *dims, *bias)?;
                    y = l.at(folder, |b| activation.apply(b, &y));
                    if *residual {
                        let past = if dims.0 == dims.1 {
                            x
                        } else {
                            l.linear(&x, &format!("{folder}/residual"), *dims, false)?
                        };
                        y = l.at(folder, |b| b.node("Add", &[&y, &past], vec![]));
                    }
                    (elem, dim) = (float, dims.0);
                }
            }
        }
        Ok((y, elem, dim))
    }
}

fn name_of(folder: &str) -> String {
    format!("{folder}/config.json")
}

fn maybe_config(assets: &dyn Assets, folder: &str) -> Result<Option<Map<String, Json>>> {
    let name = name_of(folder);
    let Some(bytes) = assets.read(&name)? else { return Ok(None) };
    let config = serde_json::from_slice(&bytes);
    config.map(Some).map_err(|e| Error::malformed(format!("not a valid configuration: {e}")).file(name))
}

fn config(assets: &dyn Assets, folder: &str) -> Result<Map<String, Json>> {
    maybe_config(assets, folder)?.ok_or_else(|| {
        Error::malformed("modules.json names its folder, but it is not there").file(name_of(folder))
    })
}

/// Modules may take anything that earlier ones have computed.
fn refuse_other_features(config: &Map<String, Json>, folder: &str) -> Result<()> {
    for key in ["module_input_name", "module_output_name"] {
        if let Some(name) = config.get(key).filter(|v| !v.is_null())
            && name != "sentence_embedding"
        {
            return Err(Error::unsupported(format!(
                "{key} is {name}; graphs know \"sentence_embedding\" only"
            ))
            .file(name_of(folder)));
        }
    }
    Ok(())
}

/// As `Pooling.load_config` reads it. `include_prompt` matters to who calls: what a prompt is, no graph knows.
fn modes(assets: &dyn Assets, folder: &str) -> Result<Vec<Mode>> {
    let config = config(assets, folder)?;
    let named = |name: &Json| {
        let known = MODES.iter().find(|(_, n, _)| name == n);
        known.map(|(.., mode)| *mode).ok_or_else(|| {
            Error::unsupported(format!("pooling_mode is {name}, which is not known")).file(name_of(folder))
        })
    };
    match config.get("pooling_mode") {
        Some(Json::Array(names)) if !names.is_empty() => names.iter().map(named).collect(),
        Some(name) => Ok(vec![named(name)?]),
        None => {
            let on = |key: &str| config.get(key).and_then(Json::as_bool) == Some(true);
            let modes: Vec<Mode> = MODES.iter().filter(|(key, ..)| on(key)).map(|(.., m)| *m).collect();
            Ok(if modes.is_empty() { vec![Mode::Mean] } else { modes })
        }
    }
}

fn dense(assets: &dyn Assets, folder: &str) -> Result<Module> {
    let config = config(assets, folder)?;
    refuse_other_features(&config, folder)?;
    let bad = |key: &str, what: &str| Error::malformed(format!("{key} {what}")).file(name_of(folder));
    let count = |key: &str| {
        let n = config.get(key).and_then(Json::as_u64).filter(|n| (1..=i64::MAX as u64).contains(n));
        n.ok_or_else(|| bad(key, "is no positive number"))
    };
    let switch = |key: &str, usual: bool| match config.get(key) {
        None => Ok(usual),
        Some(v) => v.as_bool().ok_or_else(|| bad(key, "is neither true nor false")),
    };
    let activation = match config.get("activation_function") {
        None => Activation::Tanh,
        Some(v) => v.as_str().and_then(Activation::of_class).ok_or_else(|| {
            Error::unsupported(format!("activation_function is {v}, which no graph has"))
                .file(name_of(folder))
                .hint("known are functions of torch.nn such as torch.nn.modules.activation.Tanh")
        })?,
    };
    Ok(Module::Dense {
        folder: folder.to_owned(),
        dims: (count("out_features")?, count("in_features")?),
        bias: switch("bias", true)?,
        activation,
        residual: switch("use_residual", false)?,
    })
}

/// One `f32` vector for each row of `[batch, sequence, hidden]`.
fn pool(b: &mut Builder, x: &Value, mask: &Value, modes: &[Mode]) -> Value {
    let mut sums = None;
    let pooled: Vec<Value> = modes.iter().map(|mode| one(b, *mode, x, mask, &mut sums)).collect();
    match &pooled[..] {
        [one] => one.clone(),
        all => {
            let all: Vec<&Value> = all.iter().collect();
            b.node("Concat", &all, vec![Attribute::int("axis", -1)])
        }
    }
}

/// `sums` are the sum of positions that are no padding, and their number.
fn one(b: &mut Builder, mode: Mode, x: &Value, mask: &Value, sums: &mut Option<(Value, Value)>) -> Value {
    let float = b.float();
    match mode {
        Mode::First => {
            let at = place(b, mask, false);
            let y = pick(b, x, &at);
            cast(b, &y, float, Elem::F32)
        }
        Mode::Last => {
            let at = place(b, mask, true);
            let weights = column(b, mask, float);
            // A row that is all padding has zeros.
            let x = b.node("Mul", &[x, &weights], vec![]);
            let y = pick(b, &x, &at);
            cast(b, &y, float, Elem::F32)
        }
        Mode::Max => {
            let keep = column(b, mask, Elem::BOOL);
            let low = b.scalar_of(Elem::F32, f32::NEG_INFINITY);
            let x = cast(b, x, float, Elem::F32);
            let y = b.node("Where", &[&keep, &x, &low], vec![]);
            reduce(b, "ReduceMax", &y, 1, false)
        }
        Mode::Mean | Mode::MeanSqrt => {
            let (sum, mut count) = sums
                .get_or_insert_with(|| {
                    let weights = column(b, mask, Elem::F32);
                    let x = cast(b, x, float, Elem::F32);
                    weighted(b, &x, &weights)
                })
                .clone();
            if matches!(mode, Mode::MeanSqrt) {
                count = b.node("Sqrt", &[&count], vec![]);
            }
            b.node("Div", &[&sum, &count], vec![])
        }
        Mode::Weighted => {
            // The first position that is no padding weighs 1, the next one 2.
            let weights = column(b, mask, Elem::F32);
            let (one, first, to) = (b.ints(&[], &[1]), place(b, mask, false), length(b, mask, 1));
            let to = b.node("Add", &[&to, &one], vec![]);
            let places = b.node("Range", &[&one, &to, &one], vec![]);
            let places = b.node("Sub", &[&places, &first], vec![]);
            let places = column(b, &places, Elem::F32);
            let weights = b.node("Mul", &[&weights, &places], vec![]);
            let x = cast(b, x, float, Elem::F32);
            let (sum, count) = weighted(b, &x, &weights);
            b.node("Div", &[&sum, &count], vec![])
        }
    }
}

/// The first or last place of each row's largest number, `[batch, 1]`.
fn place(b: &mut Builder, mask: &Value, last: bool) -> Value {
    // Runtimes have had kernels for 32-bit integers for longer.
    let mask = cast(b, mask, Elem::I64, Elem::I32);
    let attributes = vec![
        Attribute::int("axis", 1),
        Attribute::int("keepdims", 1),
        Attribute::int("select_last_index", last.into()),
    ];
    b.node("ArgMax", &[&mask], attributes)
}

/// One position of each row.
fn pick(b: &mut Builder, x: &Value, places: &Value) -> Value {
    b.node("GatherND", &[x, places], vec![Attribute::int("batch_dims", 1)])
}

/// `[batch, sequence]` integers as `[batch, sequence, 1]` of a type.
fn column(b: &mut Builder, x: &Value, elem: Elem) -> Value {
    let x = unsqueeze(b, x, &[2]);
    cast(b, &x, Elem::I64, elem)
}

/// The weighted sum of positions, and the sum of weights, which is never zero.
fn weighted(b: &mut Builder, x: &Value, weights: &Value) -> (Value, Value) {
    let x = b.node("Mul", &[x, weights], vec![]);
    let sum = reduce(b, "ReduceSum", &x, 1, false);
    let count = reduce(b, "ReduceSum", weights, 1, false);
    let least = b.scalar_of(Elem::F32, 1e-9);
    let count = b.node("Max", &[&count, &least], vec![]);
    (sum, count)
}

/// `torch.nn.functional.normalize`.
fn normalize(b: &mut Builder, x: &Value) -> Value {
    let square = b.node("Mul", &[x, x], vec![]);
    let sum = reduce(b, "ReduceSum", &square, -1, true);
    let norm = b.node("Sqrt", &[&sum], vec![]);
    let least = b.scalar_of(Elem::F32, 1e-12);
    let norm = b.node("Max", &[&norm, &least], vec![]);
    b.node("Div", &[x, &norm], vec![])
}

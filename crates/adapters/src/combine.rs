//! Several adapters as one (`add_weighted_adapter` of PEFT): factors are mixed, or put beside each other.
//!
//! PEFT gives each factor the square root of an adapter's share, and the sign to `A`. Where PEFT draws at random, so does
//! this, from a seed of its own: which values are left differs, their share does not.

use crate::{
    adapter::{Adapter, Change, Layer, LowRank},
    ops::{Beside, Election, Mix, Prune, Recent, Side, Truncate, in_f32},
};
use std::{collections::BTreeMap, str::FromStr};
use tensormill_model::{Error, Expr, Result, fingerprint};
use tensormill_tensor::{DType, Shape};

/// How adapters become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Combination {
    method: Method,
    density: f64,
    seed: u64,
    majority: Election,
    rank: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Linear,
    Cat,
    Svd,
    Ties,
    DareLinear,
    DareTies,
    MagnitudePrune,
}

const METHODS: [(&str, Method); 7] = [
    ("linear", Method::Linear),
    ("cat", Method::Cat),
    ("svd", Method::Svd),
    ("ties", Method::Ties),
    ("dare_linear", Method::DareLinear),
    ("dare_ties", Method::DareTies),
    ("magnitude_prune", Method::MagnitudePrune),
];

impl Combination {
    /// Factors beside each other: exact, at the price of a higher rank.
    pub fn cat() -> Self {
        Self { method: Method::Cat, density: 1.0, seed: 0, majority: Election::Total, rank: None }
    }
}

impl FromStr for Combination {
    type Err = String;
    /// `METHOD`, or `METHOD:density=0.5,seed=7,majority=frequency`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let method = METHODS.iter().find(|(n, _)| *n == name.replace('-', "_")).map(|(_, m)| *m);
        let known = || METHODS.map(|(n, _)| n).join(", ");
        let method = method.ok_or_else(|| format!("there is no method {name:?}; known: {}", known()))?;
        let mut out = Self { method, density: 1.0, seed: 0, majority: Election::Total, rank: None };
        let mut given = false;
        for pair in rest.split(',').filter(|p| !p.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("expected KEY=VALUE, not {pair:?}"))?;
            let bad = || format!("{key}: {value:?} is not a value for it");
            match key {
                "density" => {
                    let density = value.parse().ok().filter(|d| (0.0..=1.0).contains(d));
                    (out.density, given) = (density.ok_or_else(bad)?, true);
                }
                "rank" => out.rank = Some(value.parse().ok().filter(|r| *r > 0).ok_or_else(bad)?),
                "seed" => out.seed = value.parse().map_err(|_| bad())?,
                "majority" => {
                    out.majority = match value {
                        "total" => Election::Total,
                        "frequency" => Election::Frequency,
                        _ => return Err(bad()),
                    }
                }
                _ => return Err(format!("{key:?} is not known; density, seed, majority and rank are")),
            }
        }
        if !matches!(method, Method::Linear | Method::Cat | Method::Svd) && !given {
            return Err(format!("{name} needs a density, for example --combine {name}:density=0.5"));
        }
        Ok(out)
    }
}

/// Makes one adapter of several.
///
/// # Errors
/// Adapters that are no pairs of factors alone; ranks that differ where factors are mixed; two that replace one parameter.
pub fn combine(adapters: Vec<Adapter>, how: Combination) -> Result<Adapter> {
    let mut names = Vec::new();
    let (mut whole, mut unknown, mut notes) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut modules: BTreeMap<String, Vec<Member>> = BTreeMap::new();
    for adapter in adapters {
        for w in adapter.whole {
            if let Some(other) = whole.insert(w.parameter.clone(), w) {
                return Err(Error::mismatch(
                    "two adapters replace the same parameter, which cannot be combined",
                )
                .tensor(other.parameter));
            }
        }
        for layer in adapter.layers {
            let (module, member) =
                member(layer, adapter.weight).map_err(|e| e.context(format!("adapter {}", adapter.name)))?;
            modules.entry(module).or_default().push(member);
        }
        unknown.extend(adapter.unknown);
        notes.extend(adapter.notes);
        names.push(adapter.name);
    }
    let recent = Recent::default();
    let layers = modules.into_iter().map(|(module, members)| {
        let tensor = members[0].tensors.first().cloned().unwrap_or_default();
        how.layer(module, &members, names.len() == 1, &recent)
            .map_err(|e| if e.tensor_name().is_some() { e } else { e.tensor(tensor) })
    });
    let layers = layers.collect::<Result<_>>()?;
    let whole = whole.into_values().collect();
    Ok(Adapter { name: names.join(" + "), weight: 1.0, layers, whole, unknown, notes })
}

/// One adapter's share of a module.
struct Member {
    tensors: Vec<String>,
    low: LowRank,
    /// What its product is multiplied by: what the user says, and what the adapter says.
    shares: [f64; 2],
}

impl Member {
    fn share(&self) -> f64 {
        self.shares.iter().product()
    }
}

fn member(layer: Layer, weight: f64) -> Result<(String, Member)> {
    let alone =
        |low: &LowRank| low.magnitude.is_none() && low.bias.is_none() && low.experts.is_none() && !low.corner;
    let tensor = layer.tensor().to_owned();
    match layer.change {
        Change::LowRank(low) if alone(&low) => {
            let shares = [weight, low.scale / low.divide.map_or(1.0, f64::from)];
            Ok((layer.module, Member { tensors: layer.tensors, low: *low, shares }))
        }
        _ => Err(Error::unsupported("only pairs of factors, without magnitudes and biases, can be combined")
            .tensor(tensor)
            .hint("give the adapters without --combine: they are merged one after another")),
    }
}

impl Combination {
    fn layer(&self, module: String, members: &[Member], alone: bool, recent: &Recent) -> Result<Layer> {
        let tensors = members.iter().flat_map(|m| m.tensors.clone()).collect();
        if members.iter().any(|m| m.low.rows != members[0].low.rows) {
            return Err(Error::mismatch("adapters that see this module's rows differently"));
        }
        let seed = fingerprint(module.bytes()) ^ self.seed;
        let (rows, cast) = (members[0].low.rows, members[0].low.cast);
        let low = match self.method {
            // One adapter alone is no matter of signs and densities for PEFT, either.
            _ if alone && !matches!(self.method, Method::Cat | Method::Svd) => {
                mixed(members, Prune::Nothing, None, seed)?
            }
            Method::Cat => beside(members)?,
            Method::Svd => self.truncated(members, recent)?,
            Method::Linear => mixed(members, Prune::Nothing, None, seed)?,
            Method::Ties => mixed(members, Prune::Magnitude(self.density), Some(self.majority), seed)?,
            Method::MagnitudePrune => mixed(members, Prune::Magnitude(self.density), None, seed)?,
            Method::DareLinear => mixed(members, self.random(), None, seed)?,
            Method::DareTies => mixed(members, self.random(), Some(self.majority), seed)?,
        };
        let low = LowRank { rows, cast, ..low };
        Ok(Layer { module, parameter: "weight", tensors, change: Change::LowRank(Box::new(low)) })
    }

    /// The sum of all products, as the nearest of a lower rank: the largest that an adapter has, where none is given.
    fn truncated(&self, members: &[Member], recent: &Recent) -> Result<LowRank> {
        let all = beside(members)?;
        let dims = all.a.form()?.shape.dims().to_vec();
        let [inner, kernel @ ..] = dims.as_slice() else {
            return Err(Error::mismatch("a factor without dimensions"));
        };
        let mut largest = 0;
        for m in members {
            largest = largest.max(m.low.a.form()?.shape.dims().first().copied().unwrap_or(0));
        }
        let rank = self.rank.unwrap_or(largest).min(*inner);
        let a = crate::merge::matrix(all.a)?;
        let side = |side| {
            let op = Truncate { side, rank, recent: recent.clone() };
            in_f32(op, vec![all.b.clone(), a.clone()])
        };
        let (b, a) = (side(Side::Left)?, side(Side::Right)?);
        let shape = Shape::new([&[rank], kernel].concat())?;
        Ok(LowRank::new(if kernel.len() == 1 { a } else { a.reshape(shape) }, b, DType::F32, 1.0))
    }

    fn random(&self) -> Prune {
        Prune::Random { density: self.density, seed: 0 }
    }
}

/// Factors weighed, and added up.
fn mixed(members: &[Member], prune: Prune, elect: Option<Election>, seed: u64) -> Result<LowRank> {
    let roots = members.iter().map(|m| m.share().abs().sqrt());
    let signs = members.iter().map(|m| if m.share() >= 0.0 { 1.0 } else { -1.0 });
    let of_a: Vec<f32> = roots.clone().zip(signs).map(|(r, s)| (r * s) as f32).collect();
    let of_b: Vec<f32> = roots.map(|r| r as f32).collect();
    let mix = |weights: Vec<f32>, side: u64, inputs: Vec<Expr>| {
        let prune = match prune {
            Prune::Random { density, .. } => Prune::Random { density, seed: seed ^ side },
            other => other,
        };
        in_f32(Mix { prune, elect, weights }, inputs)
    };
    let a = mix(of_a, 1 << 32, members.iter().map(|m| m.low.a.clone()).collect())?;
    let b = mix(of_b, 2 << 32, members.iter().map(|m| m.low.b.clone()).collect())?;
    Ok(LowRank::new(a, b, DType::F32, 1.0))
}

/// Factors beside each other, each `A` with its share.
fn beside(members: &[Member]) -> Result<LowRank> {
    let mut inputs = Vec::with_capacity(members.len());
    let (mut rank, mut rest) = (0u64, Vec::new());
    for m in members {
        let dims = m.low.a.form()?.shape.dims().to_vec();
        let [own, kernel @ ..] = dims.as_slice() else {
            return Err(Error::mismatch("a factor without dimensions"));
        };
        if !rest.is_empty() && rest != kernel {
            return Err(Error::mismatch("adapters of other shapes"));
        }
        (rank, rest) = (rank.saturating_add(*own), kernel.to_vec());
        // One after the other, as PEFT.
        let scaled = |a: Expr, by: &f64| {
            in_f32(Mix { prune: Prune::Nothing, elect: None, weights: vec![*by as f32] }, vec![a])
        };
        inputs.push(m.shares.iter().try_fold(m.low.a.clone(), scaled)?);
    }
    let shape = Shape::new([&[rank], rest.as_slice()].concat())?;
    let a = Expr::Concat { inputs, shape };
    a.form()?;
    let b = members.iter().map(|m| crate::merge::matrix(m.low.b.clone())).collect::<Result<Vec<_>>>()?;
    let b = in_f32(Beside(b.len()), b)?;
    Ok(LowRank::new(a, b, DType::F32, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read() {
        let of = |t: &str| t.parse::<Combination>();
        let ties = of("ties:density=0.5,seed=7,majority=frequency").unwrap();
        assert_eq!((ties.method, ties.density, ties.seed), (Method::Ties, 0.5, 7));
        assert_eq!(ties.majority, Election::Frequency);
        assert_eq!(of("dare-linear:density=1").unwrap().method, Method::DareLinear);
        for (text, says) in [
            ("ties", "needs a density"),
            ("ties:density=2", "density"),
            ("other", "known: linear"),
            ("linear:x=1", "not known"),
            ("linear:density", "KEY=VALUE"),
        ] {
            assert!(of(text).unwrap_err().contains(says), "{text}");
        }
    }
}

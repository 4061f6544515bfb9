//! Limits on the error of what is written: the gate before publication.

use crate::report::TensorReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tensormill_tensor::ErrorStats;

/// Bounds on measured errors; what is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Largest root of the mean squared error.
    pub max_rmse: Option<f64>,
    /// Largest absolute difference of any value.
    pub max_abs: Option<f64>,
    /// Smallest ratio of signal to quantization noise in dB.
    pub min_sqnr_db: Option<f64>,
    /// Smallest cosine similarity.
    pub min_cosine: Option<f64>,
}

/// The bounds of a variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// On all tensors together.
    #[serde(default)]
    pub total: Bounds,
    /// On each tensor.
    #[serde(default)]
    pub tensors: Bounds,
    /// On each tensor of a role (`attn_v`, `ffn_down`, `token_embd`), besides those on each tensor.
    #[serde(default)]
    pub roles: BTreeMap<String, Bounds>,
}

/// Something a value was too large or too small for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Broken {
    /// The tensor; `None` for all of them together.
    pub tensor: Option<String>,
    /// Which bound.
    pub bound: &'static str,
    /// Its value.
    pub limit: f64,
    /// What was measured.
    pub measured: f64,
}

impl Bounds {
    /// Number of bounds.
    fn len(&self) -> usize {
        [self.max_rmse, self.max_abs, self.min_sqnr_db, self.min_cosine].iter().flatten().count()
    }

    /// The bounds that an error breaks. A comparison with a value that is no number breaks them.
    fn check(&self, tensor: Option<&str>, e: &ErrorStats, broken: &mut Vec<Broken>) {
        let at_most = [("max_rmse", self.max_rmse, e.rmse()), ("max_abs", self.max_abs, e.max_abs)];
        let at_least =
            [("min_sqnr_db", self.min_sqnr_db, e.sqnr_db()), ("min_cosine", self.min_cosine, e.cosine())];
        let mut note = |bound, limit, measured| {
            broken.push(Broken { tensor: tensor.map(str::to_owned), bound, limit, measured });
        };
        for (bound, limit, measured) in at_most {
            if let Some(limit) = limit.filter(|l| e.non_finite > 0 || measured.is_nan() || measured > *l) {
                note(bound, limit, measured);
            }
        }
        for (bound, limit, measured) in at_least {
            if let Some(limit) = limit.filter(|l| e.non_finite > 0 || measured.is_nan() || measured < *l) {
                note(bound, limit, measured);
            }
        }
    }
}

impl Gate {
    /// Number of bounds.
    pub fn len(&self) -> usize {
        self.total.len() + self.tensors.len() + self.roles.values().map(Bounds::len).sum::<usize>()
    }

    /// Whether nothing is bounded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bounds that are broken; empty when the variant passes.
    pub(crate) fn check<'a>(
        &self,
        tensors: impl Iterator<Item = (&'a TensorReport, Option<ErrorStats>)>,
    ) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut total = ErrorStats::default();
        for (t, error) in tensors {
            let Some(e) = error else { continue };
            total.merge(&e);
            self.tensors.check(Some(&t.name), &e, &mut broken);
            if let Some(bounds) = self.roles.get(&t.role) {
                bounds.check(Some(&t.name), &e, &mut broken);
            }
        }
        self.total.check(None, &total, &mut broken);
        broken
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tensor, bound, limit, measured } = self;
        let what = tensor.as_deref().unwrap_or("all tensors");
        write!(f, "{what}: {bound} = {limit} is broken by {measured:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_apply_to_the_total_each_tensor_and_roles() {
        let tensor = |name: &str, role: &str| TensorReport {
            name: name.into(),
            role: role.into(),
            layer: None,
            shape: vec![2],
            source_type: "f32".into(),
            target_type: "f16".into(),
            bytes: 4,
            error: None,
        };
        let stats = |x: f32| {
            let mut s = ErrorStats::default();
            s.add(&[1.0, 1.0], &[1.0 + x, 1.0]);
            Some(s)
        };
        let rows = [
            (tensor("a", "attn_v"), stats(0.5)),
            (tensor("b", "attn_q"), stats(0.5)),
            (tensor("c", "x"), None),
        ];
        let check = |gate: &Gate| gate.check(rows.iter().map(|(t, e)| (t, *e)));
        assert!(check(&Gate::default()).is_empty() && Gate::default().is_empty());
        let mut gate = Gate::default();
        gate.total.max_rmse = Some(0.36);
        gate.tensors.min_sqnr_db = Some(9.0);
        assert!(check(&gate).is_empty());
        gate.total.max_rmse = Some(0.35);
        let broken = check(&gate);
        assert_eq!((broken.len(), &broken[0].tensor, broken[0].bound), (1, &None, "max_rmse"));
        gate.total = Bounds::default();
        gate.roles.insert("attn_v".into(), Bounds { min_sqnr_db: Some(20.0), ..Bounds::default() });
        let broken = check(&gate);
        assert_eq!((broken.len(), broken[0].tensor.as_deref()), (1, Some("a")));
        assert!(broken[0].to_string().contains("min_sqnr_db = 20"));
    }
}

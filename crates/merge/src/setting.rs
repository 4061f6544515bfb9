//! A parameter's value: a scalar, a gradient over layers, or either of them under conditions on tensors' names.
//!
//! As `evaluate_setting` of mergekit's `config.py` resolves it; what is no number or no truth value is found when the
//! recipe is read, not in the middle of a merge.

use serde_json::Value;
use tensormill_model::{Error, Result};

/// What a parameter's scalars are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Flag,
}

/// The parameters that methods have.
pub(crate) const KNOWN: &[(&str, Kind)] = &[
    ("weight", Kind::Number),
    ("density", Kind::Number),
    ("lambda", Kind::Number),
    ("t", Kind::Number),
    ("scale", Kind::Number),
    ("normalize", Kind::Flag),
    ("rescale", Kind::Flag),
    ("int8_mask", Kind::Flag),
];

/// A value for some tensors and layers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    kind: Kind,
    cases: Vec<Case>,
}

/// Values from the first layer to the last, for tensors whose names hold a text.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    filter: Option<String>,
    values: Vec<f64>,
}

/// Most entries in a list: more than any model has layers.
const MOST: usize = 10_000;

impl Setting {
    /// Reads a value; `None` where there is none.
    pub(crate) fn parse(kind: Kind, value: &Value) -> Result<Option<Self>> {
        let conditional = |v: &Value| v.is_object();
        let cases = match value {
            Value::Null => return Ok(None),
            Value::Array(list) if list.len() > MOST => {
                return Err(Error::over_limit(format!("a list of {} values", list.len())));
            }
            Value::Array(list) if list.is_empty() => return Ok(None),
            Value::Array(list) if list.iter().all(conditional) => {
                list.iter().map(|v| Case::parse(kind, v)).collect::<Result<_>>()?
            }
            Value::Object(_) => vec![Case::parse(kind, value)?],
            other => vec![Case { filter: None, values: values(kind, other)? }],
        };
        Ok(Some(Self { kind, cases }))
    }

    /// The value for a tensor at a place between the first layer (0) and the last (1).
    pub(crate) fn at(&self, tensor: &str, t: f64) -> Option<f64> {
        let holds = |c: &&Case| c.filter.as_deref().is_none_or(|f| f == "*" || tensor.contains(f));
        let values = &self.cases.iter().find(holds)?.values;
        let last = values.len().checked_sub(1)?;
        let place = t * last as f64;
        let low = (place as usize).min(last);
        if self.kind == Kind::Flag {
            return values.get(low).copied();
        }
        let high = (low + 1).min(last);
        let part = place - low as f64;
        if last == 0 {
            return values.first().copied();
        }
        Some((1.0 - part) * values[low] + part * values[high])
    }

    /// The first value that a test does not like.
    pub(crate) fn find(&self, bad: impl Fn(f64) -> bool) -> Option<f64> {
        self.cases.iter().flat_map(|c| &c.values).copied().find(|v| bad(*v))
    }
}

impl Case {
    fn parse(kind: Kind, value: &Value) -> Result<Self> {
        let Value::Object(map) = value else { return Err(mixed()) };
        if let Some(key) = map.keys().find(|k| !["filter", "value"].contains(&k.as_str())) {
            return Err(Error::usage(format!("unknown key {key:?}")).hint("a condition has filter and value"));
        }
        let filter = match map.get("filter") {
            None | Some(Value::Null) => None,
            Some(Value::String(s)) => Some(s.clone()),
            Some(_) => return Err(Error::usage("filter is a part of tensors' names, as text")),
        };
        let value = map.get("value").ok_or_else(|| Error::usage("a condition has no value"))?;
        Ok(Self { filter, values: values(kind, value)? })
    }
}

fn mixed() -> Error {
    Error::usage(
        "a list holds either values, from the first layer to the last, or conditions with filter and value",
    )
}

/// One value, or a gradient.
fn values(kind: Kind, value: &Value) -> Result<Vec<f64>> {
    match value {
        Value::Array(list) if list.is_empty() => Err(Error::usage("an empty list of values")),
        Value::Array(list) if list.len() > MOST => {
            Err(Error::over_limit(format!("a list of {} values", list.len())))
        }
        Value::Array(list) => list.iter().map(|v| scalar(kind, v)).collect(),
        one => Ok(vec![scalar(kind, one)?]),
    }
}

fn scalar(kind: Kind, value: &Value) -> Result<f64> {
    let number = match value {
        Value::Number(n) => n.as_f64(),
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        // PyYAML reads `1e-3` as text, and pydantic the text as a number.
        Value::String(s) if kind == Kind::Number => s.trim().parse().ok(),
        Value::String(s) => match s.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(1.0),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(0.0),
            _ => None,
        },
        Value::Array(_) | Value::Object(_) => return Err(mixed()),
        Value::Null => None,
    };
    let fits = |x: &f64| match kind {
        Kind::Number => x.is_finite(),
        Kind::Flag => [0.0, 1.0].contains(x),
    };
    number.filter(fits).ok_or_else(|| {
        let wanted = match kind {
            Kind::Number => "a finite number",
            Kind::Flag => "true or false",
        };
        Error::usage(format!("{value} is not {wanted}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn number(v: &Value) -> Setting {
        Setting::parse(Kind::Number, v).unwrap().unwrap()
    }

    #[test]
    fn gradients_are_interpolated() {
        let s = number(&json!([0, 0.5, 0.3, "1e0"]));
        assert_eq!(s.at("x", 0.0), Some(0.0));
        assert_eq!(s.at("x", 1.0), Some(1.0));
        assert_eq!(s.at("x", 0.5), Some(0.5 * 0.5 + 0.5 * 0.3));
        assert_eq!(number(&json!(0.25)).at("x", 0.7), Some(0.25));
        let flags = Setting::parse(Kind::Flag, &json!([true, false, "yes"])).unwrap().unwrap();
        assert_eq!([0.0, 0.49, 0.5, 1.0].map(|t| flags.at("", t).unwrap()), [1.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn the_first_condition_that_holds_counts() {
        let s = number(&json!([{"filter": "mlp", "value": [1, 2]}, {"filter": "self_attn", "value": 5}]));
        assert_eq!(s.at("layers.0.mlp.up", 1.0), Some(2.0));
        assert_eq!(s.at("layers.0.self_attn.q", 1.0), Some(5.0));
        assert_eq!(s.at("norm", 1.0), None);
        assert_eq!(number(&json!([{"filter": "a", "value": 1}, {"value": 2}])).at("b", 0.0), Some(2.0));
        assert_eq!(number(&json!({"filter": "*", "value": 3})).at("b", 0.0), Some(3.0));
        assert_eq!(Setting::parse(Kind::Number, &json!([])).unwrap(), None);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            json!("x"),
            json!([1, {"value": 2}]),
            json!([[1]]),
            json!({"value": 1, "fliter": "x"}),
            json!({"filter": "x"}),
            json!({"filter": 1, "value": 1}),
            json!([null]),
            json!("inf"),
            json!({"value": []}),
        ] {
            assert!(Setting::parse(Kind::Number, &bad).is_err(), "{bad}");
        }
        assert!(Setting::parse(Kind::Flag, &json!(0.5)).is_err());
    }
}

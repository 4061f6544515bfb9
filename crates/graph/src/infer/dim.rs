//! Arithmetic of dimensions that may be known by name only, or not at all.

use crate::{Dim, fault::Fault};

/// `a + b`.
pub(super) fn add(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => a.checked_add(*b).map_or(Dim::Unknown, Dim::Known),
        (Dim::Known(0), d) | (d, Dim::Known(0)) => d.clone(),
        (Dim::Named(a), Dim::Named(b)) => Dim::Named(format!("{a} + {b}")),
        (Dim::Named(a), Dim::Known(b)) | (Dim::Known(b), Dim::Named(a)) if *b > 0 => {
            Dim::Named(format!("{a} + {b}"))
        }
        _ => Dim::Unknown,
    }
}

/// `a - b`. Of a sum, one part may be taken away again.
pub(super) fn sub(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => a.checked_sub(*b).map_or(Dim::Unknown, Dim::Known),
        (d, Dim::Known(0)) => d.clone(),
        (Dim::Named(a), Dim::Named(b)) if a == b => Dim::Known(0),
        (Dim::Named(a), b) => {
            let b = match b {
                Dim::Named(b) => b.clone(),
                Dim::Known(b) => b.to_string(),
                Dim::Unknown => return Dim::Unknown,
            };
            let rest = a.strip_suffix(&format!(" + {b}")).or_else(|| a.strip_prefix(&format!("{b} + ")));
            rest.map_or(Dim::Unknown, named)
        }
        _ => Dim::Unknown,
    }
}

/// What a text of a sum stands for.
fn named(text: &str) -> Dim {
    text.parse().map_or_else(|_| Dim::Named(text.to_owned()), Dim::Known)
}

/// `a * b`.
pub(super) fn mul(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => a.checked_mul(*b).map_or(Dim::Unknown, Dim::Known),
        (Dim::Known(1), d) | (d, Dim::Known(1)) => d.clone(),
        (Dim::Known(0), _) | (_, Dim::Known(0)) => Dim::Known(0),
        (Dim::Known(k @ 2..), Dim::Named(name)) | (Dim::Named(name), Dim::Known(k @ 2..)) => {
            let (times, name) = factor(name);
            times.checked_mul(*k).map_or(Dim::Unknown, |k| multiple(k, name))
        }
        _ => Dim::Unknown,
    }
}

/// `4*name` as number and name; sums stand in parentheses.
fn factor(name: &str) -> (i64, &str) {
    let split = name.split_once('*').and_then(|(k, rest)| Some((k.parse::<i64>().ok()?, rest)));
    match split {
        Some((k @ 2.., rest)) => {
            (k, rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest))
        }
        _ => (1, name),
    }
}

fn multiple(k: i64, name: &str) -> Dim {
    Dim::Named(match k {
        1 => name.to_owned(),
        _ if name.contains(' ') => format!("{k}*({name})"),
        _ => format!("{k}*{name}"),
    })
}

/// `a / b`, where that is a whole number without a sign.
pub(super) fn div(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) if *a >= 0 && *b > 0 => Dim::Known(a / b),
        (d, Dim::Known(1)) => d.clone(),
        (Dim::Named(name), Dim::Known(by @ 2..)) => match factor(name) {
            (k, name) if k % by == 0 => multiple(k / by, name),
            _ => Dim::Unknown,
        },
        _ => Dim::Unknown,
    }
}

/// One dimension of which two things are known. `None` where they contradict each other.
pub(super) fn same(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) if a != b => None,
        (Dim::Known(_), _) | (_, Dim::Unknown) => Some(a.clone()),
        (_, Dim::Known(_)) | (Dim::Unknown, _) => Some(b.clone()),
        // Two names may stand for one length.
        _ => Some(a.clone()),
    }
}

/// What is known of a dimension that is one of two.
pub(super) fn either(a: &Dim, b: &Dim) -> Dim {
    if a == b { a.clone() } else { Dim::Unknown }
}

/// Dimensions of which two things are known.
pub(super) fn same_all(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    if a.len() != b.len() {
        return None;
    }
    a.iter().zip(b).map(|(a, b)| same(a, b)).collect()
}

/// Dimensions of the result where values of these are taken together element by element.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Fault> {
    let rank = a.len().max(b.len());
    let one = Dim::Known(1);
    let at = |dims: &[Dim], i: usize| -> Dim {
        (i + dims.len()).checked_sub(rank).map_or(one.clone(), |i| dims[i].clone())
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (Dim::Known(1), d) | (d, Dim::Known(1)) => Ok(d),
            (Dim::Known(x), Dim::Known(y)) if x != y => Err(Fault::Contradiction(format!(
                "dimensions {} and {} do not broadcast: {x} beside {y}",
                show(a),
                show(b)
            ))),
            (Dim::Known(n), _) | (_, Dim::Known(n)) => Ok(Dim::Known(n)),
            (x, y) if x == y => Ok(x),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// The number of elements: a number, or a multiple of a name.
pub(super) fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::Known(1), |n, d| mul(&n, d))
}

/// Dimensions as errors show them.
pub(crate) fn show(dims: &[Dim]) -> String {
    let each: Vec<String> = dims
        .iter()
        .map(|d| match d {
            Dim::Known(n) => n.to_string(),
            Dim::Named(name) => name.clone(),
            Dim::Unknown => "?".to_owned(),
        })
        .collect();
    format!("[{}]", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(text: &str) -> Vec<Dim> {
        let one = |d: &str| match d {
            "?" => Dim::Unknown,
            d => named(d),
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn sums_keep_names() {
        let [past, new] = ["past", "new"].map(Dim::from);
        let total = add(&past, &new);
        assert_eq!(total, Dim::from("past + new"));
        assert_eq!((sub(&total, &new), sub(&total, &past)), (past.clone(), new.clone()));
        assert_eq!(sub(&add(&past, &1.into()), &1.into()), past);
        assert_eq!(sub(&add(&Dim::from("3"), &new), &new), Dim::Known(3));
        assert_eq!((sub(&new, &new), sub(&new, &past)), (Dim::Known(0), Dim::Unknown));
        assert_eq!(add(&i64::MAX.into(), &1.into()), Dim::Unknown);
    }

    #[test]
    fn multiples_keep_names() {
        let length = Dim::from("past + new");
        let four = mul(&mul(&2.into(), &length), &2.into());
        assert_eq!(four, Dim::from("4*(past + new)"));
        assert_eq!((div(&four, &4.into()), div(&four, &2.into())), (length.clone(), mul(&length, &2.into())));
        assert_eq!((div(&four, &3.into()), div(&length, &2.into())), (Dim::Unknown, Dim::Unknown));
        assert_eq!(mul(&Dim::from("seq"), &3.into()), Dim::from("3*seq"));
    }

    #[test]
    fn broadcasting_says_no_more_than_is_known() {
        let both = |a: &str, b: &str| broadcast(&dims(a), &dims(b)).map(|d| show(&d));
        assert_eq!(both("batch 1 4", "seq 4").as_deref(), Ok("[batch, seq, 4]"));
        assert_eq!(both("batch 4", "? 4").as_deref(), Ok("[?, 4]"), "either may be one");
        assert_eq!(both("batch", "7").as_deref(), Ok("[7]"));
        assert_eq!(both("", "7 a").as_deref(), Ok("[7, a]"));
        assert_eq!(both("0", "1").as_deref(), Ok("[0]"));
        assert!(both("3 4", "2 4").is_err());
    }
}

//! Operators that make shapes: of values, of nothing, or other ones for the same elements.
#![expect(clippy::unnecessary_wraps, reason = "rules have one form, whether they can fail or not")]

use super::{
    Fact,
    call::{Call, Found, Outputs, axis},
    dim::{self, broadcast, product, show},
};
use crate::{Dim, fault::Fault};

/// Ranks above this one are taken for nonsense.
const MOST_RANK: i64 = 64;

/// Dimensions that an input lists; not known ones where only their number is known.
fn target(call: &Call<'_>, input: usize) -> Option<Vec<Dim>> {
    if let Some(data) = call.data(input) {
        return Some(data.to_vec());
    }
    match call.dims(input)? {
        [Dim::Known(n @ 0..=MOST_RANK)] => Some(vec![Dim::Unknown; *n as usize]),
        _ => None,
    }
}

/// As [`target`]; negative ones are not known.
fn lengths(call: &Call<'_>, input: usize) -> Option<Vec<Dim>> {
    let one = |d: Dim| if matches!(d, Dim::Known(..0)) { Dim::Unknown } else { d };
    Some(target(call, input)?.into_iter().map(one).collect())
}

/// `Shape`: a list of dimensions.
pub(super) fn shape(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(vec![Found::dims(vec![Dim::Unknown])]) };
    let rank = dims.len() as i64;
    let place = |n: i64| (if n < 0 { n.saturating_add(rank) } else { n }).clamp(0, rank) as usize;
    let (start, end) = (place(call.int("start", 0)), place(call.int("end", rank)));
    let part = dims.get(start..end).unwrap_or_default().to_vec();
    Ok(vec![Found::dims(vec![Dim::Known(part.len() as i64)]).with(Some(part))])
}

/// `Size`: the number of elements.
pub(super) fn size(call: &Call<'_>) -> Outputs {
    let n = call.dims(0).map(product);
    Ok(vec![Found::dims(Vec::new()).with(n.map(|n| vec![n]))])
}

/// `Reshape`.
pub(super) fn reshape(call: &Call<'_>) -> Outputs {
    let Some(wanted) = target(call, 1) else { return Ok(vec![Found::nothing()]) };
    let from = call.dims(0);
    let zero_copies = call.int("allowzero", 0) == 0;
    let mut dims = Vec::with_capacity(wanted.len());
    let mut rest = None;
    for (i, d) in wanted.iter().enumerate() {
        dims.push(match d {
            Dim::Known(0) if zero_copies => match from {
                None => Dim::Unknown,
                Some(from) => from.get(i).cloned().ok_or_else(|| {
                    Fault::Contradiction(format!("dimension {i} is to be that of {}", show(from)))
                })?,
            },
            Dim::Known(-1) if rest.replace(i).is_some() => return Call::wrong("two dimensions are -1"),
            Dim::Known(..0) => Dim::Unknown,
            d => d.clone(),
        });
    }
    if let Some(from) = from {
        // What is not known may be -1, too.
        let sure = !wanted.contains(&Dim::Unknown);
        match rest {
            Some(i) if sure => dims[i] = what_is_left(from, &dims, i)?,
            None if sure => fits(from, &dims)?,
            _ => {}
        }
    }
    let data = call.data(0).filter(|_| dims.len() < 2).map(<[_]>::to_vec);
    Ok(vec![Found::dims(dims).with(data)])
}

/// Refuses dimensions with another number of elements.
fn fits(from: &[Dim], to: &[Dim]) -> Result<(), Fault> {
    match dim::same(&product(from), &product(to)) {
        Some(_) => Ok(()),
        None => Call::wrong(format!("{} has another number of elements than {}", show(from), show(to))),
    }
}

/// The dimension at `at`, with which `to` has as many elements as `from`.
fn what_is_left(from: &[Dim], to: &[Dim], at: usize) -> Result<Dim, Fault> {
    let mut from_rest = from.to_vec();
    let mut to_rest = Vec::new();
    for d in to.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, d)| d) {
        match from_rest.iter().position(|f| f == d && *d != Dim::Unknown && *d != Dim::Known(0)) {
            Some(i) => drop(from_rest.remove(i)),
            None => to_rest.push(d.clone()),
        }
    }
    let (many, each) = (product(&from_rest), product(&to_rest));
    match (&many, &each) {
        (Dim::Known(many), Dim::Known(each)) if *each > 0 && many % each != 0 => {
            let text = format!("{} cannot be {} with a whole number in place of -1", show(from), show(to));
            Call::wrong(text)
        }
        _ => Ok(dim::div(&many, &each)),
    }
}

/// `Flatten`.
pub(super) fn flatten(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(vec![Found::dims(vec![Dim::Unknown; 2])]) };
    // The axis may stand behind the last dimension.
    let at = axis(call.int("axis", 1), dims.len())
        .or_else(|e| if call.int("axis", 1) == dims.len() as i64 { Ok(dims.len()) } else { Err(e) })?;
    Ok(vec![Found::dims(vec![product(&dims[..at]), product(&dims[at..])])])
}

/// `Transpose`.
pub(super) fn transpose(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let Some(order) = call.node.attribute("perm").map(|a| &a.ints) else {
        return Ok(vec![Found::dims(dims.iter().rev().cloned().collect())]);
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..dims.len() as i64) {
        return Call::wrong(format!("{order:?} is no order of the dimensions {}", show(dims)));
    }
    Ok(vec![Found::dims(order.iter().map(|i| dims[*i as usize].clone()).collect())])
}

/// `Unsqueeze`.
pub(super) fn unsqueeze(call: &Call<'_>) -> Outputs {
    let (Some(dims), Some(axes)) = (call.dims(0), call.ints_of("axes", 1)) else { return Ok(Vec::new()) };
    let rank = dims.len() + axes.len();
    let mut new = vec![false; rank];
    for n in axes {
        if std::mem::replace(&mut new[axis(n, rank)?], true) {
            return Call::wrong(format!("axis {n} is named twice"));
        }
    }
    let mut old = dims.iter();
    let dims = new.iter().filter_map(|new| if *new { Some(Dim::Known(1)) } else { old.next().cloned() });
    Ok(vec![Found::dims(dims.collect()).with(call.data(0).map(<[_]>::to_vec))])
}

/// `Squeeze`.
pub(super) fn squeeze(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let given = call.node.attribute("axes").is_some() || call.has(1);
    let mut gone = vec![false; dims.len()];
    if given {
        let Some(axes) = call.ints_of("axes", 1) else { return Ok(Vec::new()) };
        for n in axes {
            let at = axis(n, dims.len())?;
            if matches!(dims[at], Dim::Known(n) if n != 1) {
                return Call::wrong(format!("dimension {at} of {} is not one", show(dims)));
            }
            gone[at] = true;
        }
    } else if dims.iter().all(|d| matches!(d, Dim::Known(_))) {
        gone = dims.iter().map(|d| *d == Dim::Known(1)).collect();
    } else {
        return Ok(Vec::new());
    }
    let left = dims.iter().zip(gone).filter(|(_, gone)| !gone).map(|(d, _)| d.clone()).collect();
    Ok(vec![Found::dims(left).with(call.data(0).map(<[_]>::to_vec))])
}

/// `Expand`.
pub(super) fn expand(call: &Call<'_>) -> Outputs {
    let (Some(dims), Some(to)) = (call.dims(0), lengths(call, 1)) else { return Ok(Vec::new()) };
    let dims = broadcast(dims, &to)?;
    let data = match (&dims[..], call.data(0)) {
        ([Dim::Known(n @ 0..)], Some([one])) if *n as usize <= super::MOST_DATA => {
            Some(vec![one.clone(); *n as usize])
        }
        (_, data) => data.filter(|d| dims == [Dim::Known(d.len() as i64)]).map(<[_]>::to_vec),
    };
    Ok(vec![Found::dims(dims).with(data)])
}

/// `Tile`.
pub(super) fn tile(call: &Call<'_>) -> Outputs {
    let (Some(dims), Some(times)) = (call.dims(0), lengths(call, 1)) else { return Ok(Vec::new()) };
    if dims.len() != times.len() {
        return Call::wrong(format!("{} repeats for the dimensions {}", times.len(), show(dims)));
    }
    Ok(vec![Found::dims(dims.iter().zip(&times).map(|(d, n)| dim::mul(d, n)).collect())])
}

/// `Constant`.
pub(super) fn constant(call: &Call<'_>) -> Outputs {
    let Some(a) = call.node.attributes.first() else { return Ok(Vec::new()) };
    let list = |n: usize| Found::dims(vec![Dim::Known(n as i64)]);
    Ok(vec![match a.name.as_str() {
        "value" => a.t.as_ref().map_or_else(Found::nothing, |t| {
            let Fact { dims, data, .. } = Fact::of_tensor(t);
            Found { dims, data }
        }),
        "value_int" => Found::dims(Vec::new()).with(a.i.map(|n| vec![Dim::Known(n)])),
        "value_float" | "value_string" => Found::dims(Vec::new()),
        "value_ints" => list(a.ints.len()).with(Some(a.ints.iter().map(|n| Dim::Known(*n)).collect())),
        "value_floats" => list(a.floats.len()),
        "value_strings" => list(a.strings.len()),
        "sparse_value" => {
            Found::maybe(a.sparse.as_ref().map(|s| s.dims.iter().map(|d| Dim::Known(*d)).collect()))
        }
        _ => Found::nothing(),
    }])
}

/// `ConstantOfShape`.
pub(super) fn constant_of_shape(call: &Call<'_>) -> Outputs {
    let Some(dims) = lengths(call, 0) else { return Ok(Vec::new()) };
    let value = call.node.attribute("value").and_then(|a| a.t.as_ref()?.as_ints()?.first().copied());
    let n = match &dims[..] {
        [] => Some(1),
        [Dim::Known(n)] => usize::try_from(*n).ok().filter(|n| *n <= super::MOST_DATA),
        _ => None,
    };
    let data = value.zip(n).map(|(value, n)| vec![Dim::Known(value); n]);
    Ok(vec![Found::dims(dims).with(data)])
}

/// `Range`.
pub(super) fn range(call: &Call<'_>) -> Outputs {
    let one = |i: usize| match call.data(i) {
        Some([d]) => d.clone(),
        _ => Dim::Unknown,
    };
    let (start, limit, step) = (one(0), one(1), one(2));
    let mut data = None;
    let n = match (&start, &limit, &step) {
        (_, _, Dim::Known(0)) => return Call::wrong("a range with steps of zero"),
        (Dim::Known(start), Dim::Known(limit), Dim::Known(step)) => {
            let way = i128::from(*limit) - i128::from(*start);
            let n = (way / i128::from(*step) + i128::from(way % i128::from(*step) != 0)).max(0);
            let ahead = (way > 0) == (*step > 0);
            let n = if ahead { i64::try_from(n).ok() } else { Some(0) };
            if let Some(n) = n.filter(|n| *n as usize <= super::MOST_DATA) {
                data = Some((0..n).map(|i| Dim::Known(start.wrapping_add(i.wrapping_mul(*step)))).collect());
            }
            n.map_or(Dim::Unknown, Dim::Known)
        }
        (start, limit, Dim::Known(1)) => match dim::sub(limit, start) {
            Dim::Known(..0) => Dim::Known(0),
            n => n,
        },
        _ => Dim::Unknown,
    };
    Ok(vec![Found::dims(vec![n]).with(data)])
}

/// `NonZero`: as many places as there are.
pub(super) fn non_zero(call: &Call<'_>) -> Outputs {
    let rank = call.dims(0).map_or(Dim::Unknown, |d| Dim::Known(d.len() as i64));
    Ok(vec![Found::dims(vec![rank, Dim::Unknown])])
}

/// `OneHot`: one more dimension.
pub(super) fn one_hot(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let at = call.axis(-1, dims.len() + 1)?;
    let mut dims = dims.to_vec();
    dims.insert(at, call.ints(1).and_then(|n| n.first().copied()).map_or(Dim::Unknown, Dim::Known));
    Ok(vec![Found::dims(dims)])
}

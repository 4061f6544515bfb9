//! Operators that take parts of values, or put them together.

use super::{
    call::{Call, Found, Outputs, axis},
    dim::{self, same, same_all, show},
};
use crate::{Dim, fault::Fault};

/// `Concat`.
pub(super) fn concat(call: &Call<'_>) -> Outputs {
    let n = call.node.inputs.len();
    let Some(first) = (0..n).find_map(|i| call.dims(i)) else { return Ok(Vec::new()) };
    let at = call.axis(1, first.len())?;
    let mut dims = first.to_vec();
    dims[at] = Dim::Known(0);
    for i in 0..n {
        let Some(d) = call.dims(i) else {
            dims[at] = Dim::Unknown;
            continue;
        };
        let mut rest = d.to_vec();
        if let Some(own) = rest.get_mut(at) {
            dims[at] = dim::add(&dims[at], own);
            *own = Dim::Unknown;
        }
        dims = same_all(&dims, &rest).ok_or_else(|| {
            let name = &call.node.inputs[i];
            let text = format!("{name:?}, {}, beside {}, along dimension {at}", show(d), show(first));
            Fault::Contradiction(text)
        })?;
    }
    let data = (0..n).map(|i| match (call.data(i), call.dims(i)) {
        (Some(data), _) => Some(data.to_vec()),
        (None, Some([Dim::Known(n @ 0..)])) if *n as usize <= super::MOST_DATA => {
            Some(vec![Dim::Unknown; *n as usize])
        }
        _ => None,
    });
    let data: Option<Vec<Vec<Dim>>> = data.collect();
    // Lists of numbers that are not whole have no data, nor what they are put together into.
    let some = (0..n).any(|i| call.data(i).is_some());
    Ok(vec![Found::dims(dims).with(data.filter(|_| some).map(|d| d.concat()))])
}

/// `Split`.
pub(super) fn split(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let at = call.axis(0, dims.len())?;
    let n = call.node.outputs.len();
    let given = call.node.attribute("split").is_some() || call.has(1);
    let sizes: Vec<Dim> = match (call.ints_of("split", 1), &dims[at]) {
        (Some(sizes), whole) => {
            let sum = sizes.iter().try_fold(0i64, |sum, n| sum.checked_add(*n)).unwrap_or(i64::MAX);
            if sizes.len() != n || same(&Dim::Known(sum), whole).is_none() {
                let text = format!("parts {sizes:?} for {n} outputs, along dimension {at} of {}", show(dims));
                return Call::wrong(text);
            }
            sizes.into_iter().map(Dim::Known).collect()
        }
        (None, Dim::Known(whole @ 0..)) if !given && n > 0 => {
            let each = (*whole as u64).div_ceil(n as u64) as i64;
            if call.version < 18 && each.checked_mul(n as i64) != Some(*whole) {
                return Call::wrong(format!("{whole} along dimension {at} are no {n} equal parts"));
            }
            let part = |i: usize| each.min((*whole).saturating_sub(each.saturating_mul(i as i64)).max(0));
            (0..n).map(|i| Dim::Known(part(i))).collect()
        }
        _ => vec![Dim::Unknown; n],
    };
    let mut from = 0;
    let part = |size: Dim| {
        let mut dims = dims.to_vec();
        dims[at] = size.clone();
        let data = match (size, call.data(0)) {
            (Dim::Known(len), Some(data)) => {
                let start = from;
                from += len.max(0) as usize;
                data.get(start..from).map(<[_]>::to_vec)
            }
            _ => None,
        };
        Found::dims(dims).with(data)
    };
    Ok(sizes.into_iter().map(part).collect())
}

/// `Slice`.
pub(super) fn slice(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let list = |name: &str, i: usize| -> Option<Vec<Dim>> {
        match call.node.attribute(name) {
            Some(a) => Some(a.ints.iter().map(|n| Dim::Known(*n)).collect()),
            None => call.data(i).map(<[_]>::to_vec),
        }
    };
    let counted = list("starts", 1).or_else(|| list("ends", 2)).map(|l| l.len());
    let whole = |n: usize| (0..n as i64).collect::<Vec<_>>();
    let given = call.node.attribute("axes").is_some() || call.has(3);
    let axes = if given { call.ints_of("axes", 3) } else { counted.map(whole) };
    let Some(axes) = axes else {
        return Ok(vec![Found::dims(vec![Dim::Unknown; dims.len()])]);
    };
    let (starts, ends) = (list("starts", 1), list("ends", 2));
    let steps = if call.has(4) { list("steps", 4) } else { Some(vec![Dim::Known(1); axes.len()]) };
    let mut out = dims.to_vec();
    let mut data = call.data(0).map(<[_]>::to_vec);
    for (i, n) in axes.iter().enumerate() {
        let at = axis(*n, dims.len())?;
        let of = |l: &Option<Vec<Dim>>| l.as_ref().and_then(|l| l.get(i).cloned()).unwrap_or(Dim::Unknown);
        let (start, end, step) = (of(&starts), of(&ends), of(&steps));
        if step == Dim::Known(0) {
            return Call::wrong("a slice with steps of zero");
        }
        out[at] = sliced(&dims[at], &start, &end, &step);
        data = match (data, start, end, step) {
            (Some(data), Dim::Known(start), Dim::Known(end), Dim::Known(step)) => {
                let (first, many) = places(data.len() as i64, start, end, step);
                Some((0..many).map(|i| data[(first + i * step) as usize].clone()).collect())
            }
            _ => None,
        };
    }
    Ok(vec![Found::dims(out).with(data)])
}

/// From this number on, ends are behind everything.
const FAR: i64 = i32::MAX as i64;

/// How long a slice is.
fn sliced(len: &Dim, start: &Dim, end: &Dim, step: &Dim) -> Dim {
    match (len, start, end, step) {
        (Dim::Known(len @ 0..), Dim::Known(start), Dim::Known(end), Dim::Known(step)) => {
            Dim::Known(places(*len, *start, *end, *step).1)
        }
        (_, Dim::Known(0), Dim::Known(FAR..), Dim::Known(1)) => len.clone(),
        (_, Dim::Known(0), end, Dim::Known(1)) if end == len => len.clone(),
        // A sum is at least as long as its parts.
        (Dim::Named(_), start @ (Dim::Known(0..) | Dim::Named(_)), Dim::Known(FAR..), Dim::Known(1)) => {
            dim::sub(len, start)
        }
        (Dim::Named(_), start @ (Dim::Known(0..) | Dim::Named(_)), end, Dim::Known(1)) if end == len => {
            dim::sub(len, start)
        }
        _ => Dim::Unknown,
    }
}

/// First place and number of places of a slice, ends put where there is something.
fn places(len: i64, start: i64, end: i64, step: i64) -> (i64, i64) {
    let wrapped = |n: i64| if n < 0 { n.saturating_add(len) } else { n };
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let (start, end) = (wrapped(start).clamp(low, high), wrapped(end).clamp(low, high));
    let way = if step > 0 { end - start } else { start - end };
    let each = step.unsigned_abs();
    let many = if way > 0 { (way as u64).div_ceil(each) as i64 } else { 0 };
    (start, many)
}

/// `Gather`.
pub(super) fn gather(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let at = call.axis(0, dims.len())?;
    if let (Some(list), Dim::Known(len)) = (call.ints(1), &dims[at])
        && let Some(n) = list.iter().find(|n| !(-*len..*len).contains(*n))
    {
        return Call::wrong(format!("there is no place {n} along dimension {at} of {}", show(dims)));
    }
    let Some(indices) = call.dims(1) else { return Ok(Vec::new()) };
    let out = [&dims[..at], indices, &dims[at + 1..]].concat();
    let data = call.data(0).filter(|_| dims.len() == 1).zip(call.ints(1)).and_then(|(data, list)| {
        let len = data.len() as i64;
        let one = |n: i64| data.get(usize::try_from(if n < 0 { n + len } else { n }).ok()?).cloned();
        list.into_iter().map(one).collect()
    });
    Ok(vec![Found::dims(out).with(data)])
}

/// `GatherElements`: as many as there are indices.
pub(super) fn gather_elements(call: &Call<'_>) -> Outputs {
    if let (Some(a), Some(b)) = (call.dims(0), call.dims(1))
        && a.len() != b.len()
    {
        return Call::wrong(format!("indices {} for {}", show(b), show(a)));
    }
    Ok(vec![Found::maybe(call.dims(1).map(<[_]>::to_vec))])
}

/// `GatherND`.
pub(super) fn gather_nd(call: &Call<'_>) -> Outputs {
    let (Some(dims), Some(indices)) = (call.dims(0), call.dims(1)) else { return Ok(Vec::new()) };
    let Some((Dim::Known(each), places)) = indices.split_last() else { return Ok(Vec::new()) };
    let from = usize::try_from(call.int("batch_dims", 0)).ok().and_then(|b| b.checked_add(*each as usize));
    match from.and_then(|from| dims.get(from..)) {
        Some(rest) => Ok(vec![Found::dims([places, rest].concat())]),
        None => Call::wrong(format!("indices {} say more places than {} has", show(indices), show(dims))),
    }
}

/// `TopK`.
pub(super) fn top_k(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let at = call.axis(-1, dims.len())?;
    let mut dims = dims.to_vec();
    let many = call.node.int("k").or_else(|| call.ints(1)?.first().copied());
    dims[at] = many.map_or(Dim::Unknown, Dim::Known);
    Ok(vec![Found::dims(dims); 2])
}

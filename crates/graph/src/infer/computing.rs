//! Operators that compute: element by element, products, sums over dimensions, windows.
#![expect(clippy::unnecessary_wraps, reason = "rules have one form, whether they can fail or not")]

use super::{
    call::{Call, Found, Outputs, axis},
    dim::{self, broadcast, same, show},
};
use crate::{Dim, fault::Fault};

/// The input, its elements too: `Cast` changes no integer that is a dimension.
pub(super) fn as_it_stands(call: &Call<'_>) -> Outputs {
    let dims = call.dims(0).map(<[_]>::to_vec);
    Ok(vec![Found::maybe(dims).with(call.data(0).map(<[_]>::to_vec))])
}

/// All inputs taken together.
pub(super) fn elementwise(call: &Call<'_>) -> Outputs {
    let mut dims: Option<Vec<Dim>> = None;
    for i in 0..call.node.inputs.len() {
        let Some(d) = call.dims(i) else { return Ok(vec![Found::nothing()]) };
        dims = Some(match dims {
            None => d.to_vec(),
            Some(so_far) => broadcast(&so_far, d)?,
        });
    }
    let op: Option<fn(&Dim, &Dim) -> Dim> = match call.node.op.as_str() {
        "Add" => Some(dim::add),
        "Sub" => Some(dim::sub),
        "Mul" => Some(dim::mul),
        "Div" => Some(dim::div),
        "Equal" => Some(equal),
        _ => None,
    };
    let data = match (op, call.data(0), call.data(1)) {
        (Some(op), Some(a), Some(b)) => zip(a, b, op),
        (None, Some(_), Some(_)) if call.node.op == "Where" => chosen(call),
        _ => None,
    };
    Ok(vec![Found::maybe(dims).with(data)])
}

/// Lists element by element; one alone goes with all of the other.
fn zip(a: &[Dim], b: &[Dim], op: fn(&Dim, &Dim) -> Dim) -> Option<Vec<Dim>> {
    match (a, b) {
        (_, _) if a.len() == b.len() => Some(a.iter().zip(b).map(|(a, b)| op(a, b)).collect()),
        (_, [b]) => Some(a.iter().map(|a| op(a, b)).collect()),
        ([a], _) => Some(b.iter().map(|b| op(a, b)).collect()),
        _ => None,
    }
}

/// Truth values are 0 and 1.
fn equal(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(a), Dim::Known(b)) => Dim::Known((a == b).into()),
        (Dim::Named(a), Dim::Named(b)) if a == b => Dim::Known(1),
        // What has a name is a length.
        (Dim::Named(_), Dim::Known(n)) | (Dim::Known(n), Dim::Named(_)) if *n < 0 => Dim::Known(0),
        _ => Dim::Unknown,
    }
}

fn chosen(call: &Call<'_>) -> Option<Vec<Dim>> {
    let (which, a, b) = (call.data(0)?, call.data(1)?, call.data(2)?);
    let n = which.len().max(a.len()).max(b.len());
    let at =
        |list: &[Dim], i: usize| if list.len() == 1 { list.first().cloned() } else { list.get(i).cloned() };
    (0..n)
        .map(|i| {
            let (a, b) = (at(a, i)?, at(b, i)?);
            Some(match at(which, i)? {
                Dim::Known(0) => b,
                Dim::Known(_) => a,
                _ => dim::either(&a, &b),
            })
        })
        .collect()
}

/// The input; mean and deviation have one in place of what they are taken over.
pub(super) fn normalization(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let from = call.axis(-1, dims.len())?;
    for i in 1..call.node.inputs.len() {
        if let Some(scale) = call.dims(i)
            && broadcast(&dims[from..], scale).is_err()
        {
            let name = &call.node.inputs[i];
            let text = format!("{name:?}, {}, does not fit what is normalized, {}", show(scale), show(dims));
            return Call::wrong(text);
        }
    }
    let mut means = dims.to_vec();
    means[from..].fill(Dim::Known(1));
    Ok(vec![Found::dims(dims.to_vec()), Found::dims(means.clone()), Found::dims(means)])
}

/// `MatMul`: as `numpy.matmul`.
pub(super) fn matmul(call: &Call<'_>) -> Outputs {
    let (Some(a), Some(b)) = (call.dims(0), call.dims(1)) else { return Ok(Vec::new()) };
    Ok(vec![Found::dims(product(a, b)?)])
}

/// Dimensions of the product of matrices.
pub(super) fn product(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, Fault> {
    let (Some(inner_a), Some(_)) = (a.last(), b.first()) else {
        return Call::wrong("a factor of a product of matrices has no dimensions");
    };
    let inner_b = &b[b.len().saturating_sub(2)];
    if same(inner_a, inner_b).is_none() {
        return Call::wrong(format!(
            "inner dimensions of {} and {} are {} and {}",
            show(a),
            show(b),
            show(std::slice::from_ref(inner_a)),
            show(std::slice::from_ref(inner_b)),
        ));
    }
    let stacks = |d: &[Dim]| d[..d.len().saturating_sub(2)].to_vec();
    let mut dims = broadcast(&stacks(a), &stacks(b))?;
    if a.len() > 1 {
        dims.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        dims.push(b[b.len() - 1].clone());
    }
    Ok(dims)
}

/// `Gemm`.
pub(super) fn gemm(call: &Call<'_>) -> Outputs {
    call.rank(0, 2..=2)?;
    call.rank(1, 2..=2)?;
    let (Some(a), Some(b)) = (call.dims(0), call.dims(1)) else { return Ok(Vec::new()) };
    let turned = |d: &[Dim], name: &str| -> Vec<Dim> {
        if call.int(name, 0) == 0 { d.to_vec() } else { d.iter().rev().cloned().collect() }
    };
    let dims = product(&turned(a, "transA"), &turned(b, "transB"))?;
    if let Some(c) = call.dims(2) {
        broadcast(&dims, c)?;
    }
    Ok(vec![Found::dims(dims)])
}

/// `Reduce...`.
pub(super) fn reduce(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let keep = call.int("keepdims", 1) != 0;
    let given = call.node.attribute("axes").is_some() || call.has(1);
    let Some(axes) = call.ints_of("axes", 1).or((!given).then(Vec::new)) else {
        return Ok(vec![Found::maybe(keep.then(|| vec![Dim::Unknown; dims.len()]))]);
    };
    if axes.is_empty() && call.int("noop_with_empty_axes", 0) != 0 {
        return Ok(vec![Found::dims(dims.to_vec())]);
    }
    let mut gone = vec![axes.is_empty(); dims.len()];
    for n in axes {
        gone[axis(n, dims.len())?] = true;
    }
    let left = dims
        .iter()
        .zip(gone)
        .filter_map(|(d, gone)| if gone { keep.then_some(Dim::Known(1)) } else { Some(d.clone()) });
    Ok(vec![Found::dims(left.collect())])
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return Ok(Vec::new()) };
    let at = call.axis(0, dims.len())?;
    let mut dims = dims.to_vec();
    if call.int("keepdims", 1) != 0 {
        dims[at] = Dim::Known(1);
    } else {
        dims.remove(at);
    }
    Ok(vec![Found::dims(dims)])
}

/// What moves over the dimensions behind batch and channels: convolutions and pools.
pub(super) fn windows(call: &Call<'_>) -> Outputs {
    let conv = call.node.op.starts_with("Conv");
    let Some(x) = call.dims(0) else { return Ok(Vec::new()) };
    call.rank(0, 3..=usize::MAX)?;
    let weight = if conv { call.dims(1) } else { None };
    if let Some(w) = weight {
        if w.len() != x.len() {
            return Call::wrong(format!("the kernels, {}, do not fit {}", show(w), show(x)));
        }
        let channels = dim::mul(&w[1], &Dim::Known(call.int("group", 1)));
        if same(&channels, &x[1]).is_none() {
            return Call::wrong(format!(
                "the kernels, {}, are for other channels than {} has",
                show(w),
                show(x)
            ));
        }
    }
    let n = x.len() - 2;
    let list = |name: &str| call.node.attribute(name).map(|a| a.ints.clone()).filter(|l| !l.is_empty());
    let kernel: Option<Vec<Dim>> = match list("kernel_shape") {
        Some(k) => Some(k.into_iter().map(Dim::Known).collect()),
        None => weight.map(|w| w[2..].to_vec()),
    };
    let (strides, dilations) =
        (list("strides").unwrap_or(vec![1; n]), list("dilations").unwrap_or(vec![1; n]));
    let pads = list("pads").unwrap_or(vec![0; 2 * n]);
    let auto = call.node.attribute("auto_pad").and_then(|a| a.s.as_deref()).unwrap_or(b"NOTSET");
    let wrong = [kernel.as_ref().map_or(n, Vec::len), strides.len(), dilations.len(), pads.len() / 2];
    if wrong.iter().any(|len| *len != n) {
        return Call::wrong(format!("attributes for other than the {n} dimensions of {}", show(x)));
    }
    let mut dims = vec![x[0].clone()];
    dims.push(if conv { weight.map_or(Dim::Unknown, |w| w[0].clone()) } else { x[1].clone() });
    for i in 0..n {
        let kernel = kernel.as_ref().map_or(Dim::Unknown, |k| k[i].clone());
        let window = Window {
            stride: strides[i],
            dilation: dilations[i],
            pads: if auto == b"NOTSET" { pads[i].saturating_add(pads[i + n]) } else { 0 },
            same: auto.starts_with(b"SAME"),
            up: call.int("ceil_mode", 0) != 0,
        };
        dims.push(window.steps(&x[i + 2], &kernel).map_or(Dim::Unknown, Dim::Known));
    }
    Ok(vec![Found::dims(dims); 2])
}

struct Window {
    stride: i64,
    dilation: i64,
    pads: i64,
    same: bool,
    up: bool,
}

impl Window {
    /// At how many places it stands; `None` where that is not known.
    fn steps(&self, len: &Dim, kernel: &Dim) -> Option<i64> {
        let (Dim::Known(len), Dim::Known(kernel)) = (len, kernel) else { return None };
        if self.stride < 1 || *len < 0 {
            return None;
        }
        let up = |n: i64| n / self.stride + i64::from(n % self.stride != 0);
        if self.same {
            return Some(up(*len));
        }
        let covered = self.dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
        let room = len.checked_add(self.pads)?.checked_sub(covered)?;
        // Whether the last window may stand half outside is a matter of versions.
        if room < 0 || self.up && room % self.stride != 0 {
            return None;
        }
        Some(room / self.stride + 1)
    }
}

/// `Global...Pool`.
pub(super) fn global(call: &Call<'_>) -> Outputs {
    call.rank(0, 3..=usize::MAX)?;
    let pooled = |x: &[Dim]| {
        let mut dims = x.to_vec();
        dims[2..].fill(Dim::Known(1));
        dims
    };
    Ok(vec![Found::maybe(call.dims(0).map(pooled))])
}

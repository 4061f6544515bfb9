//! Operators on codes: dequantizing, quantizing, and products and tables that hold their weights in blocks.
#![expect(clippy::unnecessary_wraps, reason = "rules have one form, whether they can fail or not")]

use super::{
    call::{Call, Found, Outputs, axis},
    dim::{self, same, show},
};
use crate::Dim;

/// `DequantizeLinear` and `QuantizeLinear`: scales are one, one for every place along an axis, or one for every block of them.
pub(super) fn linear(call: &Call<'_>) -> Outputs {
    let Some(x) = call.dims(0) else { return Ok(Vec::new()) };
    let all = Ok(vec![Found::dims(x.to_vec())]);
    let Some(scales) = call.dims(1) else { return all };
    let block = call.int("block_size", 0);
    let fits = match scales {
        [] | [Dim::Known(1)] => true,
        [many] if block == 0 => same(many, &x[axis(call.int("axis", 1), x.len())?]).is_some(),
        _ if block > 0 && scales.len() == x.len() => {
            let at = axis(call.int("axis", 1), x.len())?;
            let mut blocks = x.to_vec();
            blocks[at] = match x[at] {
                Dim::Known(n @ 0..) => Dim::Known((n as u64).div_ceil(block as u64) as i64),
                _ => Dim::Unknown,
            };
            dim::same_all(&blocks, scales).is_some()
        }
        _ => false,
    };
    if !fits {
        let name = &call.node.inputs[1];
        return Call::wrong(format!("scales {name:?}, {}, do not fit {}", show(scales), show(x)));
    }
    match (call.has(2), call.dims(2)) {
        (true, Some(zero)) if zero != scales && dim::same_all(zero, scales).is_none() => {
            let name = &call.node.inputs[2];
            Call::wrong(format!("zero points {name:?}, {}, beside scales {}", show(zero), show(scales)))
        }
        _ => all,
    }
}

/// `DynamicQuantizeLinear`: codes, a scale, a zero point.
pub(super) fn dynamic(call: &Call<'_>) -> Outputs {
    let one = Found::dims(Vec::new());
    Ok(vec![Found::maybe(call.dims(0).map(<[_]>::to_vec)), one.clone(), one])
}

/// Number of elements of an input, where it is known.
fn elements(call: &Call<'_>, i: usize) -> Option<u64> {
    let each = |d: &Dim| if let Dim::Known(n) = d { u64::try_from(*n).ok() } else { None };
    call.dims(i)?.iter().try_fold(1u64, |all, d| all.checked_mul(each(d)?))
}

/// Refuses an input of another number of elements than `wanted`.
fn counts(call: &Call<'_>, i: usize, wanted: Option<u64>) -> Result<(), crate::Fault> {
    match (elements(call, i), wanted) {
        (Some(found), Some(wanted)) if found != wanted => {
            let name = &call.node.inputs[i];
            Call::wrong(format!(
                "{name:?} has {found} elements, where K, N, bits and block_size make {wanted}"
            ))
        }
        _ => Ok(()),
    }
}

/// `MatMulNBits`: a product with a weight in blocks, whose size attributes say.
pub(super) fn blocks(call: &Call<'_>) -> Outputs {
    if let (Some(n), Some(k), Some(block)) =
        (call.node.count("N"), call.node.count("K"), call.node.count("block_size"))
    {
        let bits = call.node.count("bits").unwrap_or(4);
        let groups = k.div_ceil(block);
        let blob = block.checked_mul(bits).map(|b| b.div_ceil(8));
        counts(call, 1, blob.and_then(|b| n.checked_mul(groups)?.checked_mul(b)))?;
        counts(call, 2, n.checked_mul(groups))?;
    }
    wide(call)
}

/// `MatMulBnb4`: the same, with blocks that go on from row to row.
pub(super) fn bnb4(call: &Call<'_>) -> Outputs {
    if let (Some(n), Some(k), Some(block)) =
        (call.node.count("N"), call.node.count("K"), call.node.count("block_size"))
    {
        counts(call, 1, n.checked_mul(k).map(|all| all.div_ceil(2)))?;
        counts(call, 2, n.checked_mul(k).map(|all| all.div_ceil(block)))?;
    }
    if call.int("transB", 1) == 0 { Ok(Vec::new()) } else { wide(call) }
}

/// A product with `K` numbers of each row that gives `N`.
fn wide(call: &Call<'_>) -> Outputs {
    let Some([stack @ .., inner]) = call.dims(0) else { return Ok(Vec::new()) };
    if let (Some(k), Dim::Known(inner)) = (call.node.int("K"), inner)
        && k != *inner
    {
        return Call::wrong(format!("K is {k}, and the last dimension of the first input {inner}"));
    }
    let columns = call.node.int("N").map_or(Dim::Unknown, Dim::Known);
    Ok(vec![Found::dims([stack, &[columns]].concat())])
}

/// `GatherBlockQuantized`: bytes hold several numbers, which stand beside each other along the last dimension.
pub(super) fn table(call: &Call<'_>) -> Outputs {
    let Some(data) = call.dims(0) else { return Ok(Vec::new()) };
    let mut dims = data.to_vec();
    let bytes = call.inputs[0].is_some_and(|f| f.elem == crate::Elem::U8);
    if let (true, Some(last)) = (bytes, dims.last_mut()) {
        *last = dim::mul(last, &Dim::Known(8 / call.int("bits", 4).clamp(1, 8)));
    }
    let along = axis(call.int("quantize_axis", 1), dims.len())?;
    let block = call.int("block_size", 128);
    if let (Some(scales), Dim::Known(n @ 0..)) = (call.dims(2), &dims[along])
        && block > 0
        && scales
            .get(along)
            .and_then(|d| same(d, &Dim::Known((*n as u64).div_ceil(block as u64) as i64)))
            .is_none()
    {
        let name = &call.node.inputs[2];
        return Call::wrong(format!("scales {name:?}, {}, do not fit {}", show(scales), show(&dims)));
    }
    let at = axis(call.int("gather_axis", 0), dims.len())?;
    let Some(indices) = call.dims(1) else { return Ok(Vec::new()) };
    Ok(vec![Found::dims([&dims[..at], indices, &dims[at + 1..]].concat())])
}

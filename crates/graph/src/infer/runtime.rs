//! Attention, and the operators that ONNX Runtime adds, as far as exporters and this project's own graphs use them.
#![expect(clippy::unnecessary_wraps, reason = "rules have one form, whether they can fail or not")]

use super::{
    call::{Call, Found, Outputs},
    computing,
    dim::{self, show},
    quantized,
};
use crate::Dim;

/// What is known of the outputs of an operator of ONNX Runtime's domain.
pub(super) fn outputs(call: &Call<'_>, op: &str) -> Outputs {
    let first = || Found::maybe(call.dims(0).map(<[_]>::to_vec));
    match op {
        "BiasGelu" | "DequantizeLinear" | "FastGelu" | "FusedGelu" | "Gelu" | "QuantizeLinear"
        | "QuickGelu" | "RotaryEmbedding" => Ok(vec![first()]),
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => skip_normalization(call),
        "EmbedLayerNormalization" => embed(call),
        "Attention" => packed_attention(call),
        "MultiHeadAttention" => multi_head(call),
        "GroupQueryAttention" => group_query(call),
        "MatMulNBits" => quantized::blocks(call),
        "MatMulBnb4" => quantized::bnb4(call),
        "GatherBlockQuantized" => quantized::table(call),
        "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" => computing::matmul(call),
        _ => Ok(Vec::new()),
    }
}

/// The sum of two values, normalized; the sum itself is the last output.
fn skip_normalization(call: &Call<'_>) -> Outputs {
    let Some(x) = call.dims(0) else { return Ok(Vec::new()) };
    if let Some(skip) = call.dims(1) {
        dim::broadcast(x, skip)?;
    }
    if let (Some([.., width]), Some([scale])) = (Some(x), call.dims(2))
        && dim::same(width, scale).is_none()
    {
        let name = &call.node.inputs[2];
        return Call::wrong(format!("{name:?} does not fit what is normalized, {}", show(x)));
    }
    let all = Found::dims(x.to_vec());
    Ok(vec![all.clone(), Found::nothing(), Found::nothing(), all])
}

/// Rows of tables for tokens, added up and normalized.
fn embed(call: &Call<'_>) -> Outputs {
    let (Some([batch, length]), Some([_, hidden])) = (call.dims(0), call.dims(2)) else {
        return Ok(Vec::new());
    };
    let all = Found::dims(vec![batch.clone(), length.clone(), hidden.clone()]);
    Ok(vec![all.clone(), Found::dims(vec![batch.clone()]), all])
}

/// `Attention` with one weight for queries, keys and values.
fn packed_attention(call: &Call<'_>) -> Outputs {
    call.rank(0, 3..=3)?;
    let (Some([batch, length, width]), Some([rows, columns])) = (call.dims(0), call.dims(1)) else {
        return Ok(Vec::new());
    };
    computing::product(&[batch.clone(), length.clone(), width.clone()], &[rows.clone(), columns.clone()])?;
    let sizes = call.node.attribute("qkv_hidden_sizes").map(|a| a.ints.as_slice());
    let hidden = match (sizes, columns) {
        (Some([_, _, v]), _) => Dim::Known(*v),
        (_, Dim::Known(n)) if n % 3 == 0 => Dim::Known(n / 3),
        (_, Dim::Known(n)) => return Call::wrong(format!("{n} columns are no three equal parts")),
        _ => Dim::Unknown,
    };
    let heads = Dim::Known(call.int("num_heads", 1));
    let present = vec![Dim::Known(2), batch.clone(), heads.clone(), Dim::Unknown, dim::div(&hidden, &heads)];
    Ok(vec![Found::dims(vec![batch.clone(), length.clone(), hidden]), Found::dims(present)])
}

/// `MultiHeadAttention` with queries, keys and values apart.
fn multi_head(call: &Call<'_>) -> Outputs {
    let (Some([batch, length, _]), Some([_, _, hidden])) = (call.dims(0), call.dims(2)) else {
        return Ok(Vec::new());
    };
    Ok(vec![Found::dims(vec![batch.clone(), length.clone(), hidden.clone()])])
}

/// `GroupQueryAttention`: several heads of queries to one of keys. Queries, keys and values may be in one input.
fn group_query(call: &Call<'_>) -> Outputs {
    call.rank(0, 3..=3)?;
    for past in [3, 4] {
        call.rank(past, 4..=4)?;
    }
    let Some([batch, length, width]) = call.dims(0) else { return Ok(Vec::new()) };
    let (heads, kv) = (call.int("num_heads", 0), call.int("kv_num_heads", 0));
    if heads < 1 || kv < 1 || heads % kv != 0 {
        return Call::wrong(format!("{heads} heads of queries for {kv} of keys"));
    }
    let packed = !call.has(1);
    let parts = if packed { heads.saturating_add(kv.saturating_mul(2)) } else { heads };
    let each = match width {
        Dim::Known(n) if n % parts != 0 => {
            return Call::wrong(format!("{n} numbers for each position are no {parts} heads"));
        }
        width => dim::div(width, &Dim::Known(parts)),
    };
    for i in [1, 2] {
        if let (Some([_, _, own]), Dim::Known(each)) = (call.dims(i), &each)
            && dim::same(own, &dim::mul(&Dim::Known(*each), &Dim::Known(kv))).is_none()
        {
            let name = &call.node.inputs[i];
            return Call::wrong(format!("{name:?} does not have {kv} heads of {each} for each position"));
        }
    }
    let hidden = dim::mul(&each, &Dim::Known(heads));
    let present = Found::dims(vec![batch.clone(), Dim::Known(kv), Dim::Unknown, each.clone()]);
    for past in [3, 4] {
        if let Some(past) = call.dims(past)
            && dim::same_all(&[Dim::Unknown, Dim::Known(kv), Dim::Unknown, each.clone()], past).is_none()
        {
            return Call::wrong(format!(
                "the past, {}, is not of {kv} heads of {}",
                show(past),
                show(&[each])
            ));
        }
    }
    let y = Found::dims(vec![batch.clone(), length.clone(), hidden]);
    Ok(vec![y, present.clone(), present])
}

/// ONNX's own `Attention`, with heads in a dimension of their own or beside each other.
pub(super) fn standard_attention(call: &Call<'_>) -> Outputs {
    let (Some(q), Some(k), Some(v)) = (call.dims(0), call.dims(1), call.dims(2)) else {
        return Ok(Vec::new());
    };
    let y = match (q, k, v) {
        ([batch, heads, length, _], [_, _, _, _], [_, _, _, each]) => {
            vec![batch.clone(), heads.clone(), length.clone(), each.clone()]
        }
        ([batch, length, _], [_, _, _], [_, _, own]) => {
            let of = |name: &str| call.node.int(name).map_or(Dim::Unknown, Dim::Known);
            let each = dim::div(own, &of("kv_num_heads"));
            vec![batch.clone(), length.clone(), dim::mul(&each, &of("q_num_heads"))]
        }
        _ => return Call::wrong(format!("queries {}, keys {}, values {}", show(q), show(k), show(v))),
    };
    Ok(vec![Found::dims(y)])
}

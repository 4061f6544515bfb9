//! Attention of a decoder's layer, with what it keeps of earlier positions.

use super::{
    hyper::{Hyper, Kind},
    mask::Masks,
    norm,
};
use crate::layers::{Layers, cast, reshape, scope, transpose, unsqueeze};
use tensormill_graph::{Attribute, Builder, Elem, Value};
use tensormill_model::Result;

/// What all layers share.
pub(super) enum Positions {
    /// ONNX's own operators: cosines and sines of positions, `[batch, 1, sequence, head_dim / 2]`, and masks.
    Standard { turns: [Value; 2], masks: Masks },
    /// `GroupQueryAttention`: lengths, and tables of cosines and sines.
    Contrib { lengths: [Value; 2], tables: [Value; 2] },
}

/// Keys and values, `[batch, kv_heads, positions, head_dim]`.
pub(super) type Cache = [Value; 2];

/// Cosines and sines of `positions`, `[batch or 1, sequence]`: angles are `f32`, as are they themselves until they are rounded
/// to the graph's floats.
pub(super) fn turns(b: &mut Builder, hyper: &Hyper, positions: &Value) -> [Value; 2] {
    b.scoped("rotary_emb", |b| {
        let frequencies = b.constant(hyper.rope.frequencies("rotary_emb.inv_freq"));
        let x = cast(b, positions, Elem::I64, Elem::F32);
        let x = unsqueeze(b, &x, &[1, 3]);
        let angles = b.node("Mul", &[&x, &frequencies], vec![]);
        ["Cos", "Sin"].map(|op| {
            let mut y = b.node(op, &[&angles], vec![]);
            if hyper.rope.factor != 1.0 {
                let factor = b.scalar_of(Elem::F32, hyper.rope.factor);
                y = b.node("Mul", &[&y, &factor], vec![]);
            }
            let float = b.float();
            cast(b, &y, Elem::F32, float)
        })
    })
}

/// A layer's attention, and its cache afterwards where there is one before.
pub(super) fn attention(
    net: &mut Layers<'_>,
    hyper: &Hyper,
    (module, layer): (&str, usize),
    x: &Value,
    positions: &Positions,
    past: Option<&Cache>,
) -> Result<(Value, Option<Cache>)> {
    let (q_size, kv_size) = (hyper.heads * hyper.head_dim, hyper.kv_heads * hyper.head_dim);
    let mut projected = |name: &str, size: u64| {
        net.linear(x, &format!("{module}.{name}"), (size, hyper.hidden), hyper.bias.0)
    };
    let q = projected("q_proj", q_size)?;
    let k = projected("k_proj", kv_size)?;
    let v = projected("v_proj", kv_size)?;
    let (y, present) = match positions {
        Positions::Standard { turns, masks } => {
            let q = heads(net, hyper, &format!("{module}.q_norm"), &q, hyper.heads)?;
            let k = heads(net, hyper, &format!("{module}.k_norm"), &k, hyper.kv_heads)?;
            let mask = &masks[&hyper.windows[layer]];
            net.at(module, |b| standard(b, hyper, [&q, &k, &v], (turns, mask), past))
        }
        Positions::Contrib { lengths, tables } => {
            let q = flat_norm(net, hyper, &format!("{module}.q_norm"), &q, q_size)?;
            let k = flat_norm(net, hyper, &format!("{module}.k_norm"), &k, kv_size)?;
            let window = hyper.windows[layer];
            net.at(module, |b| contrib(b, hyper, [&q, &k, &v], (lengths, tables, window), past))
        }
    };
    let y = net.linear(&y, &format!("{module}.o_proj"), (hyper.hidden, q_size), hyper.bias.1)?;
    Ok((y, present))
}

/// `[batch, sequence, heads * head_dim]` as `[batch, heads, sequence, head_dim]`, each head normed in Qwen3.
fn heads(net: &mut Layers<'_>, hyper: &Hyper, module: &str, x: &Value, heads: u64) -> Result<Value> {
    let split = [0, 0, heads as i64, hyper.head_dim as i64];
    let own = scope(module);
    let mut x = net.b.scoped(own.clone(), |b| reshape(b, x, &split));
    if hyper.kind == Kind::Qwen3 {
        x = norm::rms(net, &x, module, hyper.head_dim, hyper.epsilon)?;
    }
    Ok(net.b.scoped(own, |b| transpose(b, &x, &[0, 2, 1, 3])))
}

/// The same for `GroupQueryAttention`, which takes heads side by side.
fn flat_norm(net: &mut Layers<'_>, hyper: &Hyper, module: &str, x: &Value, size: u64) -> Result<Value> {
    if hyper.kind != Kind::Qwen3 {
        return Ok(x.clone());
    }
    let x = net.at(module, |b| reshape(b, x, &[0, -1, hyper.head_dim as i64]));
    let x = norm::rms(net, &x, module, hyper.head_dim, hyper.epsilon)?;
    Ok(net.at(module, |b| reshape(b, &x, &[0, -1, size as i64])))
}

/// Turns each pair of elements, which stand half a head apart, by its position's angle.
fn turned(b: &mut Builder, x: &Value, [cos, sin]: &[Value; 2], half: i64) -> Value {
    let sizes = b.ints(&[2], &[half, half]);
    let [first, second] = b.nodes("Split", &[x, &sizes], vec![Attribute::int("axis", -1)]);
    let mut product = |x: &Value, by: &Value| b.node("Mul", &[x, by], vec![]);
    let (fc, fs) = (product(&first, cos), product(&first, sin));
    let (sc, ss) = (product(&second, cos), product(&second, sin));
    let first = b.node("Sub", &[&fc, &ss], vec![]);
    let second = b.node("Add", &[&sc, &fs], vec![]);
    b.node("Concat", &[&first, &second], vec![Attribute::int("axis", -1)])
}

/// Attention of ONNX's own operators. Query heads that share keys and values stand one below the other as more rows of one
/// product: nothing of the cache is copied for them, and all of it are reshapes, which move nothing.
fn standard(
    b: &mut Builder,
    hyper: &Hyper,
    [q, k, v]: [&Value; 3],
    (turns, mask): (&[Value; 2], &Value),
    past: Option<&Cache>,
) -> (Value, Option<Cache>) {
    let half = hyper.rope.inverse.len() as i64;
    let (heads, kv_heads, dim) = (hyper.heads as i64, hyper.kv_heads as i64, hyper.head_dim as i64);
    let q = turned(b, q, turns, half);
    let k = turned(b, k, turns, half);
    let v = reshape(b, v, &[0, 0, kv_heads, dim]);
    let v = transpose(b, &v, &[0, 2, 1, 3]);
    let [k, v] = match past {
        Some([keys, values]) => {
            let mut after =
                |past: &Value, x: &Value| b.node("Concat", &[past, x], vec![Attribute::int("axis", 2)]);
            [after(keys, &k), after(values, &v)]
        }
        None => [k, v],
    };
    // Queries are scaled rather than scores: products of large queries and keys would leave f16's range first.
    let scale = b.scalar(hyper.scale());
    let q = b.node("Mul", &[&q, &scale], vec![]);
    let shared = hyper.group() > 1;
    let q = if shared { reshape(b, &q, &[0, kv_heads, -1, dim]) } else { q };
    let keys = transpose(b, &k, &[0, 1, 3, 2]);
    let scores = b.node("MatMul", &[&q, &keys], vec![]);
    let scores = if shared { reshape(b, &scores, &[0, heads, -1, 0]) } else { scores };
    let float = b.float();
    let scores = cast(b, &scores, float, Elem::F32);
    let scores = b.node("Add", &[&scores, mask], vec![]);
    let weights = b.node("Softmax", &[&scores], vec![Attribute::int("axis", -1)]);
    let weights = cast(b, &weights, Elem::F32, float);
    let weights = if shared { reshape(b, &weights, &[0, kv_heads, -1, 0]) } else { weights };
    let y = b.node("MatMul", &[&weights, &v], vec![]);
    let y = if shared { reshape(b, &y, &[0, heads, -1, dim]) } else { y };
    let y = transpose(b, &y, &[0, 2, 1, 3]);
    (reshape(b, &y, &[0, 0, heads * dim]), past.map(|_| [k, v]))
}

/// `GroupQueryAttention`, which turns queries and keys itself, by places in the sequence without its padding.
fn contrib(
    b: &mut Builder,
    hyper: &Hyper,
    [q, k, v]: [&Value; 3],
    ([each, longest], [cos, sin], window): (&[Value; 2], &[Value; 2], Option<i64>),
    past: Option<&Cache>,
) -> (Value, Option<Cache>) {
    let none = [Value::none(), Value::none()];
    let [keys, values] = past.unwrap_or(&none);
    let attributes = vec![
        Attribute::int("num_heads", hyper.heads as i64),
        Attribute::int("kv_num_heads", hyper.kv_heads as i64),
        Attribute::float("scale", hyper.scale()),
        Attribute::int("local_window_size", window.unwrap_or(-1)),
        Attribute::int("do_rotary", 1),
        Attribute::int("rotary_interleaved", 0),
    ];
    let inputs = [q, k, v, keys, values, each, longest, cos, sin];
    let [y, keys, values] = b.microsoft("GroupQueryAttention", &inputs, attributes);
    (y, Some([keys, values]))
}

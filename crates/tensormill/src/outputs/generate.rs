//! Inputs for graphs, made of nothing but their names, types and dimensions.
//!
//! What a name means is convention, the one that exporters of transformers follow: ids, masks, positions, segments, a
//! cache that is empty at first. Sizes that two graphs call differently are the same all the same; what one of them fixes
//! is fixed for both. A seed gives the same numbers on every machine.

use std::collections::HashMap;
use tensormill_model::{Error, Result, fingerprint, scramble};
use tensormill_runtime::{Dim, Port, Value};

const BATCH: usize = 2;
const SEQUENCE: usize = 7;
/// A cache that holds nothing: the graph then sees whole sequences.
const PAST: usize = 0;
const CHANNELS: usize = 3;
/// Of images, in either direction.
const PIXELS: usize = 224;
/// Token ids are below this: every vocabulary has as many, those of tiny test models too.
const VOCABULARY: u64 = 16;
/// Positions at the end of the second sequence that are padding.
const PADDING: usize = 2;

/// Inputs for both graphs: of `a`, then what only `b` takes.
pub(super) fn inputs(seed: u64, a: &[Port], b: &[Port]) -> Result<Vec<(String, Value)>> {
    let twin = |p: &Port, others: &[Port]| others.iter().find(|o| o.name == p.name).cloned();
    let pairs: Vec<(Port, Option<Port>)> = a
        .iter()
        .map(|p| (p.clone(), twin(p, b)))
        .chain(b.iter().filter(|p| twin(p, a).is_none()).map(|p| (p.clone(), None)))
        .collect();
    let fixed = fixed_symbols(&pairs);
    pairs
        .iter()
        .map(|(port, twin)| {
            let shape = shape(port, twin.as_ref(), &fixed)?;
            Ok((port.name.clone(), value(seed, port, &shape)?))
        })
        .collect()
}

/// Sizes of symbols of one graph where the other has a number.
fn fixed_symbols(pairs: &[(Port, Option<Port>)]) -> HashMap<String, usize> {
    let mut fixed = HashMap::new();
    for (port, twin) in pairs {
        let (Some(x), Some(y)) = (&port.dims, twin.as_ref().and_then(|t| t.dims.as_ref())) else { continue };
        for dims in x.iter().zip(y) {
            if let (Dim::Symbol(s), Dim::Fixed(n)) | (Dim::Fixed(n), Dim::Symbol(s)) = dims
                && !s.is_empty()
            {
                fixed.insert(s.clone(), *n);
            }
        }
    }
    fixed
}

fn shape(port: &Port, twin: Option<&Port>, fixed: &HashMap<String, usize>) -> Result<Vec<usize>> {
    let dims = port.dims.as_ref().or(twin.and_then(|t| t.dims.as_ref())).ok_or_else(|| {
        Error::unsupported(format!("input `{}` has no known number of dimensions", port.name))
            .hint("give inputs in a file: --input FILE.safetensors")
    })?;
    let of_twin = |axis: usize| twin?.dims.as_ref()?.get(axis);
    let size = |(axis, dim): (usize, &Dim)| match (dim, of_twin(axis)) {
        (Dim::Fixed(n), _) | (_, Some(Dim::Fixed(n))) => *n,
        (Dim::Symbol(s), other) => {
            let of_other = || match other {
                Some(Dim::Symbol(o)) => fixed.get(o),
                _ => None,
            };
            // What exporters leave nameless the other graph may name.
            let name = match other {
                Some(Dim::Symbol(o)) if s.is_empty() => o,
                _ => s,
            };
            fixed.get(s).or_else(of_other).copied().unwrap_or_else(|| symbol_size(name, axis))
        }
    };
    Ok(dims.iter().enumerate().map(size).collect())
}

/// The size that a name suggests; sums (`past_sequence_length + 1`) are sums of what their terms suggest.
fn symbol_size(name: &str, axis: usize) -> usize {
    let term = |term: &str| {
        let term = term.trim().to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|w| term.contains(w));
        if let Ok(n) = term.parse::<usize>() {
            n
        } else if says(&["total"]) {
            PAST + SEQUENCE
        } else if says(&["past", "cache"]) {
            PAST
        } else if says(&["batch"]) {
            BATCH
        } else if says(&["seq", "len", "token"]) {
            SEQUENCE
        } else if says(&["channel"]) {
            CHANNELS
        } else if says(&["height", "width"]) {
            PIXELS
        } else if axis == 0 {
            BATCH
        } else {
            SEQUENCE
        }
    };
    name.split('+').map(term).fold(0, usize::saturating_add)
}

/// Whole numbers as `i64`, others as `f32`: each graph gets them as the type that it wants.
fn value(seed: u64, port: &Port, shape: &[usize]) -> Result<Value> {
    const MOST: usize = 1 << 28;
    let count = shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d)).filter(|&n| n <= MOST);
    let count = count.ok_or_else(|| {
        Error::over_limit(format!("input `{}` would have the shape {shape:?}", port.name))
            .hint("give inputs in a file: --input FILE.safetensors")
    })?;
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let start = scramble(seed ^ fingerprint(port.name.bytes()));
    // SplitMix64: its counter's step is the golden ratio.
    let random = |i: u64| scramble(start.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let name = port.name.to_ascii_lowercase();
    let whole = |f: &dyn Fn(usize) -> i64| Value::from_i64(shape, &(0..count).map(f).collect::<Vec<_>>());
    if name.contains("mask") {
        let is_padding = |i: usize| {
            shape.len() == 2 && i / columns == 1 && columns > PADDING && i % columns >= columns - PADDING
        };
        whole(&|i| i64::from(!is_padding(i)))
    } else if name.contains("position") && !port.dtype.is_float() {
        whole(&|i| (PAST + i % columns) as i64)
    } else if name.contains("token_type") || name.contains("segment") {
        whole(&|_| 0)
    } else if port.dtype == tensormill_tensor::DType::Bool {
        // Switches such as `use_cache_branch`, which an empty cache wants off.
        whole(&|_| 0)
    } else if port.dtype.is_float() {
        // The sum of twelve uniform numbers has variance one and is nearly normal, without a logarithm whose last bit
        // depends on the machine.
        let uniform = |i: u64| (random(i) >> 40) as f64 / f64::from(1 << 24);
        let normal = |i: u64| (0..12).map(|k| uniform(12 * i + k)).sum::<f64>() - 6.0;
        Value::from_f32(shape, &(0..count as u64).map(|i| normal(i) as f32).collect::<Vec<_>>())
    } else {
        whole(&|i| (random(i as u64) % VOCABULARY) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensormill_tensor::DType;

    fn port(name: &str, dtype: DType, dims: &[&str]) -> Port {
        let dim = |d: &&str| d.parse().map_or_else(|_| Dim::Symbol((*d).to_owned()), Dim::Fixed);
        Port { name: name.to_owned(), dtype, dims: Some(dims.iter().map(dim).collect()) }
    }

    fn shapes(a: &[Port], b: &[Port]) -> Vec<Vec<usize>> {
        inputs(1, a, b).unwrap().iter().map(|(_, v)| v.shape().to_vec()).collect()
    }

    #[test]
    fn names_of_dimensions_give_sizes() {
        let decoder = [
            port("input_ids", DType::I64, &["batch_size", "sequence_length"]),
            port("attention_mask", DType::I64, &["batch_size", "past_sequence_length + sequence_length"]),
            port("past_key_values.0.key", DType::F32, &["batch_size", "2", "past_sequence_length", "4"]),
        ];
        assert_eq!(shapes(&decoder, &[]), [vec![2, 7], vec![2, 7], vec![2, 2, 0, 4]]);
        let image = [port("pixel_values", DType::F32, &["batch", "num_channels", "height", "width"])];
        assert_eq!(shapes(&image, &[]), [[2, 3, 224, 224]]);
        assert_eq!(symbol_size("past_sequence_length + 1", 1), 1);
        assert_eq!(symbol_size("total_sequence_length", 1), 7);
        assert_eq!((symbol_size("", 0), symbol_size("unk__3", 1)), (2, 7));
    }

    #[test]
    fn what_one_graph_fixes_is_fixed_for_both() {
        let free = [
            port("input_ids", DType::I64, &["batch", "sequence"]),
            port("token_type_ids", DType::I64, &["batch", "sequence"]),
        ];
        let fixed = [port("input_ids", DType::I32, &["1", "5"]), port("extra", DType::F32, &["n", "3"])];
        assert_eq!(shapes(&free, &fixed), [[1, 5], [1, 5], [2, 3]]);
        assert_eq!(shapes(&fixed[..1], &free[..1]), [[1, 5]]);
    }

    #[test]
    fn names_of_inputs_give_values() {
        let dims = ["batch", "sequence"];
        let names = ["input_ids", "attention_mask", "position_ids", "token_type_ids", "x"];
        let ports: Vec<Port> =
            names.iter().map(|&n| port(n, if n == "x" { DType::F16 } else { DType::I32 }, &dims)).collect();
        let made = inputs(7, &ports, &[]).unwrap();
        let of = |i: usize| made[i].1.to_i64().unwrap();
        assert!(of(0).iter().all(|id| (0..16).contains(id)) && of(0).iter().any(|id| *id != of(0)[0]));
        assert_eq!(of(1), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
        assert_eq!(of(2), [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(of(3), [0; 14]);
        assert_eq!(made[4].1.dtype(), DType::F32);
        assert_eq!(inputs(7, &ports, &[]).unwrap(), made);
        assert_ne!(inputs(8, &ports, &[]).unwrap(), made);

        let many = inputs(7, &[port("x", DType::F32, &["100", "100"])], &[]).unwrap();
        let x = many[0].1.to_f32().unwrap();
        let mean = x.iter().sum::<f32>() / 1e4;
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / 1e4;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}

//! Who sees whom: what a graph of ONNX's own operators adds to scores, and the lengths that `GroupQueryAttention` takes.

use crate::layers::{cast, length, unsqueeze};
use std::collections::BTreeMap;
use tensormill_graph::{Attribute, Builder, Elem, Value};

/// What is added to scores by sliding window (`None`: none): `[batch, 1, sequence, past + sequence]`, `f32`.
pub(super) type Masks = BTreeMap<Option<i64>, Value>;

/// Masks for every window that some layer has.
///
/// Scores are `f32` whatever the graph's floats, so that the lowest finite number and a score are never infinite
/// together: a position of left padding sees nothing, its weights come out equal in place of not being numbers, which
/// would spread to all others through its values.
pub(super) fn masks(b: &mut Builder, ids: &Value, mask: &Value, windows: &[Option<i64>]) -> Masks {
    b.scoped("mask", |b| {
        let total = length(b, mask, 1);
        let now = length(b, ids, 1);
        let past = b.node("Sub", &[&total, &now], vec![]);
        let (zero, one) = (b.ints(&[], &[0]), b.ints(&[], &[1]));
        let keys = b.node("Range", &[&zero, &total, &one], vec![]);
        let queries = b.node("Range", &[&past, &total, &one], vec![]);
        let queries = unsqueeze(b, &queries, &[1]);
        let real = cast(b, mask, Elem::I64, Elem::BOOL);
        let real = unsqueeze(b, &real, &[1, 2]);
        let before = b.node("LessOrEqual", &[&keys, &queries], vec![]);
        let seen = b.node("And", &[&before, &real], vec![]);
        let mut masks = Masks::new();
        for window in windows {
            if masks.contains_key(window) {
                continue;
            }
            let seen = match window {
                None => seen.clone(),
                Some(n) => {
                    // Places in the cache count, padding included: so does transformers count them.
                    let n = b.ints(&[], &[*n]);
                    let edge = b.node("Sub", &[&queries, &n], vec![]);
                    let near = b.node("Greater", &[&keys, &edge], vec![]);
                    b.node("And", &[&seen, &near], vec![])
                }
            };
            let (nothing, low) = (b.scalar_of(Elem::F32, 0.0), b.scalar_of(Elem::F32, f32::MIN));
            masks.insert(*window, b.node("Where", &[&seen, &nothing, &low], vec![]));
        }
        masks
    })
}

/// Lengths as `GroupQueryAttention` takes them: of each sequence with its past, less one, and of the longest.
pub(super) fn lengths(b: &mut Builder, mask: &Value) -> [Value; 2] {
    b.scoped("lengths", |b| {
        let axis = b.ints(&[1], &[1]);
        let each = b.node("ReduceSum", &[mask, &axis], vec![Attribute::int("keepdims", 0)]);
        let one = b.ints(&[], &[1]);
        let each = b.node("Sub", &[&each, &one], vec![]);
        let each = cast(b, &each, Elem::I64, Elem::I32);
        let total = length(b, mask, 1);
        [each, cast(b, &total, Elem::I64, Elem::I32)]
    })
}

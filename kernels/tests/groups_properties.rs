//! What holds for grouped integers whatever the weights: every value is near its weight, searches are never worse than where they
//! start, numbers are finite, bundles repeat what rows share.

#[path = "common/groups.rs"]
mod groups;
#[path = "common/inputs.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod inputs;

use groups::RULES;
use inputs::DISTRIBUTIONS;
use proptest::prelude::*;
use tensormill_kernels::groups::{Code, Fit, Grid, GroupRows, Offset, Quantizer, Rule, ScaleType};
use tensormill_kernels::{KernelError, Operand, RowsError};

fn quantizer(rule: Rule, bits: u8, group: u32, offset: Offset, scale: ScaleType, fit: Fit) -> Quantizer {
    let grid = Grid { code: Code::Int(bits), group, rows: 1, offset, outer: false };
    Quantizer { grid, scale, rule, fit }
}

fn encode(q: &Quantizer, x: &[f32], len: usize, importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0u8; x.len() / len * q.grid.bundle_bytes(len)];
    q.encode_rows(GroupRows { x, len, importance, outer: 1.0 }, &mut out).expect("finite rows encode");
    out
}

fn decode(q: &Quantizer, bundles: &[u8], len: usize) -> Vec<f32> {
    let mut out = vec![0f32; bundles.len() / q.grid.bundle_bytes(len) * len];
    for (bundle, out) in bundles.chunks(q.grid.bundle_bytes(len)).zip(out.chunks_mut(len)) {
        q.grid.decode_row(bundle, out);
    }
    out
}

fn numbers(q: &Quantizer, bundle: &[u8], len: usize) -> Vec<f32> {
    bundle[..q.grid.bundle_bytes(len)][len..]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

fn error(x: &[f32], back: &[f32], w: Option<&[f32]>, power: i32) -> f64 {
    let far = |i: usize| (f64::from(x[i]) - f64::from(back[i])).abs().powi(power);
    (0..x.len()).map(|i| w.map_or(1.0, |w| f64::from(w[i % w.len()]).max(0.0)) * far(i)).sum()
}

#[test]
fn everything_stays_finite() {
    for distribution in DISTRIBUTIONS {
        let x = inputs::row(distribution, 77, 100);
        for rule in RULES {
            for offset in [Offset::None, Offset::Middle, Offset::Point, Offset::Bias] {
                for scale in [ScaleType::F32, ScaleType::F16, ScaleType::BF16] {
                    for fit in [Fit::Nearest, Fit::Mse, Fit::Hqq] {
                        let q = quantizer(rule, 4, 32, offset, scale, fit);
                        let bundle = encode(&q, &x, 100, None);
                        assert!(bundle[..100].iter().all(|c| *c < 16), "{q:?} {distribution}");
                        let numbers = numbers(&q, &bundle, 100);
                        assert!(numbers.iter().all(|n| n.is_finite()), "{q:?} {distribution} {numbers:?}");
                    }
                }
            }
        }
    }
}

/// Ranges that hold zero and both signs: no library cuts anything off, so that nothing is off by more than half a step, and by a
/// whole one where zero points round or the outermost code has no twin.
#[test]
fn values_are_within_a_step() {
    for rule in RULES {
        for offset in [Offset::Middle, Offset::Point, Offset::Bias] {
            for bits in 2..=8 {
                let x = inputs::row("gauss", u64::from(bits), 320);
                let q = quantizer(rule, bits, 64, offset, ScaleType::F32, Fit::Nearest);
                let bundle = encode(&q, &x, 320, None);
                let (back, numbers) = (decode(&q, &bundle, 320), numbers(&q, &bundle, 320));
                for (i, (x, back)) in x.iter().zip(&back).enumerate() {
                    let step = numbers[i / 64].abs();
                    assert!((x - back).abs() <= step * 1.01, "{q:?} column {i}: {x} {back}, step {step}");
                }
            }
        }
    }
}

#[test]
fn searches_are_not_worse_than_their_start() {
    let len = 200;
    for (d, distribution) in DISTRIBUTIONS.iter().enumerate() {
        if matches!(*distribution, "huge" | "bits" | "subnormal" | "powers" | "mixed") {
            // Squares overflow or vanish; what is left is compared by `everything_stays_finite`.
            continue;
        }
        let x: Vec<f32> = (0..2).flat_map(|r| inputs::row(distribution, 10 * d as u64 + r, len)).collect();
        let importance = inputs::importance("spread", 9, len);
        for rule in RULES {
            for offset in [Offset::Middle, Offset::Point, Offset::Bias] {
                for bits in [2, 3, 4, 8] {
                    let of = |fit| quantizer(rule, bits, 64, offset, ScaleType::F32, fit);
                    let far = |fit, w: Option<&[f32]>, by: Option<&[f32]>, power| {
                        let q = of(fit);
                        let bundle = encode(&q, &x, len, w);
                        error(&x, &decode(&q, &bundle, len), by, power)
                    };
                    let at_least = |found: f64, start: f64, what: &str| {
                        let slack = 1e-4 * start + 1e-18;
                        assert!(
                            found <= start + slack,
                            "{rule:?} {offset:?} {bits} {distribution} {what}: {found} {start}"
                        );
                    };
                    let w = importance.as_deref();
                    at_least(far(Fit::Mse, None, None, 2), far(Fit::Nearest, None, None, 2), "mse");
                    at_least(far(Fit::Hqq, None, None, 1), far(Fit::Nearest, None, None, 1), "hqq");
                    at_least(far(Fit::Mse, w, w, 2), far(Fit::Nearest, None, w, 2), "weighted mse");
                    at_least(far(Fit::Nearest, w, w, 2), far(Fit::Mse, w, w, 2), "refit");
                }
            }
        }
    }
}

/// On weights as models have them, each search saves what it is there for.
#[test]
fn searches_save_error() {
    let (x, len) = (inputs::row("t3", 4, 4096), 4096);
    let w = inputs::importance("spread", 9, len);
    for (bits, least) in [(2, 0.3), (3, 0.1), (4, 0.03)] {
        let far = |fit, w: Option<&[f32]>| {
            let q = quantizer(Rule::CompressedTensors, bits, 128, Offset::Middle, ScaleType::F32, fit);
            error(&x, &decode(&q, &encode(&q, &x, len, w), len), w, 2)
        };
        let saved = 1.0 - far(Fit::Mse, None) / far(Fit::Nearest, None);
        assert!(saved > least, "{bits} bits: {saved}");
    }
    let far = |fit| {
        let q = quantizer(Rule::Hqq, 3, 64, Offset::Point, ScaleType::F32, fit);
        error(&x, &decode(&q, &encode(&q, &x, len, None), len), None, 1)
    };
    assert!(far(Fit::Hqq) < 0.99 * far(Fit::Nearest), "{} {}", far(Fit::Hqq), far(Fit::Nearest));
    let far = |given: Option<&[f32]>| {
        let q = quantizer(Rule::Gptq, 4, 128, Offset::Point, ScaleType::F16, Fit::Nearest);
        error(&x, &decode(&q, &encode(&q, &x, len, given), len), w.as_deref(), 2)
    };
    assert!(far(w.as_deref()) < 0.9 * far(None));
}

#[test]
fn bands_of_rows_share_numbers() {
    let len = 70;
    let x: Vec<f32> = (0..5).flat_map(|r| inputs::row("gauss", r, len)).collect();
    for (rows, bands) in [(1u32, vec![1, 1, 1, 1, 1]), (2, vec![2, 2, 1]), (0, vec![5])] {
        for fit in [Fit::Nearest, Fit::Mse, Fit::Hqq] {
            let mut q = quantizer(Rule::CompressedTensors, 8, 32, Offset::Point, ScaleType::F32, fit);
            q.grid.rows = rows;
            let bundles = encode(&q, &x, len, None);
            let shown: Vec<Vec<f32>> =
                bundles.chunks(q.grid.bundle_bytes(len)).map(|b| numbers(&q, b, len)).collect();
            let mut row = 0;
            for band in &bands {
                assert!(shown[row..row + band].iter().all(|n| *n == shown[row]));
                assert!(row == 0 || shown[row] != shown[row - 1]);
                row += band;
            }
            // A band alone gives the same bundles: tiles are cut there.
            let first = bands[0] * len;
            let alone = encode(&q, &x[..first], len, None);
            assert_eq!(alone, bundles[..alone.len()]);
        }
    }
}

#[test]
fn refusals_name_row_and_column() {
    let q = quantizer(Rule::CompressedTensors, 4, 32, Offset::Middle, ScaleType::F32, Fit::Nearest);
    let mut x = vec![0.5f32; 3 * 64];
    let mut out = vec![0u8; 3 * q.grid.bundle_bytes(64)];
    let mut encode = |x: &[f32], importance: Option<&[f32]>| {
        q.encode_rows(GroupRows { x, len: 64, importance, outer: 1.0 }, &mut out)
    };
    let bad = |operand, row, column| RowsError { row, error: KernelError::NonFinite { operand, column } };
    let short = KernelError::ImportanceLength { format: "grouped codes", len: 32, expected: 64 };
    assert_eq!(encode(&x, Some(&x[..32])), Err(RowsError { row: 0, error: short }));
    let mut w = vec![1f32; 64];
    w[7] = f32::INFINITY;
    assert_eq!(encode(&x, Some(&w)), Err(bad(Operand::Importance, 0, 7)));
    x[64 + 9] = f32::NAN;
    assert_eq!(encode(&x, None), Err(bad(Operand::Row, 1, 9)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_shape_and_bits(seed in any::<u64>(), len in 1usize..150, group in 0u32..70, rows in 0u32..4, kind in 0usize..17, rule in 0usize..9, bits in 1u8..=8) {
        let x: Vec<f32> = (0..3).flat_map(|r| inputs::row(DISTRIBUTIONS[kind], seed.wrapping_add(r), len)).collect();
        for (offset, fit) in [(Offset::Middle, Fit::Nearest), (Offset::Point, Fit::Mse), (Offset::Bias, Fit::Hqq), (Offset::Point, Fit::Hqq)] {
            let mut q = quantizer(RULES[rule], bits, group, offset, ScaleType::BF16, fit);
            q.grid.rows = rows;
            let bundles = encode(&q, &x, len, None);
            for bundle in bundles.chunks(q.grid.bundle_bytes(len)) {
                prop_assert!(bundle[..len].iter().all(|c| u32::from(*c) < 1 << bits));
                prop_assert!(numbers(&q, bundle, len).iter().all(|n| n.is_finite()));
            }
        }
    }
}

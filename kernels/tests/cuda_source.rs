//! Device code against the scalar reference, on machines without a device: every `cuda.cu` is compiled as plain C++,
//! its lanes run one after the other in several orders, and its bytes are the reference's. Without a C++ compiler
//! (`CXX`, or `c++`, `g++`, `clang++` of the path) the tests print that they are skipped.
//!
//! What this cannot show is what a device's compiler and arithmetic do with the same text.

#[path = "common/cpp.rs"]
mod cpp;
#[path = "common/inputs.rs"]
mod inputs;
#[path = "common/shim.rs"]
mod shim;

use inputs::{DISTRIBUTIONS, IMPORTANCES};
use proptest::prelude::*;
use shim::{ORDERS, Shim, Weights};
use tensormill_kernels::cuda::{DeviceCode, device_codes};
use tensormill_kernels::{BlockCodec, Level, codec_at};
use tensormill_tensor::DType;

const INPUTS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Where sums may overflow, so that a device may hand the job back.
fn may_be_odd(distribution: &str, importance: &str) -> bool {
    matches!(distribution, "huge" | "mixed" | "bits" | "powers") || importance == "extreme"
}

fn reference(code: &DeviceCode) -> &'static dyn BlockCodec {
    codec_at(code.block, Level::Scalar).expect("device code has a reference")
}

/// Formats and importance that go together: every format with it, and without it those that can do without.
fn codes(with_importance: bool) -> impl Iterator<Item = &'static DeviceCode> {
    device_codes().iter().copied().filter(move |c| with_importance || !reference(c).needs_importance())
}

/// Encodes rows with both, from every type of input. Returns how many of how many jobs the device would hand back.
fn assert_same(
    shim: &Shim,
    code: &DeviceCode,
    x: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    what: &str,
) -> (usize, usize) {
    let (size, name) = (code.block.bytes as usize, code.block.name);
    let (mut odd, mut jobs) = (0, 0);
    for (i, input) in INPUTS.into_iter().enumerate() {
        let weights = Weights::rounded(x, input);
        let mut want = vec![0; code.block.row_bytes(x.len() as u64).expect("whole blocks") as usize];
        reference(code)
            .encode_rows(&weights.values, row_len, importance, &mut want)
            .expect("finite rows encode");
        // Orders multiply the work, and the type of input is looked at by loads alone.
        let orders = if input == DType::F32 { &ORDERS[..] } else { &ORDERS[i..=i] };
        for &order in orders {
            let got = shim.encode(code, &weights, row_len, importance, order);
            assert_eq!(got.bad, u64::MAX, "{name} {input} order {order}, {what}: all weights are finite");
            jobs += 1;
            if got.odd {
                odd += 1;
                continue;
            }
            let differs = (0..want.len() / size)
                .find(|b| got.blocks[b * size..][..size] != want[b * size..][..size])
                .map(|b| (b, &want[b * size..][..size], &got.blocks[b * size..][..size]));
            assert_eq!(differs, None, "{name} {input} order {order}, {what}: (block, reference, device)");
        }
    }
    (odd, jobs)
}

#[test]
fn every_distribution_and_importance() {
    let Some(shim) = Shim::get() else { return };
    // Five rows, so that no team of more than a block divides them.
    let (rows, columns) = (5, 2304);
    let mut tallies = vec![(0, 0); device_codes().len()];
    for (d, distribution) in DISTRIBUTIONS.iter().enumerate() {
        let seed = |r: u64| 1000 * d as u64 + r;
        let x: Vec<f32> = (0..rows).flat_map(|r| inputs::row(distribution, seed(r), columns)).collect();
        for kind in IMPORTANCES {
            let w = inputs::importance(kind, seed(99), columns);
            for (code, tally) in codes(true).zip(&mut tallies) {
                if w.is_none() && reference(code).needs_importance() {
                    continue;
                }
                let what = format!("{distribution} {kind}");
                let (odd, jobs) = assert_same(shim, code, &x, columns, w.as_deref(), &what);
                assert!(
                    odd == 0 || may_be_odd(distribution, kind),
                    "{} hands {what} back to the processor",
                    code.block.name
                );
                *tally = (tally.0 + odd, tally.1 + jobs);
            }
        }
    }
    for (code, (odd, jobs)) in device_codes().iter().zip(tallies) {
        println!("{}: {odd} of {jobs} jobs go back to the processor", code.block.name);
        assert!(odd * 2 < jobs, "{} hands most jobs back", code.block.name);
    }
}

#[test]
fn the_first_weight_that_is_no_number_is_named() {
    let Some(shim) = Shim::get() else { return };
    let (rows, columns) = (3, 768);
    let finite: Vec<f32> = (0..rows).flat_map(|r| inputs::row("gauss", r as u64, columns)).collect();
    let w = vec![1.0; columns];
    let not_numbers = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for importance in [None, Some(w.as_slice())] {
        for code in codes(importance.is_some()) {
            for input in INPUTS {
                for (at, bad) in (0..finite.len()).step_by(97).zip(not_numbers.into_iter().cycle()) {
                    let mut weights = Weights::rounded(&finite, input);
                    // A second one later, in another block or in the same.
                    weights.put(at, bad);
                    weights.put((at + at % 512).min(finite.len() - 1), f32::INFINITY);
                    let order = ORDERS[at % ORDERS.len()];
                    let got = shim.encode(code, &weights, columns, importance, order);
                    assert_eq!(got.bad, at as u64, "{} {input}: {bad} at {at}", code.block.name);
                }
            }
        }
    }
}

#[test]
fn means_of_rows() {
    let Some(shim) = Shim::get() else { return };
    for (d, distribution) in DISTRIBUTIONS.iter().enumerate() {
        for columns in [32, 160, 2304] {
            let x: Vec<f32> =
                (0..3).flat_map(|r| inputs::row(distribution, 10 * d as u64 + r, columns)).collect();
            for (input, order) in INPUTS.into_iter().zip(ORDERS) {
                let weights = Weights::rounded(&x, input);
                let mean = |row: &[f32]| row.iter().fold(0.0f32, |sum, v| sum + v * v) / columns as f32;
                let want: Vec<f32> = weights.values.chunks(columns).map(mean).collect();
                let got = shim.row_means(&weights, columns, order);
                assert_eq!(got, want, "{distribution} {columns} {input}");
            }
        }
    }
}

#[test]
fn teams_fill_blocks_of_the_device() {
    for code in device_codes() {
        assert!(code.lanes.is_power_of_two() && code.lanes <= 32, "{}", code.block.name);
        assert_eq!(code.kernel, format!("encode_{}", code.block.name.to_lowercase()));
    }
}

fn finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(|bits| {
        let all_ones = bits & 0x7f80_0000 == 0x7f80_0000;
        f32::from_bits(if all_ones { bits & 0xbfff_ffff } else { bits })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_finite_bits(
        x in prop::collection::vec(finite(), 1024),
        w in prop::option::of(prop::collection::vec(finite(), 512)),
    ) {
        if let Some(shim) = Shim::get() {
            for code in codes(w.is_some()) {
                assert_same(shim, code, &x, 512, w.as_deref(), "random bits");
            }
        }
    }

    #[test]
    fn any_seed(
        distribution in prop::sample::select(DISTRIBUTIONS.to_vec()),
        kind in prop::sample::select(IMPORTANCES.to_vec()),
        seed in any::<u64>(),
        blocks in 1usize..8,
        rows in 1u64..4,
    ) {
        if let Some(shim) = Shim::get() {
            let columns = 256 * blocks;
            let x: Vec<f32> = (0..rows).flat_map(|r| inputs::row(distribution, seed ^ r, columns)).collect();
            let w = inputs::importance(kind, seed, columns);
            for code in codes(w.is_some()) {
                let what = format!("{distribution} {kind} {seed} {blocks} {rows}");
                let (odd, _) = assert_same(shim, code, &x, columns, w.as_deref(), &what);
                assert!(odd == 0 || may_be_odd(distribution, kind), "{}, {what}", code.block.name);
            }
        }
    }
}

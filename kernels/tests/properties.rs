//! What must hold for every codec on any input: no panic on finite bits, bounded error, clear refusals.

#[path = "common/inputs.rs"]
mod inputs;

use proptest::prelude::*;
use tensormill_kernels::{
    BlockCodec, KernelError, Level, Operand, available_levels, codec, codec_at, formats,
};
use tensormill_tensor::{ErrorStats, ggml};

/// A row length that every format divides.
const COLUMNS: usize = 512;

fn finite() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(|bits| {
        let all_ones = bits & 0x7f80_0000 == 0x7f80_0000;
        f32::from_bits(if all_ones { bits & 0xbfff_ffff } else { bits })
    })
}

fn encoders() -> impl Iterator<Item = &'static dyn BlockCodec> {
    formats().filter(|c| c.can_encode())
}

fn row_bytes(codec: &dyn BlockCodec, columns: usize) -> usize {
    codec.block().row_bytes(columns as u64).expect("whole blocks") as usize
}

/// Formats that need importance get ones where none is given.
fn round_trip(codec: &dyn BlockCodec, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    let ones = codec.needs_importance().then(|| vec![1.0; x.len()]);
    let importance = importance.or(ones.as_deref());
    let mut blocks = vec![0; row_bytes(codec, x.len())];
    codec.encode_row(x, importance, &mut blocks).expect("finite rows encode");
    let mut back = vec![f32::NAN; x.len()];
    codec.decode_row(&blocks, &mut back).expect("whole blocks decode");
    back
}

/// The least signal to noise ratio, in dB, that a format must reach on normal data: one below what the worse of
/// ggml's two paths (without and with importance) gives.
fn least_sqnr(name: &str) -> f64 {
    match name {
        "Q8_0" => 44.6,
        "Q8_K" => 42.5,
        "Q6_K" => 33.6,
        "Q5_K" => 27.6,
        "Q5_1" => 27.5,
        "Q5_0" => 26.5,
        "Q4_K" => 21.5,
        "Q4_1" => 21.3,
        "IQ4_NL" | "IQ4_XS" => 21.1,
        "Q4_0" => 20.5,
        "NVFP4" => 18.8,
        "MXFP4" => 18.0,
        "Q3_K" => 15.3,
        "Q2_K" => 9.7,
        "IQ3_S" => 14.6,
        "IQ3_XXS" => 12.4,
        "IQ2_S" => 10.3,
        "IQ2_XS" => 8.5,
        "IQ2_XXS" => 7.5,
        "IQ1_S" => 4.5,
        "IQ1_M" => 3.7,
        // Made for weights that are binary or ternary to begin with.
        "Q1_0" => 3.5,
        "Q2_0" => 2.0,
        "TQ1_0" | "TQ2_0" => 1.1,
        other => panic!("{other}: say what it must reach"),
    }
}

#[test]
fn normal_rows_come_back_close() {
    for codec in encoders() {
        let name = codec.block().name;
        for kind in &["none", "spread"] {
            let mut stats = ErrorStats::default();
            for seed in 0..16 {
                let x = inputs::row("gauss", seed, 1024);
                let w = inputs::importance(kind, seed, 1024);
                stats.add(&x, &round_trip(codec, &x, w.as_deref()));
            }
            let sqnr = stats.sqnr_db();
            assert!(sqnr >= least_sqnr(name), "{name} with importance {kind}: {sqnr:.1} dB");
        }
    }
}

#[test]
fn zeros_come_back_as_zeros() {
    for codec in encoders() {
        for distribution in ["zeros", "negzero"] {
            let back = round_trip(codec, &inputs::row(distribution, 1, COLUMNS), None);
            assert!(back.iter().all(|v| *v == 0.0), "{}", codec.block().name);
        }
    }
}

#[test]
fn rows_within_half_precision_come_back_finite() {
    for codec in encoders() {
        for distribution in inputs::DISTRIBUTIONS {
            let x = inputs::row(distribution, 3, COLUMNS);
            if x.iter().all(|v| v.abs() < 65504.0) {
                for kind in inputs::IMPORTANCES {
                    let back = round_trip(codec, &x, inputs::importance(kind, 3, COLUMNS).as_deref());
                    assert!(back.iter().all(|v| v.is_finite()), "{} {distribution} {kind}", codec.block());
                }
            }
        }
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let q4_k = codec(ggml::Q4_K).expect("Q4_K");
    let format = "Q4_K";
    let mut x = vec![0.5f32; COLUMNS];
    let mut out = vec![7u8; 288];
    assert_eq!(
        q4_k.encode_row(&x[..300], None, &mut out),
        Err(KernelError::RowLength { format, len: 300, block: 256 })
    );
    assert_eq!(
        q4_k.encode_row(&x, None, &mut out[..287]),
        Err(KernelError::BlockBytes { format, len: 287, expected: 288 })
    );
    assert_eq!(
        q4_k.encode_row(&x, Some(&x[1..]), &mut out),
        Err(KernelError::ImportanceLength { format, len: 511, expected: 512 })
    );
    assert_eq!(
        q4_k.decode_row(&out, &mut x[..256]),
        Err(KernelError::BlockBytes { format, len: 288, expected: 144 })
    );
    let mut weights = vec![1.0f32; COLUMNS];
    weights[300] = f32::INFINITY;
    assert_eq!(
        q4_k.encode_row(&x, Some(&weights), &mut out),
        Err(KernelError::NonFinite { operand: Operand::Importance, column: 300 })
    );
    let q8_0 = codec(ggml::Q8_0).expect("Q8_0");
    assert_eq!(q8_0.encode_row(&x, Some(&weights), &mut vec![0; 544]), Ok(()), "Q8_0 ignores importance");
    let iq2_xs = codec(ggml::IQ2_XS).expect("IQ2_XS");
    assert!(iq2_xs.needs_importance());
    assert_eq!(
        iq2_xs.encode_row(&x, None, &mut out[..148]),
        Err(KernelError::ImportanceRequired { format: "IQ2_XS" })
    );
    x[17] = f32::NAN;
    x[400] = f32::NEG_INFINITY;
    assert_eq!(
        q4_k.encode_row(&x, None, &mut out),
        Err(KernelError::NonFinite { operand: Operand::Row, column: 17 })
    );
    assert!(out.iter().all(|b| *b == 7), "a refused row leaves the blocks alone");
    let message = KernelError::NonFinite { operand: Operand::Row, column: 17 }.to_string();
    assert_eq!(message, "column 17 of the row is NaN or infinite");
}

#[test]
fn empty_rows_are_fine() {
    for codec in formats() {
        let format = codec.block().name;
        let encoded = codec.encode_row(&[], Some(&[]), &mut []);
        if codec.can_encode() {
            assert_eq!(encoded, Ok(()));
        } else {
            assert_eq!(encoded, Err(KernelError::EncodeUnsupported { format }));
        }
        assert_eq!(codec.decode_row(&[], &mut []), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_finite_row_encodes(
        x in prop::collection::vec(finite(), COLUMNS),
        w in prop::option::of(prop::collection::vec(finite(), COLUMNS)),
    ) {
        for codec in encoders() {
            let back = round_trip(codec, &x, w.as_deref());
            prop_assert_eq!(back.len(), x.len());
        }
    }

    /// Any bits, and importance of any size but not negative, so that searches succeed more often than not.
    #[test]
    fn levels_agree_on_any_finite_row(
        x in prop::collection::vec(finite(), COLUMNS),
        near in prop::collection::vec(-1.0f32..1.0, COLUMNS),
        any_w in prop::option::of(prop::collection::vec(finite(), COLUMNS)),
        w in prop::collection::vec(0.0f32..4.0, COLUMNS),
    ) {
        for reference in encoders() {
            let block = reference.block();
            for x in [&x, &near] {
                for w in [any_w.as_deref(), Some(w.as_slice())] {
                    let w = w.or(reference.needs_importance().then_some(near.as_slice()));
                    let mut want = vec![0; row_bytes(reference, COLUMNS)];
                    let scalar = codec_at(block, Level::Scalar).expect("the reference has all");
                    scalar.encode_row(x, w, &mut want).expect("finite rows encode");
                    for &level in available_levels() {
                        let mut got = vec![0xa5; want.len()];
                        let codec = codec_at(block, level).expect("every level serves every format");
                        codec.encode_row(x, w, &mut got).expect("finite rows encode");
                        prop_assert!(got == want, "{} at {}", block.name, level.name());
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_decode(seed in any::<u64>()) {
        for codec in formats() {
            let bytes = row_bytes(codec, COLUMNS) as u64;
            let blocks: Vec<u8> = (0..bytes).map(|i| inputs::draw(seed, i) as u8).collect();
            let mut out = vec![0.0; COLUMNS];
            prop_assert_eq!(codec.decode_row(&blocks, &mut out), Ok(()));
        }
    }

    /// A whole step of the scale bounds the error of the formats that round to a grid over the block's range.
    #[test]
    fn grids_err_by_at_most_one_step(
        x in prop::collection::vec(-1000.0f32..1000.0, COLUMNS),
        name in prop::sample::select(vec!["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]),
    ) {
        let codec = codec(ggml::by_name(name).expect("a ggml type")).expect("a codec");
        let back = round_trip(codec, &x, None);
        for (xb, yb) in x.chunks(32).zip(back.chunks(32)) {
            let amax = xb.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let range = match name {
                "Q4_0" => amax / 8.0,
                "Q5_0" => amax / 16.0,
                "Q8_0" => amax / 127.0 * 0.51,
                "Q4_1" => 2.0 * amax / 15.0 * 0.51,
                _ => 2.0 * amax / 31.0 * 0.51,
            };
            // Scale and offset are rounded to eleven bits.
            let step = range + 2.0 * amax / 1024.0;
            for (a, b) in xb.iter().zip(yb) {
                prop_assert!((a - b).abs() <= step, "{} came back as {} in {}", a, b, name);
            }
        }
    }
}

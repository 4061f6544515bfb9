//! Every level against the scalar reference: the same bytes and the same weights, on every distribution and on
//! random bit patterns, row by row and many rows at once. A level that this machine lacks is printed as skipped.

#[path = "common/inputs.rs"]
mod inputs;
#[path = "common/levels.rs"]
mod levels;

use inputs::{DISTRIBUTIONS, IMPORTANCES};
use levels::levels;
use proptest::prelude::*;
use tensormill_kernels::{
    BlockCodec, KernelError, Level, Operand, RowsError, available_levels, codec_at, formats, level_of,
    selected_level,
};
use tensormill_tensor::ggml;

fn pairs() -> Vec<(Level, &'static dyn BlockCodec, &'static dyn BlockCodec)> {
    let mut pairs = Vec::new();
    for level in levels() {
        for format in formats() {
            let at = |level| codec_at(format.block(), level).expect("every level serves every format");
            pairs.push((level, at(level), at(Level::Scalar)));
        }
    }
    pairs
}

/// Encodes `rows` rows with both, all at once and row by row, and decodes with both what came out.
fn assert_same(
    (level, codec, reference): (Level, &dyn BlockCodec, &dyn BlockCodec),
    x: &[f32],
    rows: usize,
    importance: Option<&[f32]>,
    what: &str,
) {
    let name = codec.block().name;
    let (row_len, size) = (x.len() / rows, codec.block().bytes as usize);
    let bytes = codec.block().row_bytes(row_len as u64).expect("whole blocks") as usize;
    let (mut want, mut all, mut each) =
        (vec![0; rows * bytes], vec![0xa5; rows * bytes], vec![0x5a; rows * bytes]);
    reference.encode_rows(x, row_len, importance, &mut want).expect("finite rows encode");
    codec.encode_rows(x, row_len, importance, &mut all).expect("finite rows encode");
    for (x, out) in x.chunks(row_len).zip(each.chunks_mut(bytes)) {
        codec.encode_row(x, importance, out).expect("finite rows encode");
    }
    for (got, how) in [(&all, "together"), (&each, "one by one")] {
        let differs = (0..want.len() / size).find(|b| got[b * size..][..size] != want[b * size..][..size]);
        assert_eq!(differs, None, "{name} at {} {how}, {what}: first block that differs", level.name());
    }
    assert_same_weights((level, codec, reference), &want, x.len());
}

fn assert_same_weights(
    (level, codec, reference): (Level, &dyn BlockCodec, &dyn BlockCodec),
    blocks: &[u8],
    weights: usize,
) {
    let (mut want, mut got) = (vec![0f32; weights], vec![1f32; weights]);
    reference.decode_row(blocks, &mut want).expect("whole blocks decode");
    codec.decode_row(blocks, &mut got).expect("whole blocks decode");
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let differs = (0..weights).find(|&i| !same(want[i], got[i]));
    assert_eq!(differs, None, "{} at {}: first weight that differs", codec.block().name, level.name());
}

#[test]
fn every_distribution_and_importance() {
    // Rows that share no power of two with the lanes, so that batches straddle rows and the last is partial.
    let (rows, columns) = (5, 2304);
    for (d, distribution) in DISTRIBUTIONS.iter().enumerate() {
        let seed = |r: u64| 1000 * d as u64 + r;
        let x: Vec<f32> = (0..rows).flat_map(|r| inputs::row(distribution, seed(r), columns)).collect();
        for kind in IMPORTANCES {
            let w = inputs::importance(kind, seed(99), columns);
            for pair in pairs().into_iter().filter(|p| p.1.can_encode()) {
                if w.is_some() || !pair.1.needs_importance() {
                    assert_same(pair, &x, rows as usize, w.as_deref(), &format!("{distribution} {kind}"));
                }
            }
        }
    }
}

#[test]
fn long_rows_in_several_chunks() {
    let (rows, columns) = (40, 2816);
    let x: Vec<f32> = (0..rows).flat_map(|r| inputs::row("t3", r, columns)).collect();
    for pair in pairs().into_iter().filter(|p| p.1.can_encode() && !p.1.needs_importance()) {
        assert_same(pair, &x, rows as usize, None, "many rows");
    }
}

#[test]
fn refusals_name_the_row() {
    for level in available_levels() {
        let codec = codec_at(ggml::Q4_K, *level).expect("Q4_K");
        let mut x = vec![0.5f32; 3 * 512];
        let mut out = vec![7u8; 3 * 288];
        let format = "Q4_K";
        let mut encode = |x: &[f32], row_len, w: Option<&[f32]>| codec.encode_rows(x, row_len, w, &mut out);
        assert_eq!(encode(&x, 512, None), Ok(()));
        assert_eq!(
            encode(&x, 512, Some(&x[..256])),
            Err(RowsError {
                row: 0,
                error: KernelError::ImportanceLength { format, len: 256, expected: 512 }
            })
        );
        assert_eq!(
            encode(&x, 100, None).map_err(|e| e.error),
            Err(KernelError::RowLength { format, len: 36, block: 256 })
        );
        assert_eq!(
            encode(&x, 0, None).map_err(|e| e.error),
            Err(KernelError::RowLength { format, len: 1536, block: 256 })
        );
        assert_eq!(
            encode(&x[512..], 512, None).map_err(|e| e.error),
            Err(KernelError::BlockBytes { format, len: 864, expected: 576 })
        );
        x[2 * 512 + 33] = f32::NEG_INFINITY;
        let refused =
            RowsError { row: 2, error: KernelError::NonFinite { operand: Operand::Row, column: 33 } };
        assert_eq!(refused.to_string(), "row 2: column 33 of the row is NaN or infinite");
        assert_eq!(encode(&x, 512, None), Err(refused));
        assert_eq!(codec.encode_rows(&[], 512, None, &mut []), Ok(()));
    }
}

#[test]
fn every_format_refuses_what_is_no_number_wherever_it_stands() {
    // 3 rows of 768: the last batch of blocks is partial at most widths.
    let (rows, columns) = (3, 768);
    let finite: Vec<f32> = (0..rows).flat_map(|r| inputs::row("gauss", r as u64, columns)).collect();
    let w = vec![1.0; columns];
    let mut x = finite.clone();
    for level in available_levels() {
        for codec in formats().filter(|c| c.can_encode()) {
            let codec = codec_at(codec.block(), *level).expect("every level serves every format");
            let bytes = codec.block().row_bytes(columns as u64).expect("whole blocks") as usize;
            let mut out = vec![0; rows * bytes];
            for importance in [None, Some(w.as_slice())] {
                if importance.is_none() && codec.needs_importance() {
                    continue;
                }
                for (at, bad) in (0..x.len())
                    .step_by(199)
                    .zip([f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().cycle())
                {
                    x[at] = bad;
                    let operand = Operand::Row;
                    let error = KernelError::NonFinite { operand, column: at % columns };
                    assert_eq!(
                        codec.encode_rows(&x, columns, importance, &mut out),
                        Err(RowsError { row: at / columns, error }),
                        "{} at {}: {bad} at {at}",
                        codec.block().name,
                        level.name()
                    );
                    x[at] = finite[at];
                }
                // Magnitudes whose sums overflow are numbers all the same.
                let huge = vec![f32::MAX; x.len()];
                let encoded = codec.encode_rows(&huge, columns, importance, &mut out);
                assert_eq!(encoded, Ok(()), "{} at {}", codec.block().name, level.name());
            }
        }
    }
}

#[test]
fn the_level_in_use_is_one_of_this_machine() {
    for format in formats() {
        let level = level_of(format.block()).expect("a format with a codec has a level");
        assert!(level <= selected_level() && available_levels().contains(&level));
    }
    assert_eq!(level_of(ggml::Q4_K), Some(selected_level()), "Q4_K has every level");
    assert_eq!(level_of(ggml::Q8_1), None);
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
        for pair in pairs().into_iter().filter(|p| p.1.can_encode()) {
            if w.is_some() || !pair.1.needs_importance() {
                assert_same(pair, &x, 2, w.as_deref(), "random bits");
            }
        }
    }

    #[test]
    fn any_seed(
        distribution in prop::sample::select(DISTRIBUTIONS.to_vec()),
        kind in prop::sample::select(IMPORTANCES.to_vec()),
        seed in any::<u64>(),
        blocks in 1usize..20,
    ) {
        let columns = 256 * blocks;
        let x = inputs::row(distribution, seed, columns);
        let w = inputs::importance(kind, seed, columns);
        for pair in pairs().into_iter().filter(|p| p.1.can_encode()) {
            if w.is_some() || !pair.1.needs_importance() {
                assert_same(pair, &x, 1, w.as_deref(), &format!("{distribution} {kind} {seed} {blocks}"));
            }
        }
    }

    #[test]
    fn any_blocks(seed in any::<u64>()) {
        for pair in pairs() {
            let bytes = pair.1.block().row_bytes(2304).expect("whole blocks");
            let blocks: Vec<u8> = (0..bytes).map(|i| inputs::draw(seed, i) as u8).collect();
            assert_same_weights(pair, &blocks, 2304);
        }
    }
}

//! What the search promises.

use super::compare::weighted_error;
use super::*;
use crate::{available_levels, codec, formats};
use proptest::prelude::*;

#[path = "../../tests/common/inputs.rs"]
#[allow(clippy::duplicate_mod, reason = "each test module of this crate includes it")]
mod inputs;

const COLUMNS: usize = 512;

fn encode(codec: &dyn BlockCodec, x: &[f32], w: Option<&[f32]>) -> Vec<u8> {
    let bytes = codec.block().row_bytes(x.len() as u64).expect("whole blocks") as usize;
    let mut out = vec![0u8; bytes];
    codec.encode_row(x, w, &mut out).expect("finite rows encode");
    out
}

fn decode(codec: &dyn BlockCodec, blocks: &[u8], weights: usize) -> Vec<f32> {
    let mut out = vec![0f32; weights];
    codec.decode_row(blocks, &mut out).expect("whole blocks decode");
    out
}

fn pairs() -> impl Iterator<Item = (&'static dyn BlockCodec, &'static dyn BlockCodec)> {
    formats().filter(|c| c.can_encode()).map(|ggml| {
        let best = codec_for(ggml.block(), Search::Best).expect("every format");
        (ggml, best)
    })
}

#[test]
fn no_block_is_ever_worse() {
    for (ggml, best) in pairs() {
        let n = ggml.block().weights as usize;
        for (seed, distribution) in inputs::DISTRIBUTIONS.iter().enumerate() {
            for kind in inputs::IMPORTANCES {
                let x = inputs::row(distribution, seed as u64, COLUMNS);
                let w = inputs::importance(kind, seed as u64, COLUMNS);
                if w.is_none() && ggml.needs_importance() {
                    continue;
                }
                let (old, new) = (encode(ggml, &x, w.as_deref()), encode(best, &x, w.as_deref()));
                assert_eq!(new, encode(best, &x, w.as_deref()), "deterministic");
                let (old, new) = (decode(ggml, &old, COLUMNS), decode(ggml, &new, COLUMNS));
                for i in (0..COLUMNS).step_by(n) {
                    let (x, w) = (&x[i..i + n], w.as_deref().map(|w| &w[i..i + n]));
                    let (old, new) =
                        (weighted_error(x, w, &old[i..i + n]), weighted_error(x, w, &new[i..i + n]));
                    assert!(
                        new <= old || old.is_nan(),
                        "{} {distribution} {kind}: {new:e} after {old:e}",
                        ggml.block().name
                    );
                }
            }
        }
    }
}

/// Rows under every level, and for some formats in few lanes: the bytes of the scalar level.
fn assert_same_at_all_levels(x: &[f32], row_len: usize, w: Option<&[f32]>, what: &str) {
    for scalar in tables::at(Level::Scalar) {
        if w.is_none() && scalar.needs_importance() {
            continue;
        }
        let bytes = scalar.block.row_bytes(row_len as u64).expect("whole blocks") as usize;
        let mut want = vec![0u8; x.len() / row_len * bytes];
        scalar.encode_rows(x, row_len, w, &mut want).expect("finite rows encode");
        for &level in available_levels() {
            let mut got = vec![0xa5u8; want.len()];
            let codec = codec_for_at(scalar.block, Search::Best, level).expect("every level has it");
            codec.encode_rows(x, row_len, w, &mut got).expect("finite rows encode");
            assert!(got == want, "{} at {} {what}", scalar.block, level.name());
        }
        let Some((_, narrow)) = tables::NARROW.iter().find(|(b, _)| *b == scalar.block) else { continue };
        let rows = Rows { x, len: row_len, importance: w };
        let ggml = codec_for_at(scalar.block, Search::Ggml, Level::Scalar).expect("a codec");
        let mut got = vec![0u8; want.len()];
        ggml.encode_rows(x, row_len, w, &mut got).expect("finite rows encode");
        want.copy_from_slice(&got);
        (scalar.find)(rows, &mut want);
        narrow(rows, &mut got);
        assert!(got == want, "{} in few lanes, {what}", scalar.block);
    }
}

#[test]
fn every_level_finds_the_same_blocks() {
    // Three super-blocks to a row: no number of lanes divides five rows of them.
    let columns = 768;
    for (d, distribution) in inputs::DISTRIBUTIONS.iter().enumerate() {
        let seed = |r: u64| 100 * d as u64 + r;
        let x: Vec<f32> = (0..5).flat_map(|r| inputs::row(distribution, seed(r), columns)).collect();
        for kind in inputs::IMPORTANCES {
            let w = inputs::importance(kind, seed(9), columns);
            assert_same_at_all_levels(&x, columns, w.as_deref(), &format!("{distribution} {kind}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_finite_bits_are_the_same_at_all_levels(
        x in prop::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 512),
        w in prop::option::of(prop::collection::vec(
            any::<f32>().prop_filter("finite", |v| v.is_finite()), 256)),
    ) {
        assert_same_at_all_levels(&x, 256, w.as_deref(), "random bits");
    }

    #[test]
    fn any_seed_is_the_same_at_all_levels(
        distribution in prop::sample::select(inputs::DISTRIBUTIONS.to_vec()),
        kind in prop::sample::select(inputs::IMPORTANCES.to_vec()),
        seed in any::<u64>(),
        blocks in 1usize..20,
    ) {
        let columns = 256 * blocks;
        let x = inputs::row(distribution, seed, columns);
        let w = inputs::importance(kind, seed, columns);
        assert_same_at_all_levels(&x, columns, w.as_deref(), &format!("{distribution} {kind} {seed} {blocks}"));
    }
}

#[test]
fn every_listed_format_gains_on_ordinary_weights() {
    for best in tables::at(selected_level()) {
        let ggml = codec(best.block).expect("a codec");
        for distribution in ["gauss", "t3"] {
            for kind in ["none", "spread"] {
                if kind == "none" && ggml.needs_importance() {
                    continue;
                }
                let (mut before, mut after) = (0.0, 0.0);
                for seed in 0..4 {
                    let x = inputs::row(distribution, seed, 4 * COLUMNS);
                    let w = inputs::importance(kind, seed, x.len());
                    let [old, new] = [ggml, best as &dyn BlockCodec].map(|c| {
                        let y = decode(ggml, &encode(c, &x, w.as_deref()), x.len());
                        weighted_error(&x, w.as_deref(), &y)
                    });
                    before += old;
                    after += new;
                }
                // The least of what was measured is 2.5 %, for Q4_K.
                assert!(after < 0.985 * before, "{} {distribution} {kind}: {}", best.block, after / before);
            }
        }
    }
}

#[test]
fn rows_together_give_the_bytes_of_rows_alone() {
    let x: Vec<f32> = (0..3).flat_map(|r| inputs::row("t3", r, COLUMNS)).collect();
    let w = inputs::importance("spread", 7, COLUMNS);
    for best in tables::at(selected_level()) {
        let rows = x.chunks(COLUMNS).flat_map(|x| encode(best, x, w.as_deref()));
        let alone: Vec<u8> = rows.collect();
        let mut together = vec![0u8; alone.len()];
        best.encode_rows(&x, COLUMNS, w.as_deref(), &mut together).expect("finite rows encode");
        assert!(alone == together, "{}", best.block);
    }
}

#[test]
fn formats_without_a_search_keep_ggmls_bytes() {
    let x = inputs::row("gauss", 3, COLUMNS);
    for (ggml, best) in
        pairs().filter(|(c, _)| !tables::at(Level::Scalar).iter().any(|b| b.block == c.block()))
    {
        assert_eq!(encode(ggml, &x, None), encode(best, &x, None), "{}", ggml.block());
    }
    let names = Search::ALL.iter().map(ToString::to_string);
    assert_eq!(names.collect::<Vec<_>>(), ["ggml", "best"]);
    assert_eq!(codec_for(tensormill_tensor::ggml::Q8_1, Search::Best).map(BlockCodec::block), None);
}

#[test]
fn refusals_are_those_of_ggmls_codec_and_q8_0_minds_importance() {
    use tensormill_tensor::ggml::{IQ2_XXS, Q8_0};
    let q8_0 = codec_for(Q8_0, Search::Best).expect("a codec");
    let (mut x, mut out) = (vec![0.5f32; 64], vec![7u8; 68]);
    let mut w = vec![1.0f32; 64];
    w[40] = f32::NAN;
    assert_eq!(
        q8_0.encode_row(&x, Some(&w), &mut out),
        Err(KernelError::NonFinite { operand: Operand::Importance, column: 40 })
    );
    assert_eq!(
        q8_0.encode_rows(&x, 32, Some(&w), &mut out),
        Err(RowsError {
            row: 0,
            error: KernelError::ImportanceLength { format: "Q8_0", len: 64, expected: 32 }
        })
    );
    x[33] = f32::INFINITY;
    assert_eq!(
        q8_0.encode_rows(&x, 32, None, &mut out),
        Err(RowsError { row: 1, error: KernelError::NonFinite { operand: Operand::Row, column: 1 } })
    );
    let xxs = codec_for(IQ2_XXS, Search::Best).expect("a codec");
    assert!(xxs.needs_importance());
    assert_eq!(
        xxs.encode_row(&[0.5; 256], None, &mut [0; 66]),
        Err(KernelError::ImportanceRequired { format: "IQ2_XXS" })
    );
}

//! Every kind of expression, for every tile height that small budgets force, against the naive evaluator.

mod common;
use common::{
    bundles::{Codes, Pack, Pour, Scales},
    *,
};
use proptest::prelude::*;
use std::sync::{Arc, atomic::Ordering};

use tensormill_model::Expr;
use tensormill_tensor::{Encoding, ggml};

fn reader() -> Arc<FakeReader> {
    Arc::new(FakeReader::new(&[
        (&[24, 10], U8),
        (&[7, 10], U8),
        (&[240], U8),
        (&[4, 6, 10], U8),
        (&[12, 5], Encoding::BF16),
        (&[12, 64], Encoding::Block(ggml::Q8_0)),
        (&[23, 8], Encoding::F32),
    ]))
}

/// Runs one expression under many budgets and compares with the naive value.
fn check(reader: &Arc<FakeReader>, expr: &Expr, name: &str) {
    let outs = [output(vec![("t".into(), expr.clone())])];
    let want = naive(expr, reader);
    let least = least(reader, &outs, false);
    for threads in [1, 3] {
        for extra in [0, 1, 13, 50, 99, 200, 1000, 100_000] {
            let options = small_tiles(least + extra, threads, false);
            let got = run(reader, &outs, &options).unwrap();
            let place = outs[0].1.places[0];
            let bytes = &got.files[0][place.file][place.offset as usize..][..want.len()];
            assert!(bytes == want, "{name} with {} bytes and {threads} threads: {expr}", least + extra);
        }
    }
}

#[test]
fn every_kind_at_odd_boundaries() {
    let r = reader();
    let t = |i| r.expr(i);
    let poured = |rows| t(6).apply(Pour { rows, ..Pour::new(5) });
    let cases = [
        ("read", t(0)),
        ("read of one row", t(2)),
        ("blocks", t(5)),
        ("blocks in other order", swap(t(5), 2, 3)),
        ("const", constant(&[9, 10], 5)),
        ("slice", slice(t(0), 5, 13)),
        ("slice to the end", slice(t(0), 20, 4)),
        ("swap", swap(t(0), 2, 4)),
        ("swap with one period", swap(t(0), 4, 6)),
        ("swap the other way", swap(t(0), 6, 2)),
        ("swap of a slice", swap(slice(t(0), 3, 18), 3, 3)),
        ("slice of a swap", slice(swap(t(0), 3, 4), 5, 11)),
        ("concat", concat(vec![t(1), t(0), slice(t(1), 6, 1), constant(&[3, 10], 2)])),
        ("concat of slices", concat(vec![slice(t(0), 12, 12), slice(t(0), 0, 12)])),
        ("swap of a concat", swap(concat(vec![t(1), t(1), t(0), slice(t(0), 2, 2)]), 2, 2)),
        ("reshape to long rows", t(0).reshape(shape(&[8, 30]))),
        ("reshape to short rows", t(0).reshape(shape(&[60, 4]))),
        ("reshape across", t(0).reshape(shape(&[16, 15]))),
        ("reshape from one row", t(2).reshape(shape(&[48, 5]))),
        ("reshape to one row", t(3).reshape(shape(&[240]))),
        ("reshape of dimensions only", t(3).reshape(shape(&[2, 12, 10]))),
        ("reshape of a slice", slice(t(0), 5, 9).reshape(shape(&[6, 15]))),
        ("permuted bias", swap(t(2).reshape(shape(&[240, 1])), 2, 20).reshape(shape(&[240]))),
        ("wide elements", t(4).reshape(shape(&[20, 3]))),
        ("reshape that a slice cuts", slice(t(0).reshape(shape(&[60, 4])), 0, 9)),
        (
            "reshape that a concat shifts",
            swap(
                concat(vec![constant(&[1, 4], 1), t(0).reshape(shape(&[60, 4])), constant(&[4, 4], 2)]),
                5,
                1,
            ),
        ),
        ("transpose", t(0).transpose()),
        ("transpose of matrices", t(3).transpose()),
        ("transpose of wide elements", t(4).transpose()),
        ("slice of a transpose", slice(t(0).transpose(), 3, 5)),
        ("slice of transposed matrices", slice(t(3).transpose(), 5, 29)),
        ("transpose of a slice", slice(t(0), 5, 13).transpose()),
        ("transpose of a swap", swap(t(0), 2, 4).transpose()),
        ("swap of a transpose", swap(t(0).transpose(), 2, 5)),
        ("swap of transposed matrices", swap(t(3).transpose(), 4, 2)),
        ("transpose of a concat", concat(vec![t(1), t(0), constant(&[3, 10], 2)]).transpose()),
        (
            "concat of transposes",
            concat(vec![
                slice(t(0), 2, 7).transpose(),
                t(1).transpose(),
                slice(t(0), 0, 14).reshape(shape(&[20, 7])),
            ]),
        ),
        ("transpose of a reshape", t(0).reshape(shape(&[16, 15])).transpose()),
        ("reshape of a transpose", t(0).transpose().reshape(shape(&[16, 15]))),
        ("transpose of a transpose's slice", slice(t(0).transpose(), 2, 7).transpose()),
        ("op on a transpose", t(0).transpose().apply(Xor(3)).apply(Twice)),
        ("transpose of op", t(0).apply(Xor(3)).transpose()),
        ("transpose of whole", t(0).apply(AddTotal).transpose()),
        ("whole of a transpose", t(0).transpose().apply(AddTotal)),
        ("op", t(0).apply(Xor(3))),
        ("op on op", t(0).apply(Xor(3)).apply(Twice).apply(Xor(9))),
        ("op on swap", swap(t(0), 4, 3).apply(Xor(3))),
        ("swap of op", swap(t(0).apply(Xor(3)), 4, 3)),
        ("reshape of op", t(0).apply(Twice).reshape(shape(&[32, 15]))),
        ("sum", Expr::Apply { op: Arc::new(Sum), inputs: vec![t(0), swap(t(0), 2, 12)] }),
        (
            "sum of ops",
            Expr::Apply { op: Arc::new(Sum), inputs: vec![t(0).apply(Xor(1)), t(0).apply(Xor(2))] },
        ),
        ("packed rows", t(0).apply(Pack(5))),
        ("packed rows of an op", swap(t(0), 2, 4).apply(Xor(3)).apply(Pack(7)).apply(Pack(2))),
        ("slice of packed rows", slice(t(0).apply(Pack(3)), 3, 4)),
        ("swap of packed rows", swap(t(0).apply(Pack(4)), 3, 2)),
        ("packed rows of a transpose", t(0).transpose().apply(Pack(4))),
        ("transpose of packed rows", t(0).apply(Pack(5)).transpose()),
        ("reshape of packed rows", t(0).apply(Pack(4)).reshape(shape(&[4, 15])).apply(Xor(1))),
        ("packed into one row", slice(t(0).apply(Pack(100)).apply(Xor(4)), 0, 1)),
        ("units", concat(vec![poured(5).apply(Codes), poured(7).apply(Codes)])),
        ("slice of units", slice(poured(5).apply(Codes), 3, 11)),
        ("units larger than the tensor", slice(poured(99).apply(Codes), 22, 1)),
        ("transpose of units", slice(poured(4).apply(Scales(3)).transpose(), 1, 1)),
        ("swap of units", swap(slice(poured(6).apply(Codes), 1, 20), 5, 2)),
        ("whole", t(0).apply(AddTotal)),
        ("slice of whole", slice(t(0).apply(AddTotal), 4, 9).apply(Xor(1))),
        (
            "rows with a whole table",
            Expr::Apply {
                op: Arc::new(AddTable),
                inputs: vec![swap(t(0), 4, 3), slice(t(1), 2, 4).apply(Xor(7))],
            },
        ),
        (
            "slice and op on rows with a whole table",
            slice(Expr::Apply { op: Arc::new(AddTable), inputs: vec![t(0), t(2)] }, 5, 17).apply(Xor(3)),
        ),
        (
            "numbers about a whole tensor",
            Expr::Apply {
                op: Arc::new(AddTable),
                inputs: vec![t(0), swap(t(0), 2, 4).apply(Middle { trap: None })],
            },
        ),
        ("only numbers about a whole tensor", slice(t(3).apply(Middle { trap: None }), 1, 1)),
        ("whole of reshape", t(2).reshape(shape(&[16, 15])).apply(AddTotal)),
    ];
    for (name, expr) in &cases {
        check(&r, expr, name);
    }
}

#[test]
fn tiles_keep_to_heights_that_read_well() {
    let specs: [(&[u64], _); 2] = [(&[37 * 128, 64], U8), (&[74, 6400], U8)];
    let r = Arc::new(FakeReader::new(&specs));
    // A period of 128 rows is 8 KiB; three threads share 120 KiB.
    let swapped = [output(vec![("q".into(), swap(r.expr(0), 2, 64).apply(Xor(1)))])];
    let options = small_tiles(120 << 10, 3, false);
    run(&r, &swapped, &options).unwrap();
    assert!(r.calls.load(Ordering::Relaxed) <= 37, "whole periods are one read");
    // 100 rows of the reshaped tensor are one row of the source, and may not cut it.
    let cut = [output(vec![("r".into(), r.expr(1).reshape(shape(&[7400, 64])).apply(Xor(2)))])];
    let ran = run(&r, &cut, &options).unwrap();
    assert_eq!(ran.report.read, 74 * 6400);
    assert!(r.counts.lock().unwrap().iter().flatten().all(|&c| c == 1));
}

/// Builds an expression from a stream of choices; every stream gives a valid one.
fn build(r: &FakeReader, choices: &mut std::slice::Iter<'_, u16>, depth: u32) -> Expr {
    let mut pick = |n: u64| u64::from(*choices.next().unwrap_or(&0)) % n;
    let mut e = match pick(5) {
        4 => constant(&[pick(9) + 1, 10], 77),
        i => r.expr(i as usize),
    };
    let steps = pick(4);
    for _ in 0..steps {
        let mut pick = |n: u64| u64::from(*choices.next().unwrap_or(&0)) % n;
        let f = e.form().unwrap();
        let (rows, row_len, all) = (f.shape.rows(), f.shape.row_len(), f.shape.elements());
        let divisors = |n: u64| (1..=n).filter(|d| n.is_multiple_of(*d)).collect::<Vec<_>>();
        let one = |v: Vec<u64>, p: u64| v[(p % v.len() as u64) as usize];
        e = match pick(10) {
            0 => {
                let start = pick(rows);
                let len = pick(rows - start) + 1;
                slice(e, start, len)
            }
            1 | 2 => {
                let a = one(divisors(rows), pick(1000));
                let b = one(divisors(rows / a), pick(1000));
                swap(e, a, b)
            }
            3 if depth > 0 && all < 2000 => {
                let other = build(r, choices, depth - 1);
                let f2 = other.form().unwrap();
                if f2.encoding != f.encoding {
                    e
                } else if f2.shape.row_len() == row_len {
                    concat(vec![e, other.clone(), other])
                } else if f2.shape.elements().is_multiple_of(row_len) {
                    let dims = [f2.shape.elements() / row_len, row_len];
                    concat(vec![other.reshape(shape(&dims)), e])
                } else {
                    e
                }
            }
            4 | 5 => {
                let n = one(divisors(all), pick(1000));
                e.reshape(shape(&[all / n, n]))
            }
            6 => e.apply(Xor(pick(200) as u8)),
            7 if all < 2000 => e.apply(Twice),
            7 if row_len * rows < 4000 => e.apply(Pack(pick(9) + 1)),
            7 => e,
            8 if f.encoding.is_block() || f.shape.rank() < 2 => e,
            8 => e.transpose(),
            _ if pick(2) == 0 => e.apply(AddTotal),
            _ => Expr::Apply { op: Arc::new(Sum), inputs: vec![e.clone(), e.apply(Xor(5))] },
        };
    }
    e
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_expressions(
        choices in prop::collection::vec(any::<u16>(), 60),
        extra in 0u64..2000,
        threads in 1usize..4,
    ) {
        let r = reader();
        let mut it = choices.iter();
        let (x, y) = (build(&r, &mut it, 2), build(&r, &mut it, 1));
        let outs = [output(vec![("x".into(), x.clone()), ("y".into(), y.clone())])];
        let memory = least(&r, &outs, false) + extra;
        let ran = run(&r, &outs, &small_tiles(memory, threads, false)).unwrap();
        for (expr, place) in [&x, &y].into_iter().zip(&outs[0].1.places) {
            let want = naive(expr, &r);
            let got = &ran.files[0][place.file][place.offset as usize..][..want.len()];
            prop_assert!(got == want, "{expr} with {memory} bytes and {threads} threads");
        }
    }
}

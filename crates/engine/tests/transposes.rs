//! Transposed tensors under budgets that hold a small part of them: the same bytes, the planned memory, the planned reads.

mod common;
use common::*;
use proptest::prelude::*;
use std::sync::{Arc, atomic::Ordering};

use tensormill_engine::{Output, plan};
use tensormill_model::{Cast, Checked, Expr, Layout, Reader};
use tensormill_tensor::{DType, Encoding};

/// Element by element, by the formula: shares no code with the engine, nor with the naive evaluator.
fn formula(bytes: &[u8], matrices: usize, (m, n): (usize, usize), e: usize) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    for k in 0..matrices {
        for i in 0..m {
            for j in 0..n {
                let (from, to) = ((k * m + i) * n + j, (k * n + j) * m + i);
                out[to * e..][..e].copy_from_slice(&bytes[from * e..][..e]);
            }
        }
    }
    out
}

fn one(expr: Expr) -> [(Checked, Layout); 1] {
    [output(vec![("t".into(), expr)])]
}

fn bytes(ran: &Ran, outs: &[(Checked, Layout)], len: usize) -> Vec<u8> {
    let place = outs[0].1.places[0];
    ran.files[0][place.file][place.offset as usize..][..len].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_shape_element_and_budget(
        (k, m, n) in (1u64..5, 1u64..150, 1u64..150),
        dtype in prop::sample::select(vec![DType::I8, DType::BF16, DType::F32, DType::C64]),
        stacked: bool,
        extra in 0u64..20_000,
        threads in 1usize..4,
    ) {
        let dims = if stacked { vec![k, m, n] } else { vec![m, n] };
        let r = Arc::new(FakeReader::new(&[(&dims, Encoding::Plain(dtype))]));
        let outs = one(r.expr(0).transpose());
        let e = dtype.bits() as usize / 8;
        let want = formula(&r.data[0], if stacked { k as usize } else { 1 }, (m as usize, n as usize), e);
        prop_assert!(naive(&r.expr(0).transpose(), &r) == want);
        let memory = least(&r, &outs, false) + extra;
        let ran = run(&r, &outs, &small_tiles(memory, threads, false)).unwrap();
        prop_assert!(bytes(&ran, &outs, want.len()) == want, "{memory} bytes, {threads} threads");
    }
}

#[test]
fn a_tensor_far_larger_than_the_budget_streams() {
    // 4 MiB within a sixteenth of that; every step reads all of it, in blocks.
    let r = Arc::new(FakeReader::new(&[(&[1024, 2048], Encoding::BF16)]));
    let outs = one(r.expr(0).transpose());
    let memory = 256 << 10;
    let ran = run(&r, &outs, &small_tiles(memory, 2, false)).unwrap();
    let want = formula(&r.data[0], 1, (1024, 2048), 2);
    assert!(bytes(&ran, &outs, want.len()) == want);
    assert!(ran.report.peak_tile_bytes <= memory && ran.planned <= memory);
    let passes = ran.report.read / (4 << 20);
    // 16 would be the least if the output's rows took all of the budget.
    assert!((17..=22).contains(&passes), "read {passes} times");
    assert!(r.calls.load(Ordering::Relaxed) > 4 * passes, "in blocks");
    assert!(r.counts.lock().unwrap()[0].iter().all(|c| u64::from(*c) == passes));
}

#[test]
fn what_fits_is_read_once() {
    let specs: [(&[u64], _); 2] = [(&[700, 900], Encoding::F16), (&[9, 50, 70], Encoding::F32)];
    let r = Arc::new(FakeReader::new(&specs));
    let size = 700 * 900 * 2;
    // The block takes a quarter more.
    for (expr, memory) in
        [(r.expr(0).transpose(), size * 5 / 4 + (16 << 10)), (r.expr(1).transpose(), 50 * 70 * 4 * 5 / 4)]
    {
        for threads in [1, 3] {
            r.counts.lock().unwrap().iter_mut().for_each(|c| c.fill(0));
            let outs = one(expr.clone());
            let ran = run(&r, &outs, &small_tiles(memory, threads, false)).unwrap();
            let want = naive(&expr, &r);
            assert!(bytes(&ran, &outs, want.len()) == want);
            assert!(r.counts.lock().unwrap().iter().flatten().all(|&c| c <= 1), "{expr}");
        }
    }
}

#[test]
fn parts_of_transposes_are_tiles_as_high_as_they_come() {
    let r = Arc::new(FakeReader::new(&[(&[60, 96], Encoding::BF16), (&[60, 64], Encoding::BF16)]));
    let sources: Vec<Arc<dyn Reader>> = vec![Arc::clone(&r) as _];
    // Unlike heights, as of the heads of queries and keys; and a start that is none of a matrix.
    let stacked = concat(vec![r.expr(0).transpose(), r.expr(1).transpose()]);
    let third = slice(r.expr(0).transpose(), 32, 32);
    for (expr, reads) in [(stacked, 60 * (96 + 64) * 2), (third, 60 * 96 * 2)] {
        let outs = one(expr.clone());
        let outputs = [Output::new(&outs[0].0, &outs[0].1)];
        let options = small_tiles(1 << 20, 1, false);
        let options = tensormill_engine::PlanOptions { tile_bytes: 500, ..options };
        let planned = plan(&sources, &outputs, &options).unwrap();
        assert_eq!((planned.tiles(), planned.source_bytes()), (1, reads), "{expr}");
        let ran = run(&r, &outs, &options).unwrap();
        let want = naive(&expr, &r);
        assert!(bytes(&ran, &outs, want.len()) == want, "{expr}");
    }
}

#[test]
fn casts_before_and_after_are_the_same() {
    let r = Arc::new(FakeReader::new(&[(&[3, 90, 130], Encoding::F16)]));
    let before = one(r.expr(0).apply(Cast(DType::F32)).transpose());
    let after = one(r.expr(0).transpose().apply(Cast(DType::F32)));
    let len = 3 * 90 * 130 * 4;
    let mut all = Vec::new();
    for outs in [&before, &after] {
        let least = least(&r, outs, false);
        for (memory, threads) in [(least, 1), (least + 700, 2), (20_000, 3), (1 << 20, 2)] {
            let ran = run(&r, outs, &small_tiles(memory, threads, false)).unwrap();
            all.push(bytes(&ran, outs, len));
        }
    }
    assert!(all.iter().all(|b| *b == all[0]));
    let cast = naive(&r.expr(0).apply(Cast(DType::F32)), &r);
    assert!(all[0] == formula(&cast, 3, (90, 130), 4));
}

#[test]
fn errors_of_values_do_not_depend_on_steps() {
    let r = Arc::new(FakeReader::new(&[(&[300, 200], Encoding::F32)]));
    let outs = one(r.expr(0).transpose().apply(Cast(DType::BF16)));
    let least = least(&r, &outs, true);
    let reports: Vec<_> = [least, least + 5000, 1 << 20]
        .iter()
        .map(|memory| run(&r, &outs, &small_tiles(*memory, 2, true)).unwrap().report.outputs)
        .collect();
    assert!(reports.iter().all(|o| *o == reports[0]));
}

#[test]
fn every_output_of_a_transpose_gets_its_bytes() {
    // Large enough that values move to where they suit their files, which lie apart by odd numbers of bytes.
    let r = Arc::new(FakeReader::new(&[(&[300, 400], Encoding::F16), (&[5], U8)]));
    let moved = || r.expr(0).transpose();
    let cast = || moved().apply(Cast(DType::F32));
    let all = |tensors: Vec<Expr>| {
        output(tensors.into_iter().enumerate().map(|(i, e)| (format!("t{i}"), e)).collect())
    };
    for outs in [
        vec![all(vec![moved()])],
        vec![all(vec![r.expr(1), moved()]), all(vec![r.expr(1), r.expr(1), cast(), moved()])],
        vec![all(vec![moved(), cast()]), all(vec![r.expr(1), cast()])],
    ] {
        for (memory, threads, measure) in [(150 << 10, 1, false), (210 << 10, 2, true), (3 << 20, 3, true)] {
            let ran = run(&r, &outs, &small_tiles(memory, threads, measure)).unwrap();
            for ((model, layout), files) in outs.iter().zip(&ran.files) {
                for (t, place) in model.model().tensors.iter().zip(&layout.places) {
                    let want = naive(&t.expr, &r);
                    let got = &files[place.file][place.offset as usize..][..want.len()];
                    assert!(got == want, "{} in {memory} bytes", t.expr);
                }
            }
        }
    }
}

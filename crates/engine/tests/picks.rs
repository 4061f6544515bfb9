//! Tensors that pick from the same rows: one read for all of them and for other variants, and errors against what was picked.

mod common;
use common::{notes::*, *};
use std::sync::Arc;
use tensormill_engine::{Mode, PlanOptions};
use tensormill_model::{Cast, Checked, ErrorKind, EveryNth, Expr, Layout};
use tensormill_tensor::{DType, Encoding};

const DIMS: [[u64; 3]; 3] = [[3, 48, 128], [1, 16, 20_000], [100, 16, 16]];

fn reader() -> FakeReader {
    let specs: Vec<(&[u64], Encoding)> = DIMS.iter().map(|d| (&d[..], Encoding::F32)).collect();
    let mut r = FakeReader::new(&specs);
    for data in &mut r.data {
        for (i, x) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *x = ((i as f32 * 0.37).sin() * 9.0).to_le_bytes();
        }
    }
    r
}

/// Even and odd rows, or columns, of every tensor: as they stand, in half the bytes, and in blocks.
fn variants(r: &FakeReader, turned: bool, elements: bool) -> Vec<(Checked, Layout)> {
    let pick = |i: usize, at| {
        let e = if turned { r.expr(i).transpose() } else { r.expr(i) };
        e.apply(EveryNth { of: 2, at, elements })
    };
    let model = |made: &dyn Fn(Expr) -> Expr| {
        let each = (0..DIMS.len()).flat_map(|i| [0, 1].map(|at| (format!("{i}.{at}"), made(pick(i, at)))));
        output(each.collect())
    };
    vec![model(&|e| e), model(&|e| e.apply(Cast(DType::F16))), model(&|e| e.apply(ToNibbles(3)))]
}

#[test]
fn one_read_gives_all_that_is_picked() {
    for (turned, elements) in [(false, false), (false, true), (true, false)] {
        let r = Arc::new(reader());
        let outs = variants(&r, turned, elements);
        let least = least(&r, &outs, true);
        let mut first = None;
        for threads in [1, 3] {
            for memory in [least, least + 100_000, 64 << 20] {
                r.counts.lock().unwrap().iter_mut().for_each(|c| c.fill(0));
                let options = PlanOptions { tile_bytes: 30_000, ..PlanOptions::new(memory, threads) };
                let ran = run(&r, &outs, &options).unwrap();
                let once = r.counts.lock().unwrap().iter().flatten().all(|&c| c == 1);
                assert!(once || memory < 64 << 20, "turned: {turned}, elements: {elements}");
                assert!(ran.report.peak_tile_bytes <= memory);
                for ((model, layout), files) in outs.iter().zip(&ran.files) {
                    for (t, place) in model.model().tensors.iter().zip(&layout.places) {
                        let want = naive(&t.expr, &r);
                        let got = &files[place.file][place.offset as usize..][..want.len()];
                        assert!(got == want, "{}: {}", t.name(), t.expr);
                    }
                }
                let want = first.get_or_insert_with(|| ran.report.outputs.clone());
                assert!(*want == ran.report.outputs, "{threads} threads, {memory} bytes");
            }
        }
        let outputs = first.unwrap();
        assert!(outputs[0].iter().all(|t| t.copied && t.error.is_none()));
        // Of the same values in a tensor of their own, the errors are the same.
        for (output, number) in [(1, 0), (1, 1), (2, 0), (2, 3), (2, 4)] {
            let t = &outs[0].0.model().tensors[number];
            let form = t.expr.form().unwrap();
            let mut alone = FakeReader::new(&[(form.shape.dims(), Encoding::F32)]);
            alone.data[0] = naive(&t.expr, &r);
            let alone = Arc::new(alone);
            let e = alone.expr(0);
            let e = if output == 1 { e.apply(Cast(DType::F16)) } else { e.apply(ToNibbles(3)) };
            let ran = run(&alone, &[common::output(vec![("x".into(), e)])], &small_tiles(1 << 20, 2, true))
                .unwrap();
            assert_eq!(outputs[output][number].error, ran.report.outputs[0][0].error);
            assert!(outputs[output][number].error.unwrap().rmse() > 0.0);
        }
    }
}

#[test]
fn verification_picks_again() {
    let r = Arc::new(reader());
    let outs = variants(&r, false, false);
    let options = PlanOptions { tile_bytes: 30_000, ..PlanOptions::new(1 << 20, 2) };
    with_plan(&r, &outs, &options, |plan| {
        let (files, notes) = (slates(&outs), Notes::default());
        execute(plan, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
        execute(plan, &files, &notes, 0..plan.tiles(), Mode::Verify).unwrap();
        let mut records = notes.records.lock().unwrap();
        // The odd rows' errors in the place of the even ones'.
        let first = &mut records.get_mut(&0).unwrap().computes;
        let measured: Vec<usize> = (0..first.len()).filter(|i| first[*i].error.is_some()).collect();
        let [one, two] = [measured[0], measured[1]].map(|i| first[i].error);
        assert!(one != two);
        first[measured[0]].error = two;
        drop(records);
        let e = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Verify).unwrap_err();
        assert!(e.kind() == ErrorKind::Failed && e.message().contains("as close to the source"), "{e}");
    });
}

//! What a ledger makes possible: going on where a run ended, dividing the work, checking what was written.

mod common;
use common::{notes::*, *};
use std::sync::{Arc, Mutex, atomic::Ordering};
use tensormill_engine::{Event, Mode, PlanOptions, Progress};
use tensormill_model::{Cast, Checked, ErrorKind, Layout};
use tensormill_tensor::{DType, Encoding};

fn model() -> (Arc<FakeReader>, Vec<(Checked, Layout)>) {
    let mut r =
        FakeReader::new(&[(&[300, 128], Encoding::F32), (&[77, 400], Encoding::F32), (&[50], Encoding::F32)]);
    for data in &mut r.data {
        for (i, x) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *x = ((i as f32 * 0.37).sin() * 9.0).to_le_bytes();
        }
    }
    let outs = vec![
        output((0..3).map(|i| (format!("t{i}"), r.expr(i).apply(Cast(DType::F16)))).collect()),
        output((0..3).rev().map(|i| (format!("t{i}"), r.expr(i))).collect()),
    ];
    (Arc::new(r), outs)
}

fn options(threads: usize) -> PlanOptions {
    PlanOptions { tile_bytes: 10_000, ..PlanOptions::new(1 << 20, threads) }
}

#[test]
fn a_run_goes_on_where_it_ended_and_redoes_what_was_lost() {
    let (r, outs) = model();
    let want = run(&r, &outs, &options(1)).unwrap();
    for most in [0, 1, 4] {
        with_plan(&r, &outs, &options(2), |plan| {
            let files = slates(&outs);
            let broken = Notes { most: Some(most), ..Notes::default() };
            let error = execute(plan, &files, &broken, 0..plan.tiles(), Mode::Write).unwrap_err();
            assert_eq!(error.message(), "the pen is broken");
            let notes = Notes { records: broken.records, most: None };
            assert_eq!(notes.records.lock().unwrap().len(), most);
            // The first tile lost a byte since.
            if most > 0 {
                let place = outs[0].1.places[0];
                files[0].0.lock().unwrap()[place.file][place.offset as usize] ^= 1;
            }
            let report = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
            assert!(all(&files) == want.files);
            assert_eq!(report.outputs, want.report.outputs);
            assert_eq!(plan.collect(&notes).unwrap(), want.report.outputs);
            // Nothing is left to do.
            let report = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
            assert_eq!((report.read, report.written, report.skipped), (0, 0, plan.output_bytes()));
            assert_eq!(report.outputs, want.report.outputs);
        });
    }
}

#[test]
fn a_ledger_holds_under_other_budgets_and_threads() {
    let (r, outs) = model();
    let least = least(&r, &outs, true);
    let notes = Notes::default();
    let files = slates(&outs);
    let first = with_plan(&r, &outs, &options(4), |plan| {
        execute(plan, &files, &notes, 0..3, Mode::Write).unwrap();
        plan.fingerprint()
    });
    let tight = PlanOptions { memory: least, threads: 1, ..options(1) };
    with_plan(&r, &outs, &tight, |plan| {
        assert_eq!(plan.fingerprint(), first);
        let report = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
        assert!(report.skipped > 0 && report.peak_tile_bytes <= least);
    });
    let want = run(&r, &outs, &options(1)).unwrap();
    assert!(all(&files) == want.files);
    let (_, mut other) = model();
    other.pop();
    with_plan(&r, &other, &options(4), |plan| assert_ne!(plan.fingerprint(), first));
}

#[test]
fn parts_make_the_whole() {
    let (r, outs) = model();
    let want = run(&r, &outs, &options(1)).unwrap();
    for count in [1, 2, 4, 50] {
        with_plan(&r, &outs, &options(2), |plan| {
            let (files, notes) = (slates(&outs), Notes::default());
            let mut read = 0;
            for index in (0..count).rev() {
                let tiles = plan.part(index, count);
                read += execute(plan, &files, &notes, tiles, Mode::Write).unwrap().read;
            }
            assert!(all(&files) == want.files, "{count} parts");
            assert_eq!(
                (read, plan.collect(&notes).unwrap()),
                (plan.source_bytes(), want.report.outputs.clone())
            );
            let written: u64 = files.iter().map(|f| f.1.load(Ordering::Relaxed)).sum();
            assert_eq!(written, plan.output_bytes());
            notes.records.lock().unwrap().remove(&0);
            assert_eq!(plan.collect(&notes).unwrap_err().kind(), ErrorKind::Mismatch);
        });
    }
}

#[test]
fn verification_finds_a_single_wrong_byte() {
    let (r, outs) = model();
    with_plan(&r, &outs, &options(2), |plan| {
        let (files, notes) = (slates(&outs), Notes::default());
        execute(plan, &files, &notes, 0..plan.tiles(), Mode::Write).unwrap();
        let report = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Verify).unwrap();
        assert_eq!(report.read, plan.source_bytes());
        let place = outs[0].1.places[1];
        files[0].0.lock().unwrap()[place.file][place.offset as usize + 77] ^= 1;
        let error = execute(plan, &files, &notes, 0..plan.tiles(), Mode::Verify).unwrap_err();
        assert_eq!((error.kind(), error.tensor_name()), (ErrorKind::Failed, Some("t1")));
        let error = execute(plan, &files, &Notes::default(), 0..plan.tiles(), Mode::Verify).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
    });
}

/// The order in which tensors begin.
#[derive(Default)]
struct Order(Mutex<Vec<String>>);
impl Progress for Order {
    fn event(&self, event: Event<'_>) {
        if let Event::TensorStarted { name } = event {
            self.0.lock().unwrap().push(name.to_owned());
        }
    }
}

#[test]
fn tiles_follow_the_output_they_are_asked_to() {
    let (r, outs) = model();
    for (follow, names) in
        [(None, ["t0", "t1", "t2"]), (Some(0), ["t0", "t2", "t1"]), (Some(1), ["t2", "t0", "t1"])]
    {
        let options = PlanOptions { follow, ..options(1) };
        let order = Order::default();
        let ran = run_with(&r, &outs, &options, &order).unwrap();
        // Each output alternates between two files: file 0 first.
        assert_eq!(*order.0.lock().unwrap(), names, "{follow:?}");
        assert!(ran.files == run(&r, &outs, &self::options(1)).unwrap().files);
        with_plan(&r, &outs, &options, |plan| {
            let in_order: Vec<bool> = (0..2).map(|i| plan.in_file_order(i)).collect();
            assert!(follow.is_none_or(|f| in_order[f]), "{follow:?} {in_order:?}");
        });
    }
}

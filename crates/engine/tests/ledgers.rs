//! What a ledger makes possible: going on where a run ended, dividing the work, checking what was written.

mod common;
use common::*;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tensormill_engine::{
    Event, Ledger, Mode, Output, Plan, PlanOptions, Progress, Report, Run, Sink, TileRecord, plan,
};
use tensormill_model::{Cast, Checked, ErrorKind, Layout, Reader, Result};
use tensormill_tensor::{DType, Encoding};

/// A ledger in memory, which can refuse to take more notes.
#[derive(Default)]
struct Notes {
    records: Mutex<BTreeMap<u64, TileRecord>>,
    /// Notes taken before the pen breaks.
    most: Option<usize>,
}

impl Ledger for Notes {
    fn keeps(&self) -> bool {
        true
    }
    fn done(&self, tile: u64) -> Option<TileRecord> {
        self.records.lock().unwrap().get(&tile).cloned()
    }
    fn record(&self, tile: u64, record: &TileRecord) -> Result<()> {
        let mut records = self.records.lock().unwrap();
        if self.most.is_some_and(|m| records.len() >= m) {
            return Err(tensormill_model::Error::new(ErrorKind::Io, "the pen is broken"));
        }
        records.insert(tile, record.clone());
        Ok(())
    }
}

/// Files that may be written again.
struct Slate(Mutex<Vec<Vec<u8>>>, AtomicU64);

impl Slate {
    fn new(layout: &Layout) -> Self {
        Self(Mutex::new(layout.files.iter().map(|f| vec![0; f.len as usize]).collect()), AtomicU64::new(0))
    }
    fn bytes(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

impl Sink for Slate {
    fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.0.lock().unwrap()[file][offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
    fn read_at(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        out.copy_from_slice(&self.0.lock().unwrap()[file][offset as usize..][..out.len()]);
        Ok(())
    }
}

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

fn with_plan<T>(
    r: &Arc<FakeReader>,
    outs: &[(Checked, Layout)],
    options: &PlanOptions,
    f: impl FnOnce(&Plan<'_>) -> T,
) -> T {
    let sources: Vec<Arc<dyn Reader>> = vec![Arc::clone(r) as _];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    f(&plan(&sources, &outputs, options).unwrap())
}

fn execute(
    plan: &Plan<'_>,
    slates: &[Slate],
    ledger: &dyn Ledger,
    tiles: std::ops::Range<u64>,
    mode: Mode,
) -> Result<Report> {
    let sinks: Vec<&dyn Sink> = slates.iter().map(|s| s as _).collect();
    let cancel = AtomicBool::new(false);
    plan.execute(&Run {
        sinks: &sinks,
        progress: &(),
        cancel: &cancel,
        ledger,
        tiles,
        mode,
        accelerator: None,
    })
}

fn options(threads: usize) -> PlanOptions {
    PlanOptions { tile_bytes: 10_000, ..PlanOptions::new(1 << 20, threads) }
}

fn slates(outs: &[(Checked, Layout)]) -> Vec<Slate> {
    outs.iter().map(|(_, l)| Slate::new(l)).collect()
}

fn all(slates: &[Slate]) -> Vec<Vec<Vec<u8>>> {
    slates.iter().map(Slate::bytes).collect()
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

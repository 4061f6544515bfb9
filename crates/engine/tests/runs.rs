//! What holds for whole runs: shared reads, the budget, determinism, statistics, failures.

mod common;
use common::*;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tensormill_engine::{Output, PlanOptions, Sink, plan};
use tensormill_model::{Cast, Checked, Error, ErrorKind, Form, Layout, Op, Reader, Result, Rows};
use tensormill_tensor::{DType, Encoding, ErrorStats};

fn options(memory: u64, threads: usize) -> PlanOptions {
    small_tiles(memory, threads, false)
}

/// A model of f32 tensors in three variants, one of them in nibbles.
fn variants() -> (Arc<FakeReader>, Vec<(Checked, Layout)>) {
    let mut r = FakeReader::new(&[
        (&[300, 128], Encoding::F32),
        (&[50], Encoding::F32),
        (&[77, 400], Encoding::F32),
        (&[4096, 8], Encoding::F32),
        (&[3, 20_000], Encoding::F32),
    ]);
    for data in &mut r.data {
        // Values from 0 to 15 with fractions, and a NaN here and there.
        for (i, x) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let v = f32::from(x[0]) / 17.0 + f32::from(x[1]) / 70000.0;
            *x = if i % 9973 == 100 { f32::NAN } else { v }.to_le_bytes();
        }
    }
    let names = ["emb", "norm", "ffn", "tall", "wide"];
    // One tensor in an order whose period is the whole tensor: small budgets have to cut it.
    let value = |i| if i == 3 { swap(r.expr(i), 2, 2048) } else { r.expr(i) };
    let model = |f: &dyn Fn(usize) -> tensormill_model::Expr| {
        output(names.iter().enumerate().map(|(i, n)| ((*n).to_owned(), f(i))).collect())
    };
    let outs = vec![
        model(&|i| value(i)),
        model(&|i| value(i).apply(Cast(DType::F16))),
        model(&|i| if i == 1 { value(i) } else { value(i).apply(ToNibbles(0)) }),
        // The same op as another variant's: computed once, written twice.
        model(&|i| value(i).apply(Cast(DType::F16))),
    ];
    (Arc::new(r), outs)
}

#[test]
fn variants_share_one_read() {
    let (r, outs) = variants();
    let ran = run(&r, &outs, &options(1 << 20, 2)).unwrap();
    assert!(r.counts.lock().unwrap().iter().flatten().all(|&c| c == 1));
    assert_eq!(ran.report.read, r.data.iter().map(|d| d.len() as u64).sum::<u64>());
    assert_eq!(ran.files[1], ran.files[3]);
    for (out, files) in outs.iter().zip(&ran.files) {
        for (t, place) in out.0.model().tensors.iter().zip(&out.1.places) {
            let want = naive(&t.expr, &r);
            assert!(files[place.file][place.offset as usize..][..want.len()] == want, "{}", t.name());
        }
    }
}

#[test]
fn bytes_and_statistics_depend_on_nothing_but_the_source() {
    let (r, outs) = variants();
    let least = least(&r, &outs, true);
    let mut first = None;
    for threads in [1, 2, 8] {
        for memory in [least, least + 1000, 1 << 20, 3 << 20, 1 << 30] {
            let options = PlanOptions { tile_bytes: 50_000, ..PlanOptions::new(memory, threads) };
            let ran = run(&r, &outs, &options).unwrap();
            assert!(ran.report.peak_tile_bytes <= memory && ran.report.peak_tile_bytes > 0);
            let got = (ran.files, ran.report.outputs);
            let want = first.get_or_insert_with(|| got.clone());
            assert!(*want == got, "{threads} threads, {memory} bytes");
        }
    }
}

#[test]
fn statistics_are_those_of_the_whole_tensor() {
    let (r, outs) = variants();
    let ran = run(&r, &outs, &small_tiles(1 << 20, 3, true)).unwrap();
    for (i, data) in r.data.iter().enumerate() {
        assert!(ran.report.outputs[0][i].copied && ran.report.outputs[0][i].error.is_none());
        let want: Vec<f32> = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let got: Vec<f32> =
            want.iter().map(|x| if x.is_nan() { 0.0 } else { x.round().clamp(0.0, 15.0) }).collect();
        let mut stats = ErrorStats::default();
        stats.add(&want, &got);
        let run = ran.report.outputs[2][i];
        if i == 1 {
            assert!(run.copied && run.error.is_none());
            continue;
        }
        let error = run.error.unwrap();
        assert_eq!(
            (error.count, error.max_abs, error.different, error.non_finite),
            (stats.count, stats.max_abs, stats.different, stats.non_finite)
        );
        assert!((error.rmse() - stats.rmse()).abs() < 1e-12);
        assert!((error.sqnr_db() - stats.sqnr_db()).abs() < 1e-9);
        let half = ran.report.outputs[1][i].error.unwrap();
        assert!(half.rmse() > 0.0 && half.rmse() < 0.01);
    }
}

#[test]
fn without_measuring_there_are_no_statistics() {
    let (r, outs) = variants();
    let ran = run(&r, &outs, &options(1 << 20, 2)).unwrap();
    assert!(ran.report.outputs.iter().flatten().all(|t| t.error.is_none()));
}

#[test]
fn a_computation_that_changes_values_is_no_error() {
    let r = Arc::new(FakeReader::new(&[(&[10, 10], U8)]));
    let outs = [output(vec![("t".into(), r.expr(0).apply(Xor(1)))])];
    let ran = run(&r, &outs, &small_tiles(1 << 20, 1, true)).unwrap();
    assert_eq!(ran.report.outputs[0][0], tensormill_engine::TensorRun::default());
}

#[test]
fn too_little_memory_names_the_tensor_and_what_is_enough() {
    let r = Arc::new(FakeReader::new(&[(&[10, 10], U8), (&[5000], U8), (&[10, 20], U8)]));
    let outs = [output(vec![
        ("small".into(), r.expr(0).apply(Xor(1))),
        ("huge".into(), r.expr(1).apply(Xor(2))),
        ("middle".into(), r.expr(2)),
    ])];
    let error = run(&r, &outs, &options(2000, 4)).err().unwrap();
    assert_eq!((error.kind(), error.tensor_name()), (ErrorKind::OverLimit, Some("huge")));
    // One row in, one row out, and the 7 bytes that the op claims.
    assert_eq!(
        error.message(),
        "its smallest tile takes 10007 bytes, and the memory budget leaves 2000 bytes for tiles"
    );
    assert_eq!(error.hint_text(), Some("raise the memory budget by at least 8007 bytes"));
    assert!(run(&r, &outs, &options(10_006, 4)).is_err());
    let ran = run(&r, &outs, &options(10_007, 4)).unwrap();
    assert_eq!(ran.report.peak_tile_bytes, 10_007);
}

#[test]
fn sources_are_read_in_file_order() {
    let mut r = FakeReader::new(&[(&[9, 9], U8), (&[9, 9], U8), (&[9, 9], U8)]);
    r.offsets = vec![500, 0, 200];
    let r = Arc::new(r);
    let outs = [output((0..3).map(|i| (format!("t{i}"), r.expr(i))).collect())];
    run(&r, &outs, &options(1 << 20, 1)).unwrap();
    assert_eq!(*r.order.lock().unwrap(), [1, 2, 0]);
}

#[test]
fn progress_adds_up() {
    let r = Arc::new(FakeReader::new(&[(&[1000, 9], U8), (&[0, 9], U8)]));
    let outs = [output(vec![("t".into(), r.expr(0).apply(Twice)), ("empty".into(), r.expr(1))])];
    let log = Log::default();
    let options = options(5000, 2);
    run_with(&r, &outs, &options, &log).unwrap();
    let log = log.0.into_inner().unwrap();
    assert_eq!(log[0], "Started { source_bytes: 9000, output_bytes: 18000, tensors: 1 }");
    assert_eq!(log.iter().filter(|l| l.starts_with("TensorStarted { name: \"t\"")).count(), 1);
    assert_eq!(log.last().unwrap(), "TensorFinished { name: \"t\" }");
    let sum = |field: &str| -> u64 {
        log.iter()
            .filter_map(|l| l.strip_prefix("Advanced { ")?.split(field).nth(1))
            .map(|t| t.split([',', ' ']).next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    assert_eq!((sum("read: "), sum("written: ")), (9000, 18000));
}

#[test]
fn the_first_failure_in_row_order_is_reported() {
    let r = Arc::new(FakeReader::new(&[(&[500, 40], U8), (&[500, 40], U8)]));
    let trap = |row, panics| Trap { row, panics };
    for threads in [1, 2, 8] {
        for panics in [false, true] {
            let outs = [output(vec![
                ("good".into(), r.expr(0)),
                ("bad".into(), r.expr(1).apply(trap(123, panics))),
                ("worse".into(), r.expr(1).apply(trap(321, !panics))),
            ])];
            let error = run(&r, &outs, &options(20_000, threads)).err().unwrap();
            assert_eq!(error.tensor_name(), Some("bad"), "{error}");
            let text = if panics { "the computation panicked: trapped at row 123" } else { "row 123 is bad" };
            assert_eq!(error.message(), text);
            assert_eq!(error.kind(), if panics { ErrorKind::Unsupported } else { ErrorKind::Malformed });
        }
    }
}

/// Fails in both of two tiles once both are at work; the one that has row `last` fails later.
#[derive(Debug)]
struct InTurn {
    last: u64,
    inside: AtomicU64,
}
impl Op for InTurn {
    fn describe(&self) -> String {
        format!("in-turn[{}]", self.last)
    }
    fn form(&self, inputs: &[Form]) -> Result<Form> {
        Ok(inputs[0].clone())
    }
    fn run(&self, rows: Rows, _: &[Form], _: &[&[u8]], _: &mut [u8]) -> Result<()> {
        self.inside.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        while self.inside.load(Ordering::SeqCst) < 2 && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(1));
        }
        if rows.contains(&self.last) {
            thread::sleep(Duration::from_millis(50));
        }
        Err(Error::malformed(format!("rows from {}", rows.start)))
    }
}

#[test]
fn timing_does_not_choose_the_failure() {
    let r = Arc::new(FakeReader::new(&[(&[500, 40], U8)]));
    for last in [0, 499] {
        let op = InTurn { last, inside: AtomicU64::new(0) };
        let outs = [output(vec![("t".into(), r.expr(0).apply(op))])];
        // Two tiles of 250 rows, both at work at the same time.
        let error = run(&r, &outs, &options(2 * 2 * 250 * 40, 2)).err().unwrap();
        assert_eq!(error.message(), "rows from 0");
    }
}

fn run_on(
    r: &Arc<FakeReader>,
    outs: &[(Checked, Layout)],
    sinks: &[FakeSink],
    progress: &dyn tensormill_engine::Progress,
    cancel: &AtomicBool,
) -> Result<tensormill_engine::Report> {
    let sources: Vec<Arc<dyn Reader>> = vec![Arc::clone(r) as _];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    let plan = plan(&sources, &outputs, &options(20_000, 4)).unwrap();
    let sinks: Vec<&dyn Sink> = sinks.iter().map(|s| s as _).collect();
    plan.run(&sinks, progress, cancel)
}

#[test]
fn a_failing_sink_stops_the_run() {
    let r = Arc::new(FakeReader::new(&[(&[50_000, 40], U8)]));
    let outs = [output(vec![("t".into(), r.expr(0))])];
    let mut sink = FakeSink::new(&outs[0].1);
    sink.poison = Some(100_000);
    let sinks = [sink];
    let error = run_on(&r, &outs, &sinks, &(), &AtomicBool::new(false)).unwrap_err();
    assert_eq!((error.kind(), error.tensor_name()), (ErrorKind::Io, Some("t")));
    let read: u32 = r.counts.lock().unwrap().iter().flatten().sum();
    assert!(read < 50_000, "the rest must not be read: {read}");
}

#[test]
fn a_run_can_be_cancelled() {
    let r = Arc::new(FakeReader::new(&[(&[50_000, 40], U8)]));
    let outs = [output(vec![("t".into(), r.expr(0).apply(Xor(1)))])];
    let flag = AtomicBool::new(false);
    let after = CancelAfter(Mutex::new(3), &flag);
    let error = run_on(&r, &outs, &[FakeSink::new(&outs[0].1)], &after, &flag).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let read: u32 = r.counts.lock().unwrap().iter().flatten().sum();
    assert!(read > 0 && read < 50_000);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let r = Arc::new(FakeReader::new(&[(&[10, 10], U8)]));
    let refuse = |r: &Arc<FakeReader>, outs: &[(Checked, Layout)], text: &str| {
        let e = run(r, outs, &options(1 << 20, 1)).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Mismatch);
        assert!(e.to_string().contains(text), "{e}");
    };
    let other = Arc::new(FakeReader::new(&[(&[10, 12], U8)]));
    let outs = [output(vec![("t".into(), r.expr(0))])];
    refuse(&other, &outs, "tensor t: planned to read u8 [10, 10] but the source holds u8 [10, 12]");
    refuse(&Arc::new(FakeReader::new(&[])), &outs, "tensor t: source 0 has no tensor number 0");
    let mut outs = [output(vec![("t".into(), r.expr(0))])];
    outs[0].1.files[0].len -= 4;
    refuse(&r, &outs, "tensor t: its place is outside the file");
    outs[0].1.places.clear();
    refuse(&r, &outs, "places for 0 tensors, the model has 1");
}

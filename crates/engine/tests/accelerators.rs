//! Work that is offered to an accelerator: the same bytes whatever it takes, once for all encoders, errors, memory.

mod common;
use common::*;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use tensormill_engine::{Output, PlanOptions, Report, plan};
use tensormill_model::{
    Accelerator, Cast, Checked, Error, ErrorKind, Form, Layout, Op, Reader, Result, Rows, Task,
};
use tensormill_tensor::{DType, Encoding};

/// Does every task whose key it knows, by its op, and writes down what it saw.
#[derive(Default)]
struct Fake {
    /// Keys of [`ToNibbles`] that it declines, after it has spoilt their place.
    declines: Vec<u8>,
    /// Fails from this call on.
    fails_at: Option<u64>,
    calls: AtomicU64,
    /// Text of the tasks' ops, per call.
    seen: Mutex<Vec<Vec<String>>>,
}

impl Accelerator for Fake {
    fn run(&self, rows: Rows, form: &Form, value: &[u8], tasks: &mut [Task<'_>]) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.fails_at.is_some_and(|n| call >= n) {
            return Err(Error::new(ErrorKind::Io, "the device is gone"));
        }
        assert_eq!(value.len() as u64, (rows.end - rows.start) * form.row_bytes()?);
        self.seen.lock().unwrap().push(tasks.iter().map(|t| t.op.describe()).collect());
        for t in tasks {
            if self.declines.iter().any(|k| t.op.describe() == ToNibbles(*k).describe()) {
                t.out.fill(0xee);
                continue;
            }
            t.op.run(rows.clone(), std::slice::from_ref(form), &[value], t.out)?;
            t.done = true;
        }
        Ok(())
    }
}

type Outputs = Vec<(Checked, Layout)>;

/// Tensors of which each is written as it stands, cast, and in three encodings, one of them twice.
fn variants() -> (Arc<FakeReader>, Outputs) {
    let r = FakeReader::new(&[
        (&[300, 128], Encoding::F32),
        (&[77, 400], Encoding::F32),
        (&[2, 20_000], Encoding::F32),
    ]);
    let ops: [Option<Arc<dyn Op>>; 6] = [
        None,
        Some(Arc::new(ToNibbles(1))),
        Some(Arc::new(Cast(DType::F16))),
        Some(Arc::new(ToNibbles(2))),
        Some(Arc::new(ToNibbles(3))),
        Some(Arc::new(ToNibbles(1))),
    ];
    let each = ops.into_iter().map(|op| {
        let tensor = |i: usize| {
            let e = r.expr(i);
            (format!("t.{i}"), op.iter().fold(e, |e, op| apply(e, Arc::clone(op))))
        };
        output((0..3).map(tensor).collect())
    });
    let outs = each.collect();
    (Arc::new(r), outs)
}

fn apply(e: tensormill_model::Expr, op: Arc<dyn Op>) -> tensormill_model::Expr {
    tensormill_model::Expr::Apply { op, inputs: vec![e] }
}

fn run_by(
    reader: &Arc<FakeReader>,
    outs: &Outputs,
    options: &PlanOptions,
    accelerator: Option<&dyn Accelerator>,
) -> Result<(Report, Vec<Vec<Vec<u8>>>)> {
    run_on(reader, outs, options, &(), accelerator).map(|ran| (ran.report, ran.files))
}

fn options(memory: u64, threads: usize, offload: bool) -> PlanOptions {
    PlanOptions { tile_bytes: 50_000, offload, ..PlanOptions::new(memory, threads) }
}

#[test]
fn bytes_do_not_depend_on_who_makes_them() {
    let (r, outs) = variants();
    let (want, files) = run_by(&r, &outs, &options(1 << 22, 2, false), None).unwrap();
    for declines in [vec![], vec![2], vec![1, 2, 3]] {
        for threads in [1, 3] {
            for memory in [700_000, 1 << 20, 1 << 24] {
                let fake = Fake { declines: declines.clone(), ..Fake::default() };
                let (got, same) = run_by(&r, &outs, &options(memory, threads, true), Some(&fake)).unwrap();
                assert!(same == files, "{declines:?} declined, {threads} threads, {memory} bytes");
                assert_eq!(got.outputs, want.outputs);
            }
        }
    }
    // A run that expected an accelerator and has none.
    let (got, same) = run_by(&r, &outs, &options(1 << 22, 2, true), None).unwrap();
    assert!(same == files && got.outputs == want.outputs);
}

#[test]
fn rows_go_out_once_for_all_encoders() {
    let (r, outs) = variants();
    let fake = Fake::default();
    run_by(&r, &outs, &options(1 << 24, 2, true), Some(&fake)).unwrap();
    let seen = fake.seen.into_inner().unwrap();
    assert!(seen.len() > 3, "several tiles");
    // The cast is no encoder, and the op that two outputs share is one task.
    assert!(seen.iter().all(|ops| *ops == ["nibbles[1]", "nibbles[2]", "nibbles[3]"]), "{seen:?}");
    // Nobody is asked where the plan did not expect it.
    let fake = Fake::default();
    run_by(&r, &outs, &options(1 << 24, 2, false), Some(&fake)).unwrap();
    assert_eq!(fake.calls.into_inner(), 0);
}

#[test]
fn tiles_are_the_same_with_and_without() {
    let (r, outs) = variants();
    let sources: Vec<Arc<dyn Reader>> = vec![r];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    for memory in [700_000, 1 << 24] {
        let [a, b] =
            [false, true].map(|offload| plan(&sources, &outputs, &options(memory, 2, offload)).unwrap());
        assert_eq!((a.tiles(), a.fingerprint()), (b.tiles(), b.fingerprint()), "a journal holds for both");
    }
}

#[test]
fn a_failure_names_the_tensor() {
    let (r, outs) = variants();
    let fake = Fake { fails_at: Some(0), ..Fake::default() };
    let e = run_by(&r, &outs, &options(1 << 24, 1, true), Some(&fake)).unwrap_err();
    assert_eq!((e.kind(), e.tensor_name()), (ErrorKind::Io, Some("t.0")), "{e}");
}

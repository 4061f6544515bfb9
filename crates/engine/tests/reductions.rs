//! Reductions over tensors of many blocks: found once, the same whoever finds them, and never waited for in vain.

mod common;
use common::*;
use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use tensormill_engine::PlanOptions;
use tensormill_model::{Expr, Op};

/// Four blocks, and a half.
const ROWS: u64 = 5000;

fn reader() -> Arc<FakeReader> {
    Arc::new(FakeReader::new(&[(&[ROWS, 230], U8), (&[ROWS, 10], U8)]))
}

fn with_numbers(r: &FakeReader, op: impl Op + 'static) -> Expr {
    Expr::Apply { op: Arc::new(AddTable), inputs: vec![r.expr(1), r.expr(0).apply(op)] }
}

#[test]
fn numbers_do_not_depend_on_who_finds_them() {
    let r = reader();
    let outs = [output(vec![("t".into(), with_numbers(&r, Middle { trap: None }))])];
    let mut files = Vec::new();
    for threads in [1, 2, 5] {
        for _ in 0..4 {
            r.counts.lock().unwrap()[0].fill(0);
            let ran = run(&r, &outs, &small_tiles(8 << 20, threads, false)).unwrap();
            assert!(r.counts.lock().unwrap()[0].iter().all(|n| *n == 2), "two passes, and no more");
            assert_eq!(ran.report.read, 2 * ROWS * 230 + ROWS * 10);
            files.push(ran.files);
        }
    }
    assert!(files.iter().all(|f| *f == files[0]));
    assert!(r.calls.load(Ordering::Relaxed) > 0);
}

#[test]
fn what_fails_keeps_nobody_waiting() {
    let r = reader();
    for threads in [1, 4] {
        for panics in [false, true] {
            let trap = Some((ROWS / 2, panics));
            let outs = [output(vec![("t".into(), with_numbers(&r, Middle { trap }))])];
            let e = run(&r, &outs, &small_tiles(8 << 20, threads, false)).err().unwrap();
            assert!(e.message().contains("the trap") && e.tensor_name() == Some("t"), "{e}");
            assert_eq!(e.message().contains("panicked"), panics, "{e}");
        }
    }
}

#[test]
fn those_who_wait_keep_no_permit_from_those_who_read() {
    // Two workers and one permit: the last block's reader has lent it to the one who waits for that block.
    let mut slow = FakeReader::new(&[(&[ROWS, 230], U8), (&[ROWS, 10], U8)]);
    slow.pause = Duration::from_millis(5);
    let r = Arc::new(slow);
    let outs = [output(vec![("t".into(), with_numbers(&r, Middle { trap: None }))])];
    let options = PlanOptions { measure: false, tile_bytes: 5000, ..PlanOptions::new(64 << 20, 1) };
    let (done, ends) = mpsc::channel();
    std::thread::spawn(move || done.send(run(&r, &outs, &options).is_ok()));
    assert_eq!(ends.recv_timeout(Duration::from_mins(1)), Ok(true), "workers wait for each other");
}

#[test]
fn unlike_inputs_are_refused() {
    let r = reader();
    let inputs = vec![r.expr(0), slice(r.expr(0), 0, 7)];
    let outs = [output(vec![("t".into(), Expr::Apply { op: Arc::new(Middle { trap: None }), inputs })])];
    let e = run(&r, &outs, &small_tiles(8 << 20, 1, false)).err().unwrap();
    assert!(e.message().contains("unlike"), "{e}");
}

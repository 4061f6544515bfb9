//! Resident memory while transposed parts are collected, as the operating system counts it. Alone in its file: the peak is
//! one per process.
#![cfg(target_os = "linux")]

mod common;
use common::{
    bundles::{Codes, Pack, Pour, Scales},
    output, shape,
};
use std::sync::{Arc, atomic::AtomicBool};
use tensormill_engine::{Output, PlanOptions, Sink, peak_rss, plan};
use tensormill_model::{Expr, Form, Index, Place, Reader, Result, Rows};
use tensormill_tensor::{Encoding, TensorSpec};

/// Tensors that exist only while they are read.
struct Endless(Index);
impl Reader for Endless {
    fn index(&self) -> &Index {
        &self.0
    }
    fn read(&self, _: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        out.fill(rows.start as u8 & 0x3f);
        Ok(())
    }
    fn place(&self, tensor: usize) -> Place {
        Place { file: 0, offset: tensor as u64 }
    }
}

struct Nowhere;
impl Sink for Nowhere {
    fn write_at(&self, _: usize, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn read_at(&self, _: usize, _: u64, _: &mut [u8]) -> Result<()> {
        Ok(())
    }
}

#[test]
fn resident_memory_stays_inside_the_budget() {
    const MIB: u64 = 1 << 20;
    // 16 MiB of codes, which fit, and 64 MiB, which take passes.
    let dims = [[4096, 4096], [4096, 1024], [8192, 8192]];
    let tensors: Vec<_> =
        dims.iter().map(|d| TensorSpec::new(format!("{d:?}"), shape(d), Encoding::F32)).collect();
    let stem = |i: usize| {
        let form = Form::new(tensors[i].shape.clone(), Encoding::F32);
        Expr::Read { source: 0, tensor: i, form }.apply(Pour::new(0))
    };
    let all = |f: &dyn Fn(usize) -> Vec<(String, Expr)>| output((0..dims.len()).flat_map(f).collect());
    let outs = [
        all(&|i| vec![(format!("{i}"), stem(i).apply(Codes).transpose().apply(Pack(8)))]),
        all(&|i| vec![(format!("{i}c"), stem(i).apply(Codes)), (format!("{i}s"), stem(i).apply(Scales(1)))]),
    ];
    let sources: Vec<Arc<dyn Reader>> =
        vec![Arc::new(Endless(Index { tensors: tensors.clone(), ..Index::default() }))];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    let memory = 40 * MIB;
    let plan = plan(&sources, &outputs, &PlanOptions::new(memory, 4)).unwrap();
    let before = peak_rss().unwrap();
    let report = plan.run(&[&Nowhere, &Nowhere], &(), &AtomicBool::new(false)).unwrap();
    let grown = peak_rss().unwrap() - before;
    assert_eq!(report.read, plan.source_bytes());
    assert!(report.peak_tile_bytes > 20 * MIB, "the test wants tiles of some size");
    // What fits is read once: 64 and 16 MiB; the largest, of 256 MiB, as often as its windows are many.
    let largest = report.read - 80 * MIB;
    assert!(largest.is_multiple_of(256 * MIB) && (2..=3).contains(&(largest / (256 * MIB))), "{largest}");
    assert!(grown <= memory + 4 * MIB, "grown by {grown} bytes");
}

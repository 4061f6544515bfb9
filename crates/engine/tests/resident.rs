//! Resident memory of a whole run, as the operating system counts it. Alone in its file: the peak is one per
//! process.
#![cfg(target_os = "linux")]

mod common;
use common::{output, shape};
use std::sync::{Arc, atomic::AtomicBool};
use tensormill_engine::{Output, PlanOptions, Sink, peak_rss, plan};
use tensormill_model::{Cast, Expr, Form, Index, Place, Reader, Result, Rows};
use tensormill_tensor::{DType, Encoding, TensorSpec};

/// Tensors that exist only while they are read.
struct Endless(Index);
impl Reader for Endless {
    fn index(&self) -> &Index {
        &self.0
    }
    fn read(&self, _: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        out.fill(rows.start as u8);
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
    // 188 MiB in tensors of very different rows, one of which takes half of the budget by itself.
    let dims = [[32 << 10, 1 << 10], [8, 1 << 20], [1 << 20, 16], [3, 2 << 20], [16, 1 << 20], [4096, 4096]];
    let tensors: Vec<_> =
        dims.iter().map(|d| TensorSpec::new(format!("{d:?}"), shape(d), Encoding::BF16)).collect();
    let total: u64 = tensors.iter().map(|t| t.bytes().unwrap()).sum();
    let read = |i: usize| {
        let form = Form::new(tensors[i].shape.clone(), Encoding::BF16);
        Expr::Read { source: 0, tensor: i, form }
    };
    let variant = |to| output((0..dims.len()).map(|i| (format!("t{i}"), read(i).apply(Cast(to)))).collect());
    let outs = [variant(DType::F32), variant(DType::F16)];
    let sources: Vec<Arc<dyn Reader>> =
        vec![Arc::new(Endless(Index { tensors: tensors.clone(), ..Index::default() }))];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    let memory = 24 * MIB;
    let plan = plan(&sources, &outputs, &PlanOptions::new(memory, 4)).unwrap();
    let before = peak_rss().unwrap();
    let report = plan.run(&[&Nowhere, &Nowhere], &(), &AtomicBool::new(false)).unwrap();
    let grown = peak_rss().unwrap() - before;
    assert_eq!(report.read, total);
    assert!(report.peak_tile_bytes > 8 * MIB, "the test wants tiles of some size");
    assert!(grown <= memory + 4 * MIB, "grown by {grown} bytes");
}

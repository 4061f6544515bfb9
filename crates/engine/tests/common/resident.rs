//! A run whose tensors are nowhere but in its own memory.

use std::sync::{Arc, atomic::AtomicBool};
use tensormill_engine::{Output, PlanOptions, Report, Sink, peak_rss, plan};
use tensormill_model::{Checked, Index, Layout, Place, Reader, Result, Rows};
use tensormill_tensor::TensorSpec;

/// Tensors that exist only while they are read: finite numbers, whatever their type.
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

/// Runs on four threads; gives what is reported, the bytes that the plan reads, and by how many the process has grown.
pub fn resident(tensors: Vec<TensorSpec>, outs: &[(Checked, Layout)], memory: u64) -> (Report, u64, u64) {
    let sources: Vec<Arc<dyn Reader>> = vec![Arc::new(Endless(Index { tensors, ..Index::default() }))];
    let outputs: Vec<_> = outs.iter().map(|(model, layout)| Output::new(model, layout)).collect();
    let plan = plan(&sources, &outputs, &PlanOptions::new(memory, 4)).unwrap();
    let sinks: Vec<&dyn Sink> = outs.iter().map(|_| &Nowhere as _).collect();
    let before = peak_rss().unwrap();
    let report = plan.run(&sinks, &(), &AtomicBool::new(false)).unwrap();
    (report, plan.source_bytes(), peak_rss().unwrap() - before)
}

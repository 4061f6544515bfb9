//! Whole runs that transpose a tensor in memory, beside runs that copy it, in bytes of it per second: by the size of
//! elements, and where the budget holds all of it or an eighth.
//!
//! `cargo bench -p tensormill-benches --bench transposes -- 2-byte`
#![allow(missing_docs)] // criterion's macros make items that cannot carry any

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tensormill_engine::{Output, PlanOptions, Sink, plan};
use tensormill_model::{
    Capabilities, Expr, FileLayout, Form, Index, Layout, MemoryAssets, Metadata, Model, Place, Reader,
    Result, Rows, Tensor,
};
use tensormill_tensor::{DType, Encoding, Shape, TensorSpec};

/// Bytes of the tensor: more than any cache holds.
const BYTES: u64 = 64 << 20;

/// A tensor in memory.
struct Memory(Index, Vec<u8>);

impl Reader for Memory {
    fn index(&self) -> &Index {
        &self.0
    }
    fn read(&self, tensor: usize, rows: Rows, out: &mut [u8]) -> Result<()> {
        let start = (rows.start * self.0.tensors[tensor].row_bytes()?) as usize;
        out.copy_from_slice(&self.1[start..start + out.len()]);
        Ok(())
    }
    fn place(&self, _: usize) -> Place {
        Place { file: 0, offset: 0 }
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

fn transposes(c: &mut Criterion) {
    for dtype in [DType::U8, DType::BF16, DType::F32, DType::F64] {
        let element = dtype.bits() / 8;
        let mut group = c.benchmark_group(format!("{element}-byte"));
        group.throughput(Throughput::Bytes(BYTES));
        group.sample_size(10);
        group.measurement_time(Duration::from_secs(2));
        // Powers of two are the worst for caches: every row begins at the same place of them. And a vocabulary.
        for n in [4096, 151_936] {
            let form = Form::new(
                Shape::new(vec![BYTES / element / n, n]).expect("a small shape"),
                Encoding::Plain(dtype),
            );
            let spec = TensorSpec::new("w", form.shape.clone(), form.encoding);
            let data = vec![1; spec.bytes().expect("whole bytes") as usize];
            let index = Index { tensors: vec![spec], ..Index::default() };
            let sources: Vec<Arc<dyn Reader>> = vec![Arc::new(Memory(index, data))];
            let read = Expr::Read { source: 0, tensor: 0, form };
            for (name, expr, memory) in [
                ("copy", read.clone(), 3 * BYTES),
                ("transpose", read.clone().transpose(), 3 * BYTES),
                ("transpose-in-an-eighth", read.clone().transpose(), BYTES / 8),
            ] {
                let tensor = Tensor::new("w", expr).expect("a form");
                let bytes = tensor.spec.bytes().expect("whole bytes");
                let file = FileLayout { name: "f".into(), len: bytes, ..FileLayout::default() };
                let layout = Layout {
                    files: vec![file],
                    places: vec![Place { file: 0, offset: 0 }],
                    ..Layout::default()
                };
                let assets = Arc::new(MemoryAssets::default());
                let model = Model { tensors: vec![tensor], metadata: Metadata::new(), assets, program: None };
                let target =
                    Capabilities { format: "none", max_name_bytes: 9, max_rank: 9, encoding: |_| true };
                let model = model.check(&target).expect("a sound model");
                let outputs = [Output::new(&model, &layout)];
                let plan = plan(&sources, &outputs, &PlanOptions::new(memory, 1)).expect("a plan");
                group.bench_function(format!("{name}/{n}"), |b| {
                    b.iter(|| plan.run(&[&Nowhere], &(), &AtomicBool::new(false)).expect("runs"));
                });
            }
        }
    }
}

criterion_group!(benches, transposes);
criterion_main!(benches);

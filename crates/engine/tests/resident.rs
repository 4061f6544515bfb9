//! Resident memory of a whole run, as the operating system counts it. Alone in its file: the peak is one per
//! process.
#![cfg(target_os = "linux")]

mod common;
use common::{output, resident::resident, shape};
use tensormill_model::{Cast, Expr, Form};
use tensormill_tensor::{DType, Encoding, TensorSpec};

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
    let memory = 24 * MIB;
    let (report, planned, grown) = resident(tensors, &outs, memory);
    assert_eq!((report.read, planned), (total, total));
    assert!(report.peak_tile_bytes > 8 * MIB, "the test wants tiles of some size");
    assert!(grown <= memory + 4 * MIB, "grown by {grown} bytes");
}

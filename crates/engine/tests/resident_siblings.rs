//! Resident memory while transposed parts are collected, as the operating system counts it. Alone in its file: the peak is
//! one per process.
#![cfg(target_os = "linux")]

mod common;
use common::{
    bundles::{Codes, Pack, Pour, Scales},
    output,
    resident::resident,
    shape,
};
use tensormill_model::{Expr, Form};
use tensormill_tensor::{Encoding, TensorSpec};

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
    let memory = 40 * MIB;
    let (report, planned, grown) = resident(tensors, &outs, memory);
    assert_eq!(report.read, planned);
    assert!(report.peak_tile_bytes > 20 * MIB, "the test wants tiles of some size");
    // What fits is read once: 64 and 16 MiB; the largest, of 256 MiB, as often as its windows are many.
    let largest = report.read - 80 * MIB;
    assert!(largest.is_multiple_of(256 * MIB) && (2..=3).contains(&(largest / (256 * MIB))), "{largest}");
    assert!(grown <= memory + 4 * MIB, "grown by {grown} bytes");
}

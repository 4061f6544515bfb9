//! Throughput of grouped codes at every level this machine has, in bytes of `f32` input (or output) per second and core:
//! round to nearest by the libraries' rules, the searches, decoding.
//!
//! `cargo bench -p tensormill-benches --bench groups -- int4` runs what has that in its name. Where a machine is busy,
//! `cargo run --release -p tensormill-kernels --example group_speed` measures the same by the shortest of many short runs.
#![allow(missing_docs)] // criterion's macros make items that cannot carry any

#[path = "../../kernels/examples/common/group_kinds.rs"]
mod group_kinds;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use group_kinds::{ROW, ROWS, kinds, weights};
use std::hint::black_box;
use tensormill_kernels::available_levels;
use tensormill_kernels::groups::GroupRows;

fn groups(c: &mut Criterion) {
    let x = weights(ROW * ROWS);
    for (name, q) in kinds() {
        for level in available_levels().iter().copied() {
            let mut group = c.benchmark_group(format!("{name}/{}", level.name()));
            group.throughput(Throughput::Bytes((ROW * ROWS * 4) as u64));
            group.sample_size(10);
            let bytes = q.grid.bundle_bytes(ROW);
            let mut bundles = vec![0u8; bytes * ROWS];
            group.bench_function("encode", |b| {
                b.iter(|| {
                    let rows = GroupRows { x: black_box(&x), len: ROW, importance: None, outer: 1.0 };
                    q.encode_rows_at(level, rows, &mut bundles).expect("finite input");
                });
            });
            let mut out = vec![0f32; ROW];
            group.bench_function("decode", |b| {
                b.iter(|| {
                    for bundle in bundles.chunks(bytes) {
                        q.grid.decode_row_at(level, black_box(bundle), &mut out);
                    }
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, groups);
criterion_main!(benches);

//! Throughput of grouped float codes at the selected level (`TENSORMILL_SIMD` lowers it), in bytes of `f32` per second and
//! core: encode, and decode of what came out.
//!
//! `cargo bench -p tensormill-benches --bench group_floats -- fp8` runs some of them.
#![allow(missing_docs)] // criterion's macros make items that cannot carry any

#[path = "../../kernels/examples/common/gaussian.rs"]
mod gaussian;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gaussian::gaussian;
use std::hint::black_box;
use tensormill_kernels::groups::{
    Code, Fit, Grid, GroupRows, Offset, Quantizer, Rule, ScaleType, global_scale,
};
use tensormill_kernels::selected_level;

/// 128 rows, so that blocks of 128x128 are whole: 2 MiB of weights.
const ROW: usize = 4096;
const ROWS: usize = 128;

/// The quantizers that are measured, with names.
fn kinds() -> [(&'static str, Quantizer); 10] {
    let of = |code, (group, rows, outer), scale, rule, fit| {
        let grid = Grid { code, group, rows, offset: Offset::None, outer };
        Quantizer { grid, scale, rule, fit }
    };
    let (e4m3, e5m2, e2m1, nf4) = (Code::E4M3, Code::E5M2, Code::E2M1, Code::Nf4);
    let (f32_, fp8, e8m0) = (ScaleType::F32, ScaleType::E4M3, ScaleType::E8M0);
    let (tensors, bits) = (Rule::CompressedTensors, Rule::BitsAndBytes);
    let channel = (0, 1, false);
    [
        ("fp8-tensor", of(e4m3, (0, 0, true), f32_, tensors, Fit::Nearest)),
        ("fp8-channel", of(e4m3, channel, f32_, tensors, Fit::Nearest)),
        ("fp8-block", of(e4m3, (128, 128, false), f32_, Rule::DeepSeek, Fit::Nearest)),
        ("fp8-e5m2-channel", of(e5m2, channel, f32_, tensors, Fit::Nearest)),
        ("mxfp8", of(e4m3, (32, 1, false), e8m0, tensors, Fit::Nearest)),
        ("nvfp4", of(e2m1, (16, 1, true), fp8, tensors, Fit::Nearest)),
        ("mxfp4", of(e2m1, (32, 1, false), e8m0, tensors, Fit::Nearest)),
        ("mxfp4-mlx", of(e2m1, (32, 1, false), e8m0, Rule::Mlx, Fit::Nearest)),
        ("nf4", of(nf4, (64, 1, false), f32_, bits, Fit::Nearest)),
        ("nf4-mse", of(nf4, (64, 1, false), f32_, bits, Fit::Mse)),
    ]
}

fn groups(c: &mut Criterion) {
    let x = gaussian(ROW * ROWS, 1);
    let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
    for (name, q) in kinds() {
        let grid = q.grid;
        let bundle = grid.bundle_bytes(ROW);
        let mut out = vec![0u8; ROWS * bundle];
        let outer = if grid.rows == 0 { q.matrix_scale(amax) } else { 1.0 / global_scale(amax) };
        let rows = GroupRows { x: &x, len: ROW, importance: None, outer };
        let mut bench = c.benchmark_group(format!("{name}/{}", selected_level().name()));
        bench.throughput(Throughput::Bytes((ROW * ROWS * 4) as u64));
        bench.sample_size(10);
        bench.bench_function("encode", |b| {
            b.iter(|| q.encode_rows(black_box(rows), &mut out).expect("finite input"));
        });
        let mut back = vec![0f32; ROW];
        bench.bench_function("decode", |b| {
            b.iter(|| {
                for bundle in out.chunks_exact(bundle) {
                    grid.decode_row(black_box(bundle), &mut back);
                }
            });
        });
        bench.finish();
    }
}

criterion_group!(benches, groups);
criterion_main!(benches);

//! Throughput of grouped float codes at the selected level (`TENSORMILL_SIMD` lowers it), in bytes of `f32` per second and
//! core: encode, and decode of what came out.
//!
//! `cargo bench -p tensormill-benches --bench group_floats -- fp8` runs some of them.
#![allow(missing_docs)] // criterion's macros make items that cannot carry any

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tensormill_kernels::groups::{
    Code, Fit, Grid, GroupRows, Offset, Quantizer, Rule, ScaleType, global_scale,
};
use tensormill_kernels::selected_level;

/// 128 rows, so that blocks of 128x128 are whole: 2 MiB of weights.
const ROW: usize = 4096;
const ROWS: usize = 128;

/// Gaussian values by the sum of twelve uniforms; a fixed sequence.
fn gaussian(n: usize, mut state: u64) -> Vec<f32> {
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}

#[allow(clippy::type_complexity, clippy::enum_glob_use, reason = "a table, in the words of the library")]
const CASES: [(&str, Code, u32, u32, bool, ScaleType, Rule, Fit); 10] = {
    use {Code::*, Fit::*, Rule::*, ScaleType::*};
    [
        ("fp8-tensor", Code::E4M3, 0, 0, true, F32, CompressedTensors, Nearest),
        ("fp8-channel", Code::E4M3, 0, 1, false, F32, CompressedTensors, Nearest),
        ("fp8-block", Code::E4M3, 128, 128, false, F32, DeepSeek, Nearest),
        ("fp8-e5m2-channel", E5M2, 0, 1, false, F32, CompressedTensors, Nearest),
        ("mxfp8", Code::E4M3, 32, 1, false, E8M0, CompressedTensors, Nearest),
        ("nvfp4", E2M1, 16, 1, true, ScaleType::E4M3, CompressedTensors, Nearest),
        ("mxfp4", E2M1, 32, 1, false, E8M0, CompressedTensors, Nearest),
        ("mxfp4-mlx", E2M1, 32, 1, false, E8M0, Mlx, Nearest),
        ("nf4", Nf4, 64, 1, false, F32, BitsAndBytes, Nearest),
        ("nf4-mse", Nf4, 64, 1, false, F32, BitsAndBytes, Mse),
    ]
};

fn groups(c: &mut Criterion) {
    let x = gaussian(ROW * ROWS, 1);
    let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
    for (name, code, group, rows, outer, scale, rule, fit) in CASES {
        let grid = Grid { code, group, rows, offset: Offset::None, outer };
        let q = Quantizer { grid, scale, rule, fit };
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

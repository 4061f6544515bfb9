//! Throughput of every block type at every level this machine has, in bytes of `f32` input (or output) per second
//! and core: encode, encode with importance, decode.
//!
//! `cargo bench -p tensormill-benches --bench blocks -- q4_k` runs one type.
#![allow(missing_docs)] // criterion's macros make items that cannot carry any

#[path = "../../kernels/examples/common/gaussian.rs"]
mod gaussian;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gaussian::gaussian;
use std::hint::black_box;
use tensormill_kernels::{available_levels, codec_at};
use tensormill_tensor::ggml;

/// Weights per row and rows per call: 256 KiB of input, so that it stays in the second-level cache.
const ROW: usize = 4096;
const ROWS: usize = 16;

fn blocks(c: &mut Criterion) {
    let x = gaussian(ROW * ROWS, 1);
    let importance: Vec<f32> = gaussian(ROW, 2).iter().map(|v| v.exp()).collect();
    for block in ggml::ALL.iter().copied() {
        let bytes = block.row_bytes(ROW as u64).expect("4096 is a multiple of every block") as usize;
        for level in available_levels().iter().copied() {
            let Some(codec) = codec_at(block, level) else { continue };
            let mut group = c.benchmark_group(format!("{}/{}", block.name.to_lowercase(), level.name()));
            group.throughput(Throughput::Bytes((ROW * ROWS * 4) as u64));
            group.sample_size(10);
            let mut packed = vec![0u8; bytes * ROWS];
            let encode = |importance: Option<&[f32]>, packed: &mut [u8]| {
                codec.encode_rows(black_box(&x), ROW, importance, packed).expect("finite input");
            };
            if codec.can_encode() {
                if !codec.needs_importance() {
                    group.bench_function("encode", |b| b.iter(|| encode(None, &mut packed)));
                }
                group.bench_function("encode-importance", |b| {
                    b.iter(|| encode(Some(&importance), &mut packed));
                });
            }
            let mut out = vec![0f32; ROW];
            group.bench_function("decode", |b| {
                b.iter(|| {
                    for row in packed.chunks(bytes) {
                        codec.decode_row(black_box(row), &mut out).expect("whole blocks");
                    }
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, blocks);
criterion_main!(benches);

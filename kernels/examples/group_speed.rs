//! How fast grouped codes are made and read, in GB of `f32` per second on one core, at every level: the shortest of many short
//! runs, which other work on the machine disturbs least.
//!
//! `cargo run --release -p tensormill-kernels --example group_speed -- [part of a name]`

#[path = "common/group_kinds.rs"]
mod group_kinds;

use group_kinds::{ROW, ROWS, kinds, weights};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tensormill_kernels::available_levels;
use tensormill_kernels::groups::GroupRows;

fn shortest(mut run: impl FnMut()) -> f64 {
    let (begin, mut least) = (Instant::now(), Duration::MAX);
    while begin.elapsed() < Duration::from_millis(400) {
        let start = Instant::now();
        run();
        least = least.min(start.elapsed());
    }
    (ROW * ROWS * 4) as f64 / least.as_secs_f64() / 1e9
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let x = weights(ROW * ROWS);
    println!("{:<24}{:<10}{:>10}{:>10}  GB/s", "", "level", "encode", "decode");
    for (name, q) in kinds().into_iter().filter(|(name, _)| name.contains(&wanted)) {
        for level in available_levels().iter().copied() {
            let bytes = q.grid.bundle_bytes(ROW);
            let mut bundles = vec![0u8; bytes * ROWS];
            let encode = shortest(|| {
                let rows = GroupRows { x: black_box(&x), len: ROW, importance: None, outer: 1.0 };
                q.encode_rows_at(level, rows, &mut bundles).expect("finite input");
            });
            let mut out = vec![0f32; ROW];
            let decode = shortest(|| {
                for bundle in bundles.chunks(bytes) {
                    q.grid.decode_row_at(level, black_box(bundle), &mut out);
                    black_box(&mut out);
                }
            });
            println!("{name:<24}{:<10}{encode:>10.3}{decode:>10.3}", level.name());
        }
    }
}

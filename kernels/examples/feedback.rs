//! How long a Hessian's factor takes on one core, and how fast weights are encoded with it: `feedback [COLUMNS [ROWS]]`.

use std::time::Instant;
use tensormill_kernels::groups::{
    Code, Damping, FEEDBACK_ROWS, Factor, Fit, Grid, GroupRows, Offset, Quantizer, Rule, ScaleType, Whole,
};

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let (n, rows) = (numbers.next().unwrap_or(4096), numbers.next().unwrap_or(4 * FEEDBACK_ROWS));
    let noise = |i: usize, j: usize| {
        let mixed = (i.min(j) * 7919 + i.max(j)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 40) as f32 / (1 << 24) as f32 - 0.5) / (n as f32).sqrt()
    };
    let start = Instant::now();
    let factor = Factor::new(n, Damping { part: 0.05, by_activity: false }, |i, out| {
        for (j, x) in out.iter_mut().enumerate() {
            *x = if i == j { 1.0 + (i % 7) as f32 } else { noise(i, j) };
        }
        Ok::<_, ()>(())
    })
    .expect("a positive matrix");
    println!("{n} columns: a factor in {:.2} s", start.elapsed().as_secs_f64());
    let weights: Vec<f32> = (0..rows * n).map(|i| noise(i, i / n)).collect();
    for (name, code, offset) in
        [("int4-g128", Code::Int(4), Offset::Middle), ("fp8", Code::E4M3, Offset::None)]
    {
        let group = if code == Code::E4M3 { 0 } else { 128 };
        let grid = Grid { code, group, rows: 1, offset, outer: false };
        let q = Quantizer { grid, scale: ScaleType::BF16, rule: Rule::CompressedTensors, fit: Fit::Nearest };
        let mut out = vec![0; FEEDBACK_ROWS * grid.bundle_bytes(n)];
        let start = Instant::now();
        for x in weights.chunks(FEEDBACK_ROWS * n) {
            let out = &mut out[..x.len() / n * grid.bundle_bytes(n)];
            let rows = GroupRows { x, len: n, importance: None, outer: 1.0 };
            q.encode_rows_with_feedback(rows, Whole::Times, &factor, out).expect("finite weights");
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name}: {rows} rows in {seconds:.2} s, {:.1} million weights a second",
            (rows * n) as f64 / seconds / 1e6
        );
    }
}

//! How much error `Search::Best` saves against ggml's choice in the same format, and what it costs.
//!
//! ```text
//! cargo run --release -p tensormill-kernels --example search_gain -- [--rows 16] [--seed 1] [--type Q4_K]...
//! ```
//! Prints a Markdown table: for normal and for t3 weights, without importance, with importance one in every column
//! (for which ggml uses its other search) and with a roughly lognormal one, the saving in percent of
//! `sum importance * (x - decoded)^2` over rows of 4096 weights. Then the time of `Search::Best` divided by that of
//! `Search::Ggml` at the same level, and by that of `Search::Ggml` at the scalar level, with the same importance.
//! `TENSORMILL_SIMD` sets the level of both searches.

#[path = "../tests/common/inputs.rs"]
#[allow(dead_code, reason = "this program names its own distributions")]
mod inputs;

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tensormill_kernels::{BlockCodec, Level, Search, codec_at, codec_for, formats};
use tensormill_tensor::BlockFormat;

const COLUMNS: usize = 4096;

struct Options {
    rows: u64,
    seed: u64,
    types: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { rows: 16, seed: 1, types: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--rows" => options.rows = value()?.parse().map_err(|e| format!("--rows: {e}"))?,
            "--seed" => options.seed = value()?.parse().map_err(|e| format!("--seed: {e}"))?,
            "--type" => options.types.push(value()?.to_uppercase()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

fn importance(kind: &str, seed: u64) -> Option<Vec<f32>> {
    if kind == "ones" { Some(vec![1.0; COLUMNS]) } else { inputs::importance(kind, seed, COLUMNS) }
}

/// Rows that are timed: few, so that the least of many times is one without other work in between.
const TIMED: usize = 2;

/// Weighted error of one encoder over these rows, and the least of the times it took for the first [`TIMED`].
fn measure(
    codec: &dyn BlockCodec,
    x: &[f32],
    w: Option<&[f32]>,
    blocks: &mut [u8],
    decoded: &mut [f32],
) -> (f64, Duration) {
    codec.encode_rows(x, COLUMNS, w, blocks).expect("finite rows encode");
    codec.decode_row(blocks, decoded).expect("whole blocks decode");
    let error = x.iter().zip(&*decoded).enumerate().map(|(i, (x, y))| {
        w.map_or(1.0, |w| f64::from(w[i % COLUMNS])) * (f64::from(*x) - f64::from(*y)).powi(2)
    });
    let error = error.sum();
    let some = x.len().min(TIMED * COLUMNS);
    let bytes = blocks.len() * some / x.len();
    let (mut time, mut spent) = (Duration::MAX, Duration::ZERO);
    while spent < Duration::from_millis(40) {
        let start = Instant::now();
        codec.encode_rows(&x[..some], COLUMNS, w, &mut blocks[..bytes]).expect("finite rows encode");
        let once = start.elapsed();
        time = time.min(once);
        spent += once;
    }
    (error, time)
}

/// Savings and times of one format: of each distribution and kind of importance.
fn line(block: &'static BlockFormat, options: &Options) -> Option<String> {
    let (reference, ggml) = (codec_at(block, Level::Scalar)?, codec_for(block, Search::Ggml)?);
    let best = codec_for(block, Search::Best)?;
    let weights = options.rows as usize * COLUMNS;
    let bytes = block.row_bytes(weights as u64).expect("whole blocks") as usize;
    let (mut blocks, mut decoded) = (vec![0u8; bytes], vec![0f32; weights]);
    let mut gains = Vec::new();
    let mut times = [[Duration::ZERO; 3]; 3];
    for distribution in ["gauss", "t3"] {
        for (k, kind) in ["none", "ones", "spread"].into_iter().enumerate() {
            if kind == "none" && ggml.needs_importance() {
                gains.push("-".to_owned());
                continue;
            }
            let seed = options.seed << 32;
            let row = |r| inputs::row(distribution, seed | r, COLUMNS);
            let x: Vec<f32> = (0..options.rows).flat_map(row).collect();
            let w = importance(kind, seed);
            let mut errors = [0.0; 3];
            for (i, codec) in [reference, ggml, best].into_iter().enumerate() {
                let (error, time) = measure(codec, &x, w.as_deref(), &mut blocks, &mut decoded);
                errors[i] = error;
                times[k][i] += time;
            }
            gains.push(format!("{:.1} %", 100.0 * (1.0 - errors[2] / errors[1])));
        }
    }
    let ratio = |i: usize| {
        times.map(|t| {
            if t[i].is_zero() { "-".to_owned() } else { format!("{:.2} x", t[2].div_duration_f64(t[i])) }
        })
    };
    Some(format!(
        "| {} | {} | {} | {} |",
        block.name,
        gains.join(" | "),
        ratio(1).join(" | "),
        ratio(0).join(" | ")
    ))
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    println!(
        "| type | gauss: none | ones | spread | t3: none | ones | spread | time / exact: none | ones | spread | time / scalar: none | ones | spread |"
    );
    println!("|{}", "---|".repeat(13));
    let chosen = formats().filter(|c| c.can_encode()).map(BlockCodec::block).filter(|b| {
        if options.types.is_empty() {
            codec_for(b, Search::Best)
                .is_some_and(|c| !std::ptr::addr_eq(c, codec_for(b, Search::Ggml).unwrap_or(c)))
        } else {
            options.types.iter().any(|t| t == b.name)
        }
    });
    for block in chosen {
        if let Some(line) = line(block, &options) {
            println!("{line}");
        }
    }
    ExitCode::SUCCESS
}

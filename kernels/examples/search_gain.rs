//! How much error `Search::Best` saves against ggml's choice in the same format, and what it costs.
//!
//! ```text
//! cargo run --release -p tensormill-kernels --example search_gain -- [--rows 16] [--seed 1] [--type Q4_K]...
//! ```
//! Prints a Markdown table: for normal and for t3 weights, without importance, with importance one in every column
//! (for which ggml uses its other search) and with a roughly lognormal one, the saving in percent of
//! `sum importance * (x - decoded)^2` over rows of 4096 weights, and the time of the search divided by that of
//! ggml's search in scalar code with the same importance (`TENSORMILL_SIMD` changes only the part of ggml's choice
//! in the former).

#[path = "../tests/common/inputs.rs"]
#[allow(dead_code, reason = "this program names its own distributions")]
mod inputs;

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tensormill_kernels::{BlockCodec, Level, Search, codec_at, codec_for, formats};

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

/// Weighted error of one encoder over one row, and the least of three times.
fn measure(
    codec: &dyn BlockCodec,
    x: &[f32],
    w: Option<&[f32]>,
    blocks: &mut [u8],
    decoded: &mut [f32],
) -> (f64, Duration) {
    let mut time = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        codec.encode_row(x, w, blocks).expect("finite rows encode");
        time = time.min(start.elapsed());
    }
    codec.decode_row(blocks, decoded).expect("whole blocks decode");
    let error = x
        .iter()
        .zip(&*decoded)
        .enumerate()
        .map(|(i, (x, y))| w.map_or(1.0, |w| f64::from(w[i])) * (f64::from(*x) - f64::from(*y)).powi(2));
    (error.sum(), time)
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
        "| type | gauss: none | ones | spread | t3: none | ones | spread | time: none | ones | spread |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let chosen = formats().filter(|c| c.can_encode()).map(BlockCodec::block).filter(|b| {
        if options.types.is_empty() {
            codec_for(b, Search::Best)
                .is_some_and(|c| !std::ptr::addr_eq(c, codec_for(b, Search::Ggml).unwrap_or(c)))
        } else {
            options.types.iter().any(|t| t == b.name)
        }
    });
    for block in chosen {
        let (Some(ggml), Some(best)) = (codec_at(block, Level::Scalar), codec_for(block, Search::Best))
        else {
            continue;
        };
        let bytes = block.row_bytes(COLUMNS as u64).expect("whole blocks") as usize;
        let (mut blocks, mut decoded) = (vec![0u8; bytes], vec![0f32; COLUMNS]);
        let mut gains = Vec::new();
        let mut times = [[Duration::ZERO; 2]; 3];
        for distribution in ["gauss", "t3"] {
            for (k, kind) in ["none", "ones", "spread"].into_iter().enumerate() {
                if kind == "none" && ggml.needs_importance() {
                    gains.push("-".to_owned());
                    continue;
                }
                let (mut before, mut after) = (0.0, 0.0);
                for row in 0..options.rows {
                    let seed = options.seed << 32 | row;
                    let (x, w) = (inputs::row(distribution, seed, COLUMNS), importance(kind, seed));
                    for (codec, error, time) in [(ggml, &mut before, 0), (best, &mut after, 1)] {
                        let (e, t) = measure(codec, &x, w.as_deref(), &mut blocks, &mut decoded);
                        *error += e;
                        times[k][time] += t;
                    }
                }
                gains.push(format!("{:.1} %", 100.0 * (1.0 - after / before)));
            }
        }
        let times = times.map(|[ggml, best]| {
            if ggml.is_zero() { "-".to_owned() } else { format!("{:.1} x", best.div_duration_f64(ggml)) }
        });
        println!("| {} | {} | {} |", block.name, gains.join(" | "), times.join(" | "));
    }
    ExitCode::SUCCESS
}

//! Encodes and decodes the same rows with this crate and with ggml's own library, and counts the blocks that
//! differ, per format and distribution.
//!
//! ```text
//! GGML_LIB=/path/to/libggml-base.so cargo run --release -p tensormill-kernels --example against_ggml -- \
//!     [--mib 4] [--seed 1] [--type Q4_K]... [--verbose]
//! ```
//! `--mib` is the amount of `f32` input per format, importance and distribution; each gets seeds of its own.
//! Prints the time that both sides take, and exits with 1 when a block differs.

#[path = "../tests/common/inputs.rs"]
mod inputs;

use inputs::{DISTRIBUTIONS, IMPORTANCES};
use std::ffi::c_void;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tensormill_kernels::{BlockCodec, formats, selected_level};

type QuantizeChunk = unsafe extern "C" fn(i32, *const f32, *mut c_void, i64, i64, i64, *const f32) -> usize;
type DequantizeRow = unsafe extern "C" fn(*const c_void, *mut f32, i64);

/// ggml's library, opened at run time so that nothing here links to it.
struct Ggml(libloading::Library);

#[allow(unsafe_code)]
impl Ggml {
    fn open(path: &str) -> Result<Self, libloading::Error> {
        // SAFETY: the library's initialisers are ggml's own, which only fill tables.
        unsafe { libloading::Library::new(path) }.map(Self)
    }

    fn encode(&self, codec: &dyn BlockCodec, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        let block = codec.block();
        assert_eq!(block.row_bytes(x.len() as u64), Some(out.len() as u64));
        assert!(importance.is_none_or(|w| w.len() == x.len()));
        let weights = importance.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: the signature is that of ggml.h; all three buffers have the lengths of one row, as asserted.
        let written = unsafe {
            let f: libloading::Symbol<QuantizeChunk> =
                self.0.get(b"ggml_quantize_chunk").expect("ggml exports ggml_quantize_chunk");
            f(block.ggml_code as i32, x.as_ptr(), out.as_mut_ptr().cast(), 0, 1, x.len() as i64, weights)
        };
        assert_eq!(written, out.len());
    }

    fn decode(&self, codec: &dyn BlockCodec, blocks: &[u8], out: &mut [f32]) {
        assert_eq!(codec.block().row_bytes(out.len() as u64), Some(blocks.len() as u64));
        let name = format!("dequantize_row_{}", codec.block().name.to_lowercase().replace("_k", "_K"));
        // SAFETY: the signature is that of ggml-quants.h; both buffers have the lengths of one row.
        unsafe {
            let f: libloading::Symbol<DequantizeRow> =
                self.0.get(name.as_bytes()).expect("ggml exports a decoder");
            f(blocks.as_ptr().cast(), out.as_mut_ptr(), out.len() as i64);
        }
    }
}

struct Options {
    mib: usize,
    seed: u64,
    types: Vec<String>,
    verbose: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { mib: 4, seed: 1, types: Vec::new(), verbose: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--mib" => options.mib = value()?.parse().map_err(|e| format!("--mib: {e}"))?,
            "--seed" => options.seed = value()?.parse().map_err(|e| format!("--seed: {e}"))?,
            "--type" => options.types.push(value()?.to_uppercase()),
            "--verbose" => options.verbose = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

#[derive(Default)]
struct Tally {
    blocks: u64,
    differing: u64,
    undecoded: u64,
    ours: Duration,
    theirs: Duration,
}

fn compare(ggml: &Ggml, codec: &dyn BlockCodec, rows: &[(Vec<f32>, Option<Vec<f32>>)]) -> Tally {
    let mut tally = Tally::default();
    let size = codec.block().bytes as usize;
    for (x, w) in rows {
        let bytes = codec.block().row_bytes(x.len() as u64).expect("rows of whole blocks") as usize;
        let (mut ours, mut theirs) = (vec![0xa5u8; bytes], vec![0x5au8; bytes]);
        let start = Instant::now();
        codec.encode_row(x, w.as_deref(), &mut ours).expect("finite rows encode");
        tally.ours += start.elapsed();
        let start = Instant::now();
        ggml.encode(codec, x, w.as_deref(), &mut theirs);
        tally.theirs += start.elapsed();
        tally.blocks += (bytes / size) as u64;
        let pairs = ours.chunks(size).zip(theirs.chunks(size));
        tally.differing += pairs.filter(|(a, b)| a != b).count() as u64;
        let (mut a, mut b) = (vec![0f32; x.len()], vec![1f32; x.len()]);
        codec.decode_row(&theirs, &mut a).expect("any blocks decode");
        ggml.decode(codec, &theirs, &mut b);
        tally.undecoded += a.iter().zip(&b).filter(|&(a, b)| !same(*a, *b)).count() as u64;
    }
    tally
}

/// Decodes random blocks on both sides; returns how many weights there were and how many differ.
fn compare_decoders(ggml: &Ggml, codec: &dyn BlockCodec, seed: u64, columns: usize) -> (usize, usize) {
    let bytes = codec.block().row_bytes(columns as u64).expect("rows of whole blocks");
    let blocks: Vec<u8> = (0..bytes).map(|i| inputs::draw(seed, i) as u8).collect();
    let (mut a, mut b) = (vec![0f32; columns], vec![1f32; columns]);
    codec.decode_row(&blocks, &mut a).expect("any blocks decode");
    ggml.decode(codec, &blocks, &mut b);
    (columns, a.iter().zip(&b).filter(|&(a, b)| !same(*a, *b)).count())
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let Ok(path) = std::env::var("GGML_LIB") else {
        eprintln!("set GGML_LIB to the path of libggml-base.so");
        return ExitCode::from(2);
    };
    let ggml = match Ggml::open(&path) {
        Ok(ggml) => ggml,
        Err(e) => {
            eprintln!("{path}: {e}");
            return ExitCode::from(2);
        }
    };
    let chosen = || {
        formats().filter(|c| options.types.is_empty() || options.types.iter().any(|t| t == c.block().name))
    };
    let mut bad = 0;
    for codec in chosen() {
        let (weights, differing) = compare_decoders(&ggml, codec, options.seed, options.mib << 20);
        println!(
            "{:8} {weights} weights of random blocks, {differing} decode differently",
            codec.block().name
        );
        bad += differing as u64;
    }
    let chosen: Vec<_> = chosen().filter(|c| c.can_encode()).collect();
    println!("level {}, {} MiB per line and distribution", selected_level().name(), options.mib);
    println!("type     importance    blocks differing  undecoded   ours MB/s   ggml MB/s");

    // A row length that no power of two divides, so that blocks of all sizes straddle nothing evenly.
    let columns = 2304;
    let rows_each = (options.mib << 20).div_ceil(columns * 4);
    let mut totals: Vec<[Tally; IMPORTANCES.len()]> = chosen.iter().map(|_| Default::default()).collect();
    for (d, distribution) in DISTRIBUTIONS.iter().enumerate() {
        for (k, kind) in IMPORTANCES.iter().enumerate() {
            let seed = |row: usize| options.seed << 32 | (d as u64) << 24 | (k as u64) << 20 | row as u64;
            let rows: Vec<_> = (0..rows_each)
                .map(|r| {
                    (inputs::row(distribution, seed(r), columns), inputs::importance(kind, seed(r), columns))
                })
                .collect();
            for (codec, totals) in chosen.iter().zip(&mut totals) {
                let tally = compare(&ggml, *codec, &rows);
                if options.verbose || tally.differing + tally.undecoded > 0 {
                    println!(
                        "  {:8} {kind:8} {distribution:10} {:8} blocks, {} differ, {} weights decode differently",
                        codec.block().name,
                        tally.blocks,
                        tally.differing,
                        tally.undecoded
                    );
                }
                let total = &mut totals[k];
                total.blocks += tally.blocks;
                total.differing += tally.differing;
                total.undecoded += tally.undecoded;
                total.ours += tally.ours;
                total.theirs += tally.theirs;
            }
        }
    }
    for (codec, totals) in chosen.iter().zip(&totals) {
        for (kind, t) in IMPORTANCES.iter().zip(totals) {
            let bytes = t.blocks as f64 * f64::from(codec.block().weights) * 4e-6;
            println!(
                "{:8} {kind:10} {:9} {:9} {:10} {:11.1} {:11.1}",
                codec.block().name,
                t.blocks,
                t.differing,
                t.undecoded,
                bytes / t.ours.as_secs_f64(),
                bytes / t.theirs.as_secs_f64()
            );
            bad += t.differing + t.undecoded;
        }
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

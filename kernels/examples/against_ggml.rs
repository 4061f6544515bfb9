//! Encodes and decodes the same rows with this crate and with ggml's own library, and counts the blocks that
//! differ, per format and distribution.
//!
//! ```text
//! GGML_LIB=/path/to/libggml-base.so cargo run --release -p tensormill-kernels --example against_ggml -- \
//!     [--mib 4] [--seed 1] [--type Q4_K]... [--verbose]
//! ```
//! `--mib` is the amount of `f32` input per format, importance and distribution; each gets seeds of its own.
//! Prints the time that both sides take, and exits with 1 when a block differs. Where ggml fails an assertion
//! (grid formats, when errors overflow), its abort is caught and the row is compared super-block by super-block;
//! those that ggml does not encode are counted apart, and what it prints about them goes to standard output.

#[path = "../tests/common/inputs.rs"]
mod inputs;

use inputs::{DISTRIBUTIONS, IMPORTANCES};
use std::ffi::{c_char, c_void};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tensormill_kernels::{BlockCodec, formats, selected_level};

type QuantizeChunk =
    unsafe extern "C-unwind" fn(i32, *const f32, *mut c_void, i64, i64, i64, *const f32) -> usize;
type QuantizeRow = unsafe extern "C" fn(*const f32, *mut c_void, i64);
type OnAbort = extern "C-unwind" fn(*const c_char);
type SetOnAbort = unsafe extern "C" fn(OnAbort) -> Option<OnAbort>;
type DequantizeRow = unsafe extern "C" fn(*const c_void, *mut f32, i64);

/// ggml's library, opened at run time so that nothing here links to it.
struct Ggml(libloading::Library);

#[allow(unsafe_code)]
impl Ggml {
    fn open(path: &str) -> Result<Self, libloading::Error> {
        // SAFETY: the library's initialisers are ggml's own, which only fill tables. The callback's signature
        // is that of ggml.h.
        unsafe {
            let library = libloading::Library::new(path)?;
            library.get::<SetOnAbort>(b"ggml_set_abort_callback")?(unwind);
            Ok(Self(library))
        }
    }

    /// Whether ggml encoded the row; false when it would have stopped the process.
    fn encode(&self, codec: &dyn BlockCodec, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) -> bool {
        let block = codec.block();
        assert_eq!(block.row_bytes(x.len() as u64), Some(out.len() as u64));
        assert!(importance.is_none_or(|w| w.len() == x.len()));
        if block == tensormill_tensor::ggml::Q8_K {
            // Not among the types of ggml_quantize_chunk; leaves sums of zero blocks unwritten.
            out.fill(0);
            // SAFETY: the signature is that of ggml-quants.h; both buffers have the lengths of one row.
            unsafe {
                let f: libloading::Symbol<QuantizeRow> =
                    self.0.get(b"quantize_row_q8_K_ref").expect("ggml exports quantize_row_q8_K_ref");
                f(x.as_ptr(), out.as_mut_ptr().cast(), x.len() as i64);
            }
            return true;
        }
        let weights = importance.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: the signature is that of ggml.h; all three buffers have the lengths of one row, as asserted.
        // An abort unwinds through C frames that own nothing, by the tables that x86-64 code always has.
        let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe {
            let f: libloading::Symbol<QuantizeChunk> =
                self.0.get(b"ggml_quantize_chunk").expect("ggml exports ggml_quantize_chunk");
            f(block.ggml_code as i32, x.as_ptr(), out.as_mut_ptr().cast(), 0, 1, x.len() as i64, weights)
        }));
        match written {
            Ok(written) => assert_eq!(written, out.len()),
            Err(panic) if panic.is::<Stopped>() => return false,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        true
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

/// What unwinds out of ggml instead of its abort.
struct Stopped;

extern "C-unwind" fn unwind(_message: *const c_char) {
    std::panic::resume_unwind(Box::new(Stopped));
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
    /// Blocks that ggml does not encode.
    stopped: u64,
    ours: Duration,
    theirs: Duration,
}

fn compare(ggml: &Ggml, codec: &dyn BlockCodec, rows: &[(Vec<f32>, Option<Vec<f32>>)]) -> Tally {
    let mut tally = Tally::default();
    for (x, w) in rows {
        if compare_row(ggml, codec, x, w.as_deref(), &mut tally) {
            continue;
        }
        // Only grid formats get here, and they look no further than their super-block.
        let n = codec.block().weights as usize;
        for (i, x) in x.chunks(n).enumerate() {
            let w = w.as_deref().map(|w| &w[n * i..][..n]);
            tally.stopped += u64::from(!compare_row(ggml, codec, x, w, &mut tally));
        }
    }
    tally
}

/// False when ggml did not encode the row; then nothing is counted.
fn compare_row(ggml: &Ggml, codec: &dyn BlockCodec, x: &[f32], w: Option<&[f32]>, tally: &mut Tally) -> bool {
    let size = codec.block().bytes as usize;
    let bytes = codec.block().row_bytes(x.len() as u64).expect("rows of whole blocks") as usize;
    let (mut ours, mut theirs) = (vec![0xa5u8; bytes], vec![0x5au8; bytes]);
    let start = Instant::now();
    codec.encode_row(x, w, &mut ours).expect("finite rows encode");
    let between = Instant::now();
    if !ggml.encode(codec, x, w, &mut theirs) {
        return false;
    }
    tally.ours += between - start;
    tally.theirs += between.elapsed();
    tally.blocks += (bytes / size) as u64;
    let pairs = ours.chunks(size).zip(theirs.chunks(size));
    tally.differing += pairs.filter(|(a, b)| a != b).count() as u64;
    let (mut a, mut b) = (vec![0f32; x.len()], vec![1f32; x.len()]);
    codec.decode_row(&theirs, &mut a).expect("any blocks decode");
    ggml.decode(codec, &theirs, &mut b);
    tally.undecoded += a.iter().zip(&b).filter(|&(a, b)| !same(*a, *b)).count() as u64;
    true
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
    println!("type     importance    blocks differing  undecoded   stopped   ours MB/s   ggml MB/s");

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
                let name = codec.block().name;
                // Where negative importance leaves IQ1 no neighbour, ggml reads weights of other groups and
                // beyond: what it writes is not a function of its input.
                if *kind == "none" && codec.needs_importance() || *kind == "signed" && name.starts_with("IQ1")
                {
                    continue;
                }
                let tally = compare(&ggml, *codec, &rows);
                if options.verbose || tally.differing + tally.undecoded > 0 {
                    println!(
                        "  {:8} {kind:8} {distribution:10} {:8} blocks, {} differ, {} weights decode differently, {} not encoded",
                        codec.block().name,
                        tally.blocks,
                        tally.differing,
                        tally.undecoded,
                        tally.stopped
                    );
                }
                let total = &mut totals[k];
                total.blocks += tally.blocks;
                total.differing += tally.differing;
                total.undecoded += tally.undecoded;
                total.stopped += tally.stopped;
                total.ours += tally.ours;
                total.theirs += tally.theirs;
            }
        }
    }
    for (codec, totals) in chosen.iter().zip(&totals) {
        for (kind, t) in IMPORTANCES.iter().zip(totals).filter(|(_, t)| t.blocks > 0) {
            let bytes = t.blocks as f64 * f64::from(codec.block().weights) * 4e-6;
            println!(
                "{:8} {kind:10} {:9} {:9} {:10} {:9} {:11.1} {:11.1}",
                codec.block().name,
                t.blocks,
                t.differing,
                t.undecoded,
                t.stopped,
                bytes / t.ours.as_secs_f64(),
                bytes / t.theirs.as_secs_f64()
            );
            bad += t.differing + t.undecoded;
        }
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

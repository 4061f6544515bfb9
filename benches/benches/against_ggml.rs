//! Side by side with ggml's own library in one run: throughput of every block type, at every level that this
//! machine has, encoding without and with importance and decoding, and the ratio.
//!
//! ```text
//! GGML_LIB=/path/to/libggml-base.so cargo bench -p tensormill-benches --bench against_ggml -- \
//!     [--mib 1] [--repeats 5] [--type Q4_K]... [--direction plain|importance|decode]...
//! ```
//! Rates are bytes of `f32` (input of an encoder, output of a decoder) per second of this thread's CPU time, the
//! best of the repeats. The first line is the rate at which the same amount is copied. The output is a Markdown
//! table; the bytes of both sides are compared too, and a difference makes the exit status 1.

#[path = "../../kernels/examples/common/gaussian.rs"]
mod gaussian;

use gaussian::gaussian;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::c_void;
use std::fmt::Write;
use std::hint::black_box;
use std::process::ExitCode;
use tensormill_kernels::{BlockCodec, available_levels, codec_at, formats};

type QuantizeChunk = unsafe extern "C" fn(i32, *const f32, *mut c_void, i64, i64, i64, *const f32) -> usize;
type DequantizeRow = unsafe extern "C" fn(*const c_void, *mut f32, i64);

/// Columns of a row.
const ROW: usize = 4096;

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
        assert!(importance.is_none_or(|w| w.len() == ROW));
        let weights = importance.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let rows = (x.len() / ROW) as i64;
        // SAFETY: the signature is that of ggml.h; the buffers have the lengths of these rows, as asserted.
        let written = unsafe {
            let f: libloading::Symbol<QuantizeChunk> =
                self.0.get(b"ggml_quantize_chunk").expect("ggml exports ggml_quantize_chunk");
            f(block.ggml_code as i32, x.as_ptr(), out.as_mut_ptr().cast(), 0, rows, ROW as i64, weights)
        };
        assert_eq!(written, out.len());
    }

    fn decode(&self, codec: &dyn BlockCodec, blocks: &[u8], out: &mut [f32]) {
        assert_eq!(codec.block().row_bytes(out.len() as u64), Some(blocks.len() as u64));
        let name = format!("dequantize_row_{}", codec.block().name.to_lowercase().replace("_k", "_K"));
        // SAFETY: the signature is that of ggml-quants.h; both buffers have the same number of blocks.
        unsafe {
            let f: libloading::Symbol<DequantizeRow> =
                self.0.get(name.as_bytes()).expect("ggml exports a decoder");
            f(blocks.as_ptr().cast(), out.as_mut_ptr(), out.len() as i64);
        }
    }
}

/// CPU time of this thread, in seconds.
fn now() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// GB/s of `bytes`, at best: each repeat runs for at least twenty milliseconds.
fn rate(bytes: usize, repeats: u32, mut work: impl FnMut()) -> f64 {
    let start = now();
    work();
    let once = (now() - start).max(1e-9);
    let runs = (0.02 / once).ceil().max(1.0) as u32;
    let best = (0..repeats).map(|_| {
        let start = now();
        (0..runs).for_each(|_| work());
        (now() - start) / f64::from(runs)
    });
    bytes as f64 * 1e-9 / best.fold(once, f64::min)
}

struct Options {
    mib: usize,
    repeats: u32,
    types: Vec<String>,
    directions: Vec<String>,
}

fn options() -> Result<Options, String> {
    let mut options = Options { mib: 1, repeats: 5, types: Vec::new(), directions: Vec::new() };
    // Cargo adds `--bench` of its own.
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--mib" => options.mib = value()?.parse().map_err(|e| format!("--mib: {e}"))?,
            "--repeats" => options.repeats = value()?.parse().map_err(|e| format!("--repeats: {e}"))?,
            "--type" => options.types.push(value()?.to_uppercase()),
            "--direction" => options.directions.push(value()?.to_lowercase()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

/// One line of the table. `theirs` and `ours` fill the buffer that they are given.
fn line<T: Copy + PartialEq + Default>(
    label: &str,
    size: (usize, usize),
    repeats: u32,
    theirs: impl Fn(&mut [T]),
    ours: impl Fn(&dyn BlockCodec, &mut [T]),
    codec: &dyn BlockCodec,
) -> bool {
    let (bytes, len) = size;
    let (mut a, mut b) = (vec![T::default(); len], vec![T::default(); len]);
    let peer = rate(bytes, repeats, || theirs(black_box(&mut a)));
    let mut cells = format!("| {:8} | {label:10} | {peer:7.4} |", codec.block().name);
    let mut same = true;
    for &level in available_levels() {
        let codec = codec_at(codec.block(), level).expect("every level serves every format");
        let mine = rate(bytes, repeats, || ours(codec, black_box(&mut b)));
        let equal = a == b;
        same &= equal;
        let mark = if equal { "" } else { " DIFFERS" };
        let _ = write!(cells, " {mine:7.3} | {:6.1}{mark} |", mine / peer); // a String takes all
        b.fill(T::default());
    }
    println!("{cells}");
    same
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
        eprintln!("skipped: GGML_LIB does not name a libggml-base.so to compare with");
        return ExitCode::SUCCESS;
    };
    let ggml = match Ggml::open(&path) {
        Ok(ggml) => ggml,
        Err(e) => {
            eprintln!("{path}: {e}");
            return ExitCode::from(2);
        }
    };
    let weights = (options.mib << 20) / 4 / ROW * ROW;
    let (x, bytes, repeats) = (gaussian(weights, 1), weights * 4, options.repeats);
    let importance: Vec<f32> = gaussian(ROW, 2).iter().map(|v| v.exp()).collect();
    let mut copy = vec![0f32; weights];
    let copied = rate(bytes, repeats, || black_box(&mut copy).copy_from_slice(black_box(&x)));
    println!("copy: {copied:.1} GB/s; {} MiB of f32, rows of {ROW}\n", options.mib);
    let levels = available_levels();
    print!("| type | direction | ggml GB/s |");
    for level in levels {
        print!(" {} GB/s | ratio |", level.name());
    }
    println!();
    println!("|---|---|---|{}", "---|---|".repeat(levels.len()));

    let wanted = |label: &str| options.directions.is_empty() || options.directions.iter().any(|d| d == label);
    let mut same = true;
    for codec in formats() {
        if !options.types.is_empty() && !options.types.iter().any(|t| t == codec.block().name) {
            continue;
        }
        let packed = codec.block().row_bytes(weights as u64).expect("whole blocks") as usize;
        for (label, w) in [("plain", None), ("importance", Some(importance.as_slice()))] {
            // ggml_quantize_chunk stops the process when asked for Q8_K.
            let theirs = codec.block().name != "Q8_K" && wanted(label);
            if theirs && codec.can_encode() && !(w.is_none() && codec.needs_importance()) {
                same &= line::<u8>(
                    label,
                    (bytes, packed),
                    repeats,
                    |out| ggml.encode(codec, &x, w, out),
                    |codec, out| codec.encode_rows(&x, ROW, w, out).expect("finite input"),
                    codec,
                );
            }
        }
        if !wanted("decode") {
            continue;
        }
        let mut blocks = vec![0u8; packed];
        if codec.can_encode() {
            codec.encode_rows(&x, ROW, Some(&importance), &mut blocks).expect("finite input");
        }
        same &= line::<f32>(
            "decode",
            (bytes, weights),
            repeats,
            |out| ggml.decode(codec, &blocks, out),
            |codec, out| codec.decode_row(&blocks, out).expect("whole blocks"),
            codec,
        );
    }
    if same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Compiles all device code with NVRTC, as the program does on a machine with a device, and prints what its compiler says
//! of each kernel: registers, spills, stack, shared memory. Needs NVRTC's library, and no device.
//!
//! ```sh
//! TENSORMILL_NVRTC=/path/to/lib cargo run --package tensormill-cuda --example compile
//! ```
//!
//! Fails on errors and on spills of more than a value or two: a kernel that keeps its registers in memory is several
//! times as slow as it was meant.

use clap::Parser;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tensormill_cuda::{Nvrtc, Source, Target};
use tensormill_kernels::cuda::{ROW_MEANS, device_codes, headers};

#[derive(Parser)]
struct Options {
    /// Architectures to compile for
    #[arg(long, value_delimiter = ',', default_value = "80,86,89,90,100")]
    archs: Vec<u32>,
}

/// What the compiler says of one kernel on one architecture.
#[derive(Clone, Copy, Default)]
struct Resources {
    registers: u64,
    spills: u64,
    stack: u64,
    shared: u64,
}

/// One file for one target.
type Job = (&'static str, &'static str, Target);

fn main() -> ExitCode {
    let options = Options::parse();
    // Without a driver there is no version to prefer.
    let nvrtc = match Nvrtc::find(12) {
        Ok(nvrtc) => nvrtc,
        Err(e) => {
            eprintln!("error: {e}\n  hint: {}", e.hint());
            return ExitCode::FAILURE;
        }
    };
    let (major, minor) = nvrtc.version();
    println!("NVRTC {major}.{minor}, {}\n", nvrtc.path().display());
    let mut files = vec![(ROW_MEANS.file, ROW_MEANS.text)];
    for code in device_codes() {
        if !files.iter().any(|(file, _)| *file == code.file) {
            files.push((code.file, code.text));
        }
    }
    // PTX as well, which devices get that are newer than the compiler.
    let oldest = options.archs.iter().copied().min().unwrap_or(80);
    let targets = options.archs.iter().map(|a| Target::Machine(*a)).chain([Target::Portable(oldest)]);
    let jobs: Vec<Job> =
        targets.flat_map(|t| files.iter().map(move |(file, text)| (*file, *text, t))).collect();
    let results = compile(&nvrtc, &jobs);

    let mut failed = false;
    let mut kernels: BTreeMap<String, BTreeMap<u32, Resources>> = BTreeMap::new();
    let mut sizes: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for ((file, _, target), result) in jobs.iter().zip(results) {
        match result {
            Ok((log, bytes)) => {
                sizes.entry(file).or_default().insert(target.to_string(), bytes);
                let Target::Machine(arch) = target else { continue };
                let found = resources(&log);
                if found.is_empty() {
                    eprintln!("error: {file} for {target}: no word about its kernels in\n{log}");
                    failed = true;
                }
                for (name, r) in found {
                    failed |= r.spills > SPILLS_ALLOWED;
                    kernels.entry(name).or_default().insert(*arch, r);
                }
            }
            Err(e) => {
                eprintln!("error: {e}");
                failed = true;
            }
        }
    }
    print_kernels(&kernels, &options.archs);
    print_sizes(&sizes, &jobs);
    for code in device_codes() {
        if !kernels.contains_key(code.kernel) {
            eprintln!("error: {} has no kernel {}", code.file, code.kernel);
            failed = true;
        }
    }
    if failed {
        eprintln!(
            "error: device code does not compile everywhere, or spills more than {SPILLS_ALLOWED} bytes of registers"
        );
        return ExitCode::FAILURE;
    }
    println!(
        "{} kernels for {} architectures: no error, at most {SPILLS_ALLOWED} bytes spilled",
        kernels.len(),
        options.archs.len()
    );
    ExitCode::SUCCESS
}

/// Bytes of stores and loads that a kernel may spill. One value outside the innermost loops costs less than the block
/// of threads that a multiprocessor loses to a higher bound on registers: that is what ptxas does to K-quants on sm_100.
const SPILLS_ALLOWED: u64 = 16;

/// Log and size, or what went wrong, of every job; several at a time.
fn compile(nvrtc: &Nvrtc, jobs: &[Job]) -> Vec<Result<(String, usize), tensormill_cuda::Error>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(file, text, target)) = jobs.get(i) else { break };
                    let source = Source { file, text, headers: headers() };
                    let result = nvrtc.compile(&source, target, &["--ptxas-options=-v"]);
                    let result = result.map(|c| (c.log, c.image.len()));
                    done.lock().expect("no thread panics").push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics");
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Reads the messages of `ptxas -v`.
fn resources(log: &str) -> Vec<(String, Resources)> {
    /// The number before a word.
    fn before(line: &str, what: &str) -> u64 {
        let head = line.find(what).map_or("", |at| line[..at].trim_end());
        head.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or("").parse().unwrap_or(0)
    }
    let mut kernels: Vec<(String, Resources)> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or("");
            kernels.push((name.to_owned(), Resources::default()));
        }
        let Some((_, r)) = kernels.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            r.stack = before(line, "bytes stack frame");
            r.spills = before(line, "bytes spill stores") + before(line, "bytes spill loads");
        }
        if line.contains(" registers") {
            r.registers = before(line, "registers");
            r.shared = before(line, "bytes smem");
        }
    }
    kernels
}

fn print_kernels(kernels: &BTreeMap<String, BTreeMap<u32, Resources>>, archs: &[u32]) {
    let mut t = Table::new();
    t.load_style(ASCII_MARKDOWN);
    let header = ["kernel".to_owned(), "shared".to_owned()].into_iter();
    t.set_header(header.chain(archs.iter().map(|a| format!("sm_{a}"))));
    for (name, each) in kernels {
        let cell = |arch| {
            let Some(r) = each.get(arch) else { return "-".to_owned() };
            let more = |n: u64, what: &str| if n == 0 { String::new() } else { format!(", {what} {n}") };
            format!("{}{}{}", r.registers, more(r.stack, "stack"), more(r.spills, "SPILLS"))
        };
        let shared = each.values().map(|r| r.shared).max().unwrap_or(0);
        t.add_row([name.clone(), shared.to_string()].into_iter().chain(archs.iter().map(cell)));
    }
    println!("Registers per thread (128 threads in a block), bytes of stack and of shared memory:\n\n{t}\n");
}

fn print_sizes(sizes: &BTreeMap<&str, BTreeMap<String, usize>>, jobs: &[Job]) {
    let mut targets: Vec<String> = Vec::new();
    for (_, _, target) in jobs {
        if !targets.contains(&target.to_string()) {
            targets.push(target.to_string());
        }
    }
    let mut t = Table::new();
    t.load_style(ASCII_MARKDOWN);
    t.set_header(std::iter::once("file".to_owned()).chain(targets.iter().cloned()));
    for (file, each) in sizes {
        let cell = |target| each.get(target).map_or("-".to_owned(), ToString::to_string);
        t.add_row(std::iter::once((*file).to_owned()).chain(targets.iter().map(cell)));
    }
    println!("Bytes of code:\n\n{t}\n");
}

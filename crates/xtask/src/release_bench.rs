//! A whole release against `cp` and against the time its parts would take alone: wall time, reads, memory.
//!
//! The variants' pure encode time comes from the run's own report (`stages.compute`), the disk's write time from
//! copying the outputs with `cp` and `sync`, all in one call, so that ratios hold on a noisy machine.

use clap::Args;
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// `cargo xtask release-bench`
#[derive(Args)]
pub struct Options {
    /// Model folder
    #[arg(long)]
    model: PathBuf,
    /// The built `tensormill`
    #[arg(long, default_value = "target/release/tensormill")]
    tensormill: PathBuf,
    /// Folder for outputs, on the disk to be measured
    #[arg(long)]
    scratch: PathBuf,
    /// Budgets to run with
    #[arg(long, value_delimiter = ',', default_value = "256MiB,1GiB,4GiB")]
    memory: Vec<String>,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Rounds of `cp` against each conversion
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Leave the release out: only `cp` against conversions
    #[arg(long)]
    only_copies: bool,
    /// Of conversions, only those to these schemes: `int4-g128,fp8`
    #[arg(long, value_delimiter = ',', requires = "only_copies")]
    schemes: Vec<String>,
}

/// Runs everything and prints one table.
pub fn run(o: &Options) -> Result<(), String> {
    fs::create_dir_all(&o.scratch).map_err(|e| e.to_string())?;
    if !o.only_copies {
        release(o)?;
    }
    compare_with_cp(o)
}

fn release(o: &Options) -> Result<(), String> {
    let out = o.scratch.join("release");
    let starter = Command::new(&o.tensormill)
        .args(["release", "--init"])
        .arg(fs::canonicalize(&o.model).map_err(|e| e.to_string())?)
        .output()
        .map_err(|e| e.to_string())?;
    let file = o.scratch.join("release.toml");
    let text = String::from_utf8_lossy(&starter.stdout).replace("folder = \".\"", "folder = \"release\"");
    fs::write(&file, text).map_err(|e| e.to_string())?;
    println!(
        "| run | wall s | encode s / threads | read GB | written GB | peak MiB | of budget |\n|---|---|---|---|---|---|---|"
    );
    for memory in &o.memory {
        remove(&out)?;
        let mut c = Command::new(&o.tensormill);
        c.arg("release").arg(&file).args(["--json", "--memory", memory, "-j", &o.threads.to_string()]);
        let report = json(&mut c)?;
        let gb = |key: &str| report[key].as_f64().unwrap_or(0.0) / 1e9;
        let peak = report["peak_rss_bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
        let limit = report["memory_limit"].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
        println!(
            "| {} variants, {memory} | {:.2} | {:.2} | {:.2} | {:.2} | {peak:.0} | {:+.0} MiB |",
            report["variants"].as_array().map_or(0, Vec::len),
            report["wall_seconds"].as_f64().unwrap_or(0.0),
            report["stages"]["compute"].as_f64().unwrap_or(0.0) / f64::from(o.threads),
            gb("read_bytes"),
            gb("written_bytes"),
            peak - limit,
        );
    }
    let copy = o.scratch.join("copy");
    let start = Instant::now();
    timed(Command::new("sh").arg("-c").arg("cp -r \"$0\" \"$1\" && sync -f \"$1\"").arg(&out).arg(&copy))?;
    println!("| cp of these outputs, with sync | {:.2} | | | | | |", start.elapsed().as_secs_f64());
    remove(&copy)?;
    remove(&out)
}

/// Weights copied, and converted to other formats in the same type, in turn: nothing but formats changes.
fn compare_with_cp(o: &Options) -> Result<(), String> {
    let weights = o.model.join("model.safetensors");
    if !o.schemes.is_empty() {
        println!("{HEAD}");
        for scheme in &o.schemes {
            let out = o.scratch.join("scheme.safetensors");
            let way = Way { what: scheme, source: &o.model, file: &weights, out: &out };
            rounds(o, &way, &["--quant", scheme])?;
        }
        return Ok(());
    }
    let torch = o.scratch.join("torch");
    remove(&torch)?;
    timed(
        Command::new(&o.tensormill)
            .arg("convert")
            .arg(&o.model)
            .arg("-o")
            .arg(&torch)
            .args(["--to", "pickle", "--dtype", "bf16"]),
    )?;
    let checkpoint = torch.join("pytorch_model.bin");
    let ways = [
        ("safetensors -> GGUF", &*o.model, &*weights, "copy.gguf"),
        ("safetensors -> torch", &o.model, &weights, "copy.pt"),
        ("torch -> safetensors", &torch, &checkpoint, "copy.safetensors"),
        ("torch -> GGUF", &torch, &checkpoint, "copy.gguf"),
    ];
    println!("{HEAD}");
    for (what, source, file, out) in ways {
        let way = Way { what, source, file, out: &o.scratch.join(out) };
        rounds(o, &way, &["--dtype", "bf16"])?;
    }
    remove(&torch)
}

const HEAD: &str = "\n| conversion | round | cp + sync s | ours s | ratio | peak MiB | of budget |\n|---|---|---|---|---|---|---|";

/// A conversion beside the copy of a file.
struct Way<'a> {
    what: &'a str,
    source: &'a Path,
    file: &'a Path,
    out: &'a Path,
}

/// Copies and converts in turn.
fn rounds(o: &Options, way: &Way<'_>, arguments: &[&str]) -> Result<(), String> {
    for round in 1..=o.rounds {
        let copy = o.scratch.join("copy");
        let start = Instant::now();
        timed(Command::new("sh").arg("-c").arg("cp \"$0\" \"$1\" && sync \"$1\"").arg(way.file).arg(&copy))?;
        let cp = start.elapsed().as_secs_f64();
        remove_file(&copy)?;
        let start = Instant::now();
        let mut c = Command::new(&o.tensormill);
        c.arg("convert").arg(way.source).arg("-o").arg(way.out);
        c.args(arguments).args(["--json", "-j", &o.threads.to_string()]);
        let report = json(&mut c)?;
        let ours = start.elapsed().as_secs_f64();
        remove_file(way.out)?;
        let mib = |key: &str| report[key].as_f64().unwrap_or(0.0) / f64::from(1 << 20);
        let peak = mib("peak_rss_bytes");
        println!(
            "| {} | {round} | {cp:.2} | {ours:.2} | {:.2}x | {peak:.0} | {:+.0} MiB |",
            way.what,
            cp / ours,
            peak - mib("memory_limit"),
        );
    }
    Ok(())
}

fn json(c: &mut Command) -> Result<Json, String> {
    let out = c.stderr(Stdio::inherit()).output().map_err(|e| format!("{c:?}: {e}"))?;
    if !out.status.success() {
        return Err(format!("{c:?}: {}", out.status));
    }
    serde_json::from_slice(&out.stdout).map_err(|e| format!("{c:?}: {e}"))
}

fn timed(c: &mut Command) -> Result<(), String> {
    crate::run(c.stdout(Stdio::null()))
}

fn remove(folder: &Path) -> Result<(), String> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(|e| e.to_string()) } else { Ok(()) }
}

fn remove_file(path: &Path) -> Result<(), String> {
    fs::remove_file(path).map_err(|e| format!("{}: {e}", path.display()))
}

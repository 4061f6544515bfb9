//! Whole-process comparison with llama.cpp's converter and quantizer: wall time, peak memory, extra disk.
//!
//! Both sides run in turn in one call, so that the ratio holds on a noisy machine. Output files are deleted.

use clap::Args;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `cargo xtask peer-bench`
#[derive(Args)]
pub struct Options {
    /// Hugging Face folder to convert
    #[arg(long)]
    model: PathBuf,
    /// Python with the peer's requirements
    #[arg(long)]
    python: PathBuf,
    /// llama.cpp's source tree (holds `convert_hf_to_gguf.py`)
    #[arg(long)]
    llama_cpp: PathBuf,
    /// The built `llama-quantize`
    #[arg(long)]
    llama_quantize: PathBuf,
    /// The built `tensormill`
    #[arg(long, default_value = "target/release/tensormill")]
    tensormill: PathBuf,
    /// Folder for outputs, on the disk to be measured
    #[arg(long)]
    scratch: PathBuf,
    /// Recipes
    #[arg(long, value_delimiter = ',', default_value = "Q8_0,Q4_K_M")]
    recipes: Vec<String>,
    /// The peer's intermediate type: must be lossless for the source
    #[arg(long, default_value = "bf16")]
    intermediate: String,
    /// `--memory` for tensormill
    #[arg(long, default_value = "256MiB")]
    memory: String,
    /// Threads on both sides
    #[arg(long, default_value_t = 2)]
    threads: u32,
    /// Let the peer make each recipe in a run of its own, and tensormill all of them in one
    #[arg(long)]
    together: bool,
    /// Adapter to merge first: PEFT on the peer's side, whose merged checkpoint its converter then reads
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Read each side's input into the page cache before its clock starts
    #[arg(long)]
    warm: bool,
}

/// What PEFT's users run: base, adapter, folder of the result.
const MERGE: &str = r#"
import shutil, sys
from pathlib import Path
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, out = map(Path, sys.argv[1:])
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out)
for name in base.iterdir():
    if name.is_file() and not (out / name.name).exists() and name.suffix != ".safetensors":
        shutil.copy(name, out)
"#;

struct Usage {
    wall: Duration,
    peak_kib: u64,
}

/// Runs the comparison and prints one table row per step.
pub fn run(o: &Options) -> Result<(), String> {
    fs::create_dir_all(&o.scratch).map_err(|e| format!("{}: {e}", o.scratch.display()))?;
    let intermediate = o.scratch.join("peer-intermediate.gguf");
    println!("| step | wall s | peak MiB | file MiB |\n|---|---|---|---|");
    let merged = o.scratch.join("peer-merged");
    let mut before = Duration::ZERO;
    if let Some(adapter) = &o.adapter {
        let mut merge = Command::new(&o.python);
        merge.args(["-c", MERGE]).arg(&o.model).arg(adapter).arg(&merged);
        let usage = measure(merge.env("OMP_NUM_THREADS", o.threads.to_string()))?;
        row("peer: merge", &usage, &merged.join("model.safetensors"));
        before = usage.wall;
    }
    let mut convert = measure(
        Command::new(&o.python)
            .arg(o.llama_cpp.join("convert_hf_to_gguf.py"))
            .arg(if o.adapter.is_some() { &merged } else { &o.model })
            .args(["--outtype", &o.intermediate, "--outfile"])
            .arg(&intermediate),
    )?;
    row("peer: convert", &convert, &intermediate);
    convert.wall += before;
    if o.adapter.is_some() {
        fs::remove_dir_all(&merged).map_err(|e| format!("{}: {e}", merged.display()))?;
    }
    if o.together {
        together(o, &convert, &intermediate)?;
        let _ = fs::remove_file(intermediate);
        return Ok(());
    }
    for recipe in &o.recipes {
        let theirs = o.scratch.join(format!("peer-{recipe}.gguf"));
        let ours = o.scratch.join(format!("ours-{recipe}.gguf"));
        o.warm_up(&intermediate)?;
        let quantize = measure(
            Command::new(&o.llama_quantize)
                .arg(&intermediate)
                .arg(&theirs)
                .arg(recipe)
                .arg(o.threads.to_string()),
        )?;
        row(&format!("peer: quantize {recipe}"), &quantize, &theirs);
        for entry in fs::read_dir(&o.model).map_err(|e| e.to_string())?.flatten() {
            o.warm_up(&entry.path())?;
        }
        let mill = measure(&mut mill(o, &ours, recipe))?;
        row(&format!("tensormill: {recipe}"), &mill, &ours);
        let (total, mine) = ((convert.wall + quantize.wall).as_secs_f64(), mill.wall.as_secs_f64());
        println!(
            "| {recipe}: all of the peer's steps / ours | {:.2}x | | |\n| {recipe}: peer quantize alone / ours | {:.2}x | | |",
            total / mine,
            quantize.wall.as_secs_f64() / mine
        );
        for f in [theirs, ours] {
            let _ = fs::remove_file(f);
        }
    }
    let _ = fs::remove_file(intermediate);
    Ok(())
}

/// All recipes: the peer one by one from its intermediate file, tensormill from one read.
fn together(o: &Options, convert: &Usage, intermediate: &Path) -> Result<(), String> {
    let mut theirs = convert.wall;
    for recipe in &o.recipes {
        let file = o.scratch.join("peer.gguf");
        o.warm_up(intermediate)?;
        let mut c = Command::new(&o.llama_quantize);
        let usage = measure(c.arg(intermediate).arg(&file).arg(recipe).arg(o.threads.to_string()))?;
        row(&format!("peer: quantize {recipe}"), &usage, &file);
        theirs += usage.wall;
        let _ = fs::remove_file(file);
    }
    let out = o.scratch.join("together");
    for entry in fs::read_dir(&o.model).map_err(|e| e.to_string())?.flatten() {
        o.warm_up(&entry.path())?;
    }
    let usage = measure(&mut mill(o, &out, &o.recipes.join(",")))?;
    row(&format!("tensormill: all {} at once", o.recipes.len()), &usage, &out);
    let ratio = theirs.as_secs_f64() / usage.wall.as_secs_f64();
    println!("| peer, all in turn | {:.2} | | |\n| peer / ours | {ratio:.2}x | | |", theirs.as_secs_f64());
    fs::remove_dir_all(out).map_err(|e| e.to_string())
}

impl Options {
    /// Reads a file once, where that is asked for.
    fn warm_up(&self, path: &Path) -> Result<(), String> {
        if self.warm && path.is_file() {
            let mut file = fs::File::open(path).map_err(|e| e.to_string())?;
            io::copy(&mut file, &mut io::sink()).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(())
    }
}

fn row(label: &str, usage: &Usage, file: &Path) {
    let size = fs::metadata(file).map_or(0, |m| m.len());
    println!("| {label} | {:.2} | {} | {} |", usage.wall.as_secs_f64(), usage.peak_kib / 1024, size >> 20);
}

/// Runs a command to its end, sampling the kernel's own high-water mark of resident memory.
fn measure(command: &mut Command) -> Result<Usage, String> {
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{command:?}: {e}"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    loop {
        if let Some(kib) = fs::read_to_string(&status_file).ok().as_deref().and_then(high_water) {
            peak_kib = peak_kib.max(kib);
        }
        match child.try_wait().map_err(|e| e.to_string())? {
            None => thread::sleep(Duration::from_millis(5)),
            Some(s) if s.success() => return Ok(Usage { wall: start.elapsed(), peak_kib }),
            Some(s) => return Err(format!("{command:?}: {s}")),
        }
    }
}

/// The kernel's high-water mark of resident memory in `/proc/PID/status`, in KiB.
pub fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Our conversion to one recipe, or to several from one read.
fn mill(o: &Options, out: &Path, recipes: &str) -> Command {
    let mut c = Command::new(&o.tensormill);
    c.arg("convert").arg(&o.model).arg("-o").arg(out);
    c.args(["--force", "--quant", recipes, "--memory", &o.memory, "--threads", &o.threads.to_string()]);
    if let Some(adapter) = &o.adapter {
        c.arg("--adapter").arg(adapter);
    }
    c
}

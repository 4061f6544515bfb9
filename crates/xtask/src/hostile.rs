//! Time and memory of the program on every file of `golden/hostile`.
//!
//! What runs and with which limits is the same as in `crates/cli/tests/hostile_corpus.rs`; here it is measured. Peak
//! memory is GNU time's where it is installed (the kernel's own number at the end of the process), and otherwise the
//! highest of many looks at `/proc`.

use clap::Args;
use serde_json::Value as Json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// `cargo xtask hostile`
#[derive(Args)]
pub struct Options {
    /// The built `tensormill`
    #[arg(long, default_value = "target/release/tensormill")]
    tensormill: PathBuf,
    /// Folder for copies and outputs
    #[arg(long, default_value = "target/hostile")]
    scratch: PathBuf,
    /// Print every file, not only the slowest and the largest
    #[arg(long)]
    all: bool,
}

const SECOND: f64 = 1.0;
const MEMORY_KIB: u64 = 64 << 10;
const GNU_TIME: &str = "/usr/bin/time";

struct Row {
    path: String,
    exit: Option<i32>,
    want: i32,
    seconds: f64,
    peak_kib: u64,
}

/// Runs every file and prints a table; an error where one is beyond the bounds.
pub fn run(o: &Options) -> Result<(), String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let mut rows = Vec::new();
    for table in ["hostile/cases.json", "hostile/onnx/cases.json"] {
        let table = fs::read_to_string(golden.join(table)).map_err(|e| e.to_string())?;
        let table: Json = serde_json::from_str(&table).map_err(|e| e.to_string())?;
        for case in table.as_array().ok_or("cases.json is no list")? {
            let want = case["exit"].as_i64().unwrap_or(3) as i32;
            let args = arguments(&golden, &o.scratch, case)?;
            rows.push(measure(o, case["path"].as_str().unwrap_or_default(), &args, want)?);
        }
    }
    let _ = fs::remove_dir_all(&o.scratch);
    print(&rows, o.all);
    let bad: Vec<&str> = rows.iter().filter(|r| !r.is_good()).map(|r| r.path.as_str()).collect();
    if bad.is_empty() { Ok(()) } else { Err(format!("beyond the bounds: {}", bad.join(", "))) }
}

impl Row {
    fn is_good(&self) -> bool {
        self.exit == Some(self.want) && self.seconds < SECOND && self.peak_kib < MEMORY_KIB
    }
}

/// The command line for one file, with its folder made ready.
fn arguments(golden: &Path, scratch: &Path, case: &Json) -> Result<Vec<String>, String> {
    let text = |key: &str| case[key].as_str().unwrap_or_default();
    let (path, how) = (text("path"), text("how"));
    let shown = |p: PathBuf| p.display().to_string();
    let mut file = golden.join("hostile").join(path);
    let _ = fs::remove_dir_all(scratch);
    let folder = scratch.join("m");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    if let Some([Json::String(name), Json::String(target)]) = case["link"].as_array().map(Vec::as_slice) {
        let copy = folder.join("copy.onnx");
        fs::copy(&file, &copy).map_err(|e| e.to_string())?;
        std::os::unix::fs::symlink(target, folder.join(name)).map_err(|e| e.to_string())?;
        fs::write(scratch.join("README.md"), [7; 4096]).map_err(|e| e.to_string())?;
        file = copy;
    }
    let fill = |model: &str, name: &str| -> Result<(), String> {
        if model != "-" {
            let files = fs::read_dir(golden.join("models").join(model)).map_err(|e| e.to_string())?;
            for e in files.flatten().filter(|e| e.path().is_file()) {
                fs::copy(e.path(), folder.join(e.file_name())).map_err(|e| e.to_string())?;
            }
        }
        fs::copy(&file, folder.join(name)).map(drop).map_err(|e| e.to_string())
    };
    let (gguf, safetensors) = (shown(scratch.join("o.gguf")), shown(scratch.join("o.safetensors")));
    let demo = shown(golden.join("models/tiny-llama"));
    let file_text = shown(file.clone());
    let mut args: Vec<String> = match how {
        "inspect" | "scan" => return Ok(vec![how.to_owned(), file_text]),
        "convert" if path.starts_with("onnx/") => {
            ["convert", &file_text, "-o", &safetensors, "--allow-loss"].map(str::to_owned).into()
        }
        "convert" => ["convert", &file_text, "-o", &safetensors].map(str::to_owned).into(),
        "imatrix" => ["convert", &demo, "-o", &gguf, "--quant", "Q4_0", "--imatrix", &file_text]
            .map(str::to_owned)
            .into(),
        "release" => {
            fill("tiny-llama", "release.toml")?;
            vec!["release".into(), shown(folder.join("release.toml")), "--dry-run".into()]
        }
        other => {
            let parts = other.strip_prefix("in ").and_then(|o| o.split_once(" as "));
            let (model, name) = parts.ok_or_else(|| format!("{path}: how is {other:?}"))?;
            fill(model, name)?;
            vec!["convert".into(), shown(folder), "-o".into(), gguf]
        }
    };
    args.extend(["--memory", "16MiB"].map(str::to_owned));
    Ok(args)
}

fn measure(o: &Options, path: &str, args: &[String], want: i32) -> Result<Row, String> {
    let gnu_time = Path::new(GNU_TIME).exists();
    let note = o.scratch.join("peak");
    let mut c = if gnu_time {
        let mut c = Command::new(GNU_TIME);
        c.args(["-f", "%M", "-o"]).arg(&note).arg(&o.tensormill);
        c
    } else {
        Command::new(&o.tensormill)
    };
    c.args(args).env("TENSORMILL_DEVICE", "cpu").stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = c.spawn().map_err(|e| format!("{c:?}: {e}"))?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let status = loop {
        if !gnu_time {
            let status = fs::read_to_string(&status_file).unwrap_or_default();
            peak_kib = peak_kib.max(crate::peer_bench::high_water(&status).unwrap_or(0));
        }
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(s) => break s,
            None => thread::sleep(Duration::from_micros(200)),
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    if gnu_time {
        let text = fs::read_to_string(&note).map_err(|e| e.to_string())?;
        peak_kib = text.split_whitespace().last().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
    }
    Ok(Row { path: path.to_owned(), exit: status.code(), want, seconds, peak_kib })
}

fn print(rows: &[Row], all: bool) {
    let line = |r: &Row| {
        let exit = r.exit.map_or_else(|| "signal".to_owned(), |n| n.to_string());
        let mark = if r.is_good() { "" } else { " **beyond**" };
        println!(
            "| {} | {exit}{mark} | {:.0} | {:.1} |",
            r.path,
            r.seconds * 1e3,
            r.peak_kib as f64 / 1024.0
        );
    };
    println!("| file | exit | ms | peak MiB |\n|---|---|---|---|");
    let mut order: Vec<&Row> = rows.iter().collect();
    if all {
        order.iter().copied().for_each(line);
    } else {
        order.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        order.iter().take(8).copied().for_each(line);
        order.sort_by_key(|r| std::cmp::Reverse(r.peak_kib));
        order.iter().take(8).copied().for_each(line);
    }
    let slowest = rows.iter().map(|r| r.seconds).fold(0.0, f64::max);
    let largest = rows.iter().map(|r| r.peak_kib).max().unwrap_or(0);
    let refused = rows.iter().filter(|r| r.exit == Some(3)).count();
    println!(
        "\n{} files, {refused} refused with code 3; the slowest {:.0} ms, the largest {:.1} MiB",
        rows.len(),
        slowest * 1e3,
        largest as f64 / 1024.0
    );
}

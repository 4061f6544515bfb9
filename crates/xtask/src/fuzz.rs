//! Coverage-guided fuzzing of everything that reads files: builds the programs under `fuzz/` with cargo-fuzz (no
//! sanitizer, so a stable compiler does), gives each its seeds, runs it for a while, and prints what it did.

use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Args)]
pub struct Options {
    /// Targets; all of them by default
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// This many runs for each instead, the same ones every time
    #[arg(long, conflicts_with = "seconds")]
    runs: Option<u32>,
    /// Where inputs are collected that reach something new, to go on from next time
    #[arg(long, default_value = "target/fuzz-corpus")]
    corpus: PathBuf,
}

/// The version that the flags below are of.
const VERSION: &str = "0.13.2";

pub fn run(options: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    if !works(Command::new("cargo-fuzz").arg("--version")) {
        return Err(format!(
            "cargo-fuzz is not there: cargo install cargo-fuzz --locked --version {VERSION}"
        ));
    }
    let known = targets(&root)?;
    if let Some(unknown) = options.targets.iter().find(|t| !known.contains(t)) {
        return Err(format!("there is no target {unknown:?}; there are {}", known.join(", ")));
    }
    let chosen = if options.targets.is_empty() { &known } else { &options.targets };
    let mut fuzz = Command::new("cargo");
    fuzz.args(["fuzz", "build", "--sanitizer", "none", "--fuzz-dir", "fuzz"]).current_dir(&root);
    crate::run(&mut fuzz)?;
    println!("{:<12} {:>10} {:>9} {:>7}", "target", "runs", "coverage", "corpus");
    let mut failed = Vec::new();
    for target in chosen {
        let corpus = root.join(&options.corpus).join(target);
        let found = root.join("fuzz/artifacts").join(target);
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        crate::run(
            Command::new(env!("CARGO"))
                .args(["run", "--quiet", "--package", "tensormill-tests", "--example", "seeds", "--", target])
                .arg(&corpus)
                .current_dir(&root),
        )?;
        let out = Command::new("cargo")
            .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir", "fuzz", target])
            .arg(&corpus)
            .arg("--")
            .args(match options.runs {
                Some(runs) => [format!("-runs={runs}"), "-seed=1".into()],
                None => [format!("-max_total_time={}", options.seconds), "-seed=0".into()],
            })
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-max_len=65536", "-timeout=25", "-rss_limit_mb=1024", "-print_final_stats=1"])
            .current_dir(&root)
            .output()
            .map_err(|e| format!("cargo fuzz run {target}: {e}"))?;
        let log = String::from_utf8_lossy(&out.stderr);
        println!(
            "{target:<12} {:>10} {:>9} {:>7}",
            after(&log, "stat::number_of_executed_units:"),
            after(&log, " cov:"),
            fs::read_dir(&corpus).map_or(0, Iterator::count),
        );
        if !out.status.success() {
            eprintln!("{log}");
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} failed; the inputs are under fuzz/artifacts: mend what they find, and keep them under fuzz/seeds",
        failed.join(", ")
    ))
}

fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|out| out.status.success())
}

/// Names of the targets: files of `fuzz/fuzz_targets`.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let paths = entries.filter_map(|e| Some(e.ok()?.path()));
    let mut names: Vec<String> = paths.filter_map(|p| Some(p.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The word behind the last mention of `key`.
fn after<'a>(log: &'a str, key: &str) -> &'a str {
    log.rsplit_once(key).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?")
}

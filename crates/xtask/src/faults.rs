//! Kills a release at random moments, or fills its disk, and lets it go on: the outputs must be the same each time.
//!
//! The release file's folder decides which disk is used. For full disks that folder should lie on a small file system
//! without `fallocate` (ext2), so that space runs out in the middle and not when it is reserved.

use clap::Args;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// `cargo xtask faults`
#[derive(Args)]
pub struct Options {
    /// Release file
    #[arg(long)]
    release: PathBuf,
    /// Its output folder; emptied
    #[arg(long)]
    folder: PathBuf,
    /// The built `tensormill`
    #[arg(long, default_value = "target/release/tensormill")]
    tensormill: PathBuf,
    /// Kill a run that is at work, and resume it, this often
    #[arg(long, default_value_t = 0)]
    kills: u32,
    /// Fill the disk of a run that is at work, and resume it, this often
    #[arg(long, default_value_t = 0)]
    full: u32,
}

/// Runs that may be over before they are disturbed, for each that is not.
const TRIES: u32 = 4;

/// What one disturbed run came to.
struct Outcome {
    /// Whether the disturbance came before the run's end.
    hit: bool,
    resumed: bool,
}

/// Runs the release undisturbed, then disturbed, and compares the sums.
pub fn run(o: &Options) -> Result<(), String> {
    let mut random = Random::new();
    clean(&o.folder)?;
    let start = Instant::now();
    let status = mill(o, &[]).status().map_err(|e| format!("{}: {e}", o.tensormill.display()))?;
    let whole = start.elapsed();
    if !status.success() {
        return Err(format!("the undisturbed run failed: {status}"));
    }
    let sums = sums(&o.folder)?;
    println!("undisturbed: {:.2} s, {} files", whole.as_secs_f64(), sums.lines().count());
    for (what, times) in [("kill", o.kills), ("full disk", o.full)] {
        let (mut round, mut hits, mut resumes) = (0, 0, 0);
        while hits < times {
            round += 1;
            if round > times.saturating_mul(TRIES) {
                return Err(format!("only {hits} of {round} runs were still at work"));
            }
            clean(&o.folder)?;
            let after = whole.mul_f64(random.next());
            let outcome = if what == "kill" { kill(o, after)? } else { fill(o, after)? };
            hits += u32::from(outcome.hit);
            resumes += u32::from(outcome.resumed);
            if self::sums(&o.folder)? != sums {
                return Err(format!(
                    "round {round}: other bytes after a {what} at {:.3} s",
                    after.as_secs_f64()
                ));
            }
            check(&o.folder)?;
        }
        if times > 0 {
            println!(
                "{what}: {hits} runs disturbed of {round}, {resumes} resumed, all outputs identical each time"
            );
        }
    }
    clean(&o.folder)
}

fn mill(o: &Options, more: &[&str]) -> Command {
    let mut c = Command::new(&o.tensormill);
    c.arg("release").arg(&o.release).args(more).stdout(Stdio::null()).stderr(Stdio::piped());
    c
}

/// Kills a run, and lets it go on.
fn kill(o: &Options, after: Duration) -> Result<Outcome, String> {
    let mut child = mill(o, &[]).spawn().map_err(|e| e.to_string())?;
    thread::sleep(after);
    let hit = child.try_wait().map_err(|e| e.to_string())?.is_none();
    let _ = child.kill();
    let _ = child.wait();
    Ok(Outcome { hit, resumed: go_on(o)? })
}

/// Fills the disk while a run is at work; it must say so; then frees the space and lets the run go on.
fn fill(o: &Options, after: Duration) -> Result<Outcome, String> {
    let child = mill(o, &[]).spawn().map_err(|e| e.to_string())?;
    thread::sleep(after);
    let ballast = o.folder.join("ballast");
    fill_up(&ballast)?;
    let (code, text) = end_of(child)?;
    fs::remove_file(&ballast).map_err(|e| e.to_string())?;
    if code == Some(0) {
        return Ok(Outcome { hit: false, resumed: false });
    }
    // Before space is reserved, or in the middle of a write.
    let said = ["cannot reserve space", "No space left"].iter().any(|words| text.contains(words));
    if code != Some(6) || !said {
        return Err(format!("a full disk gave exit code {code:?} and {text:?}"));
    }
    Ok(Outcome { hit: true, resumed: go_on(o)? })
}

/// Resumes what is left; gives whether anything was.
fn go_on(o: &Options) -> Result<bool, String> {
    let left = fs::read_dir(&o.folder).is_ok_and(|mut d| {
        d.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().contains("tensormill-journal")))
    });
    let done = o.folder.join("SHA256SUMS").exists();
    if done && !left {
        return Ok(false);
    }
    let child = mill(o, if left { &["--resume"] } else { &[] }).spawn().map_err(|e| e.to_string())?;
    match end_of(child)? {
        (Some(0), _) => Ok(left),
        (code, text) => Err(format!("going on gave exit code {code:?} and {text:?}")),
    }
}

fn end_of(child: Child) -> Result<(Option<i32>, String), String> {
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    Ok((out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned()))
}

/// Writes until no space is left.
fn fill_up(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(|e| e.to_string())?;
    let mut file = File::create(path).map_err(|e| e.to_string())?;
    let mut block = vec![0xa5u8; 1 << 20];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 4);
        }
    }
    Ok(())
}

fn sums(folder: &Path) -> Result<String, String> {
    fs::read_to_string(folder.join("SHA256SUMS")).map_err(|e| format!("SHA256SUMS: {e}"))
}

/// The sums hold for what is on the disk.
fn check(folder: &Path) -> Result<(), String> {
    let mut c = Command::new("sha256sum");
    c.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(folder);
    crate::run(&mut c)
}

fn clean(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    for entry in fs::read_dir(folder).map_err(|e| e.to_string())?.flatten() {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Numbers from 0 to 1, other ones in every run.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
        Self(now | 1)
    }
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

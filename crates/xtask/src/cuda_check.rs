//! Device code: that it compiles, here and without a device; and what has to go to a machine that has one.
//!
//! `--compile-only` fetches NVRTC, the compiler that the program itself uses, from the Python package index through
//! `pip`, and compiles every kernel for every architecture that matters. Otherwise a folder is made with programs and a
//! script (`crates/cuda/cuda-check.sh`) that checks and measures on a machine without Rust.

use clap::Args;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// NVRTC as it is fetched.
const WHEEL: (&str, &str) = ("nvidia-cuda-nvrtc-cu12", "12.9.86");

/// Where NVRTC's library is in its package.
const LIBRARIES: &str = "nvidia/cuda_nvrtc/lib";

/// What may travel to the other machine at once.
const MOST: u64 = 64 << 20;

/// `cargo xtask cuda-check`
#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Options {
    /// Compile all kernels with NVRTC, and check registers; needs no device
    #[arg(long)]
    compile_only: bool,
    /// Architectures to compile for
    #[arg(long, value_name = "LIST", default_value = "80,86,89,90,100")]
    archs: String,
    /// NVRTC's library or its folder, instead of the one that pip fetches
    #[arg(long, value_name = "PATH")]
    nvrtc: Option<PathBuf>,
    /// Where NVRTC cannot be fetched, say so and succeed
    #[arg(long, requires = "compile_only")]
    may_skip: bool,
    /// Put NVRTC's libraries into the folder as well, for a machine with a driver and no toolkit (110 MB)
    #[arg(long, conflicts_with = "compile_only")]
    bundle_nvrtc: bool,
    /// Run the script here when the folder is made
    #[arg(long, conflicts_with = "compile_only")]
    run: bool,
}

/// Compiles, or makes the folder.
pub fn run(o: &Options) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let folder = target.join("cuda-check");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    if o.compile_only { compile(o, &root, &folder) } else { bundle(o, &root, &target, &folder) }
}

fn compile(o: &Options, root: &Path, folder: &Path) -> Result<(), String> {
    let nvrtc = match o.nvrtc.clone().map_or_else(|| fetch(folder), Ok) {
        Ok(folder) => folder,
        Err(why) if o.may_skip => {
            println!("skipped: device code was not compiled, because NVRTC could not be fetched: {why}");
            return Ok(());
        }
        Err(why) => {
            return Err(format!(
                "NVRTC could not be fetched: {why}\n  hint: name one with --nvrtc, for example that of a CUDA toolkit"
            ));
        }
    };
    let nvrtc = nvrtc.canonicalize().map_err(|e| format!("{}: {e}", nvrtc.display()))?;
    crate::run(
        Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "tensormill-cuda", "--example", "compile", "--", "--archs"])
            .arg(&o.archs)
            .env("TENSORMILL_NVRTC", nvrtc)
            .current_dir(root),
    )
}

/// The folder of NVRTC's libraries; what was fetched stays.
fn fetch(folder: &Path) -> Result<PathBuf, String> {
    let (package, version) = WHEEL;
    let home = folder.join(format!("nvrtc-{version}"));
    let libraries = home.join(LIBRARIES);
    if libraries.is_dir() {
        return Ok(libraries);
    }
    // Under another name until it is whole.
    let part = folder.join(format!("nvrtc-{version}.part"));
    let _ = fs::remove_dir_all(&part);
    let pip = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
        .args(["--retries", "1", "--timeout", "20", "--only-binary", ":all:", "--target"])
        .arg(&part)
        .arg(format!("{package}=={version}"))
        .output()
        .map_err(|e| format!("python3: {e}"))?;
    if !pip.status.success() {
        let said = String::from_utf8_lossy(&pip.stderr);
        let lines: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
        return Err(format!("pip: {}", lines.last().unwrap_or(&"no message")));
    }
    if !part.join(LIBRARIES).is_dir() {
        return Err(format!("{package} {version} holds no {LIBRARIES}"));
    }
    fs::rename(&part, &home).map_err(|e| format!("{}: {e}", home.display()))?;
    Ok(libraries)
}

fn bundle(o: &Options, root: &Path, target: &Path, folder: &Path) -> Result<(), String> {
    let cargo = |args: &[&str]| {
        crate::run(Command::new(env!("CARGO")).args(["build", "--release"]).args(args).current_dir(root))
    };
    cargo(&["--package", "tensormill"])?;
    cargo(&["--package", "tensormill-cuda", "--example", "check"])?;
    let bundle = folder.join("bundle");
    let _ = fs::remove_dir_all(&bundle);
    let copy = |from: PathBuf, to: &str| {
        let to = bundle.join(to);
        fs::create_dir_all(to.parent().unwrap_or(&bundle))
            .and_then(|()| fs::copy(&from, &to))
            .map_err(|e| format!("{}: {e}", from.display()))
    };
    let release = target.join("release");
    let mut bytes = copy(release.join("tensormill"), "tensormill")?;
    bytes += copy(release.join("examples/check"), "check")?;
    bytes += copy(root.join("crates/cuda/cuda-check.sh"), "cuda-check.sh")?;
    // A small model whose side files a large one borrows.
    let model = root.join("golden/models/tiny-llama");
    for entry in fs::read_dir(&model).map_err(|e| format!("{}: {e}", model.display()))?.flatten() {
        if entry.path().is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            bytes += copy(entry.path(), &format!("model/{name}"))?;
        }
    }
    if o.bundle_nvrtc {
        let libraries = o.nvrtc.clone().map_or_else(|| fetch(folder), Ok)?;
        for entry in fs::read_dir(&libraries).map_err(|e| format!("{}: {e}", libraries.display()))?.flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            // The package holds a second copy of both for other uses.
            if name.contains(".so") && !name.contains(".alt.") {
                bytes += copy(entry.path(), &name)?;
            }
        }
    }
    println!(
        "{}: {:.1} MB{}",
        bundle.display(),
        bytes as f64 / 1e6,
        if bytes > MOST { ", more than 64 MiB" } else { "" }
    );
    if o.run {
        return crate::run(Command::new("bash").arg("cuda-check.sh").current_dir(&bundle));
    }
    println!(
        "on a machine with a device: bash cuda-check.sh, in that folder; results go to $OUT or ./results"
    );
    Ok(())
}

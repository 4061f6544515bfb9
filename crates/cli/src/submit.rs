//! `tensormill submit`: what a batch engine needs to run a release on many machines, printed or handed over.

use crate::{print_json, print_line};
use clap::{Args, Subcommand};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};
use tensormill_core::{
    Error, Result, device,
    job::{self, Job},
    release, size,
    submit::{Batch, MOST_PARTS, kubernetes, slurm},
};

/// Examples of the whole command.
pub const EXAMPLES: &str = "\
Examples:
  tensormill submit slurm release.toml -n 8 --partition cpu          prints a script
  tensormill submit slurm release.toml -n 8 --partition cpu --run    submits it
  tensormill submit kubernetes /data/release.toml -n 8 --image IMG --volume-claim PVC";

const SLURM_EXAMPLES: &str = "\
Examples:
  tensormill submit slurm release.toml -n 8 > submit.sh && sh submit.sh
  tensormill submit slurm release.toml -n 8 --run --time 4:00:00 --sbatch-arg=--account=me
  tensormill submit slurm release.toml -n 64 --parallel 16 --cpus 8 --memory 2GiB --run

Each part is `tensormill release RELEASE.toml --shard I/N`, a task of an array; a job that depends on the array runs \
`tensormill finish`. A task that exits with 75, that was killed, or whose time limit is near asks to be requeued and \
goes on where it stood. All machines must see the same files at the same paths.";

const KUBERNETES_EXAMPLES: &str = "\
Examples:
  tensormill submit kubernetes /data/release.toml -n 8 --image IMG --volume-claim PVC > release.yaml
  kubectl apply -f release.yaml

With the volume at another place here:
  tensormill submit kubernetes release.toml -n 8 --image IMG --volume-claim PVC --path /data/release.toml

The manifest holds an Indexed Job with one pod per part, and a Job that publishes as soon as all parts are complete. \
The claim must be writable by all pods (ReadWriteMany); the image needs `tensormill` and a shell.";

/// `submit`
#[derive(Args, Debug)]
pub struct SubmitArgs {
    #[command(subcommand)]
    engine: Engine,
}

#[derive(Subcommand, Debug)]
enum Engine {
    /// A Slurm array and a dependent job that publishes
    #[command(after_help = SLURM_EXAMPLES)]
    Slurm(SlurmArgs),
    /// A manifest with an Indexed Job and a Job that publishes
    #[command(after_help = KUBERNETES_EXAMPLES)]
    Kubernetes(KubernetesArgs),
}

/// What every engine is told.
#[derive(Args, Debug)]
struct BatchArgs {
    /// Release file
    #[arg(value_name = "RELEASE.toml")]
    file: PathBuf,
    /// Number of parts
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_PARTS))]
    parts: u64,
    /// Parts at work at a time; the default is all of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_PARTS))]
    parallel: Option<u64>,
    /// Cores, and threads, of each part; the default is the release file's `threads`, or 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    cpus: Option<u64>,
    /// Bound on each part's resident memory (plus a fixed 64 MiB), instead of the release file's
    #[arg(long, value_name = "SIZE", value_parser = size::parse, env = "TENSORMILL_MEMORY")]
    memory: Option<u64>,
    /// Overwrite existing output files
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
struct SlurmArgs {
    #[command(flatten)]
    batch: BatchArgs,
    /// Submit with sbatch instead of printing the script
    #[arg(long)]
    run: bool,
    /// Partition
    #[arg(long, value_name = "P")]
    partition: Option<String>,
    /// Time limit of each job, as Slurm writes it: minutes, H:MM:SS, D-HH:MM:SS
    #[arg(long, value_name = "T")]
    time: Option<String>,
    /// Memory of each job, as Slurm writes it; the default follows from --memory
    #[arg(long, value_name = "M")]
    mem: Option<String>,
    /// One more argument for sbatch, for both jobs; repeatable
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    sbatch_arg: Vec<String>,
    /// The program on the machines that work; the default is this one's path
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Print the jobs' numbers as JSON
    #[arg(long, requires = "run")]
    json: bool,
}

#[derive(Args, Debug)]
struct KubernetesArgs {
    #[command(flatten)]
    batch: BatchArgs,
    /// Image with the program and a shell
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Claim of the volume that holds source, release file and outputs
    #[arg(long, value_name = "NAME")]
    volume_claim: String,
    /// Where the volume is mounted in the containers
    #[arg(long, value_name = "DIR", default_value = "/data")]
    mount: String,
    /// The release file's path in the containers, when it is not the same as here
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// The program in the image
    #[arg(long, value_name = "PATH", default_value = "tensormill")]
    program: String,
    /// Name of the jobs; the default is made of the release's name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Seconds for which the publishing job waits for the parts
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(60..))]
    deadline: u64,
}

impl SubmitArgs {
    /// Whether errors are to be printed as JSON too.
    pub fn json(&self) -> bool {
        matches!(&self.engine, Engine::Slurm(a) if a.json)
    }
}

/// Prints or submits.
pub fn run(args: &SubmitArgs) -> Result<ExitCode> {
    match &args.engine {
        Engine::Slurm(a) => slurm(a),
        Engine::Kubernetes(a) => kubernetes(a),
    }
}

fn slurm(args: &SlurmArgs) -> Result<ExitCode> {
    let job = release::open(&args.batch.file)?;
    let program = match &args.program {
        Some(path) => absolute(path)?,
        None => std::env::current_exe().map_err(|e| Error::io("find the path of this program", e))?,
    };
    let batch = batch(&args.batch, &job, &absolute(&args.batch.file)?, text(&program)?)?;
    let options = slurm::Options {
        partition: args.partition.clone(),
        time: args.time.clone(),
        mem: args.mem.clone(),
        extra: args.sbatch_arg.clone(),
    };
    if !args.run {
        print_line(slurm::submission(&batch, &options)?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    // What cannot work should fail here, and not hours later on every machine.
    // Which device there is is for the machines that work to say.
    job::plan(Job { memory: batch.memory, device: device::Choice::Cpu, ..job })?;
    let parts = slurm::parts(&batch, &options)?;
    let array = sbatch(&parts)?;
    let finish = slurm::finish(&batch, &options, &array.to_string()).and_then(|call| sbatch(&call)).map_err(|e| {
        e.also_hint(format!(
            "the parts were submitted as job {array}: publish with `tensormill finish` when they are done, or `scancel {array}`"
        ))
    })?;
    if args.json {
        print_json(&serde_json::json!({"parts": batch.parts, "array_job": array, "finish_job": finish}));
    } else {
        print_line(&format!("{} parts: job {array}; publishing: job {finish}", batch.parts));
        print_line(&format!(
            "watch them with `squeue -j {array},{finish}`, stop them with `scancel {array} {finish}`"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Hands a script to Slurm; gives the job's number.
fn sbatch(call: &slurm::Call) -> Result<u64> {
    let fail = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Error::usage("there is no sbatch on this machine")
            .hint("run this where Slurm's commands are, or without --run to get the script"),
        _ => Error::io("run sbatch", e),
    };
    let mut child = Command::new("sbatch")
        .args(&call.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading has its reasons; its exit code and words tell.
        let _ = stdin.write_all(call.script.as_bytes());
    }
    let out = child.wait_with_output().map_err(fail)?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    match slurm::job_number(&said) {
        Some(number) if out.status.success() => Ok(number),
        _ => Err(Error::usage(format!("sbatch did not take the job ({}) {}", out.status, said.trim()))
            .hint("what it says stands above; options for it go through --sbatch-arg")),
    }
}

fn kubernetes(args: &KubernetesArgs) -> Result<ExitCode> {
    let here = &args.batch.file;
    let mut job = release::open(here)?;
    let there = args.path.clone().map_or_else(|| absolute(here), Ok)?;
    if let Some(folder) = args.path.as_ref().and_then(|p| p.parent()) {
        // Paths in the file are relative to where it lies there.
        let text = std::fs::read_to_string(here).map_err(|e| Error::io("read", e).file(here.display()))?;
        job = release::parse(&text, folder)?;
    } else {
        job.folder = absolute(&job.folder)?;
    }
    let imatrices = job.variants.iter().filter_map(|v| v.imatrix.as_deref());
    kubernetes::on_volume(&args.mount, "the release file", &there)?;
    let source = job.source.local().map(|p| ("the source", p));
    let own = source.into_iter().chain([("the folder of the outputs", job.folder.as_path())]);
    let calibrations = job.variants.iter().filter_map(|v| v.calibration.as_deref());
    let others =
        imatrices.map(|p| ("an importance matrix", p)).chain(calibrations.map(|p| ("a calibration file", p)));
    for (what, path) in own.chain(others) {
        kubernetes::on_volume(&args.mount, what, &absolute(path)?)?;
    }
    let mut batch = batch(&args.batch, &job, &there, &args.program)?;
    if let Some(name) = &args.name {
        batch.name.clone_from(name);
    }
    let options = kubernetes::Options {
        image: args.image.clone(),
        volume_claim: args.volume_claim.clone(),
        mount: args.mount.clone(),
        deadline: args.deadline,
    };
    print_line(kubernetes::manifest(&batch, &options)?.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn batch(args: &BatchArgs, job: &Job, release: &Path, program: &str) -> Result<Batch> {
    let batch = Batch::new(job, text(release)?, program, args.parts);
    Ok(Batch {
        parallel: args.parallel,
        memory: args.memory.unwrap_or(batch.memory),
        cpus: args.cpus.unwrap_or(batch.cpus),
        force: args.force,
        ..batch
    })
}

/// The path from the root; links stay links, for other machines may mount what is behind them elsewhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("find the path of", e).file(path.display()))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::usage("a path that is not UTF-8 cannot stand in a script")
            .file(path.display())
            .hint("rename it")
    })
}

//! Developer commands, run as `cargo xtask COMMAND`.
//!
//! Nothing here ships. Commands that need the peers take their paths as options and never look for them.

mod cuda_check;
mod faults;
mod fuzz;
mod hostile;
mod hub_demo;
mod peer_bench;
mod release_bench;

use clap::{Parser, Subcommand};
use std::process::{Command, ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of tensormill")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What a submission must pass (`.ci/run`)
    Ci,
    /// Independent readers open what we write (`tests/parity`, a workspace of its own)
    Parity,
    /// Whole-process time and memory against the peer's converter and quantizer, in one run
    PeerBench(Box<peer_bench::Options>),
    /// A whole release: time, reads and memory, and a conversion against `cp`
    ReleaseBench(release_bench::Options),
    /// Device code compiles for every architecture; and a folder that checks and measures it on a device
    CudaCheck(cuda_check::Options),
    /// Time and memory on every hostile file of `golden/hostile`
    Hostile(hostile::Options),
    /// Serves folders as repositories of a Hub on this machine: `--root DIR [--port N] [--token TOKEN=USER]`
    HubServer {
        /// What the server is told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// A release from a name on a Hub of this machine to a repository there, with a card
    HubDemo,
    /// Kills and full disks at random moments: the outputs must be the same each time
    Faults(faults::Options),
    /// Any bytes for everything that reads files; needs cargo-fuzz
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let result = match Cli::parse().command {
        Task::Ci => run(Command::new("bash").arg(".ci/run").current_dir(root)),
        Task::Parity => run(Command::new(env!("CARGO"))
            .args(["test", "--release", "--manifest-path", "tests/parity/Cargo.toml"])
            .current_dir(root)),
        Task::PeerBench(options) => peer_bench::run(&options),
        Task::HubServer { options } => run(Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "tensormill-hub-server", "--"])
            .args(options)),
        Task::HubDemo => hub_demo::run(),
        Task::ReleaseBench(options) => release_bench::run(&options),
        Task::CudaCheck(options) => cuda_check::run(&options),
        Task::Hostile(options) => hostile::run(&options),
        Task::Faults(options) => faults::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

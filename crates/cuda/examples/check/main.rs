//! What has to hold on a real device, and how fast it is: run by `crates/cuda/cuda-check.sh`.
//!
//! - `parity`: blocks of every format from every distribution, with and without importance, against the processor's.
//! - `bench`: kernels alone, by the device's clock, against its copy bandwidth.
//! - `model`: a large model of random weights, for conversions from end to end.

mod model;
mod parity;
mod timing;

#[path = "../../../../kernels/tests/common/inputs.rs"]
mod inputs;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tensormill_kernels::cuda::{DeviceCode, device_codes};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare a device's blocks with the processor's
    Parity(parity::Options),
    /// Measure kernels
    Bench(timing::Options),
    /// Write a model
    Model(model::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Parity(o) => parity::run(&o),
        Command::Bench(o) => timing::run(&o),
        Command::Model(o) => model::run(&o),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Device code of some formats, or all.
fn codes(names: &[String]) -> Result<Vec<&'static DeviceCode>, String> {
    if names.is_empty() {
        return Ok(device_codes().to_vec());
    }
    let find = |name: &String| {
        let found = device_codes().iter().find(|c| c.block.name.eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| format!("there is no device code for {name}"))
    };
    names.iter().map(find).collect()
}

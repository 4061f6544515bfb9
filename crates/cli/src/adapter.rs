//! `tensormill adapter`: an adapter by itself, in another scheme, or several as one.

use crate::{
    args::{Dtype, RunArgs, location},
    convert::carry_out,
};
use clap::{Args, ValueEnum};
use std::{path::PathBuf, process::ExitCode};
use tensormill_core::{
    Location, Result,
    adapters::{
        Combination, Wanted,
        change::{self, Request, Scheme},
    },
    job::Job,
    size,
};

pub const EXAMPLES: &str = "\
Examples:
  tensormill adapter ./my-lora -o my-lora.gguf --base ./Llama-3.2-1B      for llama.cpp; config.json is enough of the base
  tensormill adapter my-lora.gguf -o ./my-lora --base ./Llama-3.2-1B      a folder for PEFT
  tensormill adapter style.safetensors -o ./style --base unet/diffusion_pytorch_model.safetensors
  tensormill adapter a=0.7 b=0.3 -o ./both --combine ties:density=0.5     two adapters as one";

/// `adapter`
#[derive(Args, Debug)]
pub struct AdapterArgs {
    /// Adapter to read, with what its change is multiplied by: PEFT's or MLX's folder, a file of kohya, LyCORIS or
    /// diffusers, a GGUF adapter
    #[arg(value_name = "PATH[=SCALE]", required = true)]
    pub adapters: Vec<Wanted>,
    /// File or folder to write: .gguf is a GGUF adapter, .safetensors kohya's file, a folder PEFT's
    #[arg(short, long, value_name = "OUT|DIR")]
    pub output: PathBuf,
    /// What to write, where the output's name does not say it
    #[arg(long, value_enum, value_name = "SCHEME")]
    pub to: Option<To>,
    /// The model that the adapter belongs to: GGUF adapters need its config.json, flat names its tensors' names
    #[arg(long, value_name = "SRC", value_parser = location())]
    pub base: Option<Location>,
    /// How several become one: cat (exact, the default), svd:rank=R, linear, ties, dare_linear, dare_ties, magnitude_prune
    #[arg(long, value_name = "METHOD[:density=D,seed=N]")]
    pub combine: Option<Combination>,
    /// Type of the factors; as they are by default, and f32 in GGUF files
    #[arg(long, value_enum, value_name = "DTYPE")]
    pub dtype: Option<Dtype>,
    /// What stands before kohya's flat names
    #[arg(long, value_name = "TEXT", default_value = "lora_unet_")]
    pub prefix: String,
    /// Go on where the output cannot hold everything that the adapter has
    #[arg(long)]
    pub allow_loss: bool,
    /// Bound on resident memory (plus a fixed 64 MiB)
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parse, env = "TENSORMILL_MEMORY")]
    pub memory: u64,
    /// How to run
    #[command(flatten)]
    pub run: RunArgs,
}

/// `--to`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// A folder that PEFT loads
    Peft,
    /// A GGUF file that llama.cpp loads with --lora
    Gguf,
    /// One file with flat names and alphas
    Kohya,
}

/// Plans, and unless it is a dry run, writes.
pub fn run(args: &AdapterArgs) -> Result<ExitCode> {
    let request = Request {
        adapters: args.adapters.clone(),
        combine: args.combine,
        base: args.base.clone(),
        output: args.output.clone(),
        scheme: args.to.map(|to| match to {
            To::Peft => Scheme::Peft,
            To::Gguf => Scheme::Gguf,
            To::Kohya => Scheme::Kohya,
        }),
        dtype: args.dtype.map(Dtype::element),
        prefix: args.prefix.clone(),
        job: Job {
            memory: args.memory,
            threads: args.run.threads.map(usize::from),
            force: args.run.common.force,
            verify: args.run.common.verify,
            allow_loss: args.allow_loss,
            leftovers: args.run.leftovers(),
            access: args.run.hub.access(),
            ..Job::new("", "", "")
        },
    };
    carry_out(change::plan(&request)?, &args.run, args.memory)
}

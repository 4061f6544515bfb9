//! The binary `tensormill`: parses the command line, calls the facade, prints. The only place that does.

mod adapter;
mod args;
mod card;
mod compare;
mod convert;
mod extract;
mod hub;
mod inspect;
mod list;
mod log;
mod progress;
mod pull;
mod push;
mod release;
mod run;
mod scan;
mod search;
mod submit;

use args::{Cli, Command, Progress};
use clap::{CommandFactory, Parser};
use std::{
    io::{self, Write},
    process::ExitCode,
};
use tensormill_core::{Error, ErrorKind};

/// Exit codes are a contract: scripts and batch engines act on them.
mod exit {
    pub const USAGE: u8 = 2;
    pub const BAD_INPUT: u8 = 3;
    pub const UNSUPPORTED: u8 = 4;
    pub const DIFFERENT: u8 = 5;
    pub const IO: u8 = 6;
    pub const FOUND: u8 = 7;
    /// `EX_TEMPFAIL` of sysexits: what batch engines repeat.
    pub const AGAIN: u8 = 75;
    pub const CANCELLED: u8 = 130;
}

fn main() -> ExitCode {
    progress::clock();
    let cli = Cli::parse();
    let (json, wanted) = match &cli.command {
        Command::Convert(a) => (a.run.common.json, a.run.common.progress),
        Command::Adapter(a) => (a.run.common.json, a.run.common.progress),
        Command::Merge(a) => (a.convert.run.common.json, a.convert.run.common.progress),
        Command::Release(a) => (a.run.common.json, a.run.common.progress),
        Command::Finish(a) => (a.common.json, a.common.progress),
        Command::Submit(a) => (a.json(), Progress::None),
        Command::Inspect(a) => (a.json, Progress::None),
        Command::Compare(a) => (a.json, a.progress),
        Command::Extract(a) => (a.common.json, a.common.progress),
        Command::Card(a) => (a.json, Progress::None),
        Command::Scan(a) => (a.json, Progress::None),
        Command::Pull(a) => (a.json, a.progress),
        Command::Push(a) => (a.json, a.progress),
        Command::Search(a) => (a.json, Progress::None),
        Command::List(a) => (a.json, Progress::None),
        Command::Completions { .. } => (false, Progress::None),
    };
    for problem in log::start().into_iter().chain(tensormill_core::list::simd_setting_problem()) {
        progress::note(wanted, &problem);
    }
    let result = match cli.command {
        Command::Convert(args) => convert::run(&args),
        Command::Adapter(args) => adapter::run(&args),
        Command::Merge(args) => convert::merge(*args),
        Command::Release(args) => release::run(&args),
        Command::Finish(args) => release::finish(&args),
        Command::Submit(args) => submit::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Extract(args) => extract::run(&args),
        Command::Card(args) => card::run(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Push(args) => push::run(&args),
        Command::Search(args) => search::run(&args),
        Command::List(args) => list::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tensormill", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            let code = if e.is_transient() { exit::AGAIN } else { code_of(e.kind()) };
            report_error(&e, json);
            match wanted {
                Progress::Json => progress::failed(&e, code),
                _ => say_error(&e),
            }
            ExitCode::from(code)
        }
    }
}

fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Io => exit::IO,
        ErrorKind::Unsupported => exit::UNSUPPORTED,
        ErrorKind::Usage => exit::USAGE,
        ErrorKind::Cancelled => exit::CANCELLED,
        ErrorKind::Failed => exit::DIFFERENT,
        // Malformed, OverLimit, Mismatch, and what later versions add: the input is at fault.
        _ => exit::BAD_INPUT,
    }
}

/// On standard output, where the report would have been.
fn report_error(e: &Error, json: bool) {
    if json {
        print_line(&serde_json::json!({ "error": error_json(e) }).to_string());
    }
}

fn error_json(e: &Error) -> serde_json::Value {
    serde_json::json!({
        "kind": format!("{:?}", e.kind()).to_lowercase(),
        "message": e.message(),
        "file": e.file_name(),
        "tensor": e.tensor_name(),
        "offset": e.offset(),
        "hint": e.hint_text(),
    })
}

/// For people.
fn say_error(e: &Error) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "error: {e}");
    if let Some(hint) = e.hint_text() {
        let _ = writeln!(err, "  hint: {hint}");
    }
}

/// Prints to standard output; a reader that has gone away (`| head`) is not an error.
fn print_line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints a value as one JSON document, piece by piece: it may be large.
fn print_json(value: &impl tensormill_core::Serialize) {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match serde_json::to_writer_pretty(&mut out, value) {
        Ok(()) => drop(writeln!(out)),
        // As with lines: a reader that has gone away is not an error.
        Err(e) if e.is_io() => {}
        Err(e) => eprintln!("error: the report cannot be written as JSON: {e}"),
    }
}

/// Prints a table without the spaces that fill its last column.
fn print_table(table: &comfy_table::Table) {
    for line in table.lines() {
        print_line(line.trim_end());
    }
}

/// A table without borders: columns that line up and copy well.
fn table(header: &[&str]) -> comfy_table::Table {
    let mut t = comfy_table::Table::new();
    t.load_style(comfy_table::presets::NOTHING);
    t.set_header(header.iter().map(|h| h.to_uppercase()));
    t
}

/// Dimensions as people write them: `4096 x 14336`.
fn dims(shape: &[u64]) -> String {
    if shape.is_empty() {
        return "scalar".to_owned();
    }
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

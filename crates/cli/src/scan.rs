//! `tensormill scan`: what loaders would execute.

use crate::{
    args::{FailOn, Progress, ScanArgs},
    exit, hub, print_json, print_line,
};
use std::process::ExitCode;
use tensormill_core::{
    Result,
    scan::{Finding, Report, Severity, scan_at, shown},
    size::human,
};

/// Looks and prints.
pub fn run(args: &ScanArgs) -> Result<ExitCode> {
    let access = args.hub.access();
    let report = scan_at(&args.paths, &access)?;
    hub::tell(&access, Progress::None);
    if args.json {
        print_json(&report);
    } else {
        print(&report);
    }
    Ok(ExitCode::from(code(&report, args.fail_on)))
}

fn code(report: &Report, fail_on: FailOn) -> u8 {
    let least = match fail_on {
        FailOn::Info => Severity::Info,
        FailOn::Suspicious => Severity::Suspicious,
        FailOn::Dangerous => Severity::Dangerous,
        FailOn::Never => return 0,
    };
    match report.worst() {
        Some(worst) if worst >= least => exit::FOUND,
        _ if report.malformed > 0 => exit::BAD_INPUT,
        _ => 0,
    }
}

/// One section per file, and within it what is advised once per rule: nothing where nothing was found, but the sums.
fn print(report: &Report) {
    for of_file in report.findings.chunk_by(|a, b| a.file == b.file) {
        if let Some(first) = of_file.first() {
            print_line(&shown(&first.file));
        }
        for of_rule in of_file.chunk_by(|a, b| a.rule == b.rule) {
            for f in of_rule {
                print_line(&line(f));
            }
            if let Some(f) = of_rule.first() {
                print_line(&format!("              {}", f.advice));
            }
        }
        print_line("");
    }
    let c = report.counts;
    let found = match report.worst() {
        None => "nothing found".to_owned(),
        Some(_) => format!("{} dangerous, {} suspicious, {} info", c.dangerous, c.suspicious, c.info),
    };
    let more = if report.truncated { "; only some are listed" } else { "" };
    let s = if report.files == 1 { "" } else { "s" };
    print_line(&format!("{} file{s} of {}: {found}{more}", report.files, human(report.bytes)));
}

fn line(f: &Finding) -> String {
    let severity = match f.severity {
        Severity::Dangerous => "dangerous",
        Severity::Suspicious => "suspicious",
        Severity::Info => "info",
    };
    let place = shown(&f.place.text());
    let colon = if place.is_empty() { "" } else { ": " };
    format!("  {severity:<10}  {}  {place}{colon}{}", f.rule, f.found)
}

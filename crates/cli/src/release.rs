//! `tensormill release` and `tensormill finish`: every variant of a model from one read.

use crate::{
    args::{FinishArgs, ReleaseArgs, RunArgs},
    print_json, print_line, print_table,
    progress::{self, Display},
    run::{cancel_flag, done_line, memory_line, print_outlook, source_line},
    table,
};
use std::process::ExitCode;
use tensormill_core::{
    DoneReport, Error, PlanReport, Result, VariantReport,
    convert::leftovers,
    job::{self, Job, Leftovers, Part},
    release,
    size::human,
};

/// Plans, and unless it is a dry run, makes the release or a part of it.
pub fn run(args: &ReleaseArgs) -> Result<ExitCode> {
    if let Some(source) = &args.init {
        print_line(release::starter(source).trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let Some(file) = &args.file else { return Err(Error::usage("no release file was given")) };
    let mut job = release::open(file)?;
    job.memory = args.memory.unwrap_or(job.memory);
    job.threads = args.run.threads.map(usize::from).or(job.threads);
    job.force = args.run.force;
    job.verify |= args.run.verify;
    job.leftovers = leftovers(args.run.resume, args.run.restart);
    carry_out(job, args.shard, &args.run)
}

/// Publishes what parts have made.
pub fn finish(args: &FinishArgs) -> Result<ExitCode> {
    let mut job = release::open(&args.file)?;
    job.force = args.force;
    job.verify |= args.verify;
    job.leftovers = Leftovers::Resume;
    let planned = job::plan(job)?;
    let cancel = cancel_flag();
    let display = Display::new(args.progress, args.json, planned.job().memory, &cancel);
    let done = planned.finish(&display, &cancel);
    display.finish(done.is_ok());
    print_done(&done?, args.json);
    Ok(ExitCode::SUCCESS)
}

/// Plans and runs a job of several variants.
pub fn carry_out(job: Job, part: Option<Part>, args: &RunArgs) -> Result<ExitCode> {
    let planned = job::plan(job)?;
    let plan = planned.report();
    if args.dry_run {
        if args.json {
            print_json(plan);
        } else {
            print_plan(plan);
            print_line("");
            print_outlook(&plan.job);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.json {
        print_plan(plan);
    }
    for note in &plan.job.notes {
        progress::note(args.progress, note);
    }
    let cancel = cancel_flag();
    let display = Display::new(args.progress, args.json, planned.job().memory, &cancel);
    let done = match part {
        Some(part) => planned.run_part(part, &display, &cancel),
        None => planned.run(&display, &cancel),
    };
    display.finish(done.is_ok());
    print_done(&done?, args.json);
    Ok(ExitCode::SUCCESS)
}

fn print_plan(p: &PlanReport) {
    print_line(&source_line(&p.job));
    print_line(&format!("  {}", memory_line(&p.job)));
    let mut t = table(&["variant", "size", "bytes", "bpw", "types", "file"]);
    for v in &p.variants {
        t.add_row(row(v));
    }
    print_line("");
    print_table(&t);
}

fn row(v: &VariantReport) -> Vec<String> {
    let types: Vec<String> = v.types.iter().map(|(t, n)| format!("{n} {t}")).collect();
    let file = v.files.first().map_or("", |f| f.path.as_str());
    let more = if v.files.len() > 1 { format!(" (+{} files)", v.files.len() - 1) } else { String::new() };
    vec![
        v.name.clone(),
        human(v.output_bytes),
        v.output_bytes.to_string(),
        format!("{:.2}", v.bits_per_weight),
        types.join(", "),
        format!("{file}{more}"),
    ]
}

fn print_done(done: &DoneReport, json: bool) {
    if json {
        print_json(done);
        return;
    }
    let (plan, run) = (&done.plan, &done.run);
    print_line("");
    if let Some(part) = &run.part {
        print_line(&done_line(&format!("part {part}"), run));
        print_line("when all parts are done, publish them with `tensormill finish`");
        return;
    }
    let mut t = table(&["variant", "size", "bpw", "rmse", "sqnr db", "cosine", "sha-256"]);
    for v in &plan.variants {
        let hash = match v.files.as_slice() {
            [one] => one.sha256.clone().unwrap_or_default(),
            many => format!("{} files", many.len()),
        };
        let error =
            |f: &dyn Fn(&tensormill_core::ErrorReport) -> String| v.error.as_ref().map_or("-".to_owned(), f);
        t.add_row([
            v.name.clone(),
            human(v.output_bytes),
            format!("{:.2}", v.bits_per_weight),
            error(&|e| format!("{:.3e}", e.rmse)),
            error(&|e| format!("{:.2}", e.sqnr_db)),
            error(&|e| format!("{:.6}", e.cosine)),
            hash,
        ]);
    }
    print_table(&t);
    print_line("");
    let files: usize = plan.variants.iter().map(|v| v.files.len()).sum();
    let what =
        format!("{} variants, {files} files, {}", plan.variants.len(), human(plan.job.written_bytes_planned));
    print_line(&done_line(&what, run));
}

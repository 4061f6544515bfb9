//! `tensormill release` and `tensormill finish`: every variant of a model from one read.

use crate::{
    args::{CommonArgs, FinishArgs, ReleaseArgs, RunArgs},
    dims, print_json, print_line, print_table,
    progress::{self, Display},
    push,
    run::{cancel_flag, done_line, memory_line, print_outlook, source_line},
    table,
};
use std::{
    collections::HashMap,
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};
use tensormill_core::{
    DoneReport, Error, PlanReport, Result, VariantReport, device,
    hub::push::{Options as Publication, Released, Visibility},
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
    job.device = args.run.device.unwrap_or(job.device);
    job.device_memory = args.run.device_memory.or(job.device_memory);
    job.force = args.run.common.force;
    job.verify |= args.run.common.verify;
    job.leftovers = args.run.leftovers();
    job.access = args.run.hub.access();
    let part = args.shard.map(|p| Part { whole_files: args.whole_files, ..p });
    let publication = if args.no_push { None } else { release::publication(file, &job.name)? };
    carry_out(job, part, publication.as_ref(), &args.run)
}

/// Publishes what parts have made.
pub fn finish(args: &FinishArgs) -> Result<ExitCode> {
    let mut job = release::open(&args.file)?;
    // Nothing is encoded any more.
    job.device = device::Choice::Cpu;
    job.force = args.common.force;
    job.verify |= args.common.verify;
    job.leftovers = Leftovers::Resume;
    job.access = args.hub.access();
    let publication = if args.no_push { None } else { release::publication(&args.file, &job.name)? };
    let folder = job.folder.clone();
    let planned = job::plan(job)?;
    let cancel = cancel_flag();
    let display = Display::new(args.common.progress, args.common.json, planned.job().memory, &cancel);
    let done = planned.finish(&display, &cancel);
    display.finish(done.is_ok());
    conclude(&done?, &folder, publication.as_ref(), &args.common, &cancel)
}

/// Plans and runs a job of several variants; then sends it where it is to be published, if anywhere.
pub fn carry_out(
    job: Job,
    part: Option<Part>,
    publication: Option<&Publication>,
    args: &RunArgs,
) -> Result<ExitCode> {
    let folder = job.folder.clone();
    let planned = job::plan(job)?;
    let plan = planned.report();
    if args.dry_run {
        if args.common.json {
            print_json(plan);
        } else {
            print_plan(plan);
            print_line("");
            print_types(plan);
            print_line("");
            print_outlook(&plan.job);
            if let Some(p) = publication {
                let seen = p.visibility.map_or("private where it is new", Visibility::text);
                print_line(&format!("would be sent to {} ({seen})", p.repo));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.common.json {
        print_plan(plan);
    }
    for note in &plan.job.notes {
        progress::note(args.common.progress, note);
    }
    let cancel = cancel_flag();
    let display = Display::new(args.common.progress, args.common.json, planned.job().memory, &cancel);
    let done = match part {
        Some(part) => planned.run_part(part, &display, &cancel),
        None => planned.run(&display, &cancel),
    };
    display.finish(done.is_ok());
    let publication = publication.filter(|_| part.is_none());
    conclude(&done?, &folder, publication, &args.common, &cancel)
}

/// Sends what is complete to the Hub, and prints what was done. Whatever happens there, the release stands: running it
/// again continues with sending.
fn conclude(
    done: &DoneReport,
    folder: &Path,
    publication: Option<&Publication>,
    args: &CommonArgs,
    cancel: &Arc<AtomicBool>,
) -> Result<ExitCode> {
    if !args.json {
        print_done(done);
    }
    let publish = match publication {
        None => None,
        Some(p) => {
            let sent = push::carry_out(folder, p, false, (args.progress, args.json), cancel);
            let again = "the release is complete: run the same command again to go on with sending";
            Some(sent.map_err(|e| e.also_hint(again))?)
        }
    };
    match &publish {
        _ if args.json => print_json(&Released { done, publish }),
        Some(report) => {
            print_line("");
            push::print(report);
        }
        None => {}
    }
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

/// Every tensor's type in every variant. Layers whose tensors have the same types share a line.
fn print_types(p: &PlanReport) {
    /// Name with a place for the layer, shape, source type, and a type per variant.
    type Key = (String, String, String, Vec<String>);
    let mut rows: Vec<(Key, Vec<u32>)> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    let Some(first) = p.variants.first() else { return };
    let types: Vec<HashMap<&str, &str>> = p
        .variants
        .iter()
        .map(|v| v.tensors.iter().map(|t| (t.name.as_str(), t.target_type.as_str())).collect())
        .collect();
    for t in &first.tensors {
        let name = match t.layer {
            Some(layer) => t.name.replacen(&format!(".{layer}."), ".*.", 1),
            None => t.name.clone(),
        };
        let each = types.iter().map(|v| v.get(t.name.as_str()).unwrap_or(&"-").to_string()).collect();
        let key = (name, dims(&t.shape), t.source_type.clone(), each);
        let row = *places.entry(key.clone()).or_insert_with(|| {
            rows.push((key, Vec::new()));
            rows.len() - 1
        });
        rows[row].1.extend(t.layer);
    }
    let mut header = vec!["tensor", "layers", "shape", "from"];
    header.extend(p.variants.iter().map(|v| v.name.as_str()));
    let mut t = table(&header);
    for ((name, shape, from, types), layers) in rows {
        t.add_row([name, ranges(layers), shape, from].into_iter().chain(types));
    }
    print_table(&t);
    if !p.job.unmapped.is_empty() {
        print_line("");
        print_line(&format!("without a place in the outputs: {}", p.job.unmapped.join(", ")));
    }
}

/// Numbers as people write them: `0-3, 7`.
fn ranges(mut numbers: Vec<u32>) -> String {
    numbers.sort_unstable();
    numbers.dedup();
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let texts: Vec<String> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            many => format!("{}-{}", many[0], many[many.len() - 1]),
        })
        .collect();
    texts.join(", ")
}

fn print_done(done: &DoneReport) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_listed_in_runs() {
        assert_eq!(ranges(vec![]), "");
        assert_eq!(ranges(vec![3, 0, 1, 2, 7, 9, 8, 12]), "0-3, 7-9, 12");
    }
}

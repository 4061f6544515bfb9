//! `tensormill convert`: the plan, the bar, the report.

use crate::{
    args::{self, ConvertArgs, Dtype},
    print_json, print_line, print_table,
    progress::Bar,
    size::human,
    table,
};
use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tensormill_core::{
    ConvertReport, DType, ErrorReport, PlanReport, Result, Search,
    convert::{self, Request, Target},
};

/// Plans, and unless it is a dry run, converts.
pub fn run(args: &ConvertArgs) -> Result<ExitCode> {
    let conversion = convert::plan(&request(args))?;
    let plan = conversion.report();
    if args.dry_run {
        if args.json {
            print_json(plan);
        } else {
            print_dry_run(plan);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.json {
        print_line(&summary(plan));
    }
    for note in &plan.notes {
        eprintln!("note: {note}");
    }
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    // A second handler in one process is the only failure; then the default action (stop at once) is kept.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let bar = Bar::new(args.json);
    let report = conversion.run(&bar, &cancel);
    bar.finish();
    let report = report?;
    if args.json {
        print_json(&report);
    } else {
        print_report(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn request(a: &ConvertArgs) -> Request {
    let target = match (&a.quant, a.dtype) {
        (Some(recipe), _) => Target::Recipe(recipe.clone()),
        (None, None) => Target::Lossless,
        (None, Some(Dtype::F32)) => Target::Dtype(DType::F32),
        (None, Some(Dtype::F16)) => Target::Dtype(DType::F16),
        (None, Some(Dtype::Bf16)) => Target::Dtype(DType::BF16),
    };
    Request {
        source: a.source.clone(),
        output: a.output.clone(),
        target,
        imatrix: a.imatrix.clone(),
        search: match a.search {
            args::Search::Ggml => Search::Ggml,
            args::Search::Best => Search::Best,
        },
        tensor_types: a.tensor_type.clone(),
        output_tensor_type: a.output_tensor_type.clone(),
        token_embedding_type: a.token_embedding_type.clone(),
        leave_output_tensor: a.leave_output_tensor,
        pure: a.pure,
        allow_requantize: a.allow_requantize,
        pre: a.pre.clone(),
        memory: a.memory,
        threads: a.threads.map(usize::from),
        max_shard_bytes: a.max_shard_size,
        metadata: a.metadata.clone(),
        force: a.force,
        measure: !a.no_measure,
    }
}

fn summary(p: &PlanReport) -> String {
    let types: Vec<String> = p.types.iter().map(|(t, n)| format!("{n} {t}")).collect();
    let files = match p.files.as_slice() {
        [one] => one.path.clone(),
        many => format!("{} files, {} ...", many.len(), many.first().map_or("", |f| f.path.as_str())),
    };
    format!(
        "{} ({}, {}, {})\n  -> {files}\n     {}: {}, {:.2} bits per weight, {} tensors ({})\n     memory: {} of {} planned for tiles, {}",
        p.source,
        p.source_format,
        p.architecture,
        human(p.source_bytes),
        p.search
            .filter(|s| *s != Search::Ggml.name())
            .map_or_else(|| p.target.clone(), |s| format!("{} (search {s})", p.target)),
        human(p.output_bytes),
        p.bits_per_weight,
        p.tensors.len(),
        types.join(", "),
        human(p.memory_planned),
        human(p.memory_limit),
        if p.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", p.threads) },
    )
}

fn print_dry_run(p: &PlanReport) {
    print_line(&summary(p));
    for note in &p.notes {
        print_line(&format!("note: {note}"));
    }
    let mut t = table(&["tensor", "shape", "from", "to", "bytes"]);
    for x in &p.tensors {
        t.add_row([
            x.name.clone(),
            crate::dims(&x.shape),
            x.source_type.clone(),
            x.target_type.clone(),
            x.bytes.to_string(),
        ]);
    }
    print_line("");
    print_table(&t);
    print_line("");
    for f in &p.files {
        print_line(&format!("would write {} ({} bytes)", f.path, f.bytes));
    }
}

/// A measured error in one line.
pub fn error_line(e: &ErrorReport) -> String {
    if e.different == 0 {
        return "none (every value exact)".to_owned();
    }
    format!(
        "RMSE {:.3e}, max {:.3e}, SQNR {:.2} dB, cosine {:.6}{}",
        e.rmse,
        e.max_abs,
        e.sqnr_db,
        e.cosine,
        if e.non_finite > 0 { format!(", {} NON-FINITE", e.non_finite) } else { String::new() }
    )
}

fn print_report(r: &ConvertReport) {
    let p = &r.plan;
    let rate = r.read_bytes as f64 / r.wall_seconds.max(1e-9);
    print_line(&format!(
        "done: {} ({} bytes), {:.2} bits per weight, {:.2} s ({}/s read), peak memory {}",
        human(p.output_bytes),
        p.output_bytes,
        p.bits_per_weight,
        r.wall_seconds,
        human(rate as u64),
        r.peak_rss_bytes.map_or_else(|| "unknown".to_owned(), human),
    ));
    if let Some(e) = &r.error {
        print_line(&format!("error against the source: {}", error_line(e)));
    }
}

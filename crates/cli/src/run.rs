//! What `convert`, `release` and `finish` share: plans and reports in words, and stopping on Ctrl-C.

use crate::{dims, exit, print_line, print_table, table};
use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tensormill_core::{ErrorReport, JobReport, RunReport, VariantReport, size::human};

/// A flag that Ctrl-C and SIGTERM set. The second of them ends the process there and then: what stands is what a crash
/// would leave, and a run can be continued from it.
pub fn cancel_flag() -> Arc<AtomicBool> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    // A second handler in one process is the only failure; then the default action (stop at once) is kept.
    let _ = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            process::exit(exit::CANCELLED.into());
        }
    });
    cancel
}

/// The source in one line.
pub fn source_line(j: &JobReport) -> String {
    format!("{} ({}, {}, {})", j.source, j.source_format, j.architecture, human(j.source_bytes))
}

/// What a run takes, in one line.
pub fn memory_line(j: &JobReport) -> String {
    let threads = if j.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", j.threads) };
    let device = j.device.as_ref().map(|d| format!(", encoding on {} ({})", d.device, d.name));
    format!(
        "memory: {} of {} planned for tiles, {threads}{}",
        human(j.memory_planned),
        human(j.memory_limit),
        device.unwrap_or_default()
    )
}

/// A variant in one line.
pub fn variant_line(v: &VariantReport) -> String {
    let types: Vec<String> = v.types.iter().map(|(t, n)| format!("{n} {t}")).collect();
    let target = v
        .search
        .filter(|s| !matches!(*s, "ggml" | "nearest"))
        .map_or_else(|| v.target.clone(), |s| format!("{} (search {s})", v.target));
    format!(
        "{target}: {}, {:.2} bits per weight, {} tensors ({})",
        human(v.output_bytes),
        v.bits_per_weight,
        v.tensors.len(),
        types.join(", ")
    )
}

/// The files of a variant, abridged.
pub fn files_line(v: &VariantReport) -> String {
    match v.files.as_slice() {
        [one] => one.path.clone(),
        many => format!("{} files, {} ...", many.len(), many.first().map_or("", |f| f.path.as_str())),
    }
}

/// Every tensor of a variant, as a table, and its files.
pub fn print_tensors(v: &VariantReport) {
    let mut t = table(&["tensor", "shape", "from", "to", "bytes"]);
    for x in &v.tensors {
        t.add_row([
            x.name.clone(),
            dims(&x.shape),
            x.source_type.clone(),
            x.target_type.clone(),
            x.bytes.to_string(),
        ]);
    }
    print_table(&t);
    print_line("");
    for f in &v.files {
        print_line(&format!("would write {} ({} bytes)", f.path, f.bytes));
    }
}

/// What a dry run knows besides the variants.
pub fn print_outlook(j: &JobReport) {
    for note in &j.notes {
        print_line(&format!("note: {note}"));
    }
    for lost in &j.lost {
        print_line(&format!("lost: {lost}"));
    }
    for c in &j.checks {
        print_line(&format!("check: {} {}: {}", c.name, if c.ok { "ok" } else { "DIFFERS" }, c.detail));
    }
    let free = j.disk_free.map_or_else(|| "unknown".to_owned(), human);
    print_line(&format!(
        "would read {} {} and write {} ({free} free)",
        human(j.read_bytes_planned),
        // Merges may look at tensors before they compute with them.
        if j.read_bytes_planned > j.source_bytes { "in all" } else { "once" },
        human(j.written_bytes_planned)
    ));
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

/// How a run went, in one line.
pub fn done_line(what: &str, r: &RunReport) -> String {
    let rate = r.read_bytes as f64 / r.wall_seconds.max(1e-9);
    let resumed = match r.resumed_bytes {
        0 => String::new(),
        n => format!(", {} stood already", human(n)),
    };
    let device = r.device.as_ref().map(|d| {
        let rest = match d.processor_bytes {
            0 => String::new(),
            n => format!(" and {} on the processor", human(n)),
        };
        format!(", {} encoded on {}{rest}", human(d.encoded_bytes), d.device)
    });
    format!(
        "done: {what}, {:.2} s ({}/s read{resumed}), peak memory {}{}",
        r.wall_seconds,
        human(rate as u64),
        r.peak_rss_bytes.map_or_else(|| "unknown".to_owned(), human),
        device.unwrap_or_default(),
    )
}

//! A run's report as the page and the plots of `tensormill-report`.

use crate::{
    card,
    job::Job,
    report::{DoneReport, ErrorReport, TensorReport, VariantReport},
    size::human,
};
use tensormill_report as page;

/// Name of a run's page.
pub(crate) fn name(run: &str) -> String {
    format!("{run}.report.html")
}

/// The folder of its plots, with a slash.
pub(crate) fn folder(run: &str) -> String {
    format!("{run}.report/")
}

/// Names and texts: the run as one self-contained HTML page, and its plots as SVG for a model card.
pub(crate) fn files(job: &Job, done: &DoneReport) -> Vec<(String, String)> {
    let release = release(job, done);
    let folder = folder(&job.name);
    let mut files = vec![
        (name(&job.name), page::html(&release)),
        (format!("{folder}size-vs-error.svg"), page::size_vs_error_svg(&release)),
        (format!("{folder}stages.svg"), page::stages_svg(&release)),
        (format!("{folder}memory.svg"), page::memory_svg(&release)),
    ];
    for v in release.variants.iter().filter(|v| v.error.is_some()) {
        // A variant may be called anything; a file of ours may not.
        let safe: String =
            v.name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        files.push((format!("{folder}error-{safe}.svg"), page::heat_map_svg(&release, v)));
    }
    files
}

fn release(job: &Job, done: &DoneReport) -> page::Release {
    let (plan, run) = (&done.plan, &done.run);
    // The page is published: it names the source, and not where it lay.
    let scrub = card::scrub([&*job.folder].into_iter().chain(job.source.local()));
    let repository = card::Provenance::of(&job.source).repository;
    let bytes = |stage: &str| match stage {
        "read" => run.read_bytes,
        "write" => run.written_bytes,
        _ => 0,
    };
    page::Release {
        title: job.name.clone(),
        source: repository.unwrap_or_else(|| job.source.published_as()),
        revision: plan.job.revision.clone(),
        source_bytes: plan.job.source_bytes,
        read_bytes: run.read_bytes,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        date: None,
        variants: plan.variants.iter().zip(&job.variants).map(|(v, asked)| variant(v, asked)).collect(),
        stages: run
            .stages
            .iter()
            .map(|(name, seconds)| page::Stage {
                name: (*name).to_owned(),
                seconds: *seconds,
                bytes: bytes(name),
            })
            .collect(),
        memory: run
            .memory
            .iter()
            .map(|s| page::MemorySample { seconds: s.seconds, resident_bytes: s.resident, tile_bytes: 0 })
            .collect(),
        memory_limit: Some(plan.job.memory_limit),
        peak_rss: run.peak_rss_bytes,
        wall_seconds: run.wall_seconds,
        threads: plan.job.threads,
        notes: plan.job.notes.iter().cloned().chain(device(done)).map(|n| scrub.text(&n)).collect(),
    }
}

/// What a device did, in a sentence.
fn device(done: &DoneReport) -> Option<String> {
    let d = done.run.device.as_ref()?;
    let failure = d.failure.as_ref().map(|f| format!(": {f}"));
    Some(format!(
        "{} encoded on {} ({}), {} on the processor{}",
        human(d.encoded_bytes),
        d.device,
        d.name,
        human(d.processor_bytes),
        failure.unwrap_or_default()
    ))
}

fn variant(v: &VariantReport, asked: &crate::job::Variant) -> page::Variant {
    page::Variant {
        name: v.name.clone(),
        files: v
            .files
            .iter()
            .map(|f| page::File {
                name: f.path.rsplit('/').next().unwrap_or_default().to_owned(),
                bytes: f.bytes,
                sha256: f.sha256.clone(),
            })
            .collect(),
        bits_per_weight: v.bits_per_weight,
        error: v.error.as_ref().map(error),
        limits_checked: asked.gate.len(),
        limits_broken: v.broken.iter().map(ToString::to_string).collect(),
        tensors: v.tensors.iter().map(tensor).collect(),
    }
}

fn tensor(t: &TensorReport) -> page::Tensor {
    page::Tensor {
        name: t.name.clone(),
        layer: t.layer,
        role: t.role.clone(),
        encoding: t.target_type.clone(),
        bytes: t.bytes,
        weights: t.shape.iter().product(),
        error: t.error.as_ref().map(error),
    }
}

fn error(e: &ErrorReport) -> page::Error {
    page::Error {
        max_abs: e.max_abs,
        rmse: e.rmse,
        sqnr_db: e.sqnr_db,
        cosine: e.cosine,
        non_finite: e.non_finite,
    }
}

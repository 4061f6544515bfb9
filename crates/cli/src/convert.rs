//! `tensormill convert`: one file, or several from one read.

use crate::{
    args::{self, ConvertArgs, MergeArgs, RunArgs},
    print_json, print_line,
    progress::{self, Display},
    release,
    run::{
        cancel_flag, done_line, error_line, files_line, memory_line, print_outlook, print_tensors,
        source_line, variant_line,
    },
};
use std::process::ExitCode;
use tensormill_core::{
    ConvertPlan, ConvertReport, GraphOptions, PickleOptions, Result, ShardLimits,
    adapters::{Options as MergeOptions, Precision},
    convert::{self, Conversion, Request, Target},
    job::{Damping, Job, Variant},
    release::usual_variant,
    size::human,
};

/// `tensormill merge`: a conversion whose source is a recipe. What has no suffix is a folder for a checkpoint.
pub fn merge(args: MergeArgs) -> Result<ExitCode> {
    let MergeArgs { seed, mut convert } = args;
    if convert.to.is_none() && convert.quant.is_empty() && !convert::names_a_format(&convert.output) {
        convert.to = Some("safetensors".to_owned());
    }
    run_with(&convert, seed)
}

/// Plans, and unless it is a dry run, converts.
pub fn run(args: &ConvertArgs) -> Result<ExitCode> {
    run_with(args, None)
}

fn run_with(args: &ConvertArgs, seed: Option<u64>) -> Result<ExitCode> {
    if args.quant.len() > 1 {
        let mut job = job(args, seed);
        job.folder.clone_from(&args.output);
        job.name = args.source.name();
        job.create_folder = true;
        job.manifest = true;
        job.variants = args
            .quant
            .iter()
            .map(|q| {
                let Variant { name, file, target, side_files, .. } = usual_variant(q, &job.name);
                Variant { name, file, side_files, ..variant(args, target) }
            })
            .collect();
        return release::carry_out(job, None, None, &args.run);
    }
    let target = match (args.quant.first(), args.dtype) {
        (Some(recipe), _) => Target::Recipe(recipe.clone()),
        (None, None) => Target::Lossless,
        (None, Some(dtype)) => Target::Dtype(dtype.element()),
    };
    let request = Request {
        job: job(args, seed),
        variant: variant(args, target),
        output: args.output.clone(),
        to: args.to.clone(),
    };
    carry_out(convert::plan(&request)?, &args.run, args.memory)
}

/// Carries out what is planned, or shows it in a dry run.
pub(crate) fn carry_out(conversion: Conversion, run: &RunArgs, memory: u64) -> Result<ExitCode> {
    let plan = conversion.report();
    if run.dry_run {
        if run.common.json {
            print_json(plan);
        } else {
            print_line(&summary(plan));
            print_outlook(&plan.job);
            print_line("");
            print_tensors(&plan.variant);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !run.common.json {
        print_line(&summary(plan));
    }
    for note in &plan.job.notes {
        progress::note(run.common.progress, note);
    }
    let cancel = cancel_flag();
    let display = Display::new(run.common.progress, run.common.json, memory, &cancel);
    let report = conversion.run(&display, &cancel);
    display.finish(report.is_ok());
    let report = report?;
    if run.common.json {
        print_json(&report);
    } else {
        print_report(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn job(a: &ConvertArgs, seed: Option<u64>) -> Job {
    Job {
        seed,
        adapters: a.adapter.clone(),
        merge: MergeOptions {
            precision: match a.merge_precision {
                args::MergePrecision::Single => Precision::Single,
                args::MergePrecision::Peft => Precision::Peft,
            },
            allow_unused: a.allow_unused,
            combine: a.combine,
        },
        keep_names: a.keep_names,
        pre: a.pre.clone(),
        part: PickleOptions { key: a.key.clone(), all: a.all },
        memory: a.memory,
        threads: a.run.threads.map(usize::from),
        device: a.run.device.unwrap_or_default(),
        device_memory: a.run.device_memory,
        force: a.run.common.force,
        measure: !a.no_measure,
        verify: a.run.common.verify,
        allow_loss: a.allow_loss,
        leftovers: a.run.leftovers(),
        access: a.run.hub.access(),
        ..Job::new(&a.source, "", "")
    }
}

fn variant(a: &ConvertArgs, target: Target) -> Variant {
    Variant {
        imatrix: a.imatrix.clone(),
        calibration: a.calibration.clone(),
        damping: Damping { part: a.damp_percent, by_activity: a.act_order },
        search: a.search.kind(),
        tensor_types: a.tensor_type.clone(),
        output_tensor_type: a.output_tensor_type.clone(),
        token_embedding_type: a.token_embedding_type.clone(),
        leave_output_tensor: a.leave_output_tensor,
        pure: a.pure,
        allow_requantize: a.allow_requantize,
        shards: ShardLimits { bytes: a.max_shard_size, tensors: a.max_shard_tensors.map(u64::from) },
        remove_metadata: a.remove_metadata.clone(),
        metadata: a.metadata.clone(),
        onnx: GraphOptions {
            template: a.graph.clone(),
            rename: a.rename_weights,
            opset: a.opset,
            keep_io_types: a.keep_io_types,
            external: a.external_data,
            contrib: a.onnx_form == args::OnnxForm::Genai,
        },
        ..Variant::new("", "", target)
    }
}

fn summary(p: &ConvertPlan) -> String {
    format!(
        "{}\n  -> {}\n     {}\n     {}",
        source_line(&p.job),
        files_line(&p.variant),
        variant_line(&p.variant),
        memory_line(&p.job)
    )
}

fn print_report(r: &ConvertReport) {
    let v = &r.plan.variant;
    let what = format!(
        "{} ({} bytes), {:.2} bits per weight",
        human(v.output_bytes),
        v.output_bytes,
        v.bits_per_weight
    );
    print_line(&done_line(&what, &r.run));
    if let Some(e) = &v.error {
        print_line(&format!("error against the source: {}", error_line(e)));
    }
}

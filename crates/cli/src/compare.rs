//! `tensormill compare`: how far two models are apart.

use crate::{
    args::{CompareArgs, GraphRuntime},
    exit, hub, print_json, print_line, print_table,
    progress::Display,
    run::{cancel_flag, error_line},
    table,
};
use std::process::ExitCode;
use tensormill_core::{
    Result,
    compare::{Options, ShapeMismatch, compare_by},
    outputs::{self, Backend, Inputs},
};

/// Compares and prints; exit 5 when they differ beyond `--max-rmse`, or in which tensors they have.
pub fn run(args: &CompareArgs) -> Result<ExitCode> {
    if args.outputs {
        return by_outputs(args);
    }
    let access = args.hub.access();
    let options = Options { max_rmse: args.max_rmse, memory: args.memory };
    let cancel = cancel_flag();
    let display = Display::new(args.progress, args.json, args.memory, &cancel);
    let c = compare_by(&args.a, &args.b, &options, &access, &display, &cancel);
    hub::tell_watched(&access, &display, c.is_ok());
    display.finish(c.is_ok());
    let c = c?;
    if args.json {
        print_json(&c);
    } else {
        let mut t = table(&["tensor", "a", "b", "max abs", "rmse", "sqnr db", "cosine", "non-finite"]);
        for x in &c.tensors {
            let e = &x.error;
            t.add_row([
                x.name.clone(),
                x.type_a.clone(),
                x.type_b.clone(),
                format!("{:.3e}", e.max_abs),
                format!("{:.3e}", e.rmse),
                if e.sqnr_db.is_finite() { format!("{:.2}", e.sqnr_db) } else { "exact".to_owned() },
                format!("{:.6}", e.cosine),
                e.non_finite.to_string(),
            ]);
        }
        print_table(&t);
        print_unpaired(&c.mismatched, [(&c.a, &c.only_in_a), (&c.b, &c.only_in_b)]);
        print_line(&format!("\n{} tensors compared; error: {}", c.tensors.len(), error_line(&c.total)));
        print_failure(c.failure.as_deref());
    }
    Ok(code(c.failure.as_deref()))
}

/// Runs both graphs, and prints how far what they compute is apart.
fn by_outputs(args: &CompareArgs) -> Result<ExitCode> {
    let graphs = &args.graphs;
    let library = graphs.onnxruntime.clone();
    let options = outputs::Options {
        inputs: graphs.input.clone().map_or(Inputs::Generated(graphs.generate), Inputs::File),
        rtol: graphs.rtol,
        atol: graphs.atol,
        max_rmse: args.max_rmse,
        backend: match graphs.runtime {
            GraphRuntime::Auto => Backend::Auto { library },
            GraphRuntime::Onnxruntime => Backend::OnnxRuntime { library },
            GraphRuntime::Tract => Backend::Tract,
        },
        access: args.hub.access(),
    };
    let cancel = cancel_flag();
    // Nothing bounds what a runtime takes.
    let display = Display::new(args.progress, args.json, 0, &cancel);
    let c = outputs::compare_by(&args.a, &args.b, &options, &display, &cancel);
    hub::tell_watched(&options.access, &display, c.is_ok());
    display.finish(c.is_ok());
    let c = c?;
    if args.json {
        print_json(&c);
        return Ok(code(c.failure.as_deref()));
    }
    let mut t = table(&["output", "shape", "a", "b", "max abs", "rmse", "cosine", "argmax", "non-finite"]);
    for x in &c.outputs {
        let e = &x.error;
        t.add_row([
            x.name.clone(),
            format!("{:?}", x.shape),
            x.type_a.clone(),
            x.type_b.clone(),
            format!("{:.3e}", e.max_abs),
            format!("{:.3e}", e.rmse),
            format!("{:.6}", e.cosine),
            x.argmax.as_ref().map_or_else(String::new, |m| format!("{}/{}", m.equal, m.rows)),
            e.non_finite.to_string(),
        ]);
    }
    print_table(&t);
    print_unpaired(&c.mismatched, [(&c.a, &c.only_in_a), (&c.b, &c.only_in_b)]);
    let given: Vec<String> = c.inputs.iter().map(|i| format!("{} {:?}", i.name, i.shape)).collect();
    print_line(&format!(
        "\n{} outputs compared; run by {} on {}",
        c.outputs.len(),
        c.runtime,
        given.join(", ")
    ));
    print_failure(c.failure.as_deref());
    Ok(code(c.failure.as_deref()))
}

fn print_unpaired(mismatched: &[ShapeMismatch], sides: [(&String, &Vec<String>); 2]) {
    for m in mismatched {
        print_line(&format!("{}: shapes differ: {:?} and {:?}", m.name, m.shape_a, m.shape_b));
    }
    for (path, names) in sides {
        for name in names {
            print_line(&format!("{name}: only in {path}"));
        }
    }
}

fn print_failure(failure: Option<&str>) {
    if let Some(reason) = failure {
        print_line(&format!("FAILED: {reason}"));
    }
}

fn code(failure: Option<&str>) -> ExitCode {
    if failure.is_some() { ExitCode::from(exit::DIFFERENT) } else { ExitCode::SUCCESS }
}

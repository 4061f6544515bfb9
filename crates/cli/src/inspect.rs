//! `tensormill inspect`: what a model's headers say.

use crate::{
    args::{InspectArgs, Progress},
    dims, hub, print_json, print_line, print_table, table,
};
use std::process::ExitCode;
use tensormill_core::size::human;
use tensormill_core::{
    Result,
    inspect::{inspect_by, type_name},
};

/// Prints metadata and tensors.
pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let access = args.hub.access();
    let found = inspect_by(&args.path, &access)?;
    hub::tell(&access, Progress::None);
    if args.json {
        print_json(&found);
        return Ok(ExitCode::SUCCESS);
    }
    print_line(&format!(
        "{}: {}, {} tensors, {} weights, {}",
        found.path,
        found.format,
        found.tensors.len(),
        found.parameters,
        human(found.bytes)
    ));
    if let Some(quantized) = &found.quantized {
        let weights: Vec<String> = quantized.weights.iter().map(|(what, n)| format!("{n} {what}")).collect();
        print_line(&format!("quantized weights ({}): {}", quantized.kind, weights.join(", ")));
    }
    if let Some(graph) = &found.graph {
        print_line(&graph.summary);
        let hidden = graph.parameters.iter().filter(|p| p.name != p.initializer);
        let mut t = table(&["initializer", "parameter", "transposed", "known by"]);
        for p in hidden {
            let transposed = if p.transposed { "yes" } else { "-" };
            t.add_row([p.initializer.as_str(), &p.name, transposed, p.how]);
        }
        if t.row_count() > 0 {
            print_line("");
            print_table(&t);
        }
    }
    if !found.metadata.is_empty() {
        let mut t = table(&["key", "type", "value"]);
        for (key, value) in found.metadata.iter() {
            t.add_row([key.to_owned(), type_name(value), shorten(&value.to_string())]);
        }
        print_line("");
        print_table(&t);
    }
    let mut t = table(&["tensor", "type", "shape", "bytes"]);
    for x in &found.tensors {
        t.add_row([x.name.clone(), x.encoding.clone(), dims(&x.shape), x.bytes.to_string()]);
    }
    print_line("");
    print_table(&t);
    Ok(ExitCode::SUCCESS)
}

/// One line of at most 100 characters (chat templates run to pages).
fn shorten(text: &str) -> String {
    const WIDTH: usize = 100;
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(WIDTH).collect();
    if chars.next().is_some() { format!("{head}...") } else { head }
}

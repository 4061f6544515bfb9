//! `tensormill inspect`: what a model's headers say.

use crate::{args::InspectArgs, dims, print_json, print_line, print_table, table};
use std::process::ExitCode;
use tensormill_core::size::human;
use tensormill_core::{Result, inspect::inspect};

/// Prints metadata and tensors.
pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let found = inspect(&args.path)?;
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
    if !found.metadata.is_empty() {
        let mut t = table(&["key", "type", "value"]);
        for m in &found.metadata {
            t.add_row([m.key.clone(), m.value_type.clone(), shorten(&m.text)]);
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

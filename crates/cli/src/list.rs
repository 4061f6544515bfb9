//! `tensormill list`: what this version knows.

use crate::{
    args::{ListArgs, Listing},
    print_json, print_line, print_table, table,
};
use std::process::ExitCode;
use tensormill_core::{Result, device, list, size::human};

/// Prints one list.
pub fn run(args: &ListArgs) -> Result<ExitCode> {
    match args.what {
        Listing::Types => {
            let rows = list::types();
            if args.json {
                print_json(&rows);
            } else {
                let mut t = table(&[
                    "type",
                    "bits per weight",
                    "weights",
                    "bytes",
                    "encode",
                    "decode",
                    "level",
                    "cuda",
                ]);
                for r in rows {
                    let yes = |b: bool| if b { "yes" } else { "-" };
                    t.add_row([
                        r.name.to_owned(),
                        format!("{:.4}", r.bits_per_weight),
                        r.weights.to_string(),
                        r.bytes.to_string(),
                        yes(r.encode).to_owned(),
                        yes(r.decode).to_owned(),
                        r.level.to_owned(),
                        yes(r.cuda).to_owned(),
                    ]);
                }
                print_table(&t);
            }
        }
        Listing::Recipes => {
            let rows = list::recipes();
            if args.json {
                print_json(&rows);
            } else {
                let mut t = table(&["recipe", "file type", "base type", "what it is"]);
                for r in rows {
                    t.add_row([
                        r.name.to_owned(),
                        r.file_type.to_string(),
                        r.base.clone(),
                        r.summary.to_owned(),
                    ]);
                }
                print_table(&t);
            }
        }
        Listing::Schemes => {
            let rows = list::schemes();
            if args.json {
                print_json(&rows);
            } else {
                let mut t = table(&["scheme", "layout", "format", "what it is"]);
                for r in rows {
                    t.add_row([r.name, r.layout, r.format, r.summary]);
                }
                print_table(&t);
            }
        }
        Listing::Formats => {
            let rows = list::formats();
            if args.json {
                print_json(&rows);
            } else {
                let mut t = table(&["format", "extensions", "read", "write", "what it is"]);
                for r in rows {
                    t.add_row([
                        r.id.to_owned(),
                        r.extensions.join(", "),
                        "yes".to_owned(),
                        if r.can_write { "yes" } else { "-" }.to_owned(),
                        r.title.to_owned(),
                    ]);
                }
                print_table(&t);
            }
        }
        Listing::Devices => {
            let found = device::list()?;
            if args.json {
                print_json(&found.devices);
                return Ok(ExitCode::SUCCESS);
            }
            if let Some(missing) = found.missing {
                print_line(&missing);
                return Ok(ExitCode::SUCCESS);
            }
            let mut t = table(&["device", "name", "compute capability", "memory", "free", "cuda", "nvrtc"]);
            for r in found.devices {
                t.add_row([
                    r.device,
                    r.name,
                    r.compute_capability,
                    human(r.memory),
                    r.free_memory.map_or_else(|| "-".to_owned(), human),
                    r.driver,
                    r.compiler.unwrap_or_else(|| "-".to_owned()),
                ]);
            }
            print_table(&t);
        }
        Listing::Archs => {
            let rows = list::archs();
            if args.json {
                print_json(&rows);
            } else {
                let mut t = table(&["architecture", "config.json names"]);
                for r in rows {
                    t.add_row([r.name.to_owned(), r.config_names.join(", ")]);
                }
                print_table(&t);
            }
        }
        Listing::Graphs => {
            let rows = list::graphs();
            if args.json {
                print_json(&rows);
            } else {
                let mut t = table(&["model types", "forms", "opsets"]);
                for r in rows {
                    t.add_row([
                        r.model_types.join(", "),
                        r.forms.join(", "),
                        format!("{} to {}", r.opsets.0, r.opsets.1),
                    ]);
                }
                print_table(&t);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

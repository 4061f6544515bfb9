//! `tensormill compare`: how far two models are apart.

use crate::{args::CompareArgs, exit, print_json, print_line, print_table, run::error_line, table};
use std::process::ExitCode;
use tensormill_core::{
    Result,
    compare::{Options, compare},
};

/// Compares and prints; exit 5 when they differ beyond `--max-rmse`, or in which tensors they have.
pub fn run(args: &CompareArgs) -> Result<ExitCode> {
    let c = compare(&args.a, &args.b, &Options { max_rmse: args.max_rmse, memory: args.memory })?;
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
        for m in &c.mismatched {
            print_line(&format!("{}: shapes differ: {:?} and {:?}", m.name, m.shape_a, m.shape_b));
        }
        for name in &c.only_in_a {
            print_line(&format!("{name}: only in {}", c.a));
        }
        for name in &c.only_in_b {
            print_line(&format!("{name}: only in {}", c.b));
        }
        print_line(&format!("\n{} tensors compared; error: {}", c.tensors.len(), error_line(&c.total)));
        if let Some(reason) = &c.failure {
            print_line(&format!("FAILED: {reason}"));
        }
    }
    Ok(if c.failure.is_some() { ExitCode::from(exit::DIFFERENT) } else { ExitCode::SUCCESS })
}

//! Writes sample reports into a folder, to be looked at in a browser:
//! `cargo run -p tensormill-report --example sample -- FOLDER`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{env, fs, io, path::PathBuf};
use tensormill_report::{Error, Release, heat_map_svg, html, memory_svg, size_vs_error_svg, stages_svg};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    fs::create_dir_all(&folder)?;
    let sample = common::release(16, 9, 20);
    let pages = [
        ("sample", sample.clone()),
        ("large", common::release(80, 14, 30)),
        ("wide", common::release(36, 9, 6)),
        ("odd", odd()),
        ("tiny", common::tiny()),
    ];
    for (name, release) in &pages {
        fs::write(folder.join(format!("{name}.html")), html(release))?;
    }
    let files = [
        ("size-vs-error", size_vs_error_svg(&sample)),
        ("heat-map", heat_map_svg(&sample, &sample.variants[7])),
        ("stages", stages_svg(&sample)),
        ("memory", memory_svg(&sample)),
    ];
    for (name, svg) in files {
        fs::write(folder.join(format!("{name}.svg")), svg)?;
    }
    Ok(())
}

/// What seldom comes together: long names, hostile names, values that are not finite, variants without an error.
fn odd() -> Release {
    let mut r = common::release(8, 9, 7);
    r.title =
        "A model whose maker could not stop naming it, Instruct, Distilled, Merged </title><b>v2</b>".into();
    r.variants[2].name = "Q4_K_M-with-output-in-Q8_0-and-embeddings-in-F16".into();
    r.variants[3].name = "</script><b>bold</b>".into();
    r.variants[4].error = None;
    r.variants[4].tensors.iter_mut().for_each(|t| t.error = None);
    r.variants[4].limits_checked = 0;
    r.variants[5].error =
        Some(Error { max_abs: 3.2, rmse: 0.4, sqnr_db: f64::NAN, cosine: f64::NAN, non_finite: 12 });
    r.variants[5].tensors[20].error = r.variants[5].error.clone();
    r.memory_limit = Some(64 << 30);
    r
}

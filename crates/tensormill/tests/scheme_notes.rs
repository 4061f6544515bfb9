//! What is said of schemes while planning.

use std::path::{Path, PathBuf};
use tensormill_core::{
    Result,
    convert::Target,
    job::{self, Job, Variant},
};

fn golden(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden")).join(path)
}

/// The notes of a plan with one variant, and the search that it says.
fn planned(
    source: &str,
    file: &str,
    scheme: &str,
    change: impl FnOnce(&mut Variant),
) -> Result<(Vec<String>, &'static str)> {
    let mut job = Job::new(golden(source), "out", "test");
    job.create_folder = true;
    job.allow_loss = true;
    let mut v = Variant::new("v", file, Target::Recipe(scheme.to_owned()));
    v.side_files = file.contains('/');
    change(&mut v);
    job.variants = vec![v];
    let planned = job::plan(job)?;
    let report = planned.report();
    Ok((report.job.notes.clone(), report.variants[0].search.expect("schemes have a search")))
}

fn notes(source: &str, file: &str, scheme: &str) -> Vec<String> {
    planned(source, file, scheme, |_| ()).unwrap_or_else(|e| panic!("{scheme}: {e}")).0
}

#[test]
fn a_file_alone_lacks_what_config_json_says() {
    let tells = |notes: &[String]| notes.iter().any(|n| n.contains("config.json") && n.contains("-o DIR"));
    for (scheme, key) in [("int4-g32", "quantization_config"), ("mlx-4bit-g32", "quantization")] {
        let said = notes("quantized/source", "x.safetensors", scheme);
        assert!(tells(&said) && said.iter().any(|n| n.contains(key)), "{scheme}: {said:?}");
        assert!(!tells(&notes("quantized/source", "x/model.safetensors", scheme)), "{scheme}");
    }
    // Casts need nothing said of them.
    assert!(!tells(&notes("quantized/source", "x.safetensors", "fp8-cast")));
}

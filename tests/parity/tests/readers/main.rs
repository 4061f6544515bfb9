//! Independent readers see in our files what we see. The crate's documentation says which reader is asked what.

mod candle;
mod checkpoints;
mod gguf_rs;
mod kinds;
mod split;
mod written_by_candle;

use tensormill_parity::{for_every_conversion, manifest};
use tensormill_tests::Manifest;

/// `gguf-rs` switches on a feature of `serde_json` that our own tests run without: what the readers are shown
/// must be what those tests have checked.
#[test]
fn the_files_shown_to_the_readers_are_the_golden_ones() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let mut wrong = Vec::new();
    for_every_conversion(scratch.path(), |model, variant, path| {
        let found = Manifest::of(path)
            .differences(&manifest(model, variant), &["tensormill.", "general.quantized_by"]);
        wrong.extend(found.into_iter().map(|d| format!("{model} {variant}: {d}")));
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

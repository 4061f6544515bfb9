//! Scans: the first byte chooses what the file is called, the rest is in it.

use super::store;
use tensormill_core::scan::{Severity, scan_store};

/// A name for each way in which a file is looked at; the last says nothing.
pub const NAMES: &[&str] = &[
    "a.pt",
    "a.pkl",
    "a.bin",
    "a.npy",
    "a.npz",
    "a.keras",
    "a.h5",
    "saved_model.pb",
    "a.onnx",
    "a.gguf",
    "a.safetensors",
    "config.json",
    "model.safetensors.index.json",
    "model_index.json",
    "a.jinja",
    "a.yaml",
    "a",
];

/// A scan of any bytes under any of these names.
///
/// # Panics
/// Where what it tells does not add up.
pub fn scan(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let name = NAMES[usize::from(*first) % NAMES.len()];
    let report = scan_store(name, &store(name, bytes));
    let listed = |s: Severity| report.findings.iter().filter(|f| f.severity == s).count() as u64;
    let counts = report.counts;
    for (severity, all) in [
        (Severity::Dangerous, counts.dangerous),
        (Severity::Suspicious, counts.suspicious),
        (Severity::Info, counts.info),
    ] {
        assert!(listed(severity) == all || (report.truncated && listed(severity) < all));
    }
    for f in &report.findings {
        assert!(f.found.len() < 400 && !f.found.contains('\n'), "{f:?}");
        assert!(f.place.line != Some(0), "{f:?}");
    }
}

//! What `convert` would have to be told to make one variant of a job: for the manifest, and for cards. Paths are their file
//! names, so that nothing of a machine is in it.

use super::{Job, USUAL_DAMPING, Variant, place};
use crate::{Location, Search, adapters::Precision, convert::Target};
use std::path::Path;

/// Arguments behind the source, up to the output. `None` where `convert` has no option for what is asked.
pub(super) fn of(job: &Job, v: &Variant) -> Option<Vec<String>> {
    let Job { part, adapters, merge, seed, keep_names, pre, measure: _, allow_loss, .. } = job;
    // Rules by role are for release files alone, and a seed is `merge`'s.
    if !v.role_types.is_empty() || seed.is_some() || merge.combine.is_some() {
        return None;
    }
    let mut a = Arguments(Vec::new());
    match &v.target {
        Target::Lossless => {}
        Target::Dtype(d) => a.pair("--dtype", d.name().to_ascii_lowercase()),
        Target::Recipe(quant) => a.pair("--quant", quant),
    }
    if v.side_files {
        a.pair("--to", place::format_of(&v.file).ok()?.info().id);
    }
    a.maybe("--key", part.key.as_ref());
    a.flag("--all", part.all);
    a.flag("--keep-names", *keep_names);
    a.maybe("--pre", pre.as_ref());
    for adapter in adapters {
        let name = location(&adapter.at);
        a.pair("--adapter", if adapter.scale == 1.0 { name } else { format!("{name}={}", adapter.scale) });
    }
    if !adapters.is_empty() && matches!(merge.precision, Precision::Peft) {
        a.pair("--merge-precision", "peft");
    }
    a.flag("--allow-unused", !adapters.is_empty() && merge.allow_unused);
    a.maybe("--imatrix", v.imatrix.as_deref().map(name));
    a.maybe("--calibration", v.calibration.as_deref().map(name));
    if v.calibration.is_some() {
        a.maybe("--damp-percent", (v.damping.part != USUAL_DAMPING.part).then_some(v.damping.part));
        a.flag("--act-order", v.damping.by_activity);
    }
    if v.search != Search::default() && matches!(v.target, Target::Recipe(_)) {
        a.pair("--search", v.search.name());
    }
    for rule in &v.tensor_types {
        a.pair("--tensor-type", rule);
    }
    a.maybe("--output-tensor-type", v.output_tensor_type.as_ref());
    a.maybe("--token-embedding-type", v.token_embedding_type.as_ref());
    a.flag("--leave-output-tensor", v.leave_output_tensor);
    a.flag("--pure", v.pure);
    a.flag("--allow-requantize", v.allow_requantize);
    a.maybe("--max-shard-size", v.shards.bytes);
    a.maybe("--max-shard-tensors", v.shards.tensors);
    for key in &v.remove_metadata {
        a.pair("--remove-metadata", key);
    }
    for edit in &v.metadata {
        a.pair("--metadata", edit);
    }
    a.maybe("--graph", v.onnx.template.as_ref().map(location));
    a.flag("--rename-weights", v.onnx.rename);
    a.maybe("--opset", v.onnx.opset);
    if v.onnx.contrib {
        a.pair("--onnx-form", "genai");
    }
    a.flag("--keep-io-types", v.onnx.keep_io_types);
    a.flag("--external-data", v.onnx.external);
    a.flag("--allow-loss", *allow_loss);
    Some(a.0)
}

struct Arguments(Vec<String>);

impl Arguments {
    #[allow(clippy::needless_pass_by_value, reason = "numbers and texts, as they come")]
    fn pair(&mut self, name: &str, value: impl ToString) {
        self.0.extend([name.to_owned(), value.to_string()]);
    }
    fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.pair(name, value);
        }
    }
    fn flag(&mut self, name: &str, set: bool) {
        if set {
            self.0.push(name.to_owned());
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// An address says nothing of this machine.
fn location(at: &Location) -> String {
    at.local().map_or_else(|| at.to_string(), name)
}

//! A release file to begin with.

use super::{COMMON, target};
use crate::{Location, convert::Target};
use std::fmt::Write;

/// A commented release file for a source, with the variants that most releases have.
pub fn starter(source: impl Into<Location>) -> String {
    let source = source.into();
    // A literal string cannot hold a quote; a basic one can hold everything, escaped.
    let quote = |s: &str| format!("{s:?}");
    let mut text = format!(
        r#"# Made by `tensormill release --init`. Check it with `tensormill release FILE --dry-run`.
# Paths are relative to this file.

[source]
path = {path}          # a Hugging Face folder, or a file of weights
# revision = "main"     # recorded in the manifest
# key = "model.state_dict"     # part of a PyTorch checkpoint; all = true keeps optimizers
# adapters = ["lora", {{ path = "style", scale = 0.5 }}]     # merged in this order; merge_precision = "peft"; combine = "ties:density=0.5"
# keep_names = true     # leave tensors' names and shapes as they are, whatever the format
# pre = "llama-bpe"     # name of the BPE pre-tokenizer, when it is not recognised

[release]
name = {name}
folder = "."            # where files are written
file = "{{name}}-{{variant}}.gguf"
# memory = "1GiB"       # bound on resident memory, plus a fixed 64 MiB
# threads = 8           # the default is one per core
# device = "cuda:0"     # where to encode; the default is the first CUDA device, or the processor
# device_memory = "2GiB"
# imatrix = "imatrix.gguf"     # used by every quantized variant; IQ1 and IQ2 recipes need one
# calibration = "calibration.safetensors"      # for search = "gptq" or "awq" of schemes; see docs/calibration.md
# damp_percent = 0.05   # how error feedback damps its Hessians; act_order = true takes columns by activity
# search = "best"       # a stronger search than ggml's in the same types; slower
# max_shard_size = "48GB"      # or max_shard_tensors = 100
# allow_loss = true     # go on where an output cannot hold everything that the source has
# measure = false       # do not measure errors
# verify = true         # read everything back and compare before it is published
# metadata = {{ "general.author" = "Jane" }}
# remove_metadata = ["general.basename"]

# A model card, README.md, from what is measured and what the source says. Also template (a file), relation, fields_file,
# fields: docs/cards.md.
# [card]
# title = "Llama 3.2 1B, quantized"
# repository = "me/Llama-3.2-1B-GGUF"      # where it will be published
# base_model = ["meta-llama/Llama-3.2-1B"]         # where the source's place does not tell
# quantized_by = "me"

# Nothing is published while a limit is broken (exit code 5).
# [limits]
# min_sqnr_db = 15.0                          # over all tensors of a variant
# tensors = {{ min_cosine = 0.98 }}             # each tensor
# roles.attn_v = {{ min_sqnr_db = 20.0 }}       # each tensor of a role; also max_rmse, max_abs

# When everything is complete, it is sent to the Hub: the variants, manifest, sums, report, README.md and LICENSE.
# Needs a token that may write (HF_TOKEN). Running the release again continues what was interrupted.
# [publish]
# repo = "org/name"
# create = true         # make the repository where there is none: private, unless
# visibility = "private"       # or "public"; of repositories that exist, it is left alone where this key is absent
# branch = "main"
# branch_per_variant = true    # each variant in a branch of its name, what they share in `branch`
# tag = "v1"            # name for the commit
# message = "First release"    # and description = "..."
# pull_request = true   # open one instead of committing to main
# include = ["*.txt"]   # more files of the folder; exclude = [...] leaves some out
# delete = ["old/*"]    # files of the repository that go

# All variants are made from one read of the source. Keys of a variant, besides those below: name, format
# (gguf, safetensors, pickle or onnx; all but gguf make folders with configuration and tokenizer), file, imatrix (a path,
# or false), calibration, damp_percent, act_order, search, types = {{ "REGEX" = "Q8_0" }}, roles = {{ attn_v = "Q8_0" }}, output_tensor_type,
# token_embedding_type, leave_output_tensor, pure, allow_requantize, max_shard_size, max_shard_tensors,
# metadata, remove_metadata, limits; of ONNX graphs graph (a file), rename_weights, opset, onnx_form (standard or genai), keep_io_types, external_data.
"#,
        path = quote(&source.to_string()),
        name = quote(&source.name()),
    );
    for variant in COMMON {
        let key = if matches!(target(variant), Target::Recipe(_)) { "quant" } else { "dtype" };
        let _ = write!(text, "\n[[variant]]\n{key} = \"{variant}\"\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_starter_is_a_release_file_also_with_its_comments_taken_out() {
        let text = starter(Path::new("/models/My \"odd\" Model"));
        let job = super::super::parse(&text, Path::new(".")).unwrap();
        assert_eq!((job.variants.len(), job.name.as_str()), (COMMON.len(), "My \"odd\" Model"));
        let is_key = |l: &str| {
            let word = |k: &str| k.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c));
            l.starts_with('[') || l.split_once(" = ").is_some_and(|(key, _)| word(key))
        };
        let open = text.lines().map(|l| l.strip_prefix("# ").filter(|l| is_key(l)).unwrap_or(l));
        let open: String = open.fold(String::new(), |all, l| all + l + "\n");
        let job =
            super::super::parse(&open.replace("measure = false", "measure = true"), Path::new(".")).unwrap();
        assert!(job.verify && job.variants[0].gate.len() == 3, "{open}");
    }
}

//! Checks of a planned model that need no weights: does the vocabulary fit the embedding, is the output tied.

use crate::report::Check;
use tensormill_model::{Kind, Model, Role};

/// The checks that apply to a model in GGUF form.
pub(super) fn of(model: &Model) -> Vec<Check> {
    let rows = |kind: Kind| {
        model.tensors.iter().find_map(|t| {
            let role = t.role.clone().or_else(|| Role::from_gguf_name(t.name()))?;
            let weight = role.kind == kind && t.name().ends_with(".weight");
            weight.then(|| t.spec.shape.rows())
        })
    };
    let mut checks = Vec::new();
    let embedding = rows(Kind::TokenEmbd);
    let tokens =
        model.metadata.get("tokenizer.ggml.tokens").and_then(|v| v.as_array()).map(|a| a.len() as u64);
    match (tokens, embedding) {
        (Some(tokens), Some(rows)) => checks.push(Check {
            name: "vocabulary",
            ok: tokens == rows,
            detail: format!("{tokens} tokens, {rows} embedding rows"),
        }),
        (None, Some(rows)) => checks.push(Check {
            name: "vocabulary",
            ok: false,
            detail: format!("no tokens in the metadata, {rows} embedding rows"),
        }),
        _ => {}
    }
    if let Some(embedding) = embedding {
        let (ok, detail) = match rows(Kind::Output) {
            None => (true, "the output uses the token embedding (tied)".to_owned()),
            Some(output) => (
                output == embedding,
                format!("an output tensor of its own, {output} rows against {embedding} of the embedding"),
            ),
        };
        checks.push(Check { name: "tied-embedding", ok, detail });
    }
    checks
}

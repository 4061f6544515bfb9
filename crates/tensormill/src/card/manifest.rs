//! A release's manifest as facts: what was made, how large it is, what was measured, and the command that makes it again.

use super::Provenance;
use crate::size::human;
use serde_json::Value as Json;
use tensormill_card::facts::{Facts, File, Numbers, Plot, Row, Source, Variant};
use tensormill_model::{Assets, Error, Result};
use tensormill_store::LocalDir;

/// Facts of a manifest; what the source's place tells counts where the manifest is silent.
pub(super) fn facts(m: &Json, provenance: &Provenance) -> Result<Facts> {
    let variants = m["variants"].as_array().filter(|v| m["manifest"] == 1 && !v.is_empty());
    let variants = variants.ok_or_else(|| {
        Error::unsupported("not a manifest of this version").hint("make the release again with this version")
    })?;
    let text = |v: &Json| v.as_str().map(str::to_owned);
    let s = &m["source"];
    let source = Source {
        name: text(&s["name"]).unwrap_or_default(),
        repository: text(&s["repository"]).or_else(|| provenance.repository.clone()),
        revision: text(&s["revision"]).or_else(|| provenance.revision.clone()),
        format: text(&s["format"]),
        fingerprint: text(&s["fingerprint"]),
        ..Source::default()
    };
    let mut facts = Facts {
        title: text(&m["name"]).unwrap_or_default(),
        tool: format!("tensormill {}", m["tensormill"].as_str().unwrap_or("(unknown version)")),
        verified: m["verified"] == true,
        adapters: m["adapters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|a| {
                let name = a["name"].as_str()?;
                Some(if a["scale"] == 1.0 { name.to_owned() } else { format!("{name} x {}", a["scale"]) })
            })
            .collect(),
        ..Facts::default()
    };
    let given = source_argument(&source);
    facts.variants = variants.iter().map(|v| variant(v, &given)).collect();
    if let Some(architecture) = text(&s["architecture"]).filter(|a| a != "unknown") {
        facts.model.rows.push(Row::new("architecture", architecture));
    }
    let parameters: Vec<u64> = variants.iter().filter_map(|v| v["parameters"].as_u64()).collect();
    if let Some(most) = parameters.iter().max().filter(|n| **n > 0) {
        facts.model.rows.push(Row::new("parameters", most));
    }
    facts.source = source;
    Ok(facts)
}

/// The source as a command names it.
fn source_argument(source: &Source) -> String {
    match (&source.repository, &source.revision) {
        (Some(id), Some(revision)) => format!("hf://{id}@{revision}"),
        (Some(id), None) => format!("hf://{id}"),
        (None, _) => source.name.clone(),
    }
}

fn variant(v: &Json, source: &str) -> Variant {
    let files: Vec<File> = v["files"].as_array().into_iter().flatten().map(file).collect();
    let bytes = files.iter().map(|f| f.bytes).sum();
    let format = files.iter().find_map(|f| format_of(&f.name)).unwrap_or_default();
    let (entry, is_folder) = entry(&files, format);
    let types = v["types"].as_object().into_iter().flatten();
    let types = types.map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ");
    let named = |key: &str| v[key]["name"].as_str().map(str::to_owned);
    let command = v["arguments"].as_array().map(|a| {
        let arguments = a.iter().filter_map(Json::as_str).map(quoted);
        let output = if is_folder { &entry } else { files.first().map_or(&entry, |f| &f.name) };
        let head =
            ["tensormill".to_owned(), "convert".to_owned(), quoted(source), "-o".to_owned(), quoted(output)];
        head.into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
    });
    Variant {
        name: v["name"].as_str().unwrap_or_default().to_owned(),
        target: v["target"].as_str().unwrap_or_default().to_owned(),
        format: format.to_owned(),
        entry,
        is_folder,
        bytes,
        size: human(bytes),
        files,
        bits_per_weight: v["bits_per_weight"].as_f64().filter(|b| *b > 0.0),
        types,
        // Only recipes and schemes look for scales.
        quantized: v["search"].is_string(),
        error: numbers(&v["error"]),
        advice: String::new(),
        importance: named("imatrix").or_else(|| named("calibration")),
        command,
    }
}

fn file(f: &Json) -> File {
    let name = f["name"].as_str().unwrap_or_default();
    made_file(name, f["bytes"].as_u64().unwrap_or_default(), f["sha256"].as_str())
}

/// A file as cards show it.
pub(super) fn made_file(name: &str, bytes: u64, sha256: Option<&str>) -> File {
    File { name: name.to_owned(), bytes, size: human(bytes), sha256: sha256.map(str::to_owned) }
}

fn numbers(e: &Json) -> Option<Numbers> {
    Some(Numbers {
        rmse: e["rmse"].as_f64()?,
        max_abs: e["max_abs"].as_f64()?,
        // Without a difference it is infinite, which JSON has not.
        sqnr_db: e["sqnr_db"].as_f64(),
        cosine: e["cosine"].as_f64().unwrap_or(1.0),
    })
}

/// The format that a file's name tells, of weights and graphs.
pub(super) fn format_of(name: &str) -> Option<&'static str> {
    let suffix = name.rsplit_once('.')?.1.to_ascii_lowercase();
    Some(match suffix.as_str() {
        "gguf" => "gguf",
        "safetensors" => "safetensors",
        "onnx" => "onnx",
        "pt" | "pth" | "bin" | "ckpt" => "pickle",
        _ => return None,
    })
}

/// What programs are given: the folder of a checkpoint, else the first file of weights.
fn entry(files: &[File], format: &str) -> (String, bool) {
    let weights = files.iter().find(|f| format_of(&f.name) == Some(format)).map_or("", |f| f.name.as_str());
    let folder = weights.rsplit_once('/').map(|(folder, _)| folder);
    match folder {
        Some(folder) if format == "safetensors" => (folder.to_owned(), true),
        _ => (weights.to_owned(), false),
    }
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@=,+%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// Names of all files of a manifest.
pub(super) fn file_names(m: &Json) -> Vec<String> {
    let files = m["variants"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|v| v["files"].as_array().into_iter().flatten());
    files.filter_map(|f| Some(f["name"].as_str()?.to_owned())).collect()
}

/// The plots among some files, those that say something of the model first; how a machine was doing is no part of a card.
pub(super) fn plots(names: &[String]) -> Vec<Plot> {
    let sizes = names.iter().filter(|n| n.ends_with("/size-vs-error.svg"));
    let size = sizes.map(|n| Plot { title: "Size against error".into(), file: n.clone() });
    let heat = names.iter().filter_map(|n| {
        let variant = n.rsplit('/').next()?.strip_prefix("error-")?.strip_suffix(".svg")?;
        Some(Plot { title: format!("Error by layer and role: {variant}"), file: n.clone() })
    });
    size.chain(heat).collect()
}

/// The plots of a release in its folder.
pub(super) fn plots_in(dir: &LocalDir, m: &Json) -> Vec<Plot> {
    let folder = format!("{}.report", m["name"].as_str().unwrap_or_default());
    let Ok(inner) = dir.resolve(&folder).and_then(LocalDir::open) else { return Vec::new() };
    let mut names: Vec<String> = inner.list().into_iter().map(|n| format!("{folder}/{n}")).collect();
    names.sort();
    plots(&names)
}

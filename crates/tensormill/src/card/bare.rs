//! The card of a folder that no release made: a checkpoint, an adapter, files of weights.

use super::{
    Options, Provenance, Written, finish, gguf,
    manifest::{format_of, made_file},
    usual_library,
};
use crate::{inspect::inspect, job::SUMS, size::human};
use std::collections::{BTreeMap, HashMap};
use tensormill_card::{
    facts::{Facts, File, Row, Variant},
    front::Known,
    gather::{Gathered, gather},
    privacy::Scrub,
};
use tensormill_gguf::SplitName;
use tensormill_model::{Assets, Error, Result};
use tensormill_store::LocalDir;

/// Says what is in the folder; sizes come from headers, hashes from a file of sums where there is one.
pub(super) fn card(
    dir: &LocalDir,
    source: Option<Gathered>,
    provenance: Provenance,
    options: &Options,
    scrub: &Scrub,
) -> Result<Written> {
    let own = gather(dir)?;
    let mut facts = Facts {
        title: Assets::name(dir).to_owned(),
        tool: format!("tensormill {}", env!("CARGO_PKG_VERSION")),
        ..Facts::default()
    };
    let mut notes = Vec::new();
    facts.variants = variants(dir, &mut facts.model.rows, &mut notes)?;
    if facts.variants.is_empty() && own.adapter.is_empty() && own.model.kind.is_none() {
        return Err(Error::usage("nothing here is a model or a release")
            .file(dir.path().display())
            .hint("a card is made of a folder that `tensormill release` wrote, or of one with weights or config.json"));
    }
    let is_checkpoint = own.model.kind.is_some() || !own.adapter.is_empty();
    let first = facts.variants.iter().find(|v| v.format == "gguf").map(|v| v.entry.clone());
    let mut gathered = match (source, first) {
        (Some(source), _) => source,
        (None, Some(file)) if !is_checkpoint => {
            let said = gguf::gather(&dir.resolve(&file)?)?.unwrap_or_default();
            Gathered {
                sections: own.sections,
                license_files: own.license_files,
                warnings: own.warnings,
                ..said
            }
        }
        (None, _) => Gathered { card: None, ..own.clone() },
    };
    // The folder's own card is this very card.
    if let Some(card) = own.card {
        let mut card = card;
        if let Some(other) = &gathered.card {
            card.add_missing(other);
        }
        gathered.card = Some(card);
    }
    gathered.warnings.extend(notes);
    let formats: Vec<String> = super::distinct(facts.variants.iter().map(|v| v.format.clone()));
    let base = match (&options.base_model, &provenance.repository) {
        (given, _) if !given.is_empty() => given.clone(),
        // The source of the files, where one was named.
        (_, Some(id)) => vec![id.clone()],
        _ if gathered.card.as_ref().is_some_and(|c| c.get("base_model").is_some()) => Vec::new(),
        _ => gathered.base.clone(),
    };
    let quantized = formats.iter().any(|f| f == "gguf") && !base.is_empty();
    let known = Known {
        library: match formats.as_slice() {
            [one] if one == "gguf" || one == "onnx" => Some(one.clone()),
            _ if gathered.card.as_ref().is_some_and(|c| c.get("library_name").is_some()) => None,
            _ => is_checkpoint.then(|| usual_library(&gathered).to_owned()),
        },
        base,
        relation: if quantized { Some("quantized".into()) } else { gathered.relation.map(str::to_owned) },
        formats: formats.into_iter().filter(|f| f != "pickle").collect(),
        ..Known::default()
    };
    facts.source.repository = provenance.repository;
    facts.source.revision = provenance.revision;
    finish(facts, gathered, known, options, scrub)
}

/// The folder's files of weights: one variant for each GGUF and ONNX file, one for a checkpoint's.
fn variants(dir: &LocalDir, rows: &mut Vec<Row>, notes: &mut Vec<String>) -> Result<Vec<Variant>> {
    let sums = sums(dir)?;
    let mut names: Vec<String> =
        dir.list().into_iter().filter(|n| format_of(n).is_some() && !n.starts_with('.')).collect();
    names.sort();
    // What training leaves for itself is no model.
    names.retain(|n| {
        !["optimizer", "scheduler", "training_args", "rng_state", "scaler"].iter().any(|w| n.starts_with(w))
    });
    let checkpoint = if names.iter().any(|n| n.ends_with(".safetensors")) { "safetensors" } else { "pickle" };
    let mut sets: BTreeMap<String, (String, &str, bool)> = BTreeMap::new();
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in names {
        let format = format_of(&name).unwrap_or_default();
        let (set, entry, folder) = match format {
            "gguf" => match SplitName::parse(&name) {
                Some(split) => {
                    let all = split.all();
                    let first = all.into_iter().next().unwrap_or_else(|| name.clone());
                    (first.clone(), first, false)
                }
                None => (name.clone(), name.clone(), false),
            },
            "onnx" => (name.clone(), name.clone(), false),
            // Where both are there, one is a copy of the other.
            f if f == checkpoint => (format!("/{f}"), ".".to_owned(), true),
            _ => continue,
        };
        sets.entry(set.clone()).or_insert((entry, format, folder));
        files.entry(set).or_default().push(name);
    }
    let mut out = Vec::new();
    for (set, (entry, format, is_folder)) in sets {
        let path = if is_folder { dir.path().to_owned() } else { dir.resolve(&entry)? };
        let files: Vec<File> = files[&set]
            .iter()
            .map(|name| {
                let bytes = std::fs::metadata(dir.path().join(name)).map_or(0, |m| m.len());
                made_file(name, bytes, sums.get(name).map(String::as_str))
            })
            .collect();
        let bytes = files.iter().map(|f| f.bytes).sum();
        let mut variant = Variant {
            name: entry
                .rsplit_once('.')
                .filter(|_| !is_folder)
                .map_or_else(|| format.to_owned(), |(stem, _)| stem.to_owned()),
            format: format.to_owned(),
            entry,
            is_folder,
            bytes,
            size: human(bytes),
            files,
            ..Variant::default()
        };
        match inspect(&path) {
            Ok(seen) => {
                if seen.parameters > 0 {
                    variant.bits_per_weight = Some(seen.bytes as f64 * 8.0 / seen.parameters as f64);
                    let row = Row::new("parameters", seen.parameters);
                    if rows.is_empty() {
                        rows.push(row);
                    }
                }
                let mut types: BTreeMap<&str, usize> = BTreeMap::new();
                for t in &seen.tensors {
                    *types.entry(&t.encoding).or_default() += 1;
                }
                let most = seen.tensors.iter().max_by_key(|t| t.bytes).map(|t| t.encoding.clone());
                variant.quantized = seen.quantized.is_some()
                    || most.as_deref().is_some_and(|t| {
                        !["F64", "F32", "F16", "BF16"].contains(&t.to_ascii_uppercase().as_str())
                    });
                variant.target = most.unwrap_or_default();
                variant.types = types.iter().map(|(t, n)| format!("{n} {t}")).collect::<Vec<_>>().join(", ");
            }
            Err(e) => notes.push(format!("the headers of {} were not read: {}", variant.entry, e.message())),
        }
        out.push(variant);
    }
    Ok(out)
}

/// What a file of sums beside the weights says.
fn sums(dir: &LocalDir) -> Result<HashMap<String, String>> {
    let text = dir.read(SUMS)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = |l: &str| {
        let (hash, name) = l.split_once("  ").or_else(|| l.split_once(" *"))?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then(|| (name.to_owned(), hash.to_owned()))
    };
    Ok(text.lines().filter_map(line).collect())
}

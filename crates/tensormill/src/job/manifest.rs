//! What stands beside the outputs and says what they are: `SHA256SUMS`, a manifest in JSON, a report in HTML and SVG, and
//! where it is asked for a model card.
//!
//! The manifest holds nothing that differs between two runs of one job (no times, no paths of a machine): equal outputs
//! have equal manifests.

use super::{
    Job, Planned, arguments,
    sink::{FileHash, hex},
};
use crate::{
    card,
    report::{DoneReport, VariantReport},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    path::{Path, PathBuf},
};
use tensormill_model::{Error, Result};
use tensormill_store::LocalDir;

/// Behind the run's name.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";

/// The sums of all files, as `sha256sum --check` reads them.
pub const SUMS: &str = "SHA256SUMS";

fn name(run: &str) -> String {
    format!("{run}{MANIFEST_SUFFIX}")
}

/// Names that must be free when a run begins, rather than when it ends.
pub(super) fn names(job: &Job) -> Vec<String> {
    let run = &job.name;
    let card = job.card.iter().map(|_| card::README.to_owned());
    [name(run), SUMS.to_owned(), crate::page::name(run)].into_iter().chain(card).collect()
}

/// Names and texts of the files.
pub(super) fn files(
    planned: &Planned,
    done: &DoneReport,
    hashes: &[Vec<Option<FileHash>>],
) -> Result<Vec<(String, String)>> {
    let fail = |e: serde_json::Error| Error::unsupported(format!("the manifest cannot be written: {e}"));
    let name = &planned.job.name;
    let data = manifest(planned, done, hashes)?;
    let manifest = serde_json::to_string_pretty(&data).map_err(fail)? + "\n";
    let mut sums = String::new();
    for (v, hashes) in planned.variants.iter().zip(hashes) {
        for (f, hash) in v.layout.files.iter().zip(hashes) {
            if let Some(hash) = hash {
                let _ = writeln!(sums, "{}  {}", hash.sha256, f.name);
            }
        }
    }
    let mut files = vec![(self::name(name), manifest), (SUMS.to_owned(), sums)];
    files.extend(crate::page::files(planned.job(), done));
    if let Some(options) = &planned.job.card {
        let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
        let written = card::of_run(&data, &planned.source, &names, &planned.job.folder, options)?;
        for note in &written.notes {
            tracing::warn!("{note}");
        }
        files.push((card::README.to_owned(), written.text));
    }
    Ok(files)
}

fn manifest(planned: &Planned, done: &DoneReport, hashes: &[Vec<Option<FileHash>>]) -> Result<Value> {
    let job = &done.plan.job;
    let provenance = card::Provenance::of(&planned.source.location);
    let mut imatrices = HashMap::new();
    let variants: Vec<Value> = (0..planned.variants.len())
        .map(|i| variant(planned, &done.plan.variants[i], i, &hashes[i], &mut imatrices))
        .collect::<Result<_>>()?;
    Ok(json!({
        "manifest": 1,
        "tensormill": env!("CARGO_PKG_VERSION"),
        "name": planned.job.name,
        "source": {
            "name": planned.source.name,
            "repository": provenance.repository,
            "revision": job.revision.clone().or(provenance.revision),
            "format": job.source_format,
            "architecture": job.architecture,
            "tensor_bytes": job.source_bytes,
            "fingerprint": fingerprint(planned)?,
        },
        "repositories": planned.job.access.reports(),
        "adapters": adapters(planned),
        "verified": done.run.verified,
        "variants": variants,
    }))
}

/// Names and scales; what they hold is part of the source's fingerprint.
fn adapters(planned: &Planned) -> Vec<Value> {
    planned.job.adapters.iter().map(|a| json!({ "name": a.at.last(), "scale": a.scale })).collect()
}

/// One variant. `imatrices` keeps the sums of matrices that several variants use.
fn variant(
    planned: &Planned,
    report: &VariantReport,
    i: usize,
    hashes: &[Option<FileHash>],
    imatrices: &mut HashMap<PathBuf, String>,
) -> Result<Value> {
    let v = &planned.job.variants[i];
    let layout = &planned.variants[i].layout;
    let files: Vec<Value> = layout
        .files
        .iter()
        .zip(hashes)
        .map(|(f, h)| json!({ "name": f.name, "bytes": f.len, "sha256": h.as_ref().map(|h| &h.sha256) }))
        .collect();
    let mut tensor_hashes = vec![None; report.tensors.len()];
    for (tensor, hash) in hashes.iter().flatten().flat_map(|h| &h.tensors) {
        tensor_hashes[*tensor] = Some(format!("{hash:016x}"));
    }
    // Tied tensors share bytes, and so their hash.
    let known: BTreeMap<_, _> =
        layout.places.iter().zip(&tensor_hashes).filter_map(|(p, h)| Some((*p, h.clone()?))).collect();
    for (place, hash) in layout.places.iter().zip(&mut tensor_hashes) {
        if hash.is_none() {
            *hash = known.get(place).cloned();
        }
    }
    let tensors: Vec<Value> = report
        .tensors
        .iter()
        .zip(tensor_hashes)
        .map(|(t, hash)| {
            json!({
                "name": t.name,
                "type": t.target_type,
                "source_type": t.source_type,
                "shape": t.shape,
                "bytes": t.bytes,
                "xxh3_64": hash,
                "error": t.error,
            })
        })
        .collect();
    let mut named = |path: &Path| {
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        if !imatrices.contains_key(path) {
            imatrices.insert(path.to_owned(), sha256_of(path)?);
        }
        Ok::<_, Error>(json!({ "name": name, "sha256": imatrices[path] }))
    };
    let imatrix = v.imatrix.as_deref().map(&mut named).transpose()?;
    let calibration = v.calibration.as_deref().map(&mut named).transpose()?;
    Ok(json!({
        "name": v.name,
        "target": report.target,
        "search": report.search,
        "arguments": arguments::of(&planned.job, v),
        "imatrix": imatrix,
        "calibration": calibration,
        "parameters": report.parameters,
        "bits_per_weight": report.bits_per_weight,
        "files": files,
        "types": report.types,
        "limits": (!v.gate.is_empty()).then_some(&v.gate),
        "error": report.error,
        "tensors": tensors,
    }))
}

fn fingerprint(planned: &Planned) -> Result<String> {
    Ok(format!("xxh3-64:{:016x}", planned.source.fingerprint()?))
}

/// Whether the manifest that stands in the folder is of this very job, and the files it names are there.
pub(super) fn tells(planned: &Planned) -> Result<bool> {
    let folder = &planned.job.folder;
    let name = name(&planned.job.name);
    if !folder.join(&name).is_file() {
        return Ok(false);
    }
    let text = tensormill_model::Assets::read(&LocalDir::open(folder)?, &name)?.unwrap_or_default();
    let Ok(manifest) = serde_json::from_slice::<Value>(&text) else { return Ok(false) };
    let version = manifest["tensormill"] == env!("CARGO_PKG_VERSION");
    let source = manifest["source"]["fingerprint"] == fingerprint(planned)?;
    let variants = manifest["variants"].as_array().map_or(&[][..], Vec::as_slice);
    let same = |(made, (planned, asked)): (&Value, (&super::PlannedVariant, &VariantReport))| {
        let files = made["files"].as_array().map_or(&[][..], Vec::as_slice);
        let types = asked.tensors.iter().map(|t| (t.name.as_str(), t.target_type.as_str()));
        let made_types = made["tensors"].as_array().into_iter().flatten();
        made["name"] == asked.name
            && made["target"] == asked.target
            && files.len() == planned.layout.files.len()
            && files.iter().zip(&planned.layout.files).all(|(made, f)| {
                let there = std::fs::metadata(folder.join(&f.name)).is_ok_and(|m| m.len() == f.len);
                made["name"] == f.name && made["bytes"] == f.len && there
            })
            && made_types
                .map(|t| (t["name"].as_str().unwrap_or(""), t["type"].as_str().unwrap_or("")))
                .eq(types)
    };
    let each = planned.variants.iter().zip(&planned.report.variants);
    Ok(version && source && variants.len() == planned.variants.len() && variants.iter().zip(each).all(same))
}

/// SHA-256 of a side file of the run.
fn sha256_of(path: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    use tensormill_model::Store;
    let file = tensormill_store::LocalFile::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < file.len() {
        let n = (file.len() - at).min(buffer.len() as u64) as usize;
        file.read_at(at, &mut buffer[..n])?;
        hash.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(hex(&hash.finalize()))
}

//! Model cards of releases and of folders: `tensormill card`, and the card that a release writes beside its files.
//!
//! Facts come from the release's manifest, which holds what the run measured, from the small files of its source, and from
//! what the user says; [`tensormill_card`] makes the text. What is private on this machine (folders, its name, tokens) is told
//! to that crate here and nowhere else.

mod bare;
mod fields;
mod gguf;
mod manifest;
mod private;
mod provenance;

pub use fields::{assignment, read_fields};
pub use tensormill_card::{
    DEFAULT_TEMPLATE, Template,
    check::{Finding, RULES, Severity, check, has_errors},
    known::RELATIONS,
};

pub(crate) use private::scrub;
pub(crate) use provenance::Provenance;

use crate::{Source, job::MANIFEST_SUFFIX, merge};
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};
use tensormill_card::{
    document::Card,
    facts::{Facts, Row, recommend},
    front::{Known, front},
    gather::{Gathered, gather, merge_recipe},
    privacy::Scrub,
    write,
    yaml::Tree,
};
use tensormill_model::{Assets, Error, MemoryAssets, Result, Store};
use tensormill_store::{Existing, LocalDir, LocalFile, OutputSet, Parts, refuse_existing};

/// The file that the Hub shows as the card.
pub const README: &str = "README.md";

/// Largest text that is read: templates, fields, manifests.
const MOST: u64 = 256 << 20;

/// What the user says about a card.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Template instead of the default.
    pub template: Option<Template>,
    /// Heading.
    pub title: Option<String>,
    /// Where it will be published, as `org/name`.
    pub repository: Option<String>,
    /// Hub ids of what the files were made from, where nothing tells them.
    pub base_model: Vec<String>,
    /// What they are to it.
    pub relation: Option<String>,
    /// Who made the files.
    pub quantized_by: Option<String>,
    /// Fields of the user's own; keys of the specification set the front matter, names of sections their text.
    pub fields: Map<String, Json>,
}

/// A card that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its text.
    pub text: String,
    /// What a user should see: files that were left aside, what is missing in the card.
    pub notes: Vec<String>,
}

/// The card of a folder: of a release with its manifest, or of any folder of weights. `source` is the folder that the files
/// were made from, where it is at hand.
///
/// # Errors
/// Folders that hold neither, files that cannot be read, templates that fail.
pub fn of_folder(folder: &Path, source: Option<&Path>, options: &Options) -> Result<Written> {
    let dir = LocalDir::open(folder)?;
    let scrub = scrub([folder].into_iter().chain(source));
    let gathered = source.map(gather_source).transpose()?;
    let provenance = source.map(|s| Provenance::of(&s.into())).unwrap_or_default();
    let Some(name) = manifest_name(&dir)? else {
        return bare::card(&dir, gathered, provenance, options, &scrub);
    };
    let text = dir.read(&name)?.unwrap_or_default();
    let manifest: Json = serde_json::from_slice(&text)
        .map_err(|e| Error::malformed(format!("not a manifest: {e}")).file(folder.join(&name).display()))?;
    let mut gathered = match gathered {
        Some(g) => g,
        None => made_files(folder, &manifest)?,
    };
    // What a card of ours says is said again; keys that somebody added stay.
    let mut notes = Vec::new();
    if let Some(bytes) = dir.read(README)? {
        match Card::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(known) => gathered.card.get_or_insert_default().add_missing(&known),
            Err(p) => notes.push(format!("{README}: left aside: line {}: {}", p.at.line, p.message)),
        }
    }
    let plots = manifest::plots_in(&dir, &manifest);
    let mut written = of_release(&manifest, gathered, &provenance, plots, options, &scrub)?;
    written.notes.extend(notes);
    Ok(written)
}

/// The card that a release writes: its manifest, its source's small files, and the names of its plots.
pub(crate) fn of_run(
    manifest: &Json,
    source: &Source,
    names: &[String],
    folder: &Path,
    options: &Options,
) -> Result<Written> {
    let (at, assets) = (&source.location, &source.model.assets);
    let gathered = match merge::recipe(at) {
        Some(path) => gather_recipe(path)?,
        None => gather(&**assets)?,
    };
    // A GGUF file has no files beside it: what it says of itself is in its metadata.
    let alone = gathered.card.is_none() && !assets.list().iter().any(|n| n == "config.json");
    let gathered = if alone && source.is_gguf() { gguf::of(&source.model.metadata) } else { gathered };
    let scrub = scrub([folder].into_iter().chain(at.local()));
    let plots = manifest::plots(names);
    of_release(manifest, gathered, &Provenance::of(at), plots, options, &scrub)
}

fn of_release(
    manifest: &Json,
    gathered: Gathered,
    provenance: &Provenance,
    plots: Vec<tensormill_card::facts::Plot>,
    options: &Options,
    scrub: &Scrub,
) -> Result<Written> {
    let mut facts = manifest::facts(manifest, provenance)?;
    facts.plots = plots;
    let lossless = facts.variants.iter().all(|v| v.error.is_some_and(|e| e.is_exact()));
    let formats = distinct(facts.variants.iter().map(|v| v.format.clone()));
    let quantized = facts.variants.iter().filter(|v| v.quantized);
    let mut known = Known {
        quantization: distinct(quantized.map(|v| v.target.clone())),
        formats,
        tags: vec!["tensormill".into()],
        library: library(&facts, &gathered),
        derived: !lossless,
        ..Known::default()
    };
    let merged = gathered.relation == Some("merge");
    known.base = match (&options.base_model, &facts.source.repository) {
        (given, _) if !given.is_empty() => given.clone(),
        _ if merged => gathered.base.clone(),
        (_, Some(repository)) => vec![repository.clone()],
        _ => Vec::new(),
    };
    let changed = !facts.adapters.is_empty();
    let relation = match () {
        () if merged => "merge",
        // A model with an adapter in it is what training made of its base.
        () if changed && known.quantization.is_empty() => "finetune",
        () => "quantized",
    };
    // To its own ancestors the source stands as its card says.
    known.relation = (!known.base.is_empty()).then(|| relation.to_owned());
    finish(facts, gathered, known, options, scrub)
}

/// What all cards have in common, from facts about files to text.
fn finish(
    mut facts: Facts,
    g: Gathered,
    mut known: Known,
    options: &Options,
    scrub: &Scrub,
) -> Result<Written> {
    let mut notes = g.warnings;
    known.pipeline = known.pipeline.or(g.pipeline.map(str::to_owned));
    known.quantized_by.clone_from(&options.quantized_by);
    if let Some(relation) = &options.relation {
        known.relation = Some(relation.clone());
    }
    facts.front = front(g.card.as_ref(), &known);
    facts.source.has_card = g.card.is_some();
    facts.source.license_files = g.license_files;
    let parameters = std::mem::take(&mut facts.model.rows);
    facts.model = g.model;
    facts.model.rows.splice(0..0, parameters);
    (facts.adapter, facts.training, facts.emissions) = (g.adapter, g.training, g.emissions);
    facts.merge = g.merge;
    facts.evaluation = g.evaluation.iter().map(|(name, value)| Row::new(name, value)).collect();
    // What the front matter says of these very files needs no second place.
    if known.derived {
        facts.reported = g.reported;
    }
    facts.sections = g.sections.into_iter().map(|(topic, s)| (topic.to_owned(), s)).collect();
    facts.repository.clone_from(&options.repository);
    if let Some(title) = &options.title {
        facts.title.clone_from(title);
    }
    fields::apply(&mut facts, &options.fields, &g.evaluation)?;
    recommend(&mut facts.variants);
    // A base without a relation is what the source's card says of its own.
    let related = ["base_model", "base_model_relation"].iter().all(|k| facts.front.get(k).is_some());
    if !related && facts.source.repository.is_none() && known.derived {
        notes.push("nothing tells the Hub id of the source: give it with --base-model".into());
    }
    let text = write(&facts, options.template.as_ref(), scrub)?;
    notes.extend(
        check(text.as_bytes()).into_iter().map(|f| format!("{README} line {}: {}", f.line, f.message)),
    );
    Ok(Written { text, notes })
}

/// The library that loads all files, where one does.
fn library(facts: &Facts, g: &Gathered) -> Option<String> {
    let all = |format: &str| facts.variants.iter().all(|v| v.format == format);
    if facts.variants.is_empty() {
        return None;
    }
    if all("gguf") {
        return Some("gguf".into());
    }
    if all("onnx") {
        return Some("onnx".into());
    }
    if facts.variants.iter().any(|v| v.target.starts_with("mlx")) && all("safetensors") {
        return Some("mlx".into());
    }
    let given = g.card.as_ref().is_some_and(|c| c.get("library_name").is_some());
    (!given && g.model.class.is_some()).then(|| usual_library(g).to_owned())
}

fn usual_library(g: &Gathered) -> &'static str {
    match () {
        () if !g.adapter.is_empty() => "peft",
        () if g.model.sentence_transformers => "sentence-transformers",
        () => "transformers",
    }
}

/// What the files beside a source say; a GGUF file says it itself.
fn gather_source(path: &Path) -> Result<Gathered> {
    if let Some(path) = merge::recipe(&path.into()) {
        return gather_recipe(path);
    }
    if path.is_dir() {
        return gather(&LocalDir::open(path)?);
    }
    match gguf::gather(path)? {
        Some(g) => Ok(g),
        None => match path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(folder) => gather(&LocalDir::open(folder)?),
            None => gather(&LocalDir::open(".")?),
        },
    }
}

/// What a merge recipe says of its models.
fn gather_recipe(path: &Path) -> Result<Gathered> {
    let text = read_text(path)?;
    let wrong = |what: String| Error::malformed(what).file(path.display());
    let tree = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml")) {
        let json: Json = toml::from_str(&text).map_err(|e| wrong(format!("not TOML: {}", e.message())))?;
        Tree::from_json(&json)
    } else {
        tensormill_card::yaml::parse_tree(&text)
            .map_err(|p| wrong(format!("line {}: {}", p.at.line, p.message)))?
            .root
    };
    let mut gathered = Gathered::default();
    merge_recipe(&tree, &mut gathered);
    Ok(gathered)
}

/// What the made files say of the model: the folder of a checkpoint, or a GGUF file's metadata.
fn made_files(folder: &Path, manifest: &Json) -> Result<Gathered> {
    let files = manifest::file_names(manifest);
    if let Some(config) = files.iter().find(|f| f.ends_with("config.json") && !f.ends_with("_config.json")) {
        let beside = folder.join(config);
        if let Some(dir) = beside.parent().filter(|d| d.is_dir()) {
            return gather(&LocalDir::open(dir)?);
        }
    }
    for file in &files {
        let path = folder.join(file);
        if path.is_file()
            && let Some(g) = gguf::gather(&path)?
        {
            return Ok(g);
        }
    }
    gather(&MemoryAssets::default())
}

/// The manifest in a folder; `None` where there is none.
fn manifest_name(dir: &LocalDir) -> Result<Option<String>> {
    let mut names: Vec<String> =
        dir.list().into_iter().filter(|n| n.ends_with(MANIFEST_SUFFIX) && !n.contains('/')).collect();
    names.sort();
    match names.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => Err(Error::usage(format!("several releases are here: {}", several.join(", ")))
            .file(dir.path().display())
            .hint("a card speaks of one release; give each a folder of its own")),
    }
}

/// Writes a card to a file, complete or not at all.
///
/// # Errors
/// Files that exist, unless they are to be replaced, and I/O errors.
pub fn save(path: &Path, text: &str, replace: bool) -> Result<()> {
    let existing = if replace { Existing::Replace } else { Existing::Refuse };
    refuse_existing(path, existing)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| Error::usage("the output must be a file name").file(path.display()))?;
    let mut set = OutputSet::open(folder, &[], existing, Parts::Fresh)?;
    set.add(&name, text.as_bytes())?;
    set.sync_data()?;
    set.commit()?;
    Ok(())
}

/// A template from a file.
///
/// # Errors
/// I/O errors, and files that are no text.
pub fn template(path: &Path) -> Result<Template> {
    Ok(Template { name: path.display().to_string(), text: read_text(path)? })
}

/// A whole file, for checking.
///
/// # Errors
/// I/O errors, and files larger than any card.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file = LocalFile::open(path)?;
    if file.len() > MOST {
        return Err(Error::over_limit("larger than any such file").file(path.display()));
    }
    let mut bytes = vec![0; file.len() as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|_| Error::malformed("not UTF-8 text").file(path.display()))
}

fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut out = Vec::new();
    for one in all.filter(|s| !s.is_empty()) {
        if !out.contains(&one) {
            out.push(one);
        }
    }
    out
}

/// Where a card goes when nothing is said.
pub fn usual_place(folder: &Path) -> PathBuf {
    folder.join(README)
}

//! Release files: which variants of one model to make, written down once.
//!
//! A release file is TOML ([`parse`] gives its shape); it becomes a [`Job`]. [`starter`] writes one for a source.

mod file;
mod starter;

pub use starter::starter;

use crate::{
    Gate, GraphOptions, Search,
    adapters::{Precision, Wanted},
    card,
    convert::{Target, check_quant},
    hub::push,
    job::{
        Job, USUAL_DAMPING, Variant,
        place::{self, Named},
    },
};
use file::{CardTable, File, LimitsTable, VariantTable};
use std::path::Path;
use tensormill_model::{Error, Format, Result, ShardLimits};
use tensormill_pickle::PickleOptions;
use tensormill_schemes::Damping;
use tensormill_store::LocalFile;
use tensormill_tensor::{DType, Encoding};
use toml::Spanned;

/// Largest release file that is read, in bytes.
const MOST: u64 = 4 << 20;

/// Names of the variants that are made when only a source is given.
pub const COMMON: &[&str] = &[
    "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q5_0", "Q5_1", "Q5_K_S",
    "Q5_K_M", "Q6_K", "Q8_0", "IQ3_S", "IQ3_M", "IQ4_XS", "IQ4_NL", "f16", "bf16",
];

/// Reads a release file. Paths in it are relative to its folder.
///
/// # Errors
/// `Usage` for what is not a release file, pointing at the line.
pub fn open(path: &Path) -> Result<Job> {
    parse(&read(path)?, folder_of(path)).map_err(|e| e.file(path.display()))
}

/// Where a release is published, by its file's `[publish]` table; `None` where there is none. `release` is its name.
///
/// # Errors
/// As [`open`].
pub fn publication(path: &Path, release: &str) -> Result<Option<push::Options>> {
    publish(&read(path)?, release).map_err(|e| e.file(path.display()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read(path: &Path) -> Result<String> {
    use tensormill_model::Store;
    let store = LocalFile::open(path)?;
    if store.len() > MOST {
        return Err(Error::over_limit("larger than any release file").file(path.display()));
    }
    let mut bytes = vec![0; store.len() as usize];
    store.read_at(0, &mut bytes)?;
    String::from_utf8(bytes)
        .map_err(|_| Error::usage("not a release file: not UTF-8 text").file(path.display()))
}

/// As `--threads` has it.
const MAX_THREADS: usize = 1024;

/// The job of a release file's text; `folder` is what its paths are relative to.
///
/// # Errors
/// `Usage`, pointing at the line.
pub fn parse(text: &str, folder: &Path) -> Result<Job> {
    let file = file_of(text)?;
    let r = &file.release;
    let mut source = file.source.path.clone().within(folder);
    if let Some(revision) = &file.source.revision {
        source = source.at_revision(revision)?;
    }
    let name = match &r.name {
        Some(name) => name.clone(),
        None => source.name(),
    };
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(
            Error::usage(format!("{name:?} cannot be part of file names")).hint("set `name` under [release]")
        );
    }
    let mut job = Job::new(source, folder.join(r.folder.as_deref().unwrap_or(Path::new("."))), name);
    job.revision.clone_from(&file.source.revision);
    job.pre.clone_from(&file.source.pre);
    job.part = PickleOptions { key: file.source.key.clone(), all: file.source.all };
    job.keep_names = file.source.keep_names;
    job.adapters = file.source.adapters.iter().map(|a| adapter(a, folder)).collect();
    if let Some(precision) = &file.source.merge_precision {
        job.merge.precision = match precision.as_ref().as_str() {
            "single" => Precision::Single,
            "peft" => Precision::Peft,
            other => {
                let e = Error::usage(format!("there is no merge precision {other:?}; it is single or peft"));
                return Err(at_line(text, precision, e));
            }
        };
    }
    if let Some(how) = &file.source.combine {
        let parsed = how.as_ref().parse().map_err(|e: String| at_line(text, how, Error::usage(e)))?;
        job.merge.combine = Some(parsed);
    }
    job.merge.allow_unused = file.source.allow_unused;
    job.allow_loss = r.allow_loss;
    job.memory = r.memory.map_or(job.memory, |m| m.0);
    if let Some(threads) = &r.threads {
        let n = threads.as_ref().get();
        if n > MAX_THREADS {
            let e = Error::usage(format!("{n} threads; at most {MAX_THREADS} are possible"));
            return Err(at_line(text, threads, e));
        }
        job.threads = Some(n);
    }
    if let Some(device) = &r.device {
        job.device = device.as_ref().parse().map_err(|e: String| at_line(text, device, Error::usage(e)))?;
    }
    job.device_memory = r.device_memory.map(|m| m.0);
    job.measure = r.measure.unwrap_or(true);
    job.verify = r.verify.unwrap_or(false);
    job.manifest = true;
    job.card = file.card.as_ref().map(|c| card(c, text, folder)).transpose()?;
    job.create_folder = true;
    job.again = file.publish.is_some();
    for table in &file.variants {
        let v = variant(table, &file, &job.name, text, folder)?;
        job.variants.push(v);
    }
    let bounded = job.variants.iter().any(|v| !v.gate.is_empty());
    if bounded && !job.measure {
        return Err(Error::usage("limits need errors to be measured").hint("remove `measure = false`"));
    }
    for (i, v) in job.variants.iter().enumerate() {
        if job.variants[..i].iter().any(|other| other.name == v.name) {
            return Err(Error::usage(format!("two variants are called {}", v.name))
                .hint("give one of them a `name` of its own"));
        }
    }
    Ok(job)
}

fn file_of(text: &str) -> Result<File> {
    toml::from_str(text).map_err(|e| {
        Error::usage(format!("not a release file: {}", e.to_string().trim_end()))
            .hint("`tensormill release --init SRC` writes one with every key explained")
    })
}

fn publish(text: &str, release: &str) -> Result<Option<push::Options>> {
    let Some(p) = file_of(text)?.publish else { return Ok(None) };
    let visibility = match p.visibility.as_ref().map(|v| (v, v.as_ref().as_str())) {
        None => None,
        Some((_, "private")) => Some(push::Visibility::Private),
        Some((_, "public")) => Some(push::Visibility::Public),
        Some((v, other)) => {
            let e = Error::usage(format!("there is no visibility {other:?}; it is private or public"));
            return Err(at_line(text, v, e));
        }
    };
    Ok(Some(push::Options {
        repo: p.repo,
        branch: p.branch,
        create: p.create,
        visibility,
        tag: p.tag,
        message: p.message,
        description: p.description,
        pull_request: p.pull_request,
        include: Vec::new(),
        more: p.include,
        exclude: p.exclude,
        delete: p.delete,
        branch_per_variant: p.branch_per_variant,
        release: Some(release.to_owned()),
        ..push::Options::default()
    }))
}

/// What `[card]` says.
fn card(c: &CardTable, text: &str, folder: &Path) -> Result<card::Options> {
    if let Some(relation) = c.relation.as_ref().filter(|r| !card::RELATIONS.contains(&r.as_ref().as_str())) {
        let e = Error::usage(format!("there is no relation {:?}", relation.as_ref()));
        return Err(at_line(text, relation, e.hint(card::RELATIONS.join(", "))));
    }
    let mut fields = match &c.fields_file {
        Some(path) => card::read_fields(&folder.join(path))?,
        None => serde_json::Map::new(),
    };
    fields.extend(c.fields.clone());
    Ok(card::Options {
        template: c.template.as_deref().map(|t| card::template(&folder.join(t))).transpose()?,
        title: c.title.clone(),
        repository: c.repository.clone(),
        base_model: c.base_model.clone(),
        relation: c.relation.as_ref().map(|r| r.as_ref().clone()),
        quantized_by: c.quantized_by.clone(),
        fields,
    })
}

/// The name of a variant's file, from a pattern with `{name}` and `{variant}`.
pub fn file_name(pattern: &str, name: &str, variant: &str) -> String {
    pattern.replace("{name}", name).replace("{variant}", variant)
}

/// The pattern when none is given.
pub const PATTERN: &str = "{name}-{variant}.gguf";

/// The same for variants that are folders.
const FOLDER_PATTERN: &str = "{name}-{variant}";

/// What people call a variant: recipes in capital letters, schemes in small ones.
fn label_of(quant: &str) -> String {
    tensormill_schemes::scheme(quant).map_or_else(|| quant.to_uppercase(), |s| s.name.to_owned())
}

/// The variant that a recipe or scheme makes of the model `name`, with its usual name and place.
pub fn usual_variant(quant: &str, name: &str) -> Variant {
    let label = label_of(quant);
    let target = Target::Recipe(quant.to_owned());
    let folder = tensormill_schemes::scheme(quant)
        .and_then(|s| place::format_called(s.format()).ok()?.info().folder_name);
    match folder {
        None => Variant::new(label.clone(), file_name(PATTERN, name, &label), target),
        Some(weights) => {
            let folder = file_name(FOLDER_PATTERN, name, &label);
            Variant { side_files: true, ..Variant::new(label, format!("{folder}/{weights}"), target) }
        }
    }
}

/// What a variant's name asks for: a recipe, or `f32`, `f16`, `bf16`.
pub fn target(text: &str) -> Target {
    match Encoding::parse(text) {
        Some(Encoding::Plain(d @ (DType::F32 | DType::F16 | DType::BF16))) => Target::Dtype(d),
        _ => Target::Recipe(text.to_owned()),
    }
}

/// An error about a value, with its line.
fn at_line<T>(text: &str, value: &Spanned<T>, e: Error) -> Error {
    let line = text.get(..value.span().start).map_or(0, |before| before.matches('\n').count()) + 1;
    e.context(format!("line {line}"))
}

fn variant(v: &VariantTable, file: &File, name: &str, text: &str, folder: &Path) -> Result<Variant> {
    let at = |path: &Path| folder.join(path);
    let r = &file.release;
    let (goal, label) = match (&v.quant, &v.dtype) {
        (Some(quant), None) => {
            check_quant(quant.as_ref()).map_err(|e| at_line(text, quant, e))?;
            (Target::Recipe(quant.as_ref().clone()), label_of(quant.as_ref()))
        }
        (None, Some(dtype)) => {
            let goal = target(dtype.as_ref());
            if !matches!(goal, Target::Dtype(_)) {
                let e = Error::usage(format!("{:?} is not f32, f16 or bf16", dtype.as_ref()))
                    .hint("block types are asked for with `quant`");
                return Err(at_line(text, dtype, e));
            }
            (goal, dtype.as_ref().to_uppercase())
        }
        (None, None) => (Target::Lossless, "lossless".to_owned()),
        (Some(quant), Some(_)) => {
            return Err(at_line(
                text,
                quant,
                Error::usage("a variant has either `quant` or `dtype`, not both"),
            ));
        }
    };
    let quantizes = matches!(goal, Target::Recipe(_));
    let format = v.format.as_ref().or(r.format.as_ref());
    let mut format =
        format.map(|f| place::format_called(f.as_ref()).map_err(|e| at_line(text, f, e))).transpose()?;
    let scheme = v.quant.as_ref().and_then(|q| tensormill_schemes::scheme(q.as_ref()));
    if let (None, Some(scheme)) = (format, scheme) {
        format = Some(place::format_called(scheme.format())?);
    }
    let info = format.map(Format::info).filter(|i| i.folder_name.is_some());
    // The same type in another format is another variant.
    let label = match (&v.name, info) {
        (Some(name), _) => name.clone(),
        // A scheme's name says it already.
        (None, Some(i)) if scheme.is_none_or(|s| s.format() != i.id) => format!("{label}-{}", i.id),
        (None, _) => label,
    };
    let usual = if info.is_some() { FOLDER_PATTERN } else { PATTERN };
    let pattern = v.file.as_deref().or(r.file.as_deref()).unwrap_or(usual);
    let mut out = file_name(pattern, name, &label);
    let mut side_files = false;
    if let Some(format) = format {
        let named = place::named(&out, format.info(), false).map_err(|e| {
            e.context(format!("variant {label}, file {out:?}"))
                .also_hint("give the variant a `file` of its own")
        })?;
        if let Named::Folder(weights) = named {
            out = place::of_type(&format!("{}/{weights}", out.trim_end_matches('/')), &goal);
            side_files = true;
        }
    }
    let parts: Vec<&str> = out.split('/').collect();
    if parts.iter().any(|p| p.is_empty() || *p == "." || *p == "..") {
        return Err(Error::usage(format!(
            "variant {label}: {out:?} is not a file name inside the release's folder"
        )));
    }
    let imatrix = match &v.imatrix {
        Some(file::Imatrix::Use(false)) => None,
        Some(file::Imatrix::Path(p)) => Some(at(p)),
        Some(file::Imatrix::Use(true)) | None => r.imatrix.as_deref().map(at),
    };
    let calibration = v.calibration.as_deref().or(r.calibration.as_deref()).map(at);
    let part = match v.damp_percent.as_ref().or(r.damp_percent.as_ref()) {
        None => USUAL_DAMPING.part,
        Some(p) if *p.as_ref() > 0.0 && *p.as_ref() < 1.0 => *p.as_ref(),
        Some(p) => {
            let e = Error::usage(format!("a damping of {}; it is a part of one, such as 0.05", p.as_ref()));
            return Err(at_line(text, p, e));
        }
    };
    let by_activity = v.act_order.or(r.act_order).unwrap_or(USUAL_DAMPING.by_activity);
    let search = match v.search.as_ref().or(r.search.as_ref()) {
        None => Search::default(),
        Some(s) => s.as_ref().parse().map_err(|e: String| at_line(text, s, Error::usage(e)))?,
    };
    let contrib = match v.onnx_form.as_ref().map(|f| (f, f.as_ref().as_str())) {
        None | Some((_, "standard")) => false,
        Some((_, "genai")) => true,
        Some((f, other)) => {
            let e = Error::usage(format!("there is no form {other:?}; it is standard or genai"));
            return Err(at_line(text, f, e));
        }
    };
    let metadata = r.metadata.iter().chain(&v.metadata).map(|(k, v)| format!("{k}={v}")).collect();
    Ok(Variant {
        imatrix: imatrix.filter(|_| quantizes),
        calibration: calibration.filter(|_| quantizes && (search.is_calibrated() || v.calibration.is_some())),
        damping: Damping { part, by_activity },
        search,
        tensor_types: v.types.iter().map(|(regex, t)| format!("{regex}={t}")).collect(),
        role_types: v.roles.iter().map(|(role, t)| (role.clone(), t.clone())).collect(),
        output_tensor_type: v.output_tensor_type.clone(),
        token_embedding_type: v.token_embedding_type.clone(),
        leave_output_tensor: v.leave_output_tensor,
        pure: v.pure,
        allow_requantize: v.allow_requantize,
        shards: ShardLimits {
            bytes: v.max_shard_size.or(r.max_shard_size).map(|s| s.0),
            tensors: v.max_shard_tensors.or(r.max_shard_tensors),
        },
        remove_metadata: r.remove_metadata.iter().chain(&v.remove_metadata).cloned().collect(),
        metadata,
        side_files,
        onnx: GraphOptions {
            template: v.graph.clone().map(|g| g.within(folder)),
            rename: v.rename_weights,
            opset: v.opset,
            keep_io_types: v.keep_io_types,
            external: v.external_data,
            contrib,
        },
        gate: gate(v.limits.as_ref().or(file.limits.as_ref())),
        ..Variant::new(label, out, goal)
    })
}

fn adapter(a: &file::Adapter, folder: &Path) -> Wanted {
    let (path, scale) = match a {
        file::Adapter::Path(path) => (path, 1.0),
        file::Adapter::Scaled { path, scale } => (path, *scale),
    };
    Wanted { at: path.clone().within(folder), scale }
}

fn gate(limits: Option<&LimitsTable>) -> Gate {
    limits.map_or_else(Gate::default, |l| Gate {
        total: l.total(),
        tensors: l.tensors.unwrap_or_default(),
        roles: l.roles.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Choice;

    const TEXT: &str = r#"
[source]
path = "model"
revision = "abc"
[release]
name = "Demo"
folder = "/out"
memory = "512MiB"
device = "cuda:1"
device_memory = "2GiB"
imatrix = "im.gguf"
file = "{name}.{variant}.gguf"
metadata = { "general.author" = "Jane" }
[limits]
min_sqnr_db = 10.0
roles.attn_v = { max_rmse = 0.1 }
[[variant]]
quant = "q4_k_m"
roles = { attn_v = "Q8_0" }
types = { 'blk\.0\.' = "F16" }
max_shard_size = "2GB"
[[variant]]
quant = "Q8_0"
name = "Q8"
imatrix = false
limits = { max_rmse = 0.01 }
[[variant]]
dtype = "bf16"
file = "sub/{name}.gguf"
"#;

    #[test]
    fn a_release_file_becomes_a_job() {
        let job = parse(TEXT, Path::new("/base")).unwrap();
        assert_eq!((job.source.to_string().as_str(), job.folder.to_str()), ("/base/model", Some("/out")));
        assert_eq!((job.memory, job.revision.as_deref(), job.manifest), (512 << 20, Some("abc"), true));
        assert_eq!((job.device, job.device_memory), (Choice::Cuda(1), Some(2 << 30)));
        let [a, b, c] = job.variants.as_slice() else { panic!("three variants") };
        assert_eq!((a.name.as_str(), a.file.as_str()), ("Q4_K_M", "Demo.Q4_K_M.gguf"));
        assert_eq!(a.imatrix.as_deref(), Some(Path::new("/base/im.gguf")));
        assert_eq!(a.role_types, [("attn_v".to_owned(), "Q8_0".to_owned())]);
        assert_eq!((a.tensor_types[0].as_str(), a.shards.bytes), (r"blk\.0\.=F16", Some(2_000_000_000)));
        assert_eq!((a.gate.total.min_sqnr_db, a.gate.roles["attn_v"].max_rmse), (Some(10.0), Some(0.1)));
        assert_eq!(a.metadata, ["general.author=Jane"]);
        assert_eq!((b.name.as_str(), &b.imatrix, b.gate.total.max_rmse), ("Q8", &None, Some(0.01)));
        assert_eq!((c.file.as_str(), &c.target), ("sub/Demo.gguf", &Target::Dtype(DType::BF16)));
    }

    #[test]
    fn calibration_goes_where_it_is_wanted() {
        let text = "[source]\npath = \"m\"\n[release]\ncalibration = \"c.safetensors\"\ndamp_percent = 0.1\n\
                    [[variant]]\nquant = \"int4-g128\"\nsearch = \"gptq\"\nact_order = true\n\
                    [[variant]]\nquant = \"Q8_0\"\n[[variant]]\nquant = \"int8\"\ncalibration = \"own.safetensors\"\n";
        let job = parse(text, Path::new("/base")).unwrap();
        let [a, b, c] = job.variants.as_slice() else { panic!("three variants") };
        assert_eq!(
            (a.search, a.calibration.as_deref()),
            (Search::Gptq, Some(Path::new("/base/c.safetensors")))
        );
        assert_eq!(a.damping, Damping { part: 0.1, by_activity: true });
        assert_eq!((&b.calibration, b.damping.by_activity), (&None, false));
        assert_eq!(c.calibration.as_deref(), Some(Path::new("/base/own.safetensors")));
    }

    #[test]
    fn errors_point_at_the_line() {
        let refuse = |text: &str, line: usize, what: &str| {
            let e = parse(text, Path::new(".")).unwrap_err().to_string();
            assert!(e.contains(&format!("line {line}")) && e.contains(what), "{e}");
        };
        let head = "[source]\npath = \"m\"\n";
        refuse(&format!("{head}[[variant]]\nquant = \"Q4_Z\"\n"), 4, "Q4_Z");
        refuse(&format!("{head}[[variant]]\nquants = \"Q4_0\"\n"), 4, "quants");
        refuse(&format!("{head}[release]\nmemory = \"lots\"\n[[variant]]\n"), 4, "lots");
        refuse(&format!("{head}[[variant]]\ndtype = \"q8_0\"\n"), 4, "q8_0");
        refuse(&format!("{head}[[variant]]\nquant = \"Q8_0\"\nsearch = \"worst\"\n"), 5, "worst");
        refuse(&format!("{head}[release]\ndamp_percent = 5\n[[variant]]\n"), 4, "damping");
        refuse(&format!("{head}[release]\ndevice = \"gpu\"\n[[variant]]\n"), 4, "gpu");
        refuse(&format!("{head}[release]\nthreads = 4611686018427387904\n[[variant]]\n"), 4, "at most 1024");
        refuse("[source]\nrevision = \"x\"\n", 1, "path");
        for (text, what) in [
            (format!("{head}[[variant]]\nquant = \"Q8_0\"\n[[variant]]\nquant = \"Q8_0\"\n"), "two variants"),
            (format!("{head}[[variant]]\nquant = \"Q8_0\"\nfile = \"../x.gguf\"\n"), "not a file name"),
            (
                format!("{head}[release]\nmeasure = false\n[limits]\nmax_rmse = 1.0\n[[variant]]\n"),
                "measured",
            ),
        ] {
            let e = parse(&text, Path::new(".")).unwrap_err().to_string();
            assert!(e.contains(what), "{e}");
        }
    }
}

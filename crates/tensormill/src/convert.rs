//! One conversion: a job with one variant.

use crate::job::{
    self, Job, Planned, Variant,
    place::{self, Named},
};
use crate::{
    Location,
    report::{ConvertPlan, ConvertReport},
};
use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};
use tensormill_engine::Progress;
use tensormill_model::{Error, Result};
use tensormill_tensor::DType;

/// What the output's tensors should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The plain type that loses nothing of the source; a GGUF source stays as it is.
    Lossless,
    /// F32, F16 or BF16.
    Dtype(DType),
    /// A quantization recipe by name.
    Recipe(String),
}

/// Everything a user can say about one conversion.
#[derive(Clone, Debug)]
pub struct Request {
    /// The run; its variants, folder and name come from the two below.
    pub job: Job,
    /// What to make; its name and file come from the output.
    pub variant: Variant,
    /// File to write, or with [`Self::to`] the folder of a checkpoint.
    pub output: PathBuf,
    /// Format to write, where the output's name does not say it: `safetensors`, `gguf`.
    pub to: Option<String>,
}

impl Request {
    /// A request with the defaults of the command line.
    pub fn new(source: impl Into<Location>, output: impl Into<PathBuf>, target: Target) -> Self {
        Self {
            job: Job::new(source, "", ""),
            variant: Variant::new("", "", target),
            output: output.into(),
            to: None,
        }
    }
}

/// A planned conversion: sizes, types and memory are known, nothing of the weights is read, nothing written.
pub struct Conversion {
    planned: Planned,
    report: ConvertPlan,
}

/// Opens the source and plans.
///
/// # Errors
/// Everything that can be known to be wrong before weights are read.
pub fn plan(request: &Request) -> Result<Conversion> {
    plan_by(request, job::plan)
}

/// Plans by another function than [`job::plan`], which makes the source itself.
pub(crate) fn plan_by(request: &Request, plan: impl FnOnce(Job) -> Result<Planned>) -> Result<Conversion> {
    if let Target::Recipe(name) = &request.variant.target {
        check_quant(name)?;
    }
    let to = request.to.as_deref().or_else(|| usual_format(&request.variant.target, &request.output));
    let (folder, mut file, whole_folder) = split_output(&request.output, to)?;
    if whole_folder {
        file = place::of_type(&file, &request.variant.target);
    }
    let variant = Variant {
        name: file.clone(),
        file: file.clone(),
        side_files: whole_folder,
        ..request.variant.clone()
    };
    let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
    let planned = plan(Job {
        name,
        folder,
        create_folder: whole_folder,
        variants: vec![variant],
        ..request.job.clone()
    })?;
    let report = planned.report();
    let [variant] = report.variants.as_slice() else {
        return Err(Error::usage("one variant was planned"));
    };
    let report = ConvertPlan { job: report.job.clone(), variant: variant.clone() };
    Ok(Conversion { planned, report })
}

impl Conversion {
    /// What will be done.
    pub fn report(&self) -> &ConvertPlan {
        &self.report
    }

    /// Reads, converts and writes. Files appear under their final names only when all of them are complete.
    ///
    /// # Errors
    /// As [`Planned::run`].
    pub fn run(self, progress: &dyn Progress, cancel: &AtomicBool) -> Result<ConvertReport> {
        let done = self.planned.run(progress, cancel)?;
        let mut plan = self.report;
        if let Some(variant) = done.plan.variants.into_iter().next() {
            plan.variant = variant;
        }
        Ok(ConvertReport { plan, run: done.run })
    }
}

/// Whether a path's suffix says which format a file is to have.
pub fn names_a_format(path: &Path) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| place::format_of(n).is_ok())
}

/// That there is a recipe or scheme of this name.
pub(crate) fn check_quant(name: &str) -> Result<()> {
    let known = tensormill_schemes::scheme(name).is_some() || tensormill_transforms::recipe(name).is_some();
    if known { Ok(()) } else { Err(unknown_quant(name)) }
}

/// That a name is none of a recipe or scheme, with those that begin most like it.
pub(crate) fn unknown_quant(name: &str) -> Error {
    let plain = |s: &str| -> Vec<u8> {
        s.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase()).collect()
    };
    let wanted = plain(name);
    let shared = |known: &str| plain(known).iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    let recipes = tensormill_transforms::recipes().iter().map(|r| r.name);
    let known: Vec<&str> = recipes.chain(tensormill_schemes::schemes().iter().map(|s| s.name)).collect();
    let most = known.iter().map(|k| shared(k)).max().unwrap_or(0);
    // One letter in common says nothing.
    let like: Vec<&str> = known.into_iter().filter(|k| most > 1 && shared(k) == most).take(8).collect();
    let hint = match like.as_slice() {
        [] => String::new(),
        like => format!("perhaps {}; ", like.join(", ")),
    };
    Error::usage(format!("there is no recipe or scheme {name:?}"))
        .hint(format!("{hint}`tensormill list recipes` and `tensormill list schemes` show them"))
}

/// The format of a target that is a scheme of checkpoints, where the output's name says nothing.
fn usual_format(target: &Target, output: &Path) -> Option<&'static str> {
    let Target::Recipe(name) = target else { return None };
    let scheme = tensormill_schemes::scheme(name)?;
    (!names_a_format(output)).then(|| scheme.format())
}

/// Folder and file name of an output, and whether the folder is the output: a checkpoint with the files beside it.
fn split_output(path: &Path, to: Option<&str>) -> Result<(PathBuf, String, bool)> {
    let name = path.file_name().and_then(|n| n.to_str());
    if let Some(to) = to {
        let format = place::format_called(to)?;
        let named = place::named(name.unwrap_or_default(), format.info(), path.is_dir());
        if let Named::Folder(file) = named.map_err(|e| e.file(path.display()))? {
            return Ok((path.to_owned(), file.to_owned(), true));
        }
    }
    match name {
        Some(name) if !path.is_dir() => {
            let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok((dir.to_owned(), name.to_owned(), false))
        }
        _ => Err(Error::usage("the output must be a file name")
            .file(path.display())
            .hint("for example -o model.Q4_K_M.gguf, or -o FOLDER --to safetensors")),
    }
}

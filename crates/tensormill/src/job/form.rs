//! From the source's model to a variant's: the form of its format once, then dtype, recipe and metadata for each.

use super::{
    Job, Variant,
    checkpoint::{self, Checkpoint, Remarks, SideFile},
    kept, onnx,
    scheme::Asked,
};
use crate::{
    Source,
    convert::{Target, unknown_quant},
    hf::{self, HfOptions},
    metadata_edits,
    onnx::Wanted,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tensormill_model::{Error, Format, Limits, Model, Result, Store, Transform};
use tensormill_schemes::{Calibration, kept_note};
use tensormill_store::LocalFile;
use tensormill_tensor::{DType, Encoding};
use tensormill_transforms::{
    self as transforms, ConvertDtype, Importance, Quantize, QuantizeOp, QuantizeOptions, Recipe, TensorType,
};

/// A variant's model.
pub(super) struct Formed {
    pub model: Model,
    /// The files beside it.
    pub side: Vec<SideFile>,
    /// The name of what it is.
    pub target: String,
    /// Weights that its tensors stand for.
    pub parameters: u64,
}

impl Formed {
    /// Of a model each of whose tensors holds weights.
    pub(super) fn plain(model: Model, side: Vec<SideFile>, target: String) -> Self {
        let parameters = model.parameters();
        Self { model, side, target, parameters }
    }
}

/// The source in the forms that are asked for, and what variants share.
pub(super) struct Forms<'a> {
    source: &'a Source,
    pre: Option<&'a str>,
    /// Whether names and shapes stay what they are in the source.
    keep_names: bool,
    /// Whether weights are the source's own: nothing was merged into them.
    keeps_codes: bool,
    /// Whether the source is in GGUF form already, or passes for it.
    native: bool,
    lossless: transforms::Target,
    gguf: Option<Model>,
    checkpoint: Option<Checkpoint>,
    importance: HashMap<PathBuf, Arc<Importance>>,
    calibration: HashMap<PathBuf, Arc<Calibration>>,
    /// Source tensors that the GGUF form has no place for.
    pub unmapped: Vec<String>,
    /// What checkpoints lack, and what should be said.
    pub remarks: Remarks,
}

impl<'a> Forms<'a> {
    /// Makes no form yet.
    pub(super) fn new(source: &'a Source, job: &'a Job) -> Self {
        Self {
            source,
            pre: job.pre.as_deref(),
            keep_names: job.keep_names,
            keeps_codes: job.adapters.is_empty(),
            native: source.is_gguf() || job.keep_names,
            lossless: transforms::Target::lossless(source.model.tensors.iter().map(|t| &t.spec)),
            gguf: None,
            checkpoint: None,
            importance: HashMap::new(),
            calibration: HashMap::new(),
            unmapped: Vec::new(),
            remarks: Remarks::default(),
        }
    }

    /// The model in GGUF form, where a variant asked for it.
    pub(super) fn gguf(&self) -> Option<&Model> {
        self.gguf.as_ref()
    }

    fn take_gguf(&mut self) -> Result<Model> {
        if let Some(made) = &self.gguf {
            return Ok(made.clone());
        }
        let mut model = self.source.model.clone();
        let made = if self.native {
            if !self.source.is_gguf() {
                checkpoint::as_typed(&mut model.metadata);
            }
            tensormill_arch::roles_for_gguf(model)
        } else {
            let options = HfOptions { file_type: self.lossless.file_type(), pre: self.pre };
            let (made, unmapped) = hf::to_gguf_form(model, &options, &mut self.remarks.notes)?;
            self.unmapped = unmapped;
            made
        };
        Ok(self.gguf.insert(made).clone())
    }

    /// The model of a variant, the files beside it, and the name of what it is.
    pub(super) fn variant(&mut self, v: &Variant, format: &dyn Format) -> Result<Formed> {
        if format.info().id != crate::formats::ONNX.info().id {
            v.onnx.refuse(format.info().id)?;
        }
        let mut made = if format.info().id == crate::formats::GGUF.info().id {
            self.remarks.graph_is_lost(&self.source.model);
            let (model, name) = self.gguf_variant(v)?;
            Formed::plain(model, Vec::new(), name)
        } else {
            self.checkpoint_variant(v, format)?
        };
        metadata_edits::apply(&mut made.model.metadata, &v.remove_metadata, &v.metadata)?;
        Ok(made)
    }

    fn checkpoint_variant(&mut self, v: &Variant, format: &dyn Format) -> Result<Formed> {
        let scheme = match &v.target {
            Target::Recipe(name) => tensormill_schemes::scheme(name),
            _ => None,
        };
        let dtype = match &v.target {
            Target::Recipe(_) if scheme.is_some() => None,
            Target::Recipe(name) => {
                return Err(Error::usage(format!(
                    "{name} is a recipe for GGUF files; {} holds no such blocks",
                    format.info().id
                ))
                .hint("leave --quant out, or end the output's name in .gguf"));
            }
            Target::Dtype(d) => {
                plain_target(*d)?;
                Some(*d)
            }
            Target::Lossless => None,
        };
        let onnx_file = format.info().id == crate::formats::ONNX.info().id;
        // What is to stay as it is keeps its codes. Those of a graph mean nothing without it.
        let as_packed = self.source.packed.as_ref().filter(|packed| {
            self.keeps_codes && v.target == Target::Lossless && packed.program.is_some() == onnx_file
        });
        if let Some(packed) = as_packed {
            let checkpoint = Checkpoint::of(self.source, packed, self.keep_names, &mut self.remarks)?;
            let notes = &mut self.remarks.notes;
            let made = if onnx_file {
                onnx::variant(self.source, &checkpoint, v, None, None, self.keep_names, notes)?
            } else {
                let (model, side, target) = checkpoint.variant(None, format, notes)?;
                Formed::plain(model, side, target)
            };
            return Ok(Formed { parameters: self.source.model.parameters(), ..made });
        }
        if self.checkpoint.is_none() {
            let made = Checkpoint::of(self.source, &self.source.model, self.keep_names, &mut self.remarks)?;
            self.checkpoint = Some(made);
        }
        let of_scheme = |path: &Option<PathBuf>| path.clone().filter(|_| scheme.is_some());
        let importance = of_scheme(&v.imatrix).map(|path| self.importance(&path)).transpose()?;
        let calibration = of_scheme(&v.calibration).map(|path| self.calibration(&path)).transpose()?;
        let Some(checkpoint) = &self.checkpoint else { unreachable!("made above") };
        let tensors = &checkpoint.model().tensors;
        let asked = scheme.map(|s| Asked::new(v, s, importance.as_deref(), calibration.as_deref(), tensors));
        let asked = asked.transpose()?;
        let notes = &mut self.remarks.notes;
        let mut in_graph = |wanted: Option<&Wanted<'_>>| {
            onnx::variant(self.source, checkpoint, v, dtype, wanted, self.keep_names, notes)
        };
        let made = match (&asked, onnx_file) {
            (Some(asked), true) => asked.in_graph(|wanted| in_graph(Some(wanted)))?,
            (None, true) => in_graph(None)?,
            (Some(asked), false) => asked.siblings(checkpoint, format, notes)?,
            (None, false) => {
                let (model, side, name) = checkpoint.variant(dtype, format, notes)?;
                Formed::plain(model, side, name)
            }
        };
        if let Some(asked) = &asked {
            notes.extend(asked.notes()?);
        }
        if !onnx_file {
            self.remarks.graph_is_lost(&self.source.model);
        }
        Ok(made)
    }

    fn gguf_variant(&mut self, v: &Variant) -> Result<(Model, String)> {
        let recipe = match &v.target {
            Target::Recipe(name) => Some(find_recipe(name)?),
            _ => None,
        };
        let options = quantize_options(v)?;
        let dtype = match &v.target {
            Target::Dtype(d) => plain_target(*d)?,
            Target::Lossless => self.usual(),
            Target::Recipe(_) => self.lossless,
        };
        let mut model = self.take_gguf()?;
        let mut kept = None;
        if recipe.is_none() && self.keeps_codes {
            kept = kept::keep(&mut model, self.source, v.target == Target::Lossless)?;
        }
        if !self.native {
            model.metadata.set("general.file_type", dtype.file_type());
        } else if v.target == Target::Lossless {
            encode_again(&mut model, &self.source.decoded)?;
        }
        if !self.native || matches!(v.target, Target::Dtype(_)) {
            model = ConvertDtype { target: dtype }.rewrite(model)?;
        }
        if let Some(file_type) = kept.filter(|_| model.metadata.get("general.file_type").is_some()) {
            model.metadata.set("general.file_type", file_type);
        }
        if let Some(recipe) = recipe {
            let importance = v.imatrix.as_deref().map(|p| self.importance(p)).transpose()?;
            model = Quantize { recipe, options, importance }.rewrite(model)?;
            if self.keeps_codes {
                let kept = kept_note(kept::encode_by_codes(&mut model, self.source)?);
                self.remarks.notes.extend(kept.map(|note| format!("{}: {note}", v.name)));
            }
        }
        let name = match recipe {
            Some(r) => r.name.to_owned(),
            None if v.target == Target::Lossless && self.native => "types as in the source".to_owned(),
            None => dtype.encoding().name().to_uppercase(),
        };
        Ok((model, name))
    }

    /// The type of matrices where nothing is said: the one that loses nothing; of a quantized checkpoint, which would double in
    /// size, the one that llama.cpp's converter guesses from its plain matrices.
    fn usual(&mut self) -> transforms::Target {
        let Some(packed) = self.source.packed.as_ref().filter(|_| !self.native) else { return self.lossless };
        let guessed = transforms::Target::auto(packed.tensors.iter().map(|t| &t.spec));
        if self.lossless == transforms::Target::F32 {
            let Encoding::Plain(to) = guessed.encoding() else { unreachable!("targets are plain") };
            let note = checkpoint::decoded_note(to);
            if !self.remarks.notes.contains(&note) {
                self.remarks.notes.push(note);
            }
        }
        guessed
    }

    /// A calibration file; opened once for all variants, which share the factors of its Hessians.
    fn calibration(&mut self, path: &Path) -> Result<Arc<Calibration>> {
        if let Some(known) = self.calibration.get(path) {
            return Ok(Arc::clone(known));
        }
        let store = Arc::new(LocalFile::open(path)?);
        let reader = crate::formats::SAFETENSORS.open(store, &Limits::default());
        let reader = Arc::from(reader.map_err(|e| e.file(path.display()))?);
        let read = Arc::new(Calibration::from_reader(reader, path.display().to_string())?);
        self.calibration.insert(path.to_owned(), Arc::clone(&read));
        Ok(read)
    }

    /// An importance matrix; read once for all variants.
    fn importance(&mut self, path: &Path) -> Result<Arc<Importance>> {
        if let Some(known) = self.importance.get(path) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(read_importance(path)?);
        self.importance.insert(path.to_owned(), Arc::clone(&read));
        Ok(read)
    }
}

/// Gives merged tensors the blocks that they had.
fn encode_again(model: &mut Model, decoded: &HashMap<String, Encoding>) -> Result<()> {
    for t in &mut model.tensors {
        if let Some(Encoding::Block(block)) = decoded.get(t.name()) {
            let op = QuantizeOp::new(block, None).map_err(|e| {
                e.tensor(t.name()).hint("choose types with --quant and --allow-requantize, or --dtype")
            })?;
            t.set_expr(t.expr.clone().apply(op))?;
        }
    }
    Ok(())
}

fn find_recipe(name: &str) -> Result<&'static Recipe> {
    match transforms::recipe(name) {
        Some(r) if r.available() => Ok(r),
        Some(r) => Err(Error::unsupported(format!("{}: this version cannot encode {}", r.name, r.base))),
        None => Err(match tensormill_schemes::scheme(name) {
            Some(s) => Error::usage(format!(
                "{} is a scheme for {} files; GGUF holds blocks",
                s.name,
                s.format()
            ))
            .hint("give a folder as output, without .gguf, or a recipe that `tensormill list recipes` shows"),
            None => unknown_quant(name),
        }),
    }
}

fn plain_target(d: DType) -> Result<transforms::Target> {
    transforms::Target::plain(d)
        .ok_or_else(|| Error::usage(format!("cannot convert to {d}; choose f32, f16 or bf16")))
}

fn quantize_options(v: &Variant) -> Result<QuantizeOptions> {
    if v.calibration.is_some() {
        return Err(Error::usage("--calibration is for schemes, not for GGUF's blocks")
            .hint("--imatrix takes what is measured for them"));
    }
    let parse = |t: &Option<String>| t.as_deref().map(transforms::parse_type).transpose();
    let by_name = v.tensor_types.iter().map(|t| TensorType::parse(t));
    let by_role = v.role_types.iter().map(|(role, encoding)| TensorType::for_role(role, encoding));
    Ok(QuantizeOptions {
        pure: v.pure,
        leave_output_tensor: v.leave_output_tensor,
        output_tensor_type: parse(&v.output_tensor_type)?,
        token_embedding_type: parse(&v.token_embedding_type)?,
        tensor_types: by_name.chain(by_role).collect::<Result<_>>()?,
        allow_requantize: v.allow_requantize,
        search: v.search.of_blocks()?,
    })
}

/// Largest legacy importance matrix that is read; those of 100 B-parameter models take tens of MB.
const LEGACY_IMATRIX_BYTES: u64 = 1 << 30;

fn read_importance(path: &Path) -> Result<Importance> {
    let store = LocalFile::open(path)?;
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut head = [0u8; 4];
    if store.len() >= 4 {
        store.read_at(0, &mut head)?;
    }
    let result = if head == *b"GGUF" {
        let reader = crate::formats::GGUF.open(Arc::new(store), &Limits::default())?;
        Importance::from_reader(&*reader, &name)
    } else {
        if store.len() > LEGACY_IMATRIX_BYTES {
            return Err(Error::over_limit("larger than any importance matrix").file(path.display()));
        }
        let mut bytes = vec![0; store.len() as usize];
        store.read_at(0, &mut bytes)?;
        Importance::from_legacy(&bytes, &name)
    };
    result.map_err(|e| e.file(path.display()))
}

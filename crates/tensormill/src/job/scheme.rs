//! A variant whose weights are the tensors of a quantization scheme.

use super::{
    Variant,
    checkpoint::{Checkpoint, SideFile},
    form::Formed,
};
use crate::{onnx::Wanted, quantized::QUANTIZERS, search::Search};
use regex::Regex;
use std::{cell::RefCell, collections::BTreeMap, sync::Arc};
use tensormill_arch::{Layer, Source, same_inputs, scalable_kinds};
use tensormill_model::{Error, Format, Kind, Result, Slot, Tensor};
use tensormill_schemes::{
    Before, Calibration, Columns, Damping, Fit, Group, Names, Place, Quantize, Rule, Scaling, Scheme,
    is_quantized, ops::Feedback, scheme, schemes,
};
use tensormill_transforms::{Importance, TensorImportance};

/// What measured statistics are called.
const IMPORTANCE: &str = "importance matrix";
const CALIBRATION: &str = "calibration file";

/// What a user has said of a variant, in the terms of schemes.
pub(super) struct Asked<'a> {
    scheme: &'static Scheme,
    rules: Vec<Rule>,
    importance: Option<&'a Importance>,
    calibration: Option<&'a Calibration>,
    search: Search,
    damping: Damping,
    fit: Fit,
    allow_requantize: bool,
    /// Whether `config.json` is written beside the weights.
    side_files: bool,
    /// What should be said of it.
    notes: Vec<String>,
    /// Weights that were looked for in what was measured, and whether they are there.
    known: RefCell<BTreeMap<String, bool>>,
}

impl<'a> Asked<'a> {
    /// Reads what was said; `tensors` are those of the model.
    ///
    /// # Errors
    /// `Usage` for schemes and roles that there are not, and for what schemes do not have.
    pub(super) fn new(
        v: &Variant,
        scheme: &'static Scheme,
        importance: Option<&'a Importance>,
        calibration: Option<&'a Calibration>,
        tensors: &[Tensor],
    ) -> Result<Self> {
        if v.pure {
            return Err(Error::usage("--pure is about recipes of GGUF files; schemes have no mixtures")
                .hint("leave it out; --tensor-type REGEX=SCHEME chooses for some weights"));
        }
        let rules = rules(v, tensors)?;
        let mut schemes = vec![scheme];
        for other in rules.iter().filter_map(|r| r.scheme) {
            if !schemes.iter().any(|s| std::ptr::eq(*s, other)) {
                schemes.push(other);
            }
        }
        let mut notes = v.search.check(&schemes)?;
        notes.extend(idle_statistics(v, &schemes));
        match v.search {
            Search::Gptq if calibration.is_none() => {
                return Err(Error::usage("--search gptq needs --calibration, a file with Hessians")
                    .hint("docs/calibration.md says how one is made"));
            }
            Search::Awq if calibration.is_none() && importance.is_none() => {
                return Err(Error::usage(
                    "--search awq needs --calibration, or an importance matrix with --imatrix",
                )
                .hint("docs/calibration.md says how one is made"));
            }
            _ => {}
        }
        Ok(Self {
            scheme,
            rules,
            importance,
            calibration,
            search: v.search,
            damping: v.damping,
            fit: v.search.of_groups(),
            allow_requantize: v.allow_requantize,
            side_files: v.side_files,
            notes,
            known: RefCell::default(),
        })
    }

    /// Weights of columns for the encoder. What feedback or scales go by has done its part then.
    fn importance(&self, t: &Tensor) -> Result<Option<TensorImportance>> {
        if self.search.is_calibrated() {
            return Ok(None);
        }
        let found = match (self.calibration, self.importance, t.name().strip_suffix(".weight")) {
            (Some(file), _, Some(module)) => match file.columns(module)? {
                Some(known) => {
                    check_width(known.mean_square.len(), CALIBRATION, t)?;
                    Some(TensorImportance::new(known.mean_square))
                }
                None => None,
            },
            (_, Some(importance), _) => importance_of(importance, t)?,
            (_, None, _) => return Ok(None),
        };
        self.known.borrow_mut().insert(t.name().to_owned(), found.is_some());
        Ok(found)
    }

    /// What should be said of what was asked for.
    ///
    /// # Errors
    /// As [`Self::check_known`].
    pub(super) fn notes(&self) -> Result<Vec<String>> {
        Ok(self.notes.iter().cloned().chain(self.check_known()?).collect())
    }

    /// What should be said of weights of which nothing was measured.
    ///
    /// # Errors
    /// `Mismatch` where these are all: the file is another model's.
    fn check_known(&self) -> Result<Option<String>> {
        let known = self.known.borrow();
        let unknown: Vec<&String> =
            known.iter().filter(|(_, known)| !**known).map(|(name, _)| name).collect();
        let Some(first) = unknown.first() else { return Ok(None) };
        let file = if self.calibration.is_some() { CALIBRATION } else { IMPORTANCE };
        if unknown.len() == known.len() {
            return Err(Error::mismatch(format!(
                "the {file} says nothing of any weight that is quantized, for example of {first}"
            ))
            .hint(format!("make the {file} from this very model, or leave it out")));
        }
        let (n, all) = (unknown.len(), known.len());
        Ok(Some(format!("{n} of {all} weights are quantized without the {file}, for example {first}")))
    }

    fn feedback(&self, t: &Tensor) -> Result<Option<Feedback>> {
        match (self.search, self.calibration, t.name().strip_suffix(".weight")) {
            (Search::Gptq, Some(file), Some(module)) => file.feedback(module, self.damping).map(Some),
            (Search::Gptq, ..) => {
                Err(Error::unsupported("has no module's name, by which its Hessian is found"))
            }
            _ => Ok(None),
        }
    }

    /// What is known of a module's input.
    fn columns(&self, module: &str, tensors: &[Tensor]) -> Result<Option<Columns>> {
        if let Some(file) = self.calibration {
            return file.columns(module);
        }
        let weight = format!("{module}.weight");
        let Some(t) = tensors.iter().find(|t| t.name() == weight) else { return Ok(None) };
        let known = self.importance.map_or(Ok(None), |i| importance_of(i, t))?;
        Ok(known.map(|known| {
            let mean_square: Arc<[f32]> = known.values().iter().map(|x| x.max(0.0)).collect();
            // Magnitudes are not measured there; of what is distributed alike, this is a multiple of their mean.
            let mean_abs = mean_square.iter().map(|x| x.sqrt()).collect();
            Columns { mean_square, mean_abs }
        }))
    }

    /// The layers whose inputs may be scaled.
    fn groups(checkpoint: &Checkpoint) -> Result<Vec<Group>> {
        let kind =
            |c: &serde_json::Map<String, serde_json::Value>| Some(c.get("model_type")?.as_str()?.to_owned());
        let kind = checkpoint.config().and_then(kind).unwrap_or_default();
        let names = checkpoint.model().tensors.iter().map(Tensor::name);
        let found = same_inputs(&kind, names).ok_or_else(|| {
            let known: Vec<&str> = scalable_kinds().collect();
            Error::unsupported(format!(
                "--search awq: it is not known which layers of a model of type {kind:?} see one input"
            ))
            .hint(format!("--search gptq knows no such bounds; awq is for {}", known.join(", ")))
        })?;
        let group = |g: tensormill_arch::SameInput| {
            let before = match g.source {
                Source::Norm { module, plus } => Before::Norm(module, plus),
                Source::Rows { module } => Before::Rows(module),
            };
            Group { before, modules: g.modules }
        };
        Ok(found.into_iter().map(group).collect())
    }

    /// The model of a variant whose weights are tensors of a layout.
    pub(super) fn siblings(
        &self,
        checkpoint: &Checkpoint,
        format: &dyn Format,
        notes: &mut Vec<String>,
    ) -> Result<Formed> {
        let mut said = Vec::new();
        let (model, _, _) = checkpoint.variant(None, format, &mut said)?;
        let decoded = model.tensors.iter().filter(|t| is_quantized(&t.expr)).count();
        let parameters = model.parameters();
        let originals = &checkpoint.model().tensors;
        let columns = |module: &str| self.columns(module, originals);
        let scaling = match self.search {
            Search::Awq => Some(Scaling { groups: Self::groups(checkpoint)?, columns: &columns }),
            _ => None,
        };
        let quantize = Quantize {
            scheme: self.scheme,
            rules: self.rules.clone(),
            fit: self.fit,
            place: &place,
            fused: &tensormill_arch::fused_with,
            shared: shared_output(checkpoint).into_iter().collect(),
            importance: &|t| self.importance(t),
            feedback: &|t| self.feedback(t),
            scaling,
            allow_requantize: self.allow_requantize,
        };
        let made = quantize.rewrite(model)?;
        if made.used.iter().filter(|u| u.repacked).count() == decoded {
            // Nothing is decoded after all.
            said.retain(|n| !checkpoint.tells_of_decoded(n));
        }
        notes.extend(said.into_iter().chain(made.notes));
        if let (false, Some(key)) = (self.side_files, made.config.keys().next()) {
            notes.push(format!(
                "a file alone does not say how its weights are quantized: {key} stands in config.json, which only a \
                 folder has (-o DIR)"
            ));
        }
        let mut side = checkpoint.side_files_with(None, made.config)?;
        // What the source's quantizer left beside its config.json speaks of the source.
        side.retain(|f| !QUANTIZERS.contains(&f.name()));
        side.extend(made.files.into_iter().map(|f| SideFile::Made(f.name.to_owned(), f.bytes.into())));
        Ok(Formed { model: made.model, side, target: self.scheme.name.to_owned(), parameters })
    }

    /// Calls `f` with the same for a graph.
    pub(super) fn in_graph<R>(&self, f: impl FnOnce(&Wanted<'_>) -> Result<R>) -> Result<R> {
        if self.scheme.layout.operators().is_none() {
            let like: Vec<&str> = schemes().iter().filter(|s| s.format() == "onnx").map(|s| s.name).collect();
            return Err(Error::usage(format!(
                "{} is a scheme of checkpoints; graphs have others",
                self.scheme.name
            ))
            .hint(format!("one of {}", like.join(", "))));
        }
        if self.search == Search::Awq {
            return Err(Error::unsupported(
                "--search awq changes norms, which graphs do not tell from other constants",
            )
            .hint("scale a checkpoint, or take --search gptq"));
        }
        f(&Wanted {
            scheme: self.scheme,
            rule: &|name| self.rules.iter().find(|r| r.names.hold(name)).map(|r| r.scheme),
            place: &place,
            importance: &|t| self.importance(t),
            feedback: &|t| self.feedback(t),
            fit: self.fit,
            allow_requantize: self.allow_requantize,
        })
    }
}

/// What should be said of statistics by which nothing goes.
fn idle_statistics(v: &Variant, schemes: &[&'static Scheme]) -> Option<String> {
    let file = match (&v.calibration, &v.imatrix) {
        (Some(_), Some(_)) => {
            return Some(format!("the {IMPORTANCE} is not used where there is a {CALIBRATION}"));
        }
        (Some(_), None) => CALIBRATION,
        (None, Some(_)) => IMPORTANCE,
        (None, None) => return None,
    };
    let (first, why) = schemes.first().and_then(|s| Some((s, s.unsearched()?)))?;
    let idle = !v.search.is_calibrated() && schemes.iter().all(|s| s.unsearched().is_some());
    idle.then(|| format!("the {file} does nothing for {}: {why}", first.name))
}

/// What a tensor is to schemes.
fn place(t: &Tensor) -> Place {
    match tensormill_arch::layer_of(t.name(), &t.spec.shape) {
        Layer::Linear => Place::Linear,
        Layer::OtherLinear => Place::OtherLinear,
        Layer::Table => Place::Table,
        Layer::Other => Place::Other,
    }
}

/// The output of a language model that shares the embeddings: a module without a weight of its own.
fn shared_output(checkpoint: &Checkpoint) -> Option<String> {
    const OUTPUT: &str = "lm_head";
    let architectures = checkpoint.config()?.get("architectures")?.as_array()?;
    let language = |name: &str| name.contains("ForCausalLM") || name.contains("ForConditionalGeneration");
    let own = checkpoint.model().tensors.iter().any(|t| t.name().starts_with(OUTPUT));
    (!own && architectures.iter().filter_map(|a| a.as_str()).any(language)).then(|| OUTPUT.to_owned())
}

/// What was measured of a weight's columns: importance matrices know it by its GGUF name.
fn importance_of(importance: &Importance, t: &Tensor) -> Result<Option<TensorImportance>> {
    let Some(role) = tensormill_arch::checkpoint_role(t.name()) else { return Ok(None) };
    let Some(values) = importance.entries.get(&role.to_string()) else { return Ok(None) };
    check_width(values.len(), IMPORTANCE, t)?;
    Ok(Some(TensorImportance::new(values.clone())))
}

/// That statistics are of a weight's columns.
fn check_width(values: usize, file: &str, t: &Tensor) -> Result<()> {
    if values as u64 == t.spec.shape.row_len() {
        return Ok(());
    }
    Err(Error::mismatch(format!("the {file} has {values} values for this tensor of shape {}", t.spec.shape))
        .tensor(t.name())
        .hint(format!("make the {file} from this very model")))
}

/// The scheme of a name that a rule gives; `plain` leaves weights as they are.
fn scheme_of(name: &str) -> Result<Option<&'static Scheme>> {
    match scheme(name) {
        Some(s) => Ok(Some(s)),
        None if name.eq_ignore_ascii_case("plain") => Ok(None),
        None => Err(Error::usage(format!("there is no scheme {name:?}"))
            .hint("plain, or one that `tensormill list schemes` shows")),
    }
}

/// What is said of single weights, the more particular first.
fn rules(v: &Variant, tensors: &[Tensor]) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for text in &v.tensor_types {
        let Some((pattern, name)) = text.split_once('=').filter(|(p, n)| !p.is_empty() && !n.is_empty())
        else {
            return Err(Error::usage(format!("{text:?} is not of the form REGEX=SCHEME"))
                .hint("for example --tensor-type 'down_proj=int8', or 'layers\\.0\\.=plain'"));
        };
        let pattern = Regex::new(pattern)
            .map_err(|e| Error::usage(format!("{pattern:?} is not a regular expression: {e}")))?;
        rules.push(Rule { names: Names::Like(pattern), scheme: scheme_of(name)? });
    }
    let of_kinds = |wanted: &dyn Fn(Kind) -> bool| {
        let named = tensors.iter().map(Tensor::name).filter(|name| {
            tensormill_arch::checkpoint_role(name).is_some_and(|r| r.slot == Slot::Weight && wanted(r.kind))
        });
        Names::Exactly(named.map(str::to_owned).collect())
    };
    for (role, name) in &v.role_types {
        if !Kind::ALL.iter().any(|k| k.label() == *role) {
            return Err(Error::usage(format!("there is no role {role:?}")).hint(
                "a role is a tensor's GGUF name without layer and suffix, such as attn_v or ffn_down_exps",
            ));
        }
        rules.push(Rule { names: of_kinds(&|k| k.label() == *role), scheme: scheme_of(name)? });
    }
    let output = if v.leave_output_tensor { Some("plain") } else { v.output_tensor_type.as_deref() };
    for (kind, name) in [(Kind::Output, output), (Kind::TokenEmbd, v.token_embedding_type.as_deref())] {
        if let Some(name) = name {
            rules.push(Rule { names: of_kinds(&|k| k == kind), scheme: scheme_of(name)? });
        }
    }
    Ok(rules)
}

//! A variant whose weights are the tensors of a quantization scheme.

use super::{Variant, checkpoint::Checkpoint, form::Formed};
use regex::Regex;
use tensormill_arch::Layer;
use tensormill_model::{Error, Format, Result, Tensor};
use tensormill_schemes::{Place, Quantize, Rule, Scheme, scheme, schemes};
use tensormill_transforms::{Importance, TensorImportance};

/// The model of a variant, the files beside it, and the name of what it is.
pub(super) fn variant(
    checkpoint: &Checkpoint,
    v: &Variant,
    scheme: &'static Scheme,
    importance: Option<&Importance>,
    format: &dyn Format,
    notes: &mut Vec<String>,
) -> Result<Formed> {
    let (model, _, _) = checkpoint.variant(None, format, notes)?;
    let parameters = model.parameters();
    let importance = |t: &Tensor| match importance {
        Some(i) => importance_of(i, t),
        None => Ok(None),
    };
    let quantize = Quantize {
        scheme,
        rules: rules(v)?,
        fit: v.search.of_groups(),
        place: &place,
        fused: &tensormill_arch::fused_with,
        shared: shared_output(checkpoint).into_iter().collect(),
        importance: &importance,
        allow_requantize: v.allow_requantize,
    };
    let made = quantize.rewrite(model)?;
    notes.extend(made.notes);
    let side = checkpoint.side_files_with(None, made.config)?;
    Ok(Formed { model: made.model, side, target: scheme.name.to_owned(), parameters })
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
    if values.len() as u64 != t.spec.shape.row_len() {
        return Err(Error::mismatch(format!(
            "the importance matrix has {} values for this tensor of shape {}",
            values.len(),
            t.spec.shape
        ))
        .tensor(t.name())
        .hint("make the importance matrix from this very model"));
    }
    Ok(Some(TensorImportance::new(values.clone())))
}

/// `REGEX=SCHEME` and role rules; `plain` leaves a weight as it is.
fn rules(v: &Variant) -> Result<Vec<Rule>> {
    let scheme_of = |name: &str| match scheme(name) {
        Some(s) => Ok(Some(s)),
        None if name.eq_ignore_ascii_case("plain") => Ok(None),
        None => {
            let known: Vec<&str> = schemes().iter().map(|s| s.name).collect();
            Err(Error::usage(format!("there is no scheme {name:?}"))
                .hint(format!("known: plain, {}", known.join(", "))))
        }
    };
    let mut rules = Vec::new();
    for text in &v.tensor_types {
        let Some((pattern, name)) = text.split_once('=').filter(|(p, n)| !p.is_empty() && !n.is_empty())
        else {
            return Err(Error::usage(format!("{text:?} is not of the form REGEX=SCHEME"))
                .hint("for example --tensor-type 'down_proj=int8', or 'layers\\.0\\.=plain'"));
        };
        let pattern = Regex::new(pattern)
            .map_err(|e| Error::usage(format!("{pattern:?} is not a regular expression: {e}")))?;
        rules.push(Rule { pattern, scheme: scheme_of(name)? });
    }
    Ok(rules)
}

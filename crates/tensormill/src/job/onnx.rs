//! A variant that is an ONNX file: the source's own graph with its weights, or one that is built from its configuration.

use super::{
    Variant,
    checkpoint::{Checkpoint, SideFile, type_name},
    form::Formed,
};
use crate::{
    Source,
    onnx::{self, GraphOptions, Wanted},
};
use serde_json::{Map, Value as Json};
use std::collections::HashSet;
use tensormill_export::{Config, Form, Request};
use tensormill_graph::{Elem, Pair, Program};
use tensormill_model::{Error, Model, Result, Tensor};
use tensormill_schemes::{Flavour, Operators};
use tensormill_tensor::{DType, Encoding};

/// Version of ONNX's operators in graphs that are built, where nothing is said: what transformers.js and mobile runtimes of
/// the last years run.
const OPSET: i64 = 17;

/// The model of a variant, the files beside it, and the name of what it is.
pub(super) fn variant(
    source: &Source,
    checkpoint: &Checkpoint,
    v: &Variant,
    dtype: Option<DType>,
    wanted: Option<&Wanted<'_>>,
    keep_names: bool,
    notes: &mut Vec<String>,
) -> Result<Formed> {
    let read = if keep_names { onnx::as_it_stands(source) } else { None };
    let model = read.as_ref().unwrap_or_else(|| checkpoint.model());
    let template = v.onnx.template.as_ref().and_then(|path| source.templates.get(path));
    let read = match (template, &model.program) {
        (Some(template), _) => Some(template.fit(model)?),
        (None, Some(program)) => Some(((**program).clone(), Vec::new())),
        (None, None) => None,
    };
    let name = |dtype| wanted.map_or_else(|| type_name(dtype), |w| w.scheme.name.to_owned());
    let halved = wanted.filter(|w| w.scheme.flavour == Flavour::HalfGraph).map(|_| DType::F16);
    let dtype = dtype.or(halved);
    if let Some((program, own)) = read {
        let (program, float) = rewritten(program, dtype, &v.onnx)?;
        let formed = bound(model, &own, program, float, wanted, notes)?;
        return Ok(Formed { side: checkpoint.side_files(dtype)?, target: name(dtype), ..formed });
    }
    let dtype = dtype.unwrap_or_else(|| usual_type(checkpoint, notes));
    let needed = wanted.and_then(|w| w.scheme.layout.operators()).map_or(OPSET, needed_opset);
    let options = GraphOptions { opset: v.onnx.opset.or(Some(needed)), ..v.onnx.clone() };
    let program = build(source, checkpoint, model, dtype, &options)?;
    notes.extend(left_out(model, &program));
    let formed = bound(model, &source.modules, program, Some(dtype), wanted, notes)?;
    let mut side = checkpoint.side_files(Some(dtype))?;
    side.extend(genai(checkpoint, model, v)?);
    Ok(Formed { side, target: name(Some(dtype)), ..formed })
}

/// The version of operators in graphs that are built for quantized weights.
fn needed_opset(operators: Operators) -> i64 {
    match operators {
        Operators::Dequantize => 21,
        Operators::Blocks | Operators::Dynamic => OPSET,
    }
}

/// A program and the tensors that it takes, quantized where that is wanted.
fn bound(
    model: &Model,
    own: &[Tensor],
    mut program: Program,
    float: Option<DType>,
    wanted: Option<&Wanted<'_>>,
    notes: &mut Vec<String>,
) -> Result<Formed> {
    let Some(wanted) = wanted else {
        let made = onnx::bind(model, own, program, float, &onnx::no_parts)?;
        return Ok(Formed::plain(made, Vec::new(), String::new()));
    };
    // What the weights are that codes stand for.
    let used: HashSet<&str> = program.weights.iter().map(|w| w.tensor.as_str()).collect();
    let all = model.tensors.iter().chain(own).filter(|t| used.contains(t.name()));
    let parameters = all.map(|t| t.spec.shape.elements()).sum();
    let encoded = onnx::quantize(&mut program, model, own, float, wanted, notes)?;
    let made = onnx::bind(model, own, program, float, &|t, part| encoded.part(t, part))?;
    notes.extend(encoded.note());
    Ok(Formed { parameters, ..Formed::plain(made, Vec::new(), String::new()) })
}

/// A read graph, computing in another type where that is asked for.
fn rewritten(
    mut program: Program,
    dtype: Option<DType>,
    options: &GraphOptions,
) -> Result<(Program, Option<DType>)> {
    if options.rename {
        program.name_initializers();
    }
    if let Some(opset) = options.opset.filter(|o| Some(*o) != program.opset("")) {
        program.raise(opset).map_err(|why| {
            Error::unsupported(format!(
                "the graph uses version {} of ONNX's operators; it is not rewritten for version {opset}: {why}",
                program.opset("").unwrap_or_default()
            ))
            .hint("leave --opset out; graphs that are built from a checkpoint can have it")
        })?;
    }
    if options.contrib {
        return Err(Error::unsupported("the graph keeps the operators that it has; it is not built anew")
            .hint("leave --onnx-form out; or convert to safetensors first, and that with its config.json"));
    }
    provenance(&mut program, None);
    let Some(to) = dtype else { return Ok((program, None)) };
    let elem = Elem::of(to).ok_or_else(|| Error::usage(format!("ONNX has no type {to}")))?;
    // Files may hold operators and faults of their own; what was one stays one.
    let sound = cfg!(debug_assertions) && program.check().is_ok();
    program.cast(elem, options.keep_io_types);
    debug_assert!(!sound || program.check().is_ok(), "{}", program.check().unwrap_err());
    Ok((program, Some(to)))
}

/// The type of a graph that is built when nothing is said: few runtimes compute in `bf16`.
fn usual_type(checkpoint: &Checkpoint, notes: &mut Vec<String>) -> DType {
    // Files of GGUF have norms in f32 beside weights of any type.
    if checkpoint.usual() == Some(DType::F16) {
        return DType::F16;
    }
    let floats = checkpoint.model().tensors.iter().filter_map(|t| match checkpoint.type_of(t) {
        Encoding::Plain(d) if d.is_float() => Some(d),
        _ => None,
    });
    let all: HashSet<DType> = floats.collect();
    if all.len() == 1 && all.contains(&DType::F16) {
        return DType::F16;
    }
    if all.contains(&DType::BF16) {
        notes.push(
            "bf16 weights become f32, as few runtimes compute in bf16; --dtype bf16 keeps them".to_owned(),
        );
    }
    DType::F32
}

fn build(
    source: &Source,
    checkpoint: &Checkpoint,
    model: &Model,
    dtype: DType,
    options: &GraphOptions,
) -> Result<Program> {
    let config = checkpoint.config().ok_or_else(|| {
        Error::unsupported("a graph is built from config.json, and there is none")
            .hint("put the model's config.json beside its weights, or convert the folder that holds both")
    })?;
    let config = Config::new(config.clone());
    let shapes: std::collections::HashMap<&str, &tensormill_tensor::Shape> =
        model.tensors.iter().chain(&source.modules).map(|t| (t.name(), &t.spec.shape)).collect();
    let mut program = tensormill_export::build(&Request {
        config: &config,
        assets: &*model.assets,
        tensors: &|name| shapes.get(name).map(|s| (*s).clone()),
        opset: options.opset.unwrap_or(OPSET),
        float: Elem::of(dtype).ok_or_else(|| Error::usage(format!("ONNX has no type {dtype}")))?,
        keep_io_types: options.keep_io_types,
        form: if options.contrib { Form::Contrib } else { Form::Standard },
        metadata: Vec::new(),
    })?;
    provenance(&mut program, config.text("_name_or_path").ok().flatten());
    Ok(program)
}

/// What is said of tensors that the graph has no use for.
fn left_out(model: &Model, program: &Program) -> Option<String> {
    const SHOWN: usize = 5;
    let used: HashSet<&str> = program.weights.iter().map(|w| w.tensor.as_str()).collect();
    let names: Vec<&str> = model.tensors.iter().map(Tensor::name).filter(|n| !used.contains(n)).collect();
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        n if n > SHOWN => Some(format!("the graph has no use for {shown} and {} more tensors", n - SHOWN)),
        _ => Some(format!("the graph has no use for {shown}")),
    }
}

/// What ONNX Runtime GenAI reads beside a graph of its form.
fn genai(checkpoint: &Checkpoint, model: &Model, v: &Variant) -> Result<Option<SideFile>> {
    const NAME: &str = "genai_config.json";
    let (true, Some(config)) = (v.onnx.contrib, checkpoint.config()) else { return Ok(None) };
    let generation =
        match model.assets.read("generation_config.json")? {
            None => None,
            Some(bytes) => Some(serde_json::from_slice::<Map<String, Json>>(&bytes).map_err(|e| {
                Error::malformed(format!("not valid JSON: {e}")).file("generation_config.json")
            })?),
        };
    let made = tensormill_export::genai_config(
        &Config::new(config.clone()),
        generation.as_ref(),
        Form::Contrib,
        &v.file,
    )?;
    let text =
        serde_json::to_string_pretty(&made).map_err(|e| Error::io("encode genai_config.json", e.into()))?;
    Ok(Some(SideFile::Made(NAME.to_owned(), (text + "\n").into_bytes().into())))
}

/// Says who wrote the file, where nobody does yet, and of which model.
fn provenance(program: &mut Program, source: Option<&str>) {
    const KEY: &str = "tensormill.version";
    // What `config.json` says of itself, unless it is a place on somebody's disk.
    if let Some(source) = source.filter(|s| !s.is_empty() && !s.starts_with(['/', '.', '~', '\\'])) {
        program.metadata.push(Pair::new("tensormill.source", source));
    }
    let version = env!("CARGO_PKG_VERSION");
    if program.producer.is_empty() {
        "tensormill".clone_into(&mut program.producer);
        version.clone_into(&mut program.producer_version);
    }
    match program.metadata.iter_mut().find(|p| p.key == KEY) {
        Some(p) => version.clone_into(&mut p.value),
        None => program.metadata.push(Pair::new(KEY, version)),
    }
}

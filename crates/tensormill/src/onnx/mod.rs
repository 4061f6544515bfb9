//! ONNX models as sources and as outputs: parameters under the names that training code gives them, graphs of read models
//! with other weights, graphs of models that had none.
//!
//! Must not know how graphs are encoded or built, nor how files are laid out.

mod bind;
mod decode;
mod names;
mod quantize;
mod template;

pub(crate) use bind::{bind, no_parts};
pub(crate) use decode::decode;
pub(crate) use names::recovered;
pub(crate) use quantize::{Wanted, quantize};
pub(crate) use template::{Template, open as open_template};

use crate::{
    location::{Dir, Location},
    source::Source,
};
use std::{path::Path, sync::Arc};
use tensormill_model::{Assets, Error, Limits, Model, Reader, Result, Store};

/// Which graph is written, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct GraphOptions {
    /// An ONNX file whose graph is written, with the source's weights.
    pub template: Option<Location>,
    /// Initializers of read graphs get names that tell the parameter.
    pub rename: bool,
    /// Version of ONNX's operators in graphs that are built.
    pub opset: Option<i64>,
    /// Inputs and outputs that are `f32` stay so, whatever the type of the weights.
    pub keep_io_types: bool,
    /// Weights in files beside the graph, also where one file could hold all.
    pub external: bool,
    /// Operators of graphs that are built: ONNX Runtime's own, too.
    pub contrib: bool,
}

impl GraphOptions {
    /// Refuses what is said of a graph where none is written.
    pub(crate) fn refuse(&self, format: &str) -> Result<()> {
        let said = [
            (self.template.is_some(), "--graph"),
            (self.rename, "--rename-weights"),
            (self.opset.is_some(), "--opset"),
            (self.contrib, "--onnx-form"),
            (self.keep_io_types, "--keep-io-types"),
            (self.external, "--external-data"),
        ];
        match said.into_iter().find(|(is_said, _)| *is_said) {
            None => Ok(()),
            Some((_, option)) => {
                Err(Error::usage(format!("{option} is about ONNX graphs; {format} files hold none"))
                    .hint(format!("leave {option} out, or end the output's name in .onnx")))
            }
        }
    }
}

/// Opens a file of a folder; weights may be in others of it.
pub(crate) fn open(
    at: &Location,
    store: Arc<dyn Store>,
    dir: Arc<dyn Dir>,
    limits: &Limits,
) -> Result<Source> {
    let named = |e: Error| e.file(at);
    let reader: Arc<dyn Reader> = Arc::new(tensormill_onnx::open_in(store, &*dir, limits).map_err(named)?);
    let (model, notes) = recovered(&reader, 0, assets(dir), None).map_err(named)?;
    let mut source = Source::made(at, "onnx", false, model, vec![reader])?;
    source.notes = notes;
    Ok(source)
}

/// The folder in which exporters put graphs.
const FOLDER: &str = "onnx";

/// The graph that a folder is about, where there is one alone: its name, from the folder on.
pub(crate) fn in_folder(dir: &dyn Dir) -> Option<String> {
    let usual = ["model.onnx", "onnx/model.onnx", "model_fp16.onnx", "onnx/model_fp16.onnx"];
    if let Some(name) = usual.into_iter().find(|n| dir.contains(n)) {
        return Some(name.to_owned());
    }
    let all: Vec<String> =
        dir.list().into_iter().filter(|n| Path::new(n).extension().is_some_and(|e| e == "onnx")).collect();
    <[String; 1]>::try_from(all).ok().map(|[one]| one)
}

/// What says what the model is: the files beside it, or those of the folder around where it lies in `onnx/`.
fn assets(dir: Arc<dyn Dir>) -> Arc<dyn Assets> {
    if !dir.contains("config.json") && dir.name() == FOLDER {
        let outer = dir.outer().filter(|d| d.contains("config.json"));
        return outer.unwrap_or(dir);
    }
    dir
}

/// The model as its file has it: initializers under their own names, in their own layout.
pub(crate) fn as_it_stands(source: &Source) -> Option<Model> {
    let reader = source.readers.first()?;
    let program = reader.program()?;
    let mut model = Model::from_index(reader.index(), 0, Arc::clone(&source.model.assets));
    model.program = Some(Arc::clone(program));
    Some(model)
}

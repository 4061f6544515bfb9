//! Graphs of models that are known by their configuration: what transformers computes, as ONNX operators, built from
//! `config.json` and the list of tensors. Nothing is traced and no weight is read.
//!
//! Graphs name weights as the checkpoint does; linear layers take them transposed ([`Weight::transposed`]). Inputs and
//! outputs are called as optimum and transformers.js expect.
//!
//! This crate must *not* know files, protocol buffers, GGUF names, or how a graph is run.

mod activation;
mod config;
mod families;
mod layers;
mod request;
mod verify;

pub use config::Config;
pub use families::genai_config;
pub use layers::OPSETS;
pub use request::{Form, Request};
pub use tensormill_graph::Weight;

use tensormill_graph::Program;
use tensormill_model::{Error, Result};

/// A family of architectures whose graph is built in one way.
pub trait Family: Sync {
    /// What `config.json` calls it under `model_type`.
    fn model_types(&self) -> &'static [&'static str];
    /// Whether there is a form that makes use of ONNX Runtime's own operators.
    fn has_contrib(&self) -> bool {
        false
    }
    /// Builds the graph.
    ///
    /// # Errors
    /// Configurations that are incomplete or ask for something that the family does not have; tensors that are missing
    /// or of another shape than the configuration says.
    fn build(&self, request: &Request<'_>) -> Result<Program>;
}

/// All families.
pub fn registry() -> &'static [&'static dyn Family] {
    families::ALL
}

/// The graph of a model.
///
/// # Errors
/// `Unsupported` for models of other families; as [`Family::build`]; `Failed` where what was built contradicts itself.
pub fn build(request: &Request<'_>) -> Result<Program> {
    let kind = request.config.model_type()?;
    let family = registry().iter().find(|f| f.model_types().contains(&kind)).ok_or_else(|| {
        let known: Vec<&str> = registry().iter().flat_map(|f| f.model_types()).copied().collect();
        Error::unsupported(format!("no graph can be built for models of the type {kind:?}"))
            .file("config.json")
            .hint(format!("known: {}; tensors alone can be written as safetensors", known.join(", ")))
    })?;
    if request.form == Form::Contrib && !family.has_contrib() {
        return Err(Error::unsupported(format!("graphs of {kind:?} have no form of ONNX Runtime GenAI"))
            .file("config.json")
            .hint("ask for the form of ONNX's own operators"));
    }
    verify::declared(request, family.build(request)?)
}

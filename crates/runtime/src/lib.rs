//! Runs ONNX graphs: for comparisons by outputs, and for tests that ask whether a graph computes what its model does.
//!
//! A [`Session`] is one graph in one of two runtimes. ONNX Runtime is a shared library that is loaded when the first
//! graph is opened (`onnxruntime.rs`); nothing is linked, and building downloads nothing but crates. The other is written
//! in Rust (`tract.rs`, a feature, since it takes long to build) and knows fewer operators and types. Nothing that
//! converts or writes a graph needs either.
//!
//! ```no_run
//! use std::path::Path;
//! use tensormill_runtime::{Backend, Session, Value};
//!
//! let mut session = Session::open(Path::new("model.onnx"), &Backend::Auto { library: None })?;
//! let ids = Value::from_i64(&[1, 3], &[101, 2023, 102])?;
//! for (name, value) in session.run(&[("input_ids", ids)])? {
//!     println!("{name}: {} {:?}", value.dtype(), value.shape());
//! }
//! # Ok::<(), tensormill_model::Error>(())
//! ```
//!
//! This crate must *not* know formats of models, this project's readers, or architectures: to it, a graph is a path.

mod onnxruntime;
mod port;
#[cfg(feature = "tract")]
mod tract;
#[cfg(not(feature = "tract"))]
#[path = "without_tract.rs"]
mod tract;
mod value;

pub use port::{Dim, Port};
pub use value::Value;

use std::path::{Path, PathBuf};
use tensormill_model::{Error, Result};

/// What runs a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// ONNX Runtime if it can be loaded, else the one written in Rust if this build has it. A library that is named,
    /// here or in `ORT_DYLIB_PATH`, is used or the reason why it cannot be.
    Auto {
        /// The shared library.
        library: Option<PathBuf>,
    },
    /// ONNX Runtime's shared library: this one, or what `ORT_DYLIB_PATH` names, or what the system's loader finds.
    OnnxRuntime {
        /// The shared library.
        library: Option<PathBuf>,
    },
    /// The runtime written in Rust.
    Tract,
}

/// One of the runtimes, with a graph.
trait Runtime {
    fn name(&self) -> String;
    fn inputs(&self) -> &[Port];
    fn outputs(&self) -> &[Port];
    /// Inputs are in the order of [`Self::inputs`], and are of their types and fixed sizes.
    fn run(&mut self, inputs: Vec<&Value>) -> Result<Vec<Value>>;
}

/// A graph that is ready to run.
pub struct Session {
    path: PathBuf,
    runtime: Box<dyn Runtime>,
}

impl Session {
    /// Loads a graph, with the files beside it that hold its weights.
    ///
    /// # Errors
    /// `Unsupported` when no runtime is there, or it does not know an operator or type of the graph; `Malformed` when the
    /// file is no graph. All name the file.
    pub fn open(path: &Path, backend: &Backend) -> Result<Self> {
        let runtime: Result<Box<dyn Runtime>> = match backend {
            Backend::OnnxRuntime { library } => {
                onnxruntime::load(library.as_deref()).and_then(|env| onnxruntime::open(env, path))
            }
            Backend::Tract => tract::open(path),
            Backend::Auto { library } => match onnxruntime::load(library.as_deref()) {
                Ok(env) => onnxruntime::open(env, path),
                Err(e) if onnxruntime::is_named(library.as_deref()) || !tract::BUILT_IN => Err(e),
                Err(_) => tract::open(path),
            },
        };
        let runtime = runtime.map_err(|e| e.file(path.display()))?;
        Ok(Self { path: path.to_owned(), runtime })
    }

    /// The runtime and its version, for people.
    pub fn runtime(&self) -> String {
        self.runtime.name()
    }

    /// What must be given to [`Self::run`]; not what has a default in the graph.
    pub fn inputs(&self) -> &[Port] {
        self.runtime.inputs()
    }

    /// What comes out.
    pub fn outputs(&self) -> &[Port] {
        self.runtime.outputs()
    }

    /// Computes all outputs, in the order of [`Self::outputs`].
    ///
    /// # Errors
    /// `Usage` when an input is missing, unknown, given twice, of another type than the graph wants or of a size that it
    /// excludes; `Unsupported` when the runtime cannot compute something. All name the file.
    pub fn run(&mut self, inputs: &[(&str, Value)]) -> Result<Vec<(String, Value)>> {
        let values = self.in_order(inputs).and_then(|ordered| self.runtime.run(ordered));
        let values = values.map_err(|e| e.file(self.path.display()))?;
        Ok(self.outputs().iter().map(|p| p.name.clone()).zip(values).collect())
    }

    fn in_order<'v>(&self, inputs: &'v [(&str, Value)]) -> Result<Vec<&'v Value>> {
        let ports = self.inputs();
        for (i, (name, _)) in inputs.iter().enumerate() {
            if !ports.iter().any(|p| p.name == *name) {
                let known: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
                return Err(Error::usage(format!("the graph has no input `{name}`"))
                    .hint(format!("it takes {}", known.join(", "))));
            }
            if inputs[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::usage(format!("input `{name}` is given twice")));
            }
        }
        ports
            .iter()
            .map(|port| {
                let (_, value) = inputs.iter().find(|(name, _)| port.name == *name).ok_or_else(|| {
                    Error::usage(format!("input `{}` is not given", port.name)).hint(format!("it is {port}"))
                })?;
                port.check(value)?;
                Ok(value)
            })
            .collect()
    }
}

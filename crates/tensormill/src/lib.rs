//! The facade: registers formats and architectures, joins the parts, and is the public Rust API of tensormill.
//!
//! It prints nothing and knows no terminal. The command line is a thin layer above [`release`], [`convert`],
//! [`inspect`], [`compare`], [`scan`] and [`list`]; the first two are both a [`job`].
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use tensormill_core::convert::{Request, Target, plan};
//!
//! let request = Request::new("model-folder", "model.Q4_K_M.gguf", Target::Recipe("Q4_K_M".into()));
//! let conversion = plan(&request)?;
//! println!("{} bytes", conversion.report().variant.output_bytes);
//! let report = conversion.run(&(), &AtomicBool::new(false))?;
//! println!("{:?}", report.plan.variant.error);
//! # Ok::<(), tensormill_core::Error>(())
//! ```

pub mod adapters;
pub mod card;
pub mod compare;
pub mod convert;
pub mod device;
pub mod extract;
pub mod formats;
mod gate;
mod hf;
pub mod hub;
pub mod inspect;
pub mod job;
pub mod list;
pub mod location;
pub mod memory;
mod merge;
mod metadata_edits;
mod modules;
mod onnx;
pub mod outputs;
mod page;
mod quantized;
pub mod release;
mod report;
pub mod scan;
pub mod search;
pub mod size;
mod source;
pub mod submit;
mod training;

pub use gate::{Bounds, Broken, Gate};
pub use location::{Access, Location, Reach, RepositoryFile, RepositoryReport};
pub use onnx::GraphOptions;
pub use report::{
    AdapterReport, Check, ConvertPlan, ConvertReport, DeviceReport, DoneReport, ErrorReport, FileReport,
    JobReport, MemorySample, PlanReport, PlannedDevice, RunReport, TensorReport, VariantReport,
};
pub use search::Search;
pub use serde::Serialize;
pub use source::Source;
pub use tensormill_engine::{Event, Progress, Times, peak_rss, resident};
pub use tensormill_model::{Error, ErrorKind, Limits, Result, ShardLimits};
pub use tensormill_pickle::PickleOptions;
pub use tensormill_store::LocalFile;
pub use tensormill_tensor::DType;

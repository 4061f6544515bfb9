//! The facade: registers formats and architectures, joins the parts, and is the public Rust API of tensormill.
//!
//! It prints nothing and knows no terminal. The command line is a thin layer above [`convert`], [`inspect`],
//! [`compare`] and [`list`].
//!
//! ```no_run
//! use std::sync::atomic::AtomicBool;
//! use tensormill_core::convert::{Request, Target, plan};
//!
//! let request = Request::new("model-folder", "model.Q4_K_M.gguf", Target::Recipe("Q4_K_M".into()));
//! let conversion = plan(&request)?;
//! println!("{} bytes", conversion.report().output_bytes);
//! let report = conversion.run(&(), &AtomicBool::new(false))?;
//! println!("{:?}", report.error);
//! # Ok::<(), tensormill_core::Error>(())
//! ```

pub mod compare;
pub mod convert;
pub mod formats;
mod hf;
pub mod inspect;
pub mod list;
pub mod memory;
mod metadata_edits;
mod report;
mod source;

pub use report::{ConvertReport, ErrorReport, FileReport, PlanReport, TensorReport};
pub use serde::Serialize;
pub use source::Source;
pub use tensormill_engine::{Event, Progress, peak_rss};
pub use tensormill_model::{Error, ErrorKind, Limits, Result};
pub use tensormill_store::LocalFile;
pub use tensormill_tensor::DType;
pub use tensormill_transforms::Search;

//! The middle of the house: what a model is before any weight is touched, and the traits around it.
//!
//! A [`Model`] is an ordered list of [`Tensor`]s, each a spec plus a small [`Expr`] saying how its bytes come
//! about, with typed [`Metadata`]. Readers make models, transforms rewrite them, [`Model::check`] turns them
//! into the [`Checked`] token that writers demand, and the engine executes the expressions tile by tile.
//!
//! This crate must *not* know any file format, any architecture, any block type's arithmetic, or how work is
//! scheduled.

mod accelerate;
mod assets;
mod check;
mod error;
mod expr;
mod format;
mod metadata;
mod model;
mod ops;
mod reduce;
mod role;
pub mod shards;

pub use accelerate::{Accelerator, Encode, Task};
pub use assets::{Assets, MemoryAssets};
pub use check::{Capabilities, Checked};
pub use error::{Error, ErrorKind, Result};
pub use expr::{Expr, Form, Locality, Op, RowMap, Rows, fingerprint, scramble};
pub use format::{
    Alias, ChecksumSlot, FileLayout, Folder, Format, FormatInfo, Index, Layout, LeftOut, Limits, MemoryStore,
    MetadataKind, Piece, Place, Reader, Score, Store, WriteOptions,
};
pub use metadata::{Array, Metadata, Value, ValueType};
pub use model::{Model, Tensor, Transform};
pub use ops::{AddScalar, Cast, EveryNth};
pub use reduce::{Reduction, Tally};
pub use role::{Kind, Role, Slot};
pub use shards::ShardLimits;

//! Computation graphs in ONNX's terms: nodes, values, types, functions; built, checked and rewritten as data.
//!
//! A [`Program`] is what an ONNX file says beside its weights. Weights are named only ([`Weight`]): which tensor of the
//! model an initializer holds, and how it lies there. Structures follow `onnx.proto` of the ONNX project (IR version 13);
//! what a file holds and these do not know is kept as bytes (`unknown`), so that rewriting loses nothing.
//!
//! This crate must *not* know files, protocol buffers, where weights lie, or any architecture.

mod builder;
mod cast;
mod check;
mod coding;
mod dequantize;
mod elem;
mod fault;
mod infer;
mod ir;
mod prune;
mod quantize;
mod raise;
mod recover;
mod schema;
mod tensors;
mod types;
mod walk;

pub use builder::{Builder, Value};
pub use coding::{Code, Coding, Group, Order, Part, QuantizedWeight, Zero};
pub use dequantize::{Dequantized, EncodedWeight, Origin};
pub use elem::Elem;
pub use fault::{CheckError, Fault};
pub use infer::{Fact, Inferred, Weights};
pub use ir::{
    Annotation, Attribute, Content, Dim, Dimension, Dims, Function, Graph, Kind, Node, Opset, Pair, Program,
    Sparse, Tensor, TensorType, Training, Type, ValueInfo, Weight,
};
pub use quantize::{Candidate, Kind as WeightKind, QuantizeError, Quantized, Scheme};
pub use recover::{How, Recovered, Recovery};
pub use tensors::Stand;

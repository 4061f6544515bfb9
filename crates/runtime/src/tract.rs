//! The runtime written in Rust. The only module that knows the `tract` crates.
//!
//! A graph is read once, and prepared again whenever the sizes of its inputs change: with all sizes known, `tract` finds
//! every shape beforehand and needs no size to be a symbol. It knows no bf16, and of operators those of opset 9 to 18
//! best; what it lacks is an error that says so. Some graphs that contradict themselves make it panic, which ends the
//! call here and not the process.

use crate::{Dim, Port, Runtime, Value};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};
use tensormill_model::{Error, Result};
use tensormill_tensor::DType;
use tract_onnx::{
    pb::{self, tensor_proto::DataType, tensor_shape_proto::dimension::Value as DimValue, type_proto},
    prelude::*,
};

pub(crate) const BUILT_IN: bool = true;

const HINT: &str = "install ONNX Runtime and name its library with --onnxruntime PATH";

struct Graph {
    model: InferenceModel,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Prepared for inputs of these shapes.
    prepared: Option<(Vec<Vec<usize>>, Arc<TypedRunnableModel>)>,
}

pub(crate) fn open(path: &Path) -> Result<Box<dyn Runtime>> {
    // `tract` maps files; what cannot be opened should be told as everywhere else.
    std::fs::File::open(path).map_err(|e| Error::io("open", e))?;
    guarded(|| {
        let onnx = tract_onnx::onnx().with_ignore_value_info(true);
        let proto = onnx.proto_model_for_path(path).map_err(|e| Error::malformed(format!("{e:#}")))?;
        let graph = proto.graph.as_ref().ok_or_else(|| Error::malformed("there is no graph in it"))?;
        known(&onnx, graph)?;
        let has_default = |name: &str| graph.initializer.iter().any(|t| t.name == name);
        let inputs = graph.input.iter().filter(|i| !has_default(&i.name)).map(port);
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let outputs = graph.output.iter().map(port).collect::<Result<Vec<_>>>()?;
        let folder = path.parent().and_then(Path::to_str);
        let parsed = onnx.parse(&proto, folder).map_err(|e| refused(&e))?;
        if !parsed.unresolved_inputs.is_empty() {
            let names = parsed.unresolved_inputs.join(", ");
            return Err(Error::malformed(format!("nodes use what nothing computes: {names}")));
        }
        Ok(Box::new(Graph { model: parsed.model, inputs, outputs, prepared: None }) as Box<dyn Runtime>)
    })
}

/// Operators that `tract` computes as if no row of a batch were padded, whatever the lengths of rows say.
const WITHOUT_PADDING: &[&str] = &["GroupQueryAttention"];

/// Refuses operators that `tract` does not have, by name, before it stumbles over shapes that it cannot find; and those that it
/// would compute wrongly without a word.
fn known(onnx: &tract_onnx::Onnx, graph: &pb::GraphProto) -> Result<()> {
    let mut missing: Vec<&str> = graph
        .node
        .iter()
        .map(|n| n.op_type.as_str())
        .filter(|op| !onnx.op_register.0.contains_key(*op) || WITHOUT_PADDING.contains(op))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::unsupported(format!("tract does not compute {}", missing.join(", "))).hint(HINT))
}

impl Runtime for Graph {
    fn name(&self) -> String {
        "tract".to_owned()
    }
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }
    fn outputs(&self) -> &[Port] {
        &self.outputs
    }
    fn run(&mut self, inputs: Vec<&Value>) -> Result<Vec<Value>> {
        guarded(|| {
            let runnable = self.prepare(&inputs)?;
            let inputs = inputs.iter().map(|v| given(v)).collect::<Result<TVec<TValue>>>()?;
            let outputs = runnable.run(inputs).map_err(|e| refused(&e))?;
            self.outputs.iter().zip(outputs).map(|(p, t)| taken(p, &t)).collect()
        })
    }
}

impl Graph {
    fn prepare(&mut self, inputs: &[&Value]) -> Result<Arc<TypedRunnableModel>> {
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|v| v.shape().to_vec()).collect();
        if let Some((prepared, runnable)) = &self.prepared
            && *prepared == shapes
        {
            return Ok(Arc::clone(runnable));
        }
        // Two of them at a time would be the weights twice.
        self.prepared = None;
        let prepare = || -> TractResult<_> {
            let mut model = self.model.clone();
            for (i, value) in inputs.iter().enumerate() {
                model.set_input_fact(i, InferenceFact::dt_shape(datum(value.dtype())?, value.shape()))?;
            }
            model.into_optimized()?.into_runnable()
        };
        let runnable = prepare().map_err(|e| refused(&e))?;
        self.prepared = Some((shapes, Arc::clone(&runnable)));
        Ok(runnable)
    }
}

/// Runs `f`; a panic in it becomes an error.
fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic may leave half done is the graph's, and the next call prepares it anew.
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err(Error::unsupported("tract gave up on this graph").hint(HINT)))
}

fn refused(e: &TractError) -> Error {
    Error::unsupported(format!("tract: {e:#}")).hint(HINT)
}

fn given(value: &Value) -> Result<TValue> {
    let make = || -> TractResult<_> {
        let mut tensor = Tensor::zero_dt(datum(value.dtype())?, value.shape())?;
        tensor.as_bytes_mut().copy_from_slice(value.bytes());
        Ok(tensor.into_tvalue())
    };
    make().map_err(|e| refused(&e))
}

/// An output as the type that the graph declares: sizes are of a type of `tract`'s own until somebody asks.
fn taken(port: &Port, tensor: &Tensor) -> Result<Value> {
    let declared = datum(port.dtype).and_then(|dt| tensor.cast_to_dt(dt));
    let tensor = declared.map_err(|e| refused(&e).context(format!("output `{}`", port.name)))?;
    Value::new(port.dtype, tensor.shape().to_vec(), tensor.as_bytes().to_vec())
}

fn datum(dtype: DType) -> TractResult<DatumType> {
    Ok(match dtype {
        DType::Bool => DatumType::Bool,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::F16 => DatumType::F16,
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        other => return Err(TractError::msg(format!("no {other} values"))),
    })
}

fn port(info: &pb::ValueInfoProto) -> Result<Port> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err(Error::malformed(format!("`{}` has no type", info.name)));
    };
    let dtype = match DataType::try_from(tensor.elem_type) {
        Ok(DataType::Float) => DType::F32,
        Ok(DataType::Double) => DType::F64,
        Ok(DataType::Float16) => DType::F16,
        Ok(DataType::Int8) => DType::I8,
        Ok(DataType::Int16) => DType::I16,
        Ok(DataType::Int32) => DType::I32,
        Ok(DataType::Int64) => DType::I64,
        Ok(DataType::Uint8) => DType::U8,
        Ok(DataType::Uint16) => DType::U16,
        Ok(DataType::Uint32) => DType::U32,
        Ok(DataType::Uint64) => DType::U64,
        Ok(DataType::Bool) => DType::Bool,
        Ok(other) => {
            let what = format!("tract has no {other:?} values, which `{}` has", info.name);
            return Err(Error::unsupported(what).hint(HINT));
        }
        Err(_) => return Err(Error::malformed(format!("`{}` has elements of no known type", info.name))),
    };
    let dims = tensor.shape.as_ref().map(|shape| {
        let dim = |d: &pb::tensor_shape_proto::Dimension| match &d.value {
            Some(DimValue::DimValue(n)) => usize::try_from(*n).map_or(Dim::Symbol(String::new()), Dim::Fixed),
            Some(DimValue::DimParam(name)) => Dim::Symbol(name.clone()),
            None => Dim::Symbol(String::new()),
        };
        shape.dim.iter().map(dim).collect()
    });
    Ok(Port { name: info.name.clone(), dtype, dims })
}

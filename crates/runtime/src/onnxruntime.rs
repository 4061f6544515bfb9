//! ONNX Runtime, loaded when it is first asked for. The only module that knows the `ort` crate.
//!
//! `ort` panics when a call finds no library, so [`load`] comes before everything else: it names each place where it
//! looked and why that was of no use. A process has one library and one environment; both stay until it ends.

use crate::{Dim, Port, Runtime, Value};
use half::{bf16, f16};
use ort::{
    ErrorCode,
    environment::Environment,
    logging::LogLevel,
    session::{Session, SessionInputValue},
    value::{DynValue, Outlet, Tensor, TensorElementType as E, ValueType},
};
use std::{
    env,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};
use tensormill_model::{Error, ErrorKind, Result};
use tensormill_tensor::DType;

/// What `ort` reads too: who has set it for another program need not say it again.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// What the system's loader is asked for when nobody names a library. Distributions install the name with a major
/// version; the one without comes with their development packages.
const NAMES: &[&str] = if cfg!(target_os = "macos") {
    &["libonnxruntime.dylib"]
} else if cfg!(windows) {
    &["onnxruntime.dll"]
} else {
    &["libonnxruntime.so", "libonnxruntime.so.1"]
};

const HINT: &str = "install ONNX Runtime (the Python package has it as onnxruntime/capi/libonnxruntime.so.*) and name its \
                    library with --onnxruntime PATH or in ORT_DYLIB_PATH";

/// The library that this process uses.
pub(crate) struct Loaded {
    environment: Environment,
    library: PathBuf,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// Whether somebody named a library.
pub(crate) fn is_named(library: Option<&Path>) -> bool {
    named(library).is_some()
}

fn named(library: Option<&Path>) -> Option<PathBuf> {
    let from_environment = || env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    library.map(Path::to_owned).or_else(from_environment)
}

/// The library that is named or found, loaded once.
pub(crate) fn load(library: Option<&Path>) -> Result<&'static Loaded> {
    let candidates = match named(library) {
        // `ort` takes relative paths as relative to the program.
        Some(path) => vec![std::path::absolute(&path).unwrap_or(path)],
        None => NAMES.iter().map(PathBuf::from).collect(),
    };
    let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = LOADED.get() {
        return if library.is_none() || candidates.contains(&loaded.library) {
            Ok(loaded)
        } else {
            let other = loaded.library.display();
            Err(Error::usage(format!("ONNX Runtime was loaded from {other}; a process can load it once")))
        };
    }
    let mut reasons = Vec::new();
    for library in candidates {
        if library.is_absolute() && !library.is_file() {
            reasons.push(format!("{} is no file", library.display()));
            continue;
        }
        match ort::init_from(&library) {
            Ok(builder) => {
                let environment =
                    builder.with_name("tensormill").with_telemetry(false).build().map_err(|e| {
                        Error::unsupported(format!("ONNX Runtime does not start: {}", e.message()))
                    })?;
                // What goes wrong is returned; it need not be printed, too.
                environment.set_log_level(LogLevel::Fatal);
                return Ok(LOADED.get_or_init(|| Loaded { environment, library }));
            }
            Err(e) => reasons.push(e.to_string()),
        }
    }
    Err(Error::unsupported(format!("ONNX Runtime is not there: {}", reasons.join("; "))).hint(HINT))
}

struct Graph {
    session: Session,
    library: &'static Path,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

pub(crate) fn open(loaded: &'static Loaded, path: &Path) -> Result<Box<dyn Runtime>> {
    let mut builder = Session::builder(&loaded.environment).map_err(|e| error(&e))?;
    let session = builder.commit_from_file(path).map_err(|e| error(&e))?;
    let ports =
        |list: &[Outlet]| list.iter().map(|o| port(o.name(), o.dtype())).collect::<Result<Vec<Port>>>();
    let (inputs, outputs) = (ports(session.inputs())?, ports(session.outputs())?);
    Ok(Box::new(Graph { session, library: &loaded.library, inputs, outputs }))
}

impl Runtime for Graph {
    fn name(&self) -> String {
        let file = self.library.file_name().unwrap_or_default();
        format!("ONNX Runtime ({})", file.to_string_lossy())
    }
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }
    fn outputs(&self) -> &[Port] {
        &self.outputs
    }
    fn run(&mut self, inputs: Vec<&Value>) -> Result<Vec<Value>> {
        let inputs =
            inputs.into_iter().map(|v| given(v).map(SessionInputValue::from)).collect::<Result<Vec<_>>>()?;
        let outputs = self.session.run(inputs.as_slice()).map_err(|e| error(&e))?;
        self.outputs
            .iter()
            .map(|p| {
                let value = outputs.get(&p.name);
                let value = value.ok_or_else(|| Error::failed(format!("output `{}` is missing", p.name)))?;
                taken(p.dtype, value).map_err(|e| e.context(format!("output `{}`", p.name)))
            })
            .collect()
    }
}

/// Element types that go in and out, with what they are in memory here and in `ort`.
macro_rules! for_type {
    ($dtype:expr, $each:ident, $other:expr) => {
        match $dtype {
            DType::F32 => $each!(f32),
            DType::F64 => $each!(f64),
            DType::F16 => $each!(f16),
            DType::BF16 => $each!(bf16),
            DType::I8 => $each!(i8),
            DType::I16 => $each!(i16),
            DType::I32 => $each!(i32),
            DType::I64 => $each!(i64),
            DType::U8 => $each!(u8),
            DType::U16 => $each!(u16),
            DType::U32 => $each!(u32),
            DType::U64 => $each!(u64),
            _ => $other,
        }
    };
}

fn given(value: &Value) -> Result<DynValue> {
    let shape = value.shape().to_vec();
    macro_rules! tensor {
        ($t:ty) => {{
            const N: usize = size_of::<$t>();
            let elements = value.bytes().as_chunks::<N>().0.iter().map(|b| <$t>::from_le_bytes(*b));
            Tensor::<$t>::from_array((shape, elements.collect::<Vec<$t>>())).map(Tensor::into_dyn)
        }};
    }
    for_type!(value.dtype(), tensor, {
        // The only type that a port can have and the list has not.
        let elements: Vec<bool> = value.bytes().iter().map(|&b| b != 0).collect();
        Tensor::<bool>::from_array((shape, elements)).map(Tensor::into_dyn)
    })
    .map_err(|e| error(&e))
}

fn taken(dtype: DType, value: &DynValue) -> Result<Value> {
    macro_rules! bytes {
        ($t:ty) => {
            value
                .try_extract_tensor::<$t>()
                .map(|(shape, x)| (shape.to_vec(), x.iter().flat_map(|v| v.to_le_bytes()).collect()))
        };
    }
    let (shape, bytes) = for_type!(
        dtype,
        bytes,
        value
            .try_extract_tensor::<bool>()
            .map(|(shape, x)| (shape.to_vec(), x.iter().map(|&v| u8::from(v)).collect()))
    )
    .map_err(|e| error(&e))?;
    Value::new(dtype, shape.iter().map(|&n| n as usize).collect(), bytes)
}

fn port(name: &str, kind: &ValueType) -> Result<Port> {
    let ValueType::Tensor { ty, shape, dimension_symbols } = kind else {
        return Err(Error::unsupported(format!("`{name}` is no tensor but {kind:?}")));
    };
    let dtype = match ty {
        E::Float32 => DType::F32,
        E::Float64 => DType::F64,
        E::Float16 => DType::F16,
        E::Bfloat16 => DType::BF16,
        E::Int8 => DType::I8,
        E::Int16 => DType::I16,
        E::Int32 => DType::I32,
        E::Int64 => DType::I64,
        E::Uint8 => DType::U8,
        E::Uint16 => DType::U16,
        E::Uint32 => DType::U32,
        E::Uint64 => DType::U64,
        E::Bool => DType::Bool,
        other => return Err(Error::unsupported(format!("`{name}` has elements of type {other}"))),
    };
    let dims =
        shape.iter().zip(dimension_symbols.iter()).map(|(&size, symbol)| match usize::try_from(size) {
            Ok(size) => Dim::Fixed(size),
            Err(_) => Dim::Symbol(symbol.clone()),
        });
    Ok(Port { name: name.to_owned(), dtype, dims: Some(dims.collect()) })
}

fn error<T>(e: &ort::Error<T>) -> Error {
    let kind = match e.code() {
        ErrorCode::NoSuchFile => ErrorKind::Io,
        ErrorCode::NoModel | ErrorCode::InvalidProtobuf | ErrorCode::InvalidGraph => ErrorKind::Malformed,
        ErrorCode::InvalidArgument => ErrorKind::Usage,
        _ => ErrorKind::Unsupported,
    };
    Error::new(kind, e.message().trim()).context("ONNX Runtime")
}

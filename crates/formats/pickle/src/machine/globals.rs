//! The names that mean something here. Everything else becomes an opaque object; nothing is ever looked up or run.

use crate::types::{self, TorchType};

/// What an imported name is known to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// A dict class that takes nothing, pairs or a dict.
    Dict,
    /// `defaultdict`: its argument makes values and is ignored.
    DefaultDict,
    /// Gives its only argument back: sets, `torch.Size`, lists of TorchScript.
    Identity,
    /// `torch.nn.parameter.Parameter` and `torch.Tensor`: the class of plain tensors.
    TensorClass,
    /// A class of typed tensors as torch 0.1 pickled them: the state says everything.
    OldTensor,
    /// `_codecs.encode`: bytes written as text.
    Encode,
    /// `bytes`, `bytearray`.
    Bytes,
    /// Class of storages.
    Storage(&'static TorchType),
    /// A dtype.
    Type(&'static TorchType),
    /// `torch.per_tensor_affine`, `torch.per_channel_affine`.
    PerTensor,
    PerChannel,
    /// `torch._utils._rebuild_*`.
    RebuildTensor,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    RebuildQuantized,
    RebuildFromType,
    /// A tensor given as a plain one with a dtype: (data, dtype, device, requires_grad).
    RebuildOnDevice,
    /// Something with tensors in it that is refused by this name.
    Refused(&'static str),
    NumpyReconstruct,
    NumpyArray,
    NumpyType,
    NumpyScalar,
    NumpyFromBuffer,
}

/// What a name is known to be. Names of Python 2 and of old numpy and torch are those of today.
pub(crate) fn known(module: &str, name: &str) -> Option<Known> {
    use Known as K;
    Some(match (module, name) {
        ("collections", "OrderedDict" | "Counter") | ("builtins" | "__builtin__", "dict") => K::Dict,
        ("collections", "defaultdict") => K::DefaultDict,
        ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple") | ("torch", "Size") => {
            K::Identity
        }
        ("builtins" | "__builtin__", "bytes" | "bytearray") => K::Bytes,
        ("_codecs", "encode") => K::Encode,
        ("torch.nn.parameter", "Parameter" | "Buffer" | "UninitializedParameter")
        | ("torch.nn" | "torch.autograd.variable", "Parameter" | "Variable")
        | ("torch" | "torch._tensor" | "torch.tensor", "Tensor") => K::TensorClass,
        ("torch.jit._pickle", _) if name.starts_with("build_") => K::Identity,
        ("torch.jit._pickle", "restore_type_tag") => K::Identity,
        ("torch", "per_tensor_affine" | "per_tensor_symmetric") => K::PerTensor,
        ("torch", "per_channel_affine" | "per_channel_symmetric" | "per_channel_affine_float_qparams") => {
            K::PerChannel
        }
        ("torch._utils", _) => return rebuild(name),
        ("torch._tensor" | "torch.tensor", "_rebuild_from_type_v2") => K::RebuildFromType,
        ("torch.storage", "_load_from_bytes") => K::Refused("a storage pickled inside its pickle"),
        ("torch.nested._internal.nested_tensor", _) => K::Refused("a nested (jagged) tensor"),
        ("torch" | "torch.cuda" | "torch.storage", _) => return torch(module, name),
        ("numpy.core.multiarray" | "numpy._core.multiarray" | "numpy.core._multiarray_umath", _) => {
            match name {
                "_reconstruct" => K::NumpyReconstruct,
                "scalar" => K::NumpyScalar,
                _ => return None,
            }
        }
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => K::NumpyFromBuffer,
        ("numpy", "ndarray") => K::NumpyArray,
        ("numpy", "dtype") => K::NumpyType,
        ("ml_dtypes", _) => K::Type(ml_dtype(name)?),
        _ => return None,
    })
}

fn rebuild(name: &str) -> Option<Known> {
    use Known as K;
    Some(match name {
        "_rebuild_tensor" => K::RebuildTensor,
        "_rebuild_tensor_v2" => K::RebuildTensorV2,
        "_rebuild_tensor_v3" => K::RebuildTensorV3,
        "_rebuild_parameter" | "_rebuild_parameter_with_state" => K::RebuildParameter,
        "_rebuild_qtensor" => K::RebuildQuantized,
        "_rebuild_device_tensor_from_numpy"
        | "_rebuild_xla_tensor"
        | "_rebuild_device_tensor_from_cpu_tensor" => K::RebuildOnDevice,
        "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => K::Refused("a sparse tensor"),
        "_rebuild_nested_tensor" => K::Refused("a nested tensor"),
        "_rebuild_meta_tensor_no_storage" => K::Refused("a tensor without data (device \"meta\")"),
        "_rebuild_wrapper_subclass" => K::Refused("a tensor subclass that wraps others"),
        _ => return None,
    })
}

fn torch(module: &str, name: &str) -> Option<Known> {
    if let Some(ty) = types::by_storage(name) {
        return Some(Known::Storage(ty));
    }
    if module == "torch"
        && let Some(ty) = types::by_name(name)
    {
        return Some(Known::Type(ty));
    }
    let class = name.strip_suffix("Tensor")?;
    TENSOR_CLASSES.contains(&class).then_some(Known::OldTensor)
}

/// `torch.FloatTensor` and its like, each the name of a storage class too.
const TENSOR_CLASSES: [&str; 9] =
    ["Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long"];

fn ml_dtype(name: &str) -> Option<&'static TorchType> {
    match name {
        "bfloat16" | "float8_e4m3fn" | "float8_e5m2" | "float8_e4m3fnuz" | "float8_e5m2fnuz"
        | "float8_e8m0fnu" => types::by_name(name),
        _ => None,
    }
}

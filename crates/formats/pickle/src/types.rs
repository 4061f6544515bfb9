//! Element types as torch names them, and what each becomes here.

use tensormill_model::{Error, Result};
use tensormill_tensor::DType;

/// What an element type becomes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Becomes {
    /// The same type.
    Same(DType),
    /// Opaque bytes in torch too: an integer type of the same width, which is said.
    Raw(DType),
    /// One torch element is two of these, low bits first: the last dimension doubles.
    Pairs(DType),
    /// The integers of an affine quantized tensor; scale and zero point become tensors of their own.
    Quantized(DType),
    /// Nothing: refused by name.
    Nothing,
}

/// One torch dtype.
#[derive(Debug)]
pub(crate) struct TorchType {
    /// Name without `torch.`.
    pub name: &'static str,
    /// Class of typed storages; newer dtypes have none and lie in `UntypedStorage`.
    pub storage: Option<&'static str>,
    /// Bytes of one torch element.
    pub unit: u64,
    pub becomes: Becomes,
}

impl TorchType {
    /// The element type here, and dimensions in elements of it.
    pub fn held(&self, size: &[u64]) -> Result<(DType, Vec<u64>)> {
        let mut dims = size.to_vec();
        let dtype = match self.becomes {
            Becomes::Same(d) | Becomes::Raw(d) | Becomes::Quantized(d) => d,
            Becomes::Pairs(d) => {
                let last = dims.last_mut().ok_or_else(|| {
                    Error::unsupported(format!("a {} without dimensions: it is two numbers", self.name))
                })?;
                *last = last.checked_mul(2).ok_or_else(|| Error::malformed("a dimension beyond 64 bits"))?;
                d
            }
            Becomes::Nothing => {
                return Err(Error::unsupported(format!("its dtype, torch.{}, cannot be held", self.name))
                    .hint(
                        "convert it in torch, or leave it out by naming another part of the file with --key",
                    ));
            }
        };
        Ok((dtype, dims))
    }
}

macro_rules! types {
    ($($name:literal $storage:expr, $unit:literal, $becomes:expr;)*) => {
        &[$(TorchType { name: $name, storage: $storage, unit: $unit, becomes: $becomes }),*]
    };
}

use Becomes::{Nothing, Pairs, Quantized, Raw, Same};

/// torch 2.15: `torch/storage.py` (`_dtype_to_storage_type_map`, `_new_dtypes`), `_weights_only_unpickler.py`.
pub(crate) static TYPES: &[TorchType] = types! {
    "float32" Some("FloatStorage"), 4, Same(DType::F32);
    "float64" Some("DoubleStorage"), 8, Same(DType::F64);
    "float16" Some("HalfStorage"), 2, Same(DType::F16);
    "bfloat16" Some("BFloat16Storage"), 2, Same(DType::BF16);
    "uint8" Some("ByteStorage"), 1, Same(DType::U8);
    "int8" Some("CharStorage"), 1, Same(DType::I8);
    "int16" Some("ShortStorage"), 2, Same(DType::I16);
    "int32" Some("IntStorage"), 4, Same(DType::I32);
    "int64" Some("LongStorage"), 8, Same(DType::I64);
    "bool" Some("BoolStorage"), 1, Same(DType::Bool);
    "complex64" Some("ComplexFloatStorage"), 8, Same(DType::C64);
    "complex128" Some("ComplexDoubleStorage"), 16, Nothing;
    "complex32" Some("ComplexHalfStorage"), 4, Nothing;
    "bcomplex32" None, 4, Nothing;
    "qint8" Some("QInt8Storage"), 1, Quantized(DType::I8);
    "quint8" Some("QUInt8Storage"), 1, Quantized(DType::U8);
    "qint32" Some("QInt32Storage"), 4, Quantized(DType::I32);
    "quint4x2" Some("QUInt4x2Storage"), 1, Nothing;
    "quint2x4" Some("QUInt2x4Storage"), 1, Nothing;
    "uint16" None, 2, Same(DType::U16);
    "uint32" None, 4, Same(DType::U32);
    "uint64" None, 8, Same(DType::U64);
    "float8_e4m3fn" None, 1, Same(DType::F8E4M3);
    "float8_e5m2" None, 1, Same(DType::F8E5M2);
    "float8_e4m3fnuz" None, 1, Same(DType::F8E4M3Fnuz);
    "float8_e5m2fnuz" None, 1, Same(DType::F8E5M2Fnuz);
    "float8_e8m0fnu" None, 1, Same(DType::F8E8M0);
    "float4_e2m1fn_x2" None, 1, Pairs(DType::F4);
    "bits8" None, 1, Raw(DType::U8);
    "bits16" None, 2, Raw(DType::U16);
    "bits1x8" None, 1, Raw(DType::U8);
    "bits2x4" None, 1, Raw(DType::U8);
    "bits4x2" None, 1, Raw(DType::U8);
    "uint1" None, 1, Raw(DType::U8);
    "uint2" None, 1, Raw(DType::U8);
    "uint3" None, 1, Raw(DType::U8);
    "uint4" None, 1, Raw(DType::U8);
    "uint5" None, 1, Raw(DType::U8);
    "uint6" None, 1, Raw(DType::U8);
    "uint7" None, 1, Raw(DType::U8);
    "int1" None, 1, Raw(DType::I8);
    "int2" None, 1, Raw(DType::I8);
    "int3" None, 1, Raw(DType::I8);
    "int4" None, 1, Raw(DType::I8);
    "int5" None, 1, Raw(DType::I8);
    "int6" None, 1, Raw(DType::I8);
    "int7" None, 1, Raw(DType::I8);
};

/// The dtype called `torch.<name>`.
pub(crate) fn by_name(name: &str) -> Option<&'static TorchType> {
    TYPES.iter().find(|t| t.name == name)
}

/// The dtype of a storage class; untyped storages count bytes.
pub(crate) fn by_storage(class: &str) -> Option<&'static TorchType> {
    match class {
        "UntypedStorage" | "_UntypedStorage" => by_name("uint8"),
        _ => TYPES.iter().find(|t| t.storage == Some(class)),
    }
}

/// How a dtype of ours is written: as itself, or as pairs.
pub(crate) fn of(dtype: DType) -> Option<&'static TorchType> {
    TYPES.iter().find(|t| t.becomes == Same(dtype) || t.becomes == Pairs(dtype))
}

/// Width within which the bytes of big-endian data are reversed: complex numbers are two.
pub(crate) fn swap_width(dtype: DType) -> u8 {
    match dtype {
        DType::C64 => 4,
        d => (d.bits() / 8).max(1) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_but_six_bit_floats_can_be_written() {
        for d in DType::ALL {
            let t = of(d);
            assert_eq!(t.is_none(), matches!(d, DType::F6E2M3 | DType::F6E3M2), "{d}");
            if let Some(t) = t {
                let bits = if matches!(t.becomes, Pairs(_)) { 2 * d.bits() } else { d.bits() };
                assert_eq!(8 * t.unit, bits, "{d}");
            }
        }
        assert_eq!(by_storage("BFloat16Storage").unwrap().name, "bfloat16");
    }
}

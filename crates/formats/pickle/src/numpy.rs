//! numpy's element types.

use crate::{
    machine::heap::ArrayType,
    types::{self, TorchType},
};

impl ArrayType {
    /// The torch dtype with the same elements; `None` for objects, strings, dates, records.
    pub fn torch_type(&self) -> Option<&'static TorchType> {
        if self.structured {
            return None;
        }
        self.torch.or_else(|| {
            types::by_name(match self.name.as_str() {
                "b1" | "?" => "bool",
                "i1" => "int8",
                "u1" => "uint8",
                "i2" => "int16",
                "u2" => "uint16",
                "i4" => "int32",
                "u4" => "uint32",
                "i8" => "int64",
                "u8" => "uint64",
                "f2" => "float16",
                "f4" => "float32",
                "f8" => "float64",
                "c8" => "complex64",
                "c16" => "complex128",
                _ => return None,
            })
        })
    }
}

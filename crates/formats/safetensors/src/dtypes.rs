//! Names of element types in headers.

use tensormill_tensor::DType;

/// Every dtype, in the order in which the reference library sorts them (`enum Dtype`): by alignment, widest last.
pub(crate) const NAMES: [(&str, DType); 22] = [
    ("BOOL", DType::Bool),
    ("F4", DType::F4),
    ("F6_E2M3", DType::F6E2M3),
    ("F6_E3M2", DType::F6E3M2),
    ("U8", DType::U8),
    ("I8", DType::I8),
    ("F8_E5M2", DType::F8E5M2),
    ("F8_E4M3", DType::F8E4M3),
    ("F8_E8M0", DType::F8E8M0),
    ("F8_E4M3FNUZ", DType::F8E4M3Fnuz),
    ("F8_E5M2FNUZ", DType::F8E5M2Fnuz),
    ("I16", DType::I16),
    ("U16", DType::U16),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("I32", DType::I32),
    ("U32", DType::U32),
    ("F32", DType::F32),
    ("C64", DType::C64),
    ("F64", DType::F64),
    ("I64", DType::I64),
    ("U64", DType::U64),
];

/// The dtype of a header's name.
pub(crate) fn by_name(name: &str) -> Option<DType> {
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, d)| *d)
}

/// Name in headers, and rank in the canonical order.
pub(crate) fn name_and_rank(dtype: DType) -> Option<(&'static str, usize)> {
    NAMES.iter().enumerate().find(|(_, (_, d))| *d == dtype).map(|(i, (n, _))| (*n, i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_has_one_name() {
        for d in DType::ALL {
            let (name, _) = name_and_rank(d).unwrap();
            assert_eq!(by_name(name), Some(d));
        }
        assert_eq!(by_name("f32"), None);
    }
}

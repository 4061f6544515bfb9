//! A tensor that goes into a graph or comes out of it.

use tensormill_model::{Error, Result};
use tensormill_tensor::{DType, decode_plain, encode_plain};

/// Shape and elements, little-endian, as every runtime here has them in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Value {
    /// A value from its bytes.
    ///
    /// # Errors
    /// `Mismatch` when the bytes are not as many as the shape demands; `Malformed` when a truth value is neither 0 nor 1.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self> {
        let demanded = elements(&shape).and_then(|n| dtype.bytes(n));
        if demanded != Some(bytes.len() as u64) {
            return Err(Error::mismatch(format!("{} bytes for {dtype} {shape:?}", bytes.len())));
        }
        // To a runtime's `bool` anything else is undefined behaviour.
        if dtype == DType::Bool && bytes.iter().any(|&b| b > 1) {
            return Err(Error::malformed("truth values other than 0 and 1"));
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// `f32` elements.
    ///
    /// # Errors
    /// `Mismatch` when the shape demands another number.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Self> {
        Self::new(DType::F32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// `i64` elements.
    ///
    /// # Errors
    /// As [`Self::from_f32`].
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Result<Self> {
        Self::new(DType::I64, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// The elements, little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements as `f32`, rounded to nearest even where that is less.
    ///
    /// # Errors
    /// `Unsupported` for types whose elements are no single number of whole bytes.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut out = vec![0f32; elements(&self.shape).unwrap_or(0) as usize];
        if decode_plain(self.dtype, &self.bytes, &mut out) {
            Ok(out)
        } else {
            Err(Error::unsupported(format!("{} values cannot be read as numbers", self.dtype)))
        }
    }

    /// The elements as `i64`; none when the type is not one of whole numbers, or one does not fit.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        macro_rules! each {
            ($t:ty) => {{
                const N: usize = size_of::<$t>();
                let chunks = self.bytes.as_chunks::<N>().0;
                chunks.iter().map(|b| i64::try_from(<$t>::from_le_bytes(*b)).ok()).collect()
            }};
        }
        match self.dtype {
            DType::Bool | DType::U8 => each!(u8),
            DType::I8 => each!(i8),
            DType::U16 => each!(u16),
            DType::I16 => each!(i16),
            DType::U32 => each!(u32),
            DType::I32 => each!(i32),
            DType::U64 => each!(u64),
            DType::I64 => each!(i64),
            _ => None,
        }
    }

    /// The same numbers as another type: floats are rounded to nearest even, whole numbers must fit.
    ///
    /// # Errors
    /// `Usage` when a number does not fit, or floats would have to become whole numbers.
    pub fn cast(&self, to: DType) -> Result<Self> {
        if to == self.dtype {
            return Ok(self.clone());
        }
        let refused = || Error::usage(format!("{} values cannot be given as {to}", self.dtype));
        let bytes = if to.is_float() {
            // Whole numbers that `f32` has not, `f64` may have.
            if let (DType::F64, Some(whole)) = (to, self.to_i64()) {
                whole.iter().flat_map(|&v| (v as f64).to_le_bytes()).collect()
            } else {
                let values = self.to_f32()?;
                let mut bytes = vec![0; values.len() * (to.bits() / 8) as usize];
                if !encode_plain(to, &values, &mut bytes) {
                    return Err(refused());
                }
                bytes
            }
        } else {
            let whole = self.to_i64().ok_or_else(refused)?;
            macro_rules! each {
                ($t:ty) => {{
                    let mut bytes = Vec::with_capacity(whole.len() * size_of::<$t>());
                    for &v in &whole {
                        let v = <$t>::try_from(v).map_err(|_| refused())?;
                        bytes.extend_from_slice(&v.to_le_bytes());
                    }
                    bytes
                }};
            }
            match to {
                DType::Bool => whole.iter().map(|&v| u8::from(v != 0)).collect(),
                DType::U8 => each!(u8),
                DType::I8 => each!(i8),
                DType::U16 => each!(u16),
                DType::I16 => each!(i16),
                DType::U32 => each!(u32),
                DType::I32 => each!(i32),
                DType::U64 => each!(u64),
                DType::I64 => each!(i64),
                _ => return Err(refused()),
            }
        };
        Self::new(to, self.shape.clone(), bytes)
    }
}

fn elements(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |a, &d| a.checked_mul(d as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_a_cast_or_are_refused() {
        let ids = Value::from_i64(&[2], &[0, 300]).unwrap();
        assert_eq!(ids.cast(DType::I32).unwrap().to_i64().unwrap(), [0, 300]);
        assert_eq!(ids.cast(DType::F16).unwrap().to_f32().unwrap(), [0.0, 300.0]);
        assert_eq!(ids.cast(DType::Bool).unwrap().bytes(), [0, 1]);
        assert!(ids.cast(DType::U8).is_err(), "300 is no byte");
        let large = Value::from_i64(&[1], &[(1 << 40) + 1]).unwrap();
        let wide = large.cast(DType::F64).unwrap();
        assert_eq!(f64::from_le_bytes(wide.bytes().try_into().unwrap()), ((1u64 << 40) + 1) as f64);
        let floats = Value::from_f32(&[1], &[1.0 / 3.0]).unwrap();
        assert!(floats.cast(DType::I64).is_err());
        assert_eq!(floats.cast(DType::BF16).unwrap().to_f32().unwrap(), [0.333_984_38]);
    }

    #[test]
    fn bytes_must_be_as_many_as_the_shape_says() {
        assert!(Value::new(DType::I64, vec![2, 0, 3], Vec::new()).is_ok());
        assert!(Value::new(DType::I64, vec![2], vec![0; 15]).is_err());
        assert!(Value::new(DType::F32, vec![usize::MAX, 2], Vec::new()).is_err());
        assert!(Value::new(DType::Bool, vec![2], vec![1, 2]).is_err());
    }
}

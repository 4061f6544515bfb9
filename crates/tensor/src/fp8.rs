//! 8-bit floats to and from `f32`, by the rounding of torch's casts.
//!
//! Must not know scales or groups: a value here stands for itself.

use crate::DType;

/// What an 8-bit float's exponent and mantissa mean.
#[derive(Clone, Copy)]
struct Layout {
    mantissa: u32,
    bias: i32,
    specials: Specials,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Specials {
    /// Exponent all ones is infinity or NaN.
    Ieee,
    /// Only exponent and mantissa all ones is NaN; no infinity (OCP E4M3).
    MaxIsNan,
    /// Only 0x80 is NaN; no infinity, no negative zero.
    NegZeroIsNan,
}

const E4M3: Layout = Layout { mantissa: 3, bias: 7, specials: Specials::MaxIsNan };
const E5M2: Layout = Layout { mantissa: 2, bias: 15, specials: Specials::Ieee };
const E4M3_FNUZ: Layout = Layout { mantissa: 3, bias: 8, specials: Specials::NegZeroIsNan };
const E5M2_FNUZ: Layout = Layout { mantissa: 2, bias: 16, specials: Specials::NegZeroIsNan };

/// Bit pattern of infinity.
const INFINITY: u32 = 0x7f80_0000;

/// `2^e` for exponents of normal numbers.
const fn power(e: i32) -> f32 {
    f32::from_bits(((e + 127) as u32) << 23)
}

impl Layout {
    const fn value(self, code: u8) -> f32 {
        let magnitude = code & 0x7f;
        let (exponent, mantissa) = (magnitude >> self.mantissa, magnitude & ((1 << self.mantissa) - 1));
        let sign = if code & 0x80 != 0 { -1.0f32 } else { 1.0 };
        match self.specials {
            Specials::NegZeroIsNan if code == 0x80 => return f32::NAN,
            Specials::MaxIsNan if magnitude == 0x7f => return f32::NAN,
            Specials::Ieee if exponent == 0x7f >> self.mantissa => {
                return if mantissa == 0 { sign * f32::INFINITY } else { f32::NAN };
            }
            _ => {}
        }
        let last = power(1 - self.bias - self.mantissa as i32);
        if exponent == 0 {
            return sign * mantissa as f32 * last;
        }
        sign * (mantissa | 1 << self.mantissa) as f32 * last * power(exponent as i32 - 1)
    }

    const fn table(self) -> [f32; 256] {
        let (mut table, mut code) = ([0.0; 256], 0);
        while code < 256 {
            table[code] = self.value(code as u8);
            code += 1;
        }
        table
    }

    /// The code of the largest finite magnitude.
    const fn largest(self) -> u32 {
        match self.specials {
            Specials::Ieee => (0x7f << self.mantissa & 0x7f) - 1,
            Specials::MaxIsNan => 0x7e,
            Specials::NegZeroIsNan => 0x7f,
        }
    }

    /// To nearest even. What rounds beyond the largest number becomes that where `saturate`, which infinities do too.
    #[inline]
    fn code(self, x: f32, saturate: bool) -> u8 {
        let (sign, magnitude) = (x.to_bits() >> 24 & 0x80, x.to_bits() & 0x7fff_ffff);
        let fnuz = self.specials == Specials::NegZeroIsNan;
        if magnitude > INFINITY {
            return if fnuz { 0x80 } else { (sign | 0x7f) as u8 };
        }
        let dropped = 23 - self.mantissa;
        // Binary32's exponent of the smallest normal number.
        let smallest = (128 - self.bias) as u32;
        let rounded = if magnitude < smallest << 23 {
            // The last place of this number is the smallest step, so one addition rounds to nearest even.
            let shift = f32::from_bits((smallest + dropped) << 23);
            (f32::from_bits(magnitude) + shift).to_bits() - shift.to_bits()
        } else {
            // Exponent and mantissa as one number: rounding may carry.
            let odd = magnitude >> dropped & 1;
            (magnitude - ((smallest - 1) << 23) + (1 << (dropped - 1)) - 1 + odd) >> dropped
        };
        if rounded > self.largest() {
            return match self.specials {
                _ if saturate => (sign | self.largest()) as u8,
                Specials::Ieee => (sign | (0x7f << self.mantissa & 0x7f)) as u8,
                Specials::MaxIsNan => (sign | 0x7f) as u8,
                Specials::NegZeroIsNan => 0x80,
            };
        }
        if fnuz && rounded == 0 { 0 } else { (sign | rounded) as u8 }
    }
}

/// `2^(e-127)`; `e = 0` is the subnormal `2^-127`.
const fn e8m0_value(code: u8) -> f32 {
    match code {
        255 => f32::NAN,
        0 => f32::from_bits(0x0040_0000),
        e => f32::from_bits((e as u32) << 23),
    }
}

/// The nearest power of two, halves up above `2^-126` (torch counts a tie as even where the exponent field is zero); the
/// sign is dropped. What is not finite is NaN, and so is what rounds beyond the largest power unless `saturate`.
#[inline]
fn e8m0_code(x: f32, saturate: bool) -> u8 {
    let bits = x.to_bits() & 0x7fff_ffff;
    if bits >= INFINITY {
        return if saturate && bits == INFINITY { 254 } else { 255 };
    }
    let (exponent, rest) = (bits >> 23, bits & 0x007f_ffff);
    let up = rest > 0x0040_0000 || rest == 0x0040_0000 && exponent > 0;
    let rounded = exponent + u32::from(up);
    (if saturate { rounded.min(254) } else { rounded }) as u8
}

static TABLES: [[f32; 256]; 4] = [E4M3.table(), E5M2.table(), E4M3_FNUZ.table(), E5M2_FNUZ.table()];

/// Decodes a row of 8-bit floats; `false` for any other type, with `out` untouched.
pub(crate) fn decode(dtype: DType, src: &[u8], out: &mut [f32]) -> bool {
    let table = match dtype {
        DType::F8E4M3 => &TABLES[0],
        DType::F8E5M2 => &TABLES[1],
        DType::F8E4M3Fnuz => &TABLES[2],
        DType::F8E5M2Fnuz => &TABLES[3],
        DType::F8E8M0 => {
            for (o, code) in out.iter_mut().zip(src) {
                *o = e8m0_value(*code);
            }
            return true;
        }
        _ => return false,
    };
    for (o, code) in out.iter_mut().zip(src) {
        *o = table[usize::from(*code)];
    }
    true
}

/// Encodes a row as 8-bit floats; `false` for any other type, with `out` untouched.
pub(crate) fn encode(dtype: DType, src: &[f32], out: &mut [u8], saturate: bool) -> bool {
    macro_rules! each {
        ($layout:expr, $saturate:expr) => {
            for (o, x) in out.iter_mut().zip(src) {
                *o = $layout.code(*x, $saturate);
            }
        };
    }
    match dtype {
        // torch saturates this one alone.
        DType::F8E4M3 => each!(E4M3, true),
        DType::F8E5M2 => each!(E5M2, saturate),
        DType::F8E4M3Fnuz => each!(E4M3_FNUZ, saturate),
        DType::F8E5M2Fnuz => each!(E5M2_FNUZ, saturate),
        DType::F8E8M0 => {
            for (o, x) in out.iter_mut().zip(src) {
                *o = e8m0_code(*x, saturate);
            }
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [DType; 5] =
        [DType::F8E4M3, DType::F8E5M2, DType::F8E4M3Fnuz, DType::F8E5M2Fnuz, DType::F8E8M0];

    fn value(dtype: DType, code: u8) -> f32 {
        let mut x = [0f32];
        assert!(decode(dtype, &[code], &mut x));
        x[0]
    }

    fn code(dtype: DType, x: f32, saturate: bool) -> u8 {
        let mut code = [0u8];
        assert!(encode(dtype, &[x], &mut code, saturate));
        code[0]
    }

    #[test]
    fn landmarks() {
        assert_eq!(value(DType::F8E4M3, 0x7e), 448.0);
        assert!(value(DType::F8E4M3, 0x7f).is_nan());
        assert_eq!(value(DType::F8E4M3, 0x01), 2f32.powi(-9));
        assert_eq!(value(DType::F8E5M2, 0x7b), 57344.0);
        assert_eq!(value(DType::F8E5M2, 0xfc), f32::NEG_INFINITY);
        assert_eq!(value(DType::F8E4M3Fnuz, 0x7f), 240.0);
        assert!(value(DType::F8E4M3Fnuz, 0x80).is_nan());
        assert_eq!(value(DType::F8E5M2Fnuz, 0x7f), 57344.0);
        assert_eq!(value(DType::F8E8M0, 127), 1.0);
        assert_eq!(value(DType::F8E8M0, 0), 2f32.powi(-127));
    }

    #[test]
    fn every_code_survives_and_ties_go_to_even() {
        for dtype in TYPES {
            for c in 0..=255u8 {
                let x = value(dtype, c);
                if !x.is_nan() {
                    assert_eq!(code(dtype, x, false), c, "{dtype} {x}");
                }
                let next = value(dtype, c.wrapping_add(1));
                if dtype != DType::F8E8M0 && c & 0x7f != 0x7f && x.is_finite() && next.is_finite() {
                    let middle = x + (next - x) / 2.0;
                    assert_eq!(code(dtype, middle, false) & 1, 0, "{dtype} {middle}");
                }
            }
        }
    }

    #[test]
    fn overflow_saturates_where_asked_and_nan_stays() {
        for dtype in TYPES {
            for x in [1e30, f32::MAX, f32::INFINITY] {
                let back = value(dtype, code(dtype, x, true));
                assert!(back.is_finite() && back > 200.0, "{dtype} {x} {back}");
            }
            assert!(value(dtype, code(dtype, f32::NAN, true)).is_nan());
        }
        assert_eq!(code(DType::F8E5M2, 61440.0, false), 0x7c);
        assert_eq!(code(DType::F8E5M2, 61439.0, false), 0x7b);
    }
}

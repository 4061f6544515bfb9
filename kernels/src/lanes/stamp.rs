//! One function per instruction set from one that is generic over [`super::Simd`].

/// Defines a module per level that holds, for each line `name = generic;`, a safe function `name(rows, out)`:
/// the generic one compiled with the level's target features.
macro_rules! stamp {
    ($($name:ident = $($generic:ident)::+;)*) => {
        stamp!(@level avx2, Avx2, "avx2", $($name = $($generic)::+;)*);
        stamp!(@level avx512, Avx512, "avx512f,avx512bw,avx512vl,avx512dq", $($name = $($generic)::+;)*);
    };
    (@level $level:ident, $token:ident, $features:literal, $($name:ident = $($generic:ident)::+;)*) => {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        pub(crate) mod $level {
            use crate::lanes::{$token, Rows};
            $(pub(crate) fn $name(rows: Rows<'_>, out: &mut [u8]) {
                #[target_feature(enable = $features)]
                fn inner(v: $token, rows: Rows<'_>, out: &mut [u8]) {
                    super::$($generic)::+(v, rows, out);
                }
                let v = $token::detect().expect("dispatch offers a level only where it was detected");
                // SAFETY: the token proves that this machine has the features.
                unsafe { inner(v, rows, out) }
            })*
        }
    };
}
pub(crate) use stamp;

/// The rows' finiteness at each level: the same loop, vectorised as widely as the level allows.
macro_rules! finite {
    ($level:ident, $token:ident, $features:literal) => {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        pub(crate) mod $level {
            pub(crate) fn all_finite(values: &[f32]) -> bool {
                #[target_feature(enable = $features)]
                fn inner(values: &[f32]) -> bool {
                    crate::codec::all_finite(values)
                }
                crate::lanes::$token::detect().expect("dispatch offers a level only where it was detected");
                // SAFETY: the token proves that this machine has the features.
                unsafe { inner(values) }
            }
        }
    };
}

finite!(avx2, Avx2, "avx2");
finite!(avx512, Avx512, "avx512f,avx512bw,avx512vl,avx512dq");

//! One function per instruction set from one that is generic over [`super::Simd`].

/// Defines a module per level that holds, for each line, a safe function `name(rows, out)`: the generic one compiled
/// with the level's target features. It returns whether all weights are finite numbers; where they are not, what it
/// wrote means nothing. `search name = generic;` looks for that before it calls the generic function, `direct
/// name = generic;` is for one that finds out by itself.
macro_rules! stamp {
    ($(search $search:ident = $($searching:ident)::+;)* $(direct $direct:ident = $($directly:ident)::+;)*) => {
        stamp!(@level "x86_64", avx2, Avx2, "avx2", $(search $search = $($searching)::+;)* $(direct $direct = $($directly)::+;)*);
        stamp!(@level "x86_64", avx512, Avx512, "avx512f,avx512bw,avx512vl,avx512dq", $(search $search = $($searching)::+;)* $(direct $direct = $($directly)::+;)*);
        stamp!(@level "aarch64", neon, Neon, "neon", $(search $search = $($searching)::+;)* $(direct $direct = $($directly)::+;)*);
    };
    (@level $arch:literal, $level:ident, $token:ident, $features:literal, $(search $search:ident = $($searching:ident)::+;)* $(direct $direct:ident = $($directly:ident)::+;)*) => {
        #[cfg(target_arch = $arch)]
        #[allow(unsafe_code)]
        pub(crate) mod $level {
            use crate::lanes::{$token, Rows};
            $(pub(crate) fn $search(rows: Rows<'_>, out: &mut [u8]) -> bool {
                #[target_feature(enable = $features)]
                fn inner(v: $token, rows: Rows<'_>, out: &mut [u8]) -> bool {
                    let finite = crate::codec::all_finite(rows.x);
                    if finite {
                        super::$($searching)::+(v, rows, out);
                    }
                    finite
                }
                let v = $token::detect().expect("dispatch offers a level only where it was detected");
                // SAFETY: the token proves that this machine has the features.
                unsafe { inner(v, rows, out) }
            })*
            $(pub(crate) fn $direct(rows: Rows<'_>, out: &mut [u8]) -> bool {
                #[target_feature(enable = $features)]
                fn inner(v: $token, rows: Rows<'_>, out: &mut [u8]) -> bool {
                    super::$($directly)::+(v, rows, out)
                }
                let v = $token::detect().expect("dispatch offers a level only where it was detected");
                // SAFETY: the token proves that this machine has the features.
                unsafe { inner(v, rows, out) }
            })*
        }
    };
}
pub(crate) use stamp;

/// The same for decoders, `name = function;`, with `function(blocks, out)`.
macro_rules! stamp_decoders {
    ($($name:ident = $generic:ident;)*) => {
        stamp_decoders!(@level "x86_64", decode_avx2, Avx2, "avx2", $($name = $generic;)*);
        stamp_decoders!(@level "x86_64", decode_avx512, Avx512, "avx512f,avx512bw,avx512vl,avx512dq", $($name = $generic;)*);
        stamp_decoders!(@level "aarch64", decode_neon, Neon, "neon", $($name = $generic;)*);
    };
    (@level $arch:literal, $level:ident, $token:ident, $features:literal, $($name:ident = $generic:ident;)*) => {
        #[cfg(target_arch = $arch)]
        #[allow(unsafe_code)]
        pub(crate) mod $level {
            use crate::lanes::$token;
            $(pub(crate) fn $name(blocks: &[u8], out: &mut [f32]) {
                #[target_feature(enable = $features)]
                fn inner(v: $token, blocks: &[u8], out: &mut [f32]) {
                    super::$generic(v, blocks, out);
                }
                let v = $token::detect().expect("dispatch offers a level only where it was detected");
                // SAFETY: the token proves that this machine has the features.
                unsafe { inner(v, blocks, out) }
            })*
        }
    };
}
pub(crate) use stamp_decoders;

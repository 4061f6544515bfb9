//! The tables of the levels above the reference: one list of formats, filled in once per instruction set.
//! A format missing here runs at the reference. Must not know how any format works.

use crate::codec::LaneCodec;

macro_rules! tables {
    ($($reference:path: encode $($encode:ident)::+, decode $decode:ident;)*) => {
        /// The same lane-generic code at widths of no instruction set: what other machines will run.
        #[cfg(test)]
        static PORTABLE: &[(&crate::codec::Codec, [tests::Encode; 2])] = &[$(tables!(@portable $reference, $($encode)::+)),*];
        tables!(@level "x86_64", AVX2, avx2, decode_avx2, $($reference: encode $($encode)::+, decode $decode;)*);
        tables!(@level "x86_64", AVX512, avx512, decode_avx512, $($reference: encode $($encode)::+, decode $decode;)*);
        tables!(@level "aarch64", NEON, neon, decode_neon, $($reference: encode $($encode)::+, decode $decode;)*);
    };
    (@portable $reference:path, $folder:ident::$encode:ident) => {
        (&$reference, [
            |rows, out| {
                crate::$folder::lanes::$encode(crate::lanes::Portable::<4>, rows, out);
            },
            |rows, out| {
                crate::$folder::lanes::$encode(crate::lanes::Portable::<1>, rows, out);
            },
        ])
    };
    (@level $arch:literal, $table:ident, $level:ident, $decode_level:ident, $($reference:path: encode $folder:ident::$encode:ident, decode $decode:ident;)*) => {
        #[cfg(target_arch = $arch)]
        pub(crate) static $table: &[LaneCodec] = &[$(LaneCodec {
            reference: &$reference,
            encode: Some(crate::$folder::lanes::$level::$encode),
            decode: Some(crate::$folder::lanes::$decode_level::$decode),
        }),*];
        #[cfg(not(target_arch = $arch))]
        pub(crate) static $table: &[LaneCodec] = &[];
    };
}

tables! {
    crate::legacy::Q4_0: encode legacy::encode_q4_0, decode decode_q4_0;
    crate::legacy::Q4_1: encode legacy::encode_q4_1, decode decode_q4_1;
    crate::legacy::Q5_0: encode legacy::encode_q5_0, decode decode_q5_0;
    crate::legacy::Q5_1: encode legacy::encode_q5_1, decode decode_q5_1;
    crate::legacy::Q8_0: encode legacy::encode_q8_0, decode decode_q8_0;
    crate::fp4::MXFP4: encode fp4::encode_mxfp4, decode decode_mxfp4;
    crate::fp4::NVFP4: encode fp4::encode_nvfp4, decode decode_nvfp4;
    crate::ternary::TQ1_0: encode ternary::encode_tq1_0, decode decode_tq1_0;
    crate::ternary::TQ2_0: encode ternary::encode_tq2_0, decode decode_tq2_0;
    crate::low_bit::Q1_0: encode low_bit::encode_q1_0, decode decode_q1_0;
    crate::low_bit::Q2_0: encode low_bit::encode_q2_0, decode decode_q2_0;
    crate::iq4::IQ4_NL: encode iq4::encode_nl, decode decode_nl;
    crate::iq4::IQ4_XS: encode iq4::encode_xs, decode decode_xs;
    crate::q2_k::CODEC: encode q2_k::encode, decode decode;
    crate::q3_k::CODEC: encode q3_k::encode, decode decode;
    crate::q6_k::CODEC: encode q6_k::encode, decode decode;
    crate::q4_k::CODEC: encode q4_k::encode, decode decode;
    crate::q5_k::CODEC: encode q5_k::encode, decode decode;
    crate::grid::IQ1_S: encode grid::encode_iq1_s, decode decode_iq1_s;
    crate::grid::IQ1_M: encode grid::encode_iq1_m, decode decode_iq1_m;
    crate::grid::IQ2_XXS: encode grid::encode_iq2_xxs, decode decode_iq2_xxs;
    crate::grid::IQ2_XS: encode grid::encode_iq2_xs, decode decode_iq2_xs;
    crate::grid::IQ2_S: encode grid::encode_iq2_s, decode decode_iq2_s;
    crate::grid::IQ3_XXS: encode grid::encode_iq3_xxs, decode decode_iq3_xxs;
    crate::grid::IQ3_S: encode grid::encode_iq3_s, decode decode_iq3_s;
}

#[cfg(test)]
#[path = "../tests/common/inputs.rs"]
pub(crate) mod inputs;

#[cfg(test)]
mod tests {
    use super::inputs;
    use super::*;
    use crate::lanes::Rows;

    /// An encoder of finite rows.
    pub(super) type Encode = fn(Rows<'_>, &mut [u8]);

    #[test]
    fn the_same_bytes_at_any_number_of_lanes() {
        let columns = 768;
        for distribution in inputs::DISTRIBUTIONS {
            let x: Vec<f32> = (0..2).flat_map(|r| inputs::row(distribution, r, columns)).collect();
            for kind in inputs::IMPORTANCES {
                let w = inputs::importance(kind, 5, columns);
                for (reference, encoders) in PORTABLE {
                    let importance = match reference.importance {
                        crate::codec::Importance::Ignored => None,
                        _ => w.as_deref(),
                    };
                    let bytes = reference.block.row_bytes(columns as u64).expect("whole blocks") as usize;
                    let mut want = vec![0u8; 2 * bytes];
                    for (x, out) in x.chunks(columns).zip(want.chunks_mut(bytes)) {
                        (reference.encode.expect("it encodes"))(x, importance, out);
                    }
                    for encode in encoders {
                        let mut got = vec![0xa5u8; 2 * bytes];
                        encode(Rows { x: &x, len: columns, importance }, &mut got);
                        assert!(got == want, "{} {distribution} {kind}", reference.block.name);
                    }
                }
            }
        }
    }
}

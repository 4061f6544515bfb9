//! The tables of the levels above the reference: one list of formats, filled in once per instruction set.
//! A format missing here runs at the reference. Must not know how any format works.

use crate::codec::LaneCodec;

macro_rules! tables {
    ($($reference:path: encode $($encode:ident)::+;)*) => {
        tables!(@level AVX2, avx2, $($reference: encode $($encode)::+;)*);
        tables!(@level AVX512, avx512, $($reference: encode $($encode)::+;)*);
    };
    (@level $table:ident, $level:ident, $($reference:path: encode $folder:ident::$encode:ident;)*) => {
        #[cfg(target_arch = "x86_64")]
        pub(crate) static $table: &[LaneCodec] = &[$(LaneCodec {
            reference: &$reference,
            encode: Some(crate::$folder::lanes::$level::$encode),
            decode: None,
        }),*];
        #[cfg(not(target_arch = "x86_64"))]
        pub(crate) static $table: &[LaneCodec] = &[];
    };
}

tables! {
    crate::legacy::Q4_0: encode legacy::encode_q4_0;
    crate::legacy::Q4_1: encode legacy::encode_q4_1;
    crate::legacy::Q5_0: encode legacy::encode_q5_0;
    crate::legacy::Q5_1: encode legacy::encode_q5_1;
    crate::legacy::Q8_0: encode legacy::encode_q8_0;
    crate::fp4::MXFP4: encode fp4::encode_mxfp4;
    crate::fp4::NVFP4: encode fp4::encode_nvfp4;
    crate::ternary::TQ1_0: encode ternary::encode_tq1_0;
    crate::ternary::TQ2_0: encode ternary::encode_tq2_0;
    crate::low_bit::Q1_0: encode low_bit::encode_q1_0;
    crate::low_bit::Q2_0: encode low_bit::encode_q2_0;
    crate::iq4::IQ4_NL: encode iq4::encode_nl;
    crate::iq4::IQ4_XS: encode iq4::encode_xs;
    crate::q2_k::CODEC: encode q2_k::encode;
    crate::q3_k::CODEC: encode q3_k::encode;
    crate::q6_k::CODEC: encode q6_k::encode;
    crate::q4_k::CODEC: encode q4_k::encode;
    crate::q5_k::CODEC: encode q5_k::encode;
}

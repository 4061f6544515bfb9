//! Sixteen lanes of AVX-512 (F, BW, VL, DQ).
//!
//! Every `unsafe` block here calls intrinsics of these four features. That is sound because an [`Avx512`] exists
//! only where detection found them, and the vector types are made only by its methods. The loads and stores
//! among them go through pointers of slices whose length was checked in the same expression.
#![allow(unsafe_code)]

mod scan;

use super::codebook::{BIN_REACH, BIN_WIDTH, Codebook};
use super::{MAX_LANES, Simd};
use std::arch::x86_64::{
    __m512, __m512i, __mmask16, _CMP_EQ_OQ, _CMP_LE_OQ, _CMP_LT_OQ, _MM_FROUND_NO_EXC,
    _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm512_abs_ps, _mm512_add_epi32,
    _mm512_add_ps, _mm512_and_si512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cmpeq_epi32_mask, _mm512_cmplt_epi32_mask,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_cvttps_epi32, _mm512_div_ps, _mm512_loadu_ps, _mm512_mask_blend_epi32, _mm512_mask_blend_ps,
    _mm512_max_epi32, _mm512_max_ps, _mm512_min_epi32, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutex2var_ps, _mm512_permutexvar_ps, _mm512_roundscale_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_sllv_epi32, _mm512_sqrt_ps, _mm512_srlv_epi32,
    _mm512_storeu_ps, _mm512_sub_epi32, _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps, _mm512_xor_si512,
};
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};

/// Proof that this machine has AVX-512 F, BW, VL and DQ.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// Looks (the answer is cached) whether this machine has it.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        found.then_some(Self(()))
    }
}

/// Sixteen `f32`.
#[derive(Clone, Copy)]
pub(crate) struct F(__m512);
/// Sixteen `i32`.
#[derive(Clone, Copy)]
pub(crate) struct I(__m512i);
/// Sixteen truth values.
#[derive(Clone, Copy)]
pub(crate) struct M(__mmask16);

macro_rules! operators {
    ($($trait:ident $name:ident $type:ident $intrinsic:ident;)*) => {
        $(impl $trait for $type {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                // SAFETY: see the module's page.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        })*
    };
}

operators! {
    Add add F _mm512_add_ps;
    Sub sub F _mm512_sub_ps;
    Mul mul F _mm512_mul_ps;
    Div div F _mm512_div_ps;
    Add add I _mm512_add_epi32;
    Sub sub I _mm512_sub_epi32;
    BitAnd bitand I _mm512_and_si512;
    BitOr bitor I _mm512_or_si512;
}

impl BitAnd for M {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for M {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Rows to columns.
#[inline(always)]
fn transpose(r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: see the module's page; reached only from methods of `Avx512`.
    unsafe {
        let mut out = [_mm512_setzero_ps(); 16];
        // Four by four within each 128 bits: quads[q][c] has column 4 k + c of rows 4 q.. in its part k.
        let mut quads = [[_mm512_setzero_ps(); 4]; 4];
        for q in 0..4 {
            let (a, b) =
                (_mm512_unpacklo_ps(r[4 * q], r[4 * q + 1]), _mm512_unpackhi_ps(r[4 * q], r[4 * q + 1]));
            let (c, d) = (
                _mm512_unpacklo_ps(r[4 * q + 2], r[4 * q + 3]),
                _mm512_unpackhi_ps(r[4 * q + 2], r[4 * q + 3]),
            );
            let (a, b, c, d) =
                (_mm512_castps_pd(a), _mm512_castps_pd(b), _mm512_castps_pd(c), _mm512_castps_pd(d));
            quads[q][0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
            quads[q][1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
            quads[q][2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
            quads[q][3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
        }
        // Then the 128-bit parts, four by four.
        for c in 0..4 {
            let even01 = _mm512_shuffle_f32x4::<0x88>(quads[0][c], quads[1][c]);
            let odd01 = _mm512_shuffle_f32x4::<0xdd>(quads[0][c], quads[1][c]);
            let even23 = _mm512_shuffle_f32x4::<0x88>(quads[2][c], quads[3][c]);
            let odd23 = _mm512_shuffle_f32x4::<0xdd>(quads[2][c], quads[3][c]);
            out[c] = _mm512_shuffle_f32x4::<0x88>(even01, even23);
            out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd01, odd23);
            out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even01, even23);
            out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd01, odd23);
        }
        out
    }
}

macro_rules! methods {
    ($($name:ident($($arg:ident: $type:ident),*) -> $out:ident = $result:expr;)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: $type),*) -> $out {
            // SAFETY: see the module's page.
            $out(unsafe { $result })
        })*
    };
}

impl Simd for Avx512 {
    const N: usize = 16;
    type F = F;
    type I = I;
    type M = M;

    methods! {
        splat(x: f32) -> F = _mm512_set1_ps(x);
        splat_i(x: i32) -> I = _mm512_set1_epi32(x);
        min(a: F, b: F) -> F = _mm512_min_ps(a.0, b.0);
        max(a: F, b: F) -> F = _mm512_max_ps(a.0, b.0);
        abs(a: F) -> F = _mm512_abs_ps(a.0);
        neg(a: F) -> F = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a.0), _mm512_set1_epi32(i32::MIN)));
        sqrt(a: F) -> F = _mm512_sqrt_ps(a.0);
        round(a: F) -> F = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a.0);
        lt(a: F, b: F) -> M = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, b.0);
        le(a: F, b: F) -> M = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a.0, b.0);
        eq(a: F, b: F) -> M = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a.0, b.0);
        select(m: M, a: F, b: F) -> F = _mm512_mask_blend_ps(m.0, b.0, a.0);
        select_i(m: M, a: I, b: I) -> I = _mm512_mask_blend_epi32(m.0, b.0, a.0);
        bits(a: F) -> I = _mm512_castps_si512(a.0);
        float(a: I) -> F = _mm512_castsi512_ps(a.0);
        trunc(a: F) -> I = _mm512_cvttps_epi32(a.0);
        to_f(a: I) -> F = _mm512_cvtepi32_ps(a.0);
        shl(a: I, by: u32) -> I = _mm512_sllv_epi32(a.0, _mm512_set1_epi32(by as i32));
        shr(a: I, by: u32) -> I = _mm512_srlv_epi32(a.0, _mm512_set1_epi32(by as i32));
        min_i(a: I, b: I) -> I = _mm512_min_epi32(a.0, b.0);
        max_i(a: I, b: I) -> I = _mm512_max_epi32(a.0, b.0);
        lt_i(a: I, b: I) -> M = _mm512_cmplt_epi32_mask(a.0, b.0);
        eq_i(a: I, b: I) -> M = _mm512_cmpeq_epi32_mask(a.0, b.0);
    }

    #[inline(always)]
    fn any(self, m: M) -> bool {
        m.0 != 0
    }

    #[inline(always)]
    fn all(self, m: M) -> bool {
        m.0 == u16::MAX
    }

    #[inline(always)]
    fn load(self, x: &[f32; MAX_LANES]) -> F {
        // SAFETY: see the module's page; there are sixteen numbers.
        F(unsafe { _mm512_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, x: F) -> [f32; MAX_LANES] {
        let mut out = [0.0; MAX_LANES];
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x.0) };
        out
    }

    #[inline(always)]
    fn load_from(self, x: &[f32]) -> F {
        // SAFETY: see the module's page.
        F(unsafe { _mm512_loadu_ps(x[..16].as_ptr()) })
    }

    #[inline(always)]
    fn load_signed_bytes(self, bytes: &[u8]) -> I {
        // SAFETY: see the module's page.
        I(unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes[..16].as_ptr().cast())) })
    }

    #[inline(always)]
    fn to_bytes(self, x: &[I]) -> [u8; 32] {
        let mut bytes = [0; 32];
        // SAFETY: see the module's page; there is room for twice sixteen bytes.
        unsafe {
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x[0].0));
            _mm_storeu_si128(bytes[16..].as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x[1].0));
        }
        bytes
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8]) -> I {
        // SAFETY: see the module's page.
        I(unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes[..16].as_ptr().cast())) })
    }

    #[inline(always)]
    fn store_to(self, x: F, out: &mut [f32]) {
        // SAFETY: see the module's page.
        unsafe { _mm512_storeu_ps(out[..16].as_mut_ptr(), x.0) };
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 16], index: I) -> F {
        // SAFETY: see the module's page; the table has sixteen entries.
        F(unsafe { _mm512_permutexvar_ps(index.0, _mm512_loadu_ps(table.as_ptr())) })
    }

    #[inline(always)]
    fn nearest(self, book: &Codebook, x: F) -> F {
        let [thresholds, below, above] = &book.bins;
        // Adding 1.5 * 2^23 leaves the bin in the low bits; one half less, to round down.
        // SAFETY: see the module's page; each table has thirty-two entries.
        F(unsafe {
            let scaled = _mm512_mul_ps(x.0, _mm512_set1_ps(1.0 / BIN_WIDTH));
            let bin = _mm512_add_ps(scaled, _mm512_set1_ps(BIN_REACH / BIN_WIDTH - 0.5));
            let bin = _mm512_castps_si512(_mm512_add_ps(bin, _mm512_set1_ps(12_582_912.0)));
            let threshold = _mm512_permutex2var_ps(
                _mm512_loadu_ps(thresholds.as_ptr()),
                bin,
                _mm512_loadu_ps(thresholds[16..].as_ptr()),
            );
            let below = _mm512_permutex2var_ps(
                _mm512_loadu_ps(below.as_ptr()),
                bin,
                _mm512_loadu_ps(below[16..].as_ptr()),
            );
            let above = _mm512_permutex2var_ps(
                _mm512_loadu_ps(above.as_ptr()),
                bin,
                _mm512_loadu_ps(above[16..].as_ptr()),
            );
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x.0, threshold), above, below)
        })
    }

    #[inline(always)]
    fn load_columns(self, x: &[f32], at: &[usize; MAX_LANES], out: &mut [F]) {
        // SAFETY: see the module's page.
        let mut rows = [unsafe { _mm512_setzero_ps() }; 16];
        for l in 0..16 {
            // SAFETY: as above.
            rows[l] = unsafe { _mm512_loadu_ps(x[at[l]..][..16].as_ptr()) };
        }
        let columns = transpose(rows);
        let out = &mut out[..16];
        for c in 0..16 {
            out[c] = F(columns[c]);
        }
    }

    #[inline(always)]
    fn store_columns(self, words: &[I], out: &mut [u32], stride: usize) {
        let words = &words[..16];
        // SAFETY: see the module's page.
        let mut columns = [unsafe { _mm512_setzero_ps() }; 16];
        for c in 0..16 {
            // SAFETY: as above.
            columns[c] = unsafe { _mm512_castsi512_ps(words[c].0) };
        }
        let rows = transpose(columns);
        for l in 0..16 {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(out[l * stride..][..16].as_mut_ptr().cast(), rows[l]) };
        }
    }
}

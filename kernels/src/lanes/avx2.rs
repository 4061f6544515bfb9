//! Eight lanes of AVX2.
//!
//! Every `unsafe` block here calls intrinsics of AVX2 (and of AVX, which it contains). That is sound because an
//! [`Avx2`] exists only where detection found it, and the vector types are made only by its methods. The loads
//! and stores among them go through pointers of slices whose length was checked in the same expression.
#![allow(unsafe_code)]

mod scan;

use super::{Codebook, MAX_LANES, Simd};
use std::arch::x86_64::{
    __m256, __m256i, _CMP_EQ_OQ, _CMP_GE_OQ, _CMP_LE_OQ, _CMP_LT_OQ, _MM_FROUND_NO_EXC,
    _MM_FROUND_TO_NEAREST_INT, _mm_loadl_epi64, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
    _mm256_and_si256, _mm256_andnot_ps, _mm256_blendv_ps, _mm256_castpd_ps, _mm256_castps_pd,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpeq_epi32, _mm256_cmpgt_epi32,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvttps_epi32, _mm256_div_ps,
    _mm256_loadu_ps, _mm256_max_epi32, _mm256_max_ps, _mm256_min_epi32, _mm256_min_ps, _mm256_movemask_ps,
    _mm256_mul_ps, _mm256_or_ps, _mm256_or_si256, _mm256_packus_epi16, _mm256_packus_epi32,
    _mm256_permute2f128_ps, _mm256_permutevar8x32_epi32, _mm256_permutevar8x32_ps, _mm256_round_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_slli_epi32, _mm256_sllv_epi32, _mm256_sqrt_ps, _mm256_srlv_epi32, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_sub_epi32, _mm256_sub_ps, _mm256_unpackhi_pd, _mm256_unpackhi_ps,
    _mm256_unpacklo_pd, _mm256_unpacklo_ps, _mm256_xor_ps,
};
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Sub};

/// Proof that this machine has AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Looks (the answer is cached) whether this machine has it.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }
}

/// Eight `f32`.
#[derive(Clone, Copy)]
pub(crate) struct F(__m256);
/// Eight `i32`.
#[derive(Clone, Copy)]
pub(crate) struct I(__m256i);
/// Eight truth values: all bits of a lane, or none.
#[derive(Clone, Copy)]
pub(crate) struct M(__m256);

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
    Add add F _mm256_add_ps;
    Sub sub F _mm256_sub_ps;
    Mul mul F _mm256_mul_ps;
    Div div F _mm256_div_ps;
    Add add I _mm256_add_epi32;
    Sub sub I _mm256_sub_epi32;
    BitAnd bitand I _mm256_and_si256;
    BitOr bitor I _mm256_or_si256;
    BitAnd bitand M _mm256_and_ps;
    BitOr bitor M _mm256_or_ps;
}

/// Rows to columns.
#[inline(always)]
fn transpose(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: see the module's page; reached only from methods of `Avx2`.
    unsafe {
        let mut out = [_mm256_setzero_ps(); 8];
        // Four by four within each 128 bits: quads[q][c] has column 4 k + c of rows 4 q.. in its part k.
        let mut quads = [[_mm256_setzero_ps(); 4]; 2];
        for q in 0..2 {
            let (a, b) =
                (_mm256_unpacklo_ps(r[4 * q], r[4 * q + 1]), _mm256_unpackhi_ps(r[4 * q], r[4 * q + 1]));
            let (c, d) = (
                _mm256_unpacklo_ps(r[4 * q + 2], r[4 * q + 3]),
                _mm256_unpackhi_ps(r[4 * q + 2], r[4 * q + 3]),
            );
            let (a, b, c, d) =
                (_mm256_castps_pd(a), _mm256_castps_pd(b), _mm256_castps_pd(c), _mm256_castps_pd(d));
            quads[q][0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
            quads[q][1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
            quads[q][2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
            quads[q][3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
        }
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(quads[0][c], quads[1][c]);
            out[4 + c] = _mm256_permute2f128_ps::<0x31>(quads[0][c], quads[1][c]);
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

impl Simd for Avx2 {
    const N: usize = 8;
    type F = F;
    type I = I;
    type M = M;

    methods! {
        splat(x: f32) -> F = _mm256_set1_ps(x);
        splat_i(x: i32) -> I = _mm256_set1_epi32(x);
        min(a: F, b: F) -> F = _mm256_min_ps(a.0, b.0);
        max(a: F, b: F) -> F = _mm256_max_ps(a.0, b.0);
        abs(a: F) -> F = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a.0);
        neg(a: F) -> F = _mm256_xor_ps(a.0, _mm256_set1_ps(-0.0));
        sqrt(a: F) -> F = _mm256_sqrt_ps(a.0);
        round(a: F) -> F = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a.0);
        lt(a: F, b: F) -> M = _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0);
        le(a: F, b: F) -> M = _mm256_cmp_ps::<_CMP_LE_OQ>(a.0, b.0);
        eq(a: F, b: F) -> M = _mm256_cmp_ps::<_CMP_EQ_OQ>(a.0, b.0);
        select(m: M, a: F, b: F) -> F = _mm256_blendv_ps(b.0, a.0, m.0);
        select_i(m: M, a: I, b: I) -> I = _mm256_castps_si256(_mm256_blendv_ps(
            _mm256_castsi256_ps(b.0), _mm256_castsi256_ps(a.0), m.0));
        bits(a: F) -> I = _mm256_castps_si256(a.0);
        float(a: I) -> F = _mm256_castsi256_ps(a.0);
        trunc(a: F) -> I = _mm256_cvttps_epi32(a.0);
        to_f(a: I) -> F = _mm256_cvtepi32_ps(a.0);
        shl(a: I, by: u32) -> I = _mm256_sllv_epi32(a.0, _mm256_set1_epi32(by as i32));
        shr(a: I, by: u32) -> I = _mm256_srlv_epi32(a.0, _mm256_set1_epi32(by as i32));
        min_i(a: I, b: I) -> I = _mm256_min_epi32(a.0, b.0);
        max_i(a: I, b: I) -> I = _mm256_max_epi32(a.0, b.0);
        lt_i(a: I, b: I) -> M = _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.0, a.0));
        eq_i(a: I, b: I) -> M = _mm256_castsi256_ps(_mm256_cmpeq_epi32(a.0, b.0));
    }

    #[inline(always)]
    fn any(self, m: M) -> bool {
        // SAFETY: see the module's page.
        unsafe { _mm256_movemask_ps(m.0) != 0 }
    }

    #[inline(always)]
    fn all(self, m: M) -> bool {
        // SAFETY: see the module's page.
        unsafe { _mm256_movemask_ps(m.0) == 0xff }
    }

    #[inline(always)]
    fn load(self, x: &[f32; MAX_LANES]) -> F {
        // SAFETY: see the module's page; there are sixteen numbers.
        F(unsafe { _mm256_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, x: F) -> [f32; MAX_LANES] {
        let mut out = [0.0; MAX_LANES];
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), x.0) };
        out
    }

    #[inline(always)]
    fn load_from(self, x: &[f32]) -> F {
        // SAFETY: see the module's page.
        F(unsafe { _mm256_loadu_ps(x[..8].as_ptr()) })
    }

    #[inline(always)]
    fn load_signed_bytes(self, bytes: &[u8]) -> I {
        // SAFETY: see the module's page.
        I(unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes[..8].as_ptr().cast())) })
    }

    #[inline(always)]
    fn to_bytes(self, x: &[I]) -> [u8; 32] {
        let x = &x[..4];
        let mut bytes = [0; 32];
        // SAFETY: see the module's page; there is room for thirty-two bytes.
        unsafe {
            let byte = _mm256_set1_epi32(255);
            let (a, b) = (_mm256_and_si256(x[0].0, byte), _mm256_and_si256(x[1].0, byte));
            let (c, d) = (_mm256_and_si256(x[2].0, byte), _mm256_and_si256(x[3].0, byte));
            // Both packs work within each half, so fours of bytes come out as 0 2 4 6 1 3 5 7.
            let packed = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(packed, order));
        }
        bytes
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8]) -> I {
        // SAFETY: see the module's page.
        I(unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes[..8].as_ptr().cast())) })
    }

    #[inline(always)]
    fn store_to(self, x: F, out: &mut [f32]) {
        // SAFETY: see the module's page.
        unsafe { _mm256_storeu_ps(out[..8].as_mut_ptr(), x.0) };
    }

    #[inline(always)]
    fn look_up(self, table: &[f32; 16], index: I) -> F {
        // SAFETY: see the module's page; the table has twice eight entries.
        F(unsafe {
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), index.0);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table[8..].as_ptr()), index.0);
            // Bit 3 of the index, moved to where the blend looks.
            _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index.0)))
        })
    }

    /// Binary search: the comparisons' masks, which are -1, make the index bit by bit.
    #[inline(always)]
    fn nearest(self, book: &Codebook, x: F) -> F {
        // SAFETY: see the module's page; each table has eight entries.
        F(unsafe {
            let t = &book.thresholds;
            let first = _mm256_cmp_ps::<_CMP_GE_OQ>(x.0, _mm256_set1_ps(t[7]));
            let second = _mm256_blendv_ps(_mm256_set1_ps(t[3]), _mm256_set1_ps(t[11]), first);
            let second = _mm256_cmp_ps::<_CMP_GE_OQ>(x.0, second);
            let (first, second) = (_mm256_castps_si256(first), _mm256_castps_si256(second));
            let minus = _mm256_add_epi32(_mm256_add_epi32(first, first), second);
            let index = _mm256_sub_epi32(_mm256_setzero_si256(), minus);
            let third = _mm256_permutevar8x32_ps(_mm256_loadu_ps(book.third.as_ptr()), index);
            let third = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GE_OQ>(x.0, third));
            let index = _mm256_sub_epi32(_mm256_add_epi32(index, index), third);
            let fourth = _mm256_permutevar8x32_ps(_mm256_loadu_ps(book.fourth.as_ptr()), index);
            let even = _mm256_permutevar8x32_ps(_mm256_loadu_ps(book.even.as_ptr()), index);
            let odd = _mm256_permutevar8x32_ps(_mm256_loadu_ps(book.odd.as_ptr()), index);
            _mm256_blendv_ps(even, odd, _mm256_cmp_ps::<_CMP_GE_OQ>(x.0, fourth))
        })
    }

    #[inline(always)]
    fn load_columns(self, x: &[f32], at: &[usize; MAX_LANES], out: &mut [F]) {
        // SAFETY: see the module's page.
        let mut rows = [unsafe { _mm256_setzero_ps() }; 8];
        for l in 0..8 {
            // SAFETY: as above.
            rows[l] = unsafe { _mm256_loadu_ps(x[at[l]..][..8].as_ptr()) };
        }
        let columns = transpose(rows);
        let out = &mut out[..8];
        for c in 0..8 {
            out[c] = F(columns[c]);
        }
    }

    #[inline(always)]
    fn store_columns(self, words: &[I], out: &mut [u32], stride: usize) {
        let words = &words[..8];
        // SAFETY: see the module's page.
        let mut columns = [unsafe { _mm256_setzero_ps() }; 8];
        for c in 0..8 {
            // SAFETY: as above.
            columns[c] = unsafe { _mm256_castsi256_ps(words[c].0) };
        }
        let rows = transpose(columns);
        for l in 0..8 {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(out[l * stride..][..8].as_mut_ptr().cast(), rows[l]) };
        }
    }
}

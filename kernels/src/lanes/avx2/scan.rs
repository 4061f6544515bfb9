//! [`Scan`] of eight entries. Every `unsafe` block is sound as the page of the module above says.

use super::{Avx2, F, I, M};
use crate::lanes::{MAX_LANES, scan::Scan};
use std::arch::x86_64::{
    _mm256_and_si256, _mm256_castsi256_ps, _mm256_cmpeq_epi32, _mm256_loadu_si256, _mm256_min_ps,
    _mm256_movemask_ps, _mm256_permute_ps, _mm256_permute2f128_ps, _mm256_permutevar8x32_ps,
    _mm256_set1_epi32, _mm256_setr_epi32, _mm256_storeu_si256,
};

impl Scan for Avx2 {
    #[inline(always)]
    fn load_words(self, words: &[u32; MAX_LANES]) -> I {
        // SAFETY: see above; there are sixteen words.
        I(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store_words(self, x: I) -> [u32; MAX_LANES] {
        let mut out = [0; MAX_LANES];
        // SAFETY: as above.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), x.0) };
        out
    }

    #[inline(always)]
    fn lookup(self, table: F, at: I) -> F {
        // SAFETY: see above.
        F(unsafe { _mm256_permutevar8x32_ps(table.0, at.0) })
    }

    #[inline(always)]
    fn least(self, x: F) -> F {
        // SAFETY: see above.
        F(unsafe {
            let x = _mm256_min_ps(x.0, _mm256_permute2f128_ps::<0x01>(x.0, x.0));
            let x = _mm256_min_ps(x, _mm256_permute_ps::<0x4e>(x));
            _mm256_min_ps(x, _mm256_permute_ps::<0xb1>(x))
        })
    }

    #[inline(always)]
    fn lanes(self, m: M) -> u32 {
        // SAFETY: see above.
        unsafe { _mm256_movemask_ps(m.0) as u32 }
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> M {
        // SAFETY: see above.
        M(unsafe {
            let each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let own = _mm256_and_si256(_mm256_set1_epi32(bits as i32), each);
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(own, each))
        })
    }
}

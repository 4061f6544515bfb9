//! [`Scan`] of sixteen entries. Every `unsafe` block is sound as the page of the module above says.

use super::{Avx512, F, I, M};
use crate::lanes::{MAX_LANES, scan::Scan};
use std::arch::x86_64::{
    _mm512_loadu_si512, _mm512_min_ps, _mm512_permute_ps, _mm512_permutexvar_ps, _mm512_shuffle_f32x4,
    _mm512_storeu_si512,
};

impl Scan for Avx512 {
    #[inline(always)]
    fn load_words(self, words: &[u32; MAX_LANES]) -> I {
        // SAFETY: see above; there are sixteen words.
        I(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store_words(self, x: I) -> [u32; MAX_LANES] {
        let mut out = [0; MAX_LANES];
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x.0) };
        out
    }

    #[inline(always)]
    fn lookup(self, table: F, at: I) -> F {
        // SAFETY: see above.
        F(unsafe { _mm512_permutexvar_ps(at.0, table.0) })
    }

    #[inline(always)]
    fn least(self, x: F) -> F {
        // SAFETY: see above.
        F(unsafe {
            let x = _mm512_min_ps(x.0, _mm512_shuffle_f32x4::<0x4e>(x.0, x.0));
            let x = _mm512_min_ps(x, _mm512_shuffle_f32x4::<0xb1>(x, x));
            let x = _mm512_min_ps(x, _mm512_permute_ps::<0x4e>(x));
            _mm512_min_ps(x, _mm512_permute_ps::<0xb1>(x))
        })
    }

    #[inline(always)]
    fn lanes(self, m: M) -> u32 {
        u32::from(m.0)
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> M {
        M(bits as u16)
    }
}

//! [`Scan`] of eight entries. Every `unsafe` block is sound as the page of the module above says.

use super::{F, I, M, Neon, bytes_of};
use crate::lanes::{MAX_LANES, Simd, scan::Scan};
use std::arch::aarch64::{
    uint8x16x2_t, uint32x4_t, vaddvq_u32, vandq_u32, vbslq_f32, vcltq_f32, vdupq_n_f32, vdupq_n_u32,
    vld1q_u32, vminvq_f32, vorrq_u32, vqtbl2q_u8, vreinterpretq_f32_u8, vreinterpretq_s32_u32,
    vreinterpretq_u8_f32, vreinterpretq_u32_s32, vst1q_u32, vtstq_u32,
};

/// Each lane's bit.
#[inline(always)]
fn bit_of_each() -> [uint32x4_t; 2] {
    const BITS: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
    // SAFETY: see above; there are twice four words.
    unsafe { [vld1q_u32(BITS.as_ptr()), vld1q_u32(BITS[4..].as_ptr())] }
}

impl Scan for Neon {
    #[inline(always)]
    fn load_words(self, words: &[u32; MAX_LANES]) -> I {
        // SAFETY: see above; there are sixteen words.
        let [low, high] = unsafe { [vld1q_u32(words.as_ptr()), vld1q_u32(words[4..].as_ptr())] };
        // SAFETY: see above.
        I(unsafe { [vreinterpretq_s32_u32(low), vreinterpretq_s32_u32(high)] })
    }

    #[inline(always)]
    fn store_words(self, x: I) -> [u32; MAX_LANES] {
        let mut out = [0; MAX_LANES];
        // SAFETY: as above.
        unsafe {
            vst1q_u32(out.as_mut_ptr(), vreinterpretq_u32_s32(x.0[0]));
            vst1q_u32(out[4..].as_mut_ptr(), vreinterpretq_u32_s32(x.0[1]));
        }
        out
    }

    #[inline(always)]
    fn lookup(self, table: F, at: I) -> F {
        let at = at & self.splat_i(7);
        // SAFETY: see above.
        F(unsafe {
            let table = uint8x16x2_t(vreinterpretq_u8_f32(table.0[0]), vreinterpretq_u8_f32(table.0[1]));
            [
                vreinterpretq_f32_u8(vqtbl2q_u8(table, bytes_of(at.0[0]))),
                vreinterpretq_f32_u8(vqtbl2q_u8(table, bytes_of(at.0[1]))),
            ]
        })
    }

    #[inline(always)]
    fn least(self, x: F) -> F {
        // SAFETY: see above.
        F(unsafe {
            let less = vbslq_f32(vcltq_f32(x.0[0], x.0[1]), x.0[0], x.0[1]);
            [vdupq_n_f32(vminvq_f32(less)); 2]
        })
    }

    #[inline(always)]
    fn lanes(self, m: M) -> u32 {
        let [low, high] = bit_of_each();
        // SAFETY: see above. No bit occurs twice, so the sum is what all have together.
        unsafe { vaddvq_u32(vorrq_u32(vandq_u32(m.0[0], low), vandq_u32(m.0[1], high))) }
    }

    #[inline(always)]
    fn mask(self, bits: u32) -> M {
        let [low, high] = bit_of_each();
        // SAFETY: see above.
        M(unsafe {
            let bits = vdupq_n_u32(bits);
            [vtstq_u32(bits, low), vtstq_u32(bits, high)]
        })
    }
}

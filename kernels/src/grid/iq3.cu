// IQ3_XXS and IQ3_S as device code (`iq3.rs`): how each searches, and how it is packed.
#include "grid/magnitude.cuh"

// As `Iq2` of `iq2.cu`.
struct Iq3 {
    static constexpr i32 D = 4, R = 8, N = 32;
    static constexpr float STEP = 0.2f, TOP = 15.0f, SIGMA = 2.0f;
    static constexpr bool FROM_FREE_LEVELS = false, ALWAYS_SIGMA = false;
    static TM_MEMBER float weight_without(float x, float) { return x * x; }
};

struct Iq3Xxs : Iq3 {
    static constexpr i32 REACH = 15, TOGETHER = 4;
    static constexpr float ZERO_BELOW = 1e-8f;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr Refit REFIT = OFF_GRID;
};

// Only a group of nothing but zeros counts as zero.
struct Iq3S : Iq3 {
    static constexpr i32 REACH = 9, TOGETHER = 4;
    static constexpr float ZERO_BELOW = 1e-45f;
    static constexpr bool EVEN_SIGNS = false;
    static constexpr Refit REFIT = ALL_IF_ANY_OFF_GRID;
};

using Xxs = Magnitudes<Iq3Xxs>;
TM_FN void encode_xxs(Team<WARP> team, const Job &job, u64 block, Xxs::Scratch &s) {
    Xxs fits = {team, job, block, s, Tables<4>(job)};
    fits.fit();
    u8 *out = job.out + block * 98;
    team.each(32, [&](i32 i) {
        Scales scales = fits.scales();
        if (i == 0) write_f16(out, scales.f16(1.0125f));
        write_f16(out + 2 + 2 * i, scales.any ? (u16)(fits.index(2 * i) | fits.index(2 * i + 1) << 8) : 0);
        if (i >= 8) return;
        u32 tail = 0;
        if (scales.any) {
            tail = fits.level(i, scales) << 28;
            TM_UNROLL for (i32 k = 0; k < 4; k++) tail |= (fits.signs(4 * i + k) & 127) << (7 * k);
        }
        write_u32(out + 66 + 4 * i, tail);
    });
}

TM_ENCODE(iq3_xxs, WARP, Xxs::Scratch, encode_xxs)

// Groups of zeros take no slot among low index bytes and signs, so that those of later groups move up; the last slots
// hold index 0. A super-block of vanishing scales keeps the indices found.
using S = Magnitudes<Iq3S>;
TM_FN void encode_s(Team<WARP> team, const Job &job, u64 block, S::Scratch &s) {
    S fits = {team, job, block, s, Tables<4>(job)};
    fits.fit();
    u8 *out = job.out + block * 110;
    team.each(32, [&](i32 i) {
        Scales scales = fits.scales();
        if (i == 0) write_f16(out, scales.f16(1.033f));
        // Dead groups take the slots that are left.
        i32 j = i / 4, slot = 0, live = 0;
        TM_UNROLL for (i32 g = 0; g < 8; g++) {
            if (fits.live(g) && g < j) slot++;
            if (fits.live(g)) live++;
        }
        if (!fits.live(j)) slot = live + j - slot;
        u32 low = fits.index(2 * i), high = fits.index(2 * i + 1);
        write_f16(out + 2 + 8 * slot + 2 * (i % 4), (u16)((low & 255) | high << 8));
        out[74 + 4 * slot + i % 4] = (u8)fits.signs(i);
        if (i >= 8) return;
        u32 bits = 0;
        TM_UNROLL for (i32 k = 0; k < 8; k++) bits |= fits.index(8 * i + k) >> 8 << k;
        out[66 + i] = (u8)bits;
        if (i < 4) out[106 + i] = fits.levels(i, scales);
    });
}

TM_ENCODE(iq3_s, WARP, S::Scratch, encode_s)

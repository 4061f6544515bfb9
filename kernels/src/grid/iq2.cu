// IQ2_XXS, IQ2_XS and IQ2_S as device code (`iq2.rs`): how each searches, and how it is packed.
#include "grid/magnitude.cuh"

struct Iq2 {
    static constexpr i32 D = 8, R = 3;  // coordinates of a point, and levels of one
    static constexpr float STEP = 0.1f; // between candidates, in levels
    static constexpr float TOP = 5.0f;  // what the top level stands for
    static constexpr bool FROM_FREE_LEVELS = false, ALWAYS_SIGMA = false; // sigma: the mean square, how many times
    static TM_MEMBER float weight_without(float x, float) { return x * x; } // importance
};

// N: weights of a group. REACH: candidates on each side of the middle one. TOGETHER: groups searched at a time.
struct Iq2Xxs : Iq2 {
    static constexpr i32 N = 32, REACH = 6, TOGETHER = 8;
    static constexpr float SIGMA = 1.0f, ZERO_BELOW = ::ZERO_BELOW;
    static constexpr bool EVEN_SIGNS = true, FROM_FREE_LEVELS = true;
    static constexpr Refit REFIT = ALWAYS;
};

struct Iq2Xs : Iq2 {
    static constexpr i32 N = 16, REACH = 9, TOGETHER = 16;
    static constexpr float SIGMA = 1.0f, ZERO_BELOW = ::ZERO_BELOW;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr Refit REFIT = OFF_GRID;
};

struct Iq2S : Iq2 {
    static constexpr i32 N = 16, REACH = 9, TOGETHER = 16;
    static constexpr float SIGMA = 2.0f, ZERO_BELOW = 1e-8f;
    static constexpr bool EVEN_SIGNS = false, ALWAYS_SIGMA = true;
    static constexpr Refit REFIT = OFF_GRID;
    static TM_MEMBER float weight_without(float x, float sigma2) { return 0.25f * sigma2 + x * x; }
};

using Xxs = Magnitudes<Iq2Xxs>;
TM_FN void encode_xxs(Team<WARP> team, const Job &job, u64 block, Xxs::Scratch &s) {
    Xxs fits = {team, job, block, s, Tables<8>(job)};
    fits.fit();
    u8 *out = job.out + block * 66;
    team.each(8, [&](i32 j) {
        Scales scales = fits.scales();
        if (j == 0) write_f16(out, scales.f16(1.0f));
        u32 indices = 0, tail = scales.any ? fits.level(j, scales) << 28 : 0;
        TM_UNROLL for (i32 k = 0; k < 4; k++) {
            indices |= fits.index(4 * j + k) << (8 * k);
            tail |= (fits.signs(4 * j + k) & 127) << (7 * k);
        }
        write_u32(out + 2 + 8 * j, scales.any ? indices : 0);
        write_u32(out + 6 + 8 * j, scales.any ? tail : 0);
    });
}

TM_ENCODE(iq2_xxs, WARP, Xxs::Scratch, encode_xxs)

using Xs = Magnitudes<Iq2Xs>;
TM_FN void encode_xs(Team<WARP> team, const Job &job, u64 block, Xs::Scratch &s) {
    Xs fits = {team, job, block, s, Tables<8>(job)};
    fits.fit();
    u8 *out = job.out + block * 74;
    team.each(32, [&](i32 i) {
        Scales scales = fits.scales();
        if (i == 0) write_f16(out, scales.f16(1.0f));
        write_f16(out + 2 + 2 * i, scales.any ? (u16)(fits.index(i) | (fits.signs(i) & 127) << 9) : 0);
        if (i < 8) out[66 + i] = fits.levels(i, scales);
    });
}

TM_ENCODE(iq2_xs, WARP, Xs::Scratch, encode_xs)

// Unlike the two above, a super-block of vanishing scales keeps the indices found.
using S = Magnitudes<Iq2S>;
TM_FN void encode_s(Team<WARP> team, const Job &job, u64 block, S::Scratch &s) {
    S fits = {team, job, block, s, Tables<8>(job)};
    fits.fit();
    u8 *out = job.out + block * 82;
    team.each(32, [&](i32 i) {
        Scales scales = fits.scales();
        if (i == 0) write_f16(out, scales.f16(0.9875f));
        out[2 + i] = (u8)fits.index(i);
        out[34 + i] = (u8)fits.signs(i);
        if (i >= 8) return;
        u32 high = 0;
        TM_UNROLL for (i32 k = 0; k < 4; k++) high |= fits.index(4 * i + k) >> 8 << (2 * k);
        out[66 + i] = (u8)high;
        out[74 + i] = fits.levels(i, scales);
    });
}

TM_ENCODE(iq2_s, WARP, S::Scratch, encode_s)

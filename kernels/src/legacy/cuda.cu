// Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 as device code.
//
// Q4_0, Q5_0 and Q8_0: four lanes per block. Lane i has weights 4i to 4i + 3 of each half, so that reads fall together
// and each lane makes four bytes of nibbles. Which weight is largest does not depend on how quads are compared, as long
// as the first one wins a tie; with importance, lanes share the candidates, which do not depend on each other.
//
// Q4_1 and Q5_1: one lane per block, because each accepted candidate changes the later ones.
#include "search.cuh"

// Four levels as bytes, from the function of their index.
template <class F> TM_FN u32 four_levels(F level) {
    u32 word = 0;
    TM_UNROLL for (i32 i = 0; i < 4; i++) word |= ((u32)level(i) & 0xffu) << (8 * i);
    return word;
}

// The fifth bits of four levels: bits 0 to 3.
TM_FN u32 fifth_bits(u32 levels) {
    u32 bits = levels >> 4 & 0x01010101u;
    return (bits | bits >> 7 | bits >> 14 | bits >> 21) & 15u;
}

TM_FN u32 nibbles(u32 low, u32 high) { return (low & 0x0f0f0f0fu) | (high & 0x0f0f0f0fu) << 4; }

// Lane i's weights of both halves.
TM_FN void load_quads(const Job &job, u64 block, i32 i, float (&low)[4], float (&high)[4]) {
    u64 first = block * 32 + 4 * i;
    load(job, first, low);
    load(job, first + 16, high);
    check(job, first, low);
    check(job, first + 16, high);
}

// --- Q4_0 and Q5_0 -------------------------------------------------------------------------------------------------------

struct Symmetric32 {
    // The largest weight of each quad of weights, with its sign.
    float max[8];
    u32 fifth[4];
    SymmetricScratch<32> fit;
};

template <int BITS> TM_FN void encode_symmetric(const Team<4> &team, const Job &job, u64 block, Symmetric32 &s) {
    constexpr i32 HALF = 1 << (BITS - 1), HEAD = BITS == 5 ? 6 : 2;
    u8 *out = job.out + block * (HEAD + 16);
    PerLane<float[4], 4> lows, highs;
    // Levels of the low half and of the high half.
    PerLane<u32[2], 4> levels;
    team.each(4, [&](i32 i) {
        load_quads(job, block, i, lows[i], highs[i]);
        if (job.importance) {
            float sigma2 = job.row_means[block * 32 / job.row_len];
            const float *from = importance_at(job, block * 32) + 4 * i;
            float importance[4], w[4];
            load_f32(from, importance);
            importance_weights(lows[i], importance, sigma2, w);
            TM_UNROLL for (i32 k = 0; k < 4; k++) s.fit.x[4 * i + k] = lows[i][k], s.fit.w[4 * i + k] = w[k];
            load_f32(from + 16, importance);
            importance_weights(highs[i], importance, sigma2, w);
            TM_UNROLL for (i32 k = 0; k < 4; k++) s.fit.x[16 + 4 * i + k] = highs[i][k], s.fit.w[16 + 4 * i + k] = w[k];
        } else {
            float amax;
            signed_max(lows[i], s.max[i], amax);
            signed_max(highs[i], s.max[4 + i], amax);
        }
    });
    if (job.importance) {
        team.each(SYMMETRIC_CANDIDATES, [&](i32 c) { try_symmetric<HALF, true>(s.fit, c); });
    }
    team.each(4, [&](i32 i) {
        float scale;
        if (job.importance) {
            Symmetric fit = choose_symmetric<HALF>(s.fit);
            scale = fit.scale;
            levels[i][0] = four_levels([&](i32 k) { return fit.template level<HALF>(lows[i][k]); });
            levels[i][1] = four_levels([&](i32 k) { return fit.template level<HALF>(highs[i][k]); });
        } else {
            float max, amax;
            signed_max(s.max, max, amax);
            scale = max / (float)-HALF;
            float inverse = reciprocal_or_zero(scale);
            auto level = [&](float x) {
                return min_i32((i8)truncate(x * inverse + ((float)HALF + 0.5f)), (i8)(2 * HALF - 1));
            };
            levels[i][0] = four_levels([&](i32 k) { return level(lows[i][k]); });
            levels[i][1] = four_levels([&](i32 k) { return level(highs[i][k]); });
        }
        if (i == 0) write_scale(job, out, scale);
        write_u32(out + HEAD + 4 * i, nibbles(levels[i][0], levels[i][1]));
        if (BITS == 5) s.fifth[i] = fifth_bits(levels[i][0]) << 4 * i | fifth_bits(levels[i][1]) << (16 + 4 * i);
    });
    if (BITS == 5) {
        team.each(1, [&](i32) { write_u32(out + 2, s.fifth[0] | s.fifth[1] | s.fifth[2] | s.fifth[3]); });
    }
}

TM_ENCODE(q4_0, 4, Symmetric32, encode_symmetric<4>)
TM_ENCODE(q5_0, 4, Symmetric32, encode_symmetric<5>)

// --- Q4_1 and Q5_1 -------------------------------------------------------------------------------------------------------

template <int BITS> TM_FN void encode_affine(const Team<1> &team, const Job &job, u64 block, NoScratch &) {
    constexpr i32 TOP = (1 << BITS) - 1, HEAD = BITS == 5 ? 8 : 4;
    team.each(1, [&](i32) {
        u8 *out = job.out + block * (HEAD + 16);
        u64 first = block * 32;
        float x[32], scale, min;
        u32 levels[8];
        load(job, first, x);
        check(job, first, x);
        if (job.importance) {
            float importance[32], w[32];
            load_f32(importance_at(job, first), importance);
            importance_weights(x, importance, job.row_means[first / job.row_len], w);
            Affine fit = fit_affine<TOP, false>(x, w, WITH_IMPORTANCE);
            scale = fit.scale;
            min = negate(fit.offset);
            TM_UNROLL for (i32 k = 0; k < 8; k++) {
                levels[k] = four_levels([&](i32 i) { return fit.template level<TOP>(x[4 * k + i]); });
            }
        } else {
            float max = x[0];
            min = x[0];
            TM_UNROLL for (i32 i = 1; i < 32; i++) {
                if (x[i] < min) min = x[i];
                if (x[i] > max) max = x[i];
            }
            scale = (max - min) / (float)TOP;
            float inverse = reciprocal_or_zero(scale);
            TM_UNROLL for (i32 k = 0; k < 8; k++) {
                levels[k] = four_levels([&](i32 i) {
                    i32 cut = truncate((x[4 * k + i] - min) * inverse + 0.5f);
                    // Five bits are only masked, when packed; four are clamped as a signed byte.
                    return BITS == 5 ? cut : min_i32((i8)cut, 15);
                });
            }
        }
        write_word(out, (u32)scale_bits(job, scale) | (u32)scale_bits(job, min) << 16);
        if (BITS == 5) {
            u32 fifth = 0;
            TM_UNROLL for (i32 k = 0; k < 8; k++) fifth |= fifth_bits(levels[k]) << 4 * k;
            write_word(out + 4, fifth);
        }
        TM_UNROLL for (i32 k = 0; k < 4; k++) write_word(out + HEAD + 4 * k, nibbles(levels[k], levels[k + 4]));
    });
}

TM_ENCODE(q4_1, 1, NoScratch, encode_affine<4>)
TM_ENCODE(q5_1, 1, NoScratch, encode_affine<5>)

// --- Q8_0 ----------------------------------------------------------------------------------------------------------------

struct Largest {
    float amax[4];
};

TM_FN void encode_q8(const Team<4> &team, const Job &job, u64 block, Largest &s) {
    u8 *out = job.out + block * 34;
    PerLane<float[4], 4> lows, highs;
    team.each(4, [&](i32 i) {
        load_quads(job, block, i, lows[i], highs[i]);
        float amax = 0.0f;
        TM_UNROLL for (i32 k = 0; k < 4; k++) amax = c_max(c_max(amax, abs_f32(lows[i][k])), abs_f32(highs[i][k]));
        s.amax[i] = amax;
    });
    team.each(4, [&](i32 i) {
        float amax = s.amax[0];
        TM_UNROLL for (i32 k = 1; k < 4; k++) amax = c_max(amax, s.amax[k]);
        float scale = amax / 127.0f, inverse = reciprocal_or_zero(scale);
        if (i == 0) write_scale(job, out, scale);
        write_u32(out + 2 + 4 * i, four_levels([&](i32 k) { return round_away(lows[i][k] * inverse); }));
        write_u32(out + 18 + 4 * i, four_levels([&](i32 k) { return round_away(highs[i][k] * inverse); }));
    });
}

TM_ENCODE(q8_0, 4, Largest, encode_q8)
